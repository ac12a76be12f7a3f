"""What the rows of gpu.py say: which targets are met, and a line for each size."""

from __future__ import annotations

from shown import REFERENCES
from torch_plateau.bench.figures import Row, fastest, find
from torch_plateau.bench.rivals import OURS

MOST_OF_EMPTY = 1.5  # targets: of an empty kernel's device time, up to LATENCY lanes,
LEAST_OF_COPY = 0.85  # and of a copy's bandwidth, at 100,000,000 lanes


def next_rival(rows: list[Row], graph: bool) -> Row | None:
    """Return the rival of the least device time, in a graph or not."""
    return fastest(
        [r for r in rows if r["rival"] not in (OURS, *REFERENCES)], "device", graph=graph
    )


def targets(rows: list[Row]) -> list[Row]:
    """Return each target that the rows can answer: what, whether it is met, and what was got."""
    found: list[Row] = []

    def target(what: str, met: bool, got: str) -> None:
        found.append({"what": what, "met": met, "got": got})

    empty = find(rows, rival="empty kernel")
    if empty:
        worst = min(empty, key=lambda row: row["device_ratio"])
        ratio = 1 / worst["device_ratio"]
        what = (
            f"a step in a graph takes at most {MOST_OF_EMPTY}x an empty kernel, up to 100,000 lanes"
        )
        target(what, ratio <= MOST_OF_EMPTY, f"at worst {ratio:.2f}x ({place(worst)})")
    largest = {"lanes": 100_000_000, "scenario": "all improve", "graph": False}
    copies = find(rows, rival="plain copy", **largest)
    if copies:
        share = find(rows, rival=OURS, **largest)[0]["gb_per_s"] / copies[0]["gb_per_s"]
        what = (
            f"at 100,000,000 lanes at least {LEAST_OF_COPY:.0%} of a copy's bandwidth, at 21 bytes"
        )
        target(what, share >= LEAST_OF_COPY, f"{share:.0%} ({place(copies[0])})")
    compared = [row for row in rows if row["rival"] not in (OURS, *REFERENCES)]
    asked = {
        "ahead of every rival at every size by device time, eager and in a graph alike": (
            "device_ratio",
            [row for row in compared if "device_ratio" in row],
        ),
        "ahead of every rival at every size by host time, eager": (
            "host_ratio",
            find(compared, graph=False),
        ),
    }
    for what, (ratio_of, some) in asked.items():
        lost = [
            f"{row['rival']} {row['variant']} at {place(row)} ({row[ratio_of]}x)"
            for row in some
            if row[ratio_of] <= 1
        ]
        if some:
            closest = min(row[ratio_of] for row in some)
            got = "; ".join(lost) or f"the closest takes {closest:.3g}x as long"
            target(what, not lost, got)
    return found


def place(row: Row) -> str:
    """Return a row's size and scenario."""
    return f"{row['lanes']:,} {row['scenario']}"


def summary_line(some: list[Row]) -> str:
    """Return one size and scenario in one line."""
    parts = [f"{some[0]['lanes']:>11,} {some[0]['scenario']:<11}"]
    for graph in (False, True):
        ours = fastest(some, "device", rival=OURS, graph=graph)
        if ours is None:
            continue
        parts.append(f"{'graph' if graph else 'eager'} {ours['host']['median_us']:8.4g}")
        parts.append(f"{ours['device']['median_us']:8.4g} us")
        rival = next_rival(some, graph)
        if rival is not None:
            parts.append(f"next {rival['device_ratio']:5.3g}x {rival['rival']:<18}")
    return " ".join(parts)
