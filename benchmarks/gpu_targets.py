"""What a GPU run should reach, read off its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cases import OURS

REFERENCES = ("empty kernel", "plain copy")
LAUNCH = 1.5  # of an empty kernel's device time, at most, up to 100,000 lanes
BANDWIDTH = 0.85  # of a copy's, at least, at 100,000,000 lanes

Row = dict[str, Any]


def groups(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each size and scenario."""
    for key in dict.fromkeys((row["lanes"], row["scenario"]) for row in rows):
        yield [row for row in rows if (row["lanes"], row["scenario"]) == key]


def fastest(rows: list[Row], graph: bool, ours: bool = False) -> Row | None:
    """Return ours, or the rival of the least device time, in a graph or not."""
    some = [
        row
        for row in rows
        if row["graph"] == graph
        and (row["rival"] == OURS) == ours
        and row["rival"] not in REFERENCES
    ]
    return min(some, key=lambda row: row["device"]["median_us"], default=None)


def only(rows: list[Row], rival: str, graph: bool) -> Row | None:
    """Return the row of a competitor that has one."""
    return next((row for row in rows if row["rival"] == rival and row["graph"] == graph), None)


def targets(rows: list[Row]) -> list[Row]:
    """Return each target that the rows can answer: what, whether it is met, and what was got."""
    found: list[Row] = []
    launches, copies = [], []
    for some in groups(rows):
        where = f"{some[0]['lanes']:,} {some[0]['scenario']}"
        ours, empty = only(some, OURS, True), only(some, "empty kernel", True)
        if ours and empty:
            launches.append((empty["device_ratio"], where))
        ours, copy = only(some, OURS, False), only(some, "plain copy", False)
        largest = some[0]["lanes"] == 100_000_000 and some[0]["scenario"] == "all improve"
        if ours and copy and largest:
            copies.append((ours["gb_per_s"] / copy["gb_per_s"], where))
    if launches:
        worst, where = max((1 / ratio, where) for ratio, where in launches)
        what = f"a step in a graph takes at most {LAUNCH}x an empty kernel, up to 100,000 lanes"
        got = f"at worst {worst:.2f}x ({where})"
        found.append({"what": what, "met": worst <= LAUNCH, "got": got})
    if copies:
        share, where = min(copies)
        what = f"at 100,000,000 lanes at least {BANDWIDTH:.0%} of a copy's bandwidth, at 21 bytes"
        found.append({"what": what, "met": share >= BANDWIDTH, "got": f"{share:.0%} ({where})"})
    compared = [row for row in rows if row["rival"] not in (OURS, *REFERENCES)]
    asked = {
        "ahead of every rival at every size by device time, eager and in a graph alike": (
            "device",
            [row for row in compared if "device_ratio" in row],
        ),
        "ahead of every rival at every size by host time, eager": (
            "host",
            [row for row in compared if not row["graph"]],
        ),
    }
    for what, (side, some) in asked.items():
        if not some:
            continue
        lost = [
            f"{row['rival']} {row['variant']} at {row['lanes']:,} {row['scenario']} "
            f"({row[f'{side}_ratio']}x)"
            for row in some
            if row[f"{side}_ratio"] <= 1
        ]
        closest = min(row[f"{side}_ratio"] for row in some)
        got = "; ".join(lost) if lost else f"the closest takes {closest:.3g}x as long"
        found.append({"what": what, "met": not lost, "got": got})
    return found
