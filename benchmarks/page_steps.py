"""The page's part on steps on the CPU: from cpu.json, which step.py writes."""

from __future__ import annotations

from collections.abc import Iterable

from shown import CLOSE, RIVALS, cell, table
from torch_plateau.bench.cases import SCENARIOS
from torch_plateau.bench.figures import Row, fastest, find, name, times, us, values
from torch_plateau.bench.rivals import OURS


def close(rows: list[Row]) -> str:
    """Return the comparisons of ``step`` that are lost or close, with the fastest variants."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = case(row), row["rival"]
        if row["table"] != "bandwidth" and row["rival"] != OURS:
            best[key] = min(row, best.get(key, row), key=lambda each: each["median_us"])
    lost = [
        [where, name(row), us(row["median_us"]), times(row["ratio"])]
        for (where, _), row in best.items()
        if row["ratio"] < CLOSE
    ]
    return table(["case", "rival", "its time", "ratio"], lost) if lost else "Nowhere in this run."


def case(row: Row) -> str:
    """Return a row's case in words."""
    if row["table"] == "drop-in":
        groups = "1 group" if row["groups"] == 1 else f"{row['groups']} groups"
        return f"drop-in, {row['metric']}, {groups}, {row['scenario']}"
    settings = ", settings per lane" if row.get("settings") == "per lane" else ""
    threads = f", {row['threads']} threads" if row.get("threads", 1) > 1 else ""
    return f"{row['lanes']:,} lanes, {row['dtypes']}, {row['scenario']}{settings}{threads}"


def drop_in(rows: list[Row]) -> str:
    """Return the table of the drop-in."""
    body = []
    for theirs in find(rows, rival="torch"):
        same = {key: theirs[key] for key in ("metric", "groups", "scenario")}
        ours = find(rows, rival=OURS, **same)[0]
        body.append([case(theirs)[9:], us(ours["median_us"]), cell(theirs)])
    return table(["metric, param groups, step", OURS, "torch"], body)


def lanes(rows: list[Row]) -> Iterable[str]:
    """Yield a heading and a table for each kind of lanes and scenario."""
    for settings in values(rows, "settings"):
        for dtypes in values(find(rows, settings=settings), "dtypes"):
            some = find(rows, settings=settings, dtypes=dtypes)
            for scenario in values(some, "scenario"):
                each = find(some, scenario=scenario)
                rivals = [rival for rival in RIVALS if find(each, rival=rival)]
                body = []
                for n in values(each, "lanes"):
                    ours = find(each, lanes=n, rival=OURS)[0]
                    cells = [cell(fastest(each, lanes=n, rival=rival)) for rival in rivals]
                    body.append([f"{n:,}", us(ours["median_us"]), *cells])
                yield f"### {dtypes}, settings {settings}, {scenario}: {SCENARIOS[scenario]}"
                yield table(["lanes", OURS, *rivals], body)


COPIED = ("lanes", "dtypes", "settings", "scenario", "threads")  # what a copy is made for


def bandwidth(rows: list[Row]) -> str:
    """Return the table of bytes a second."""
    body = []
    for ours in find(rows, rival=OURS):
        same = {key: ours[key] for key in COPIED if key in ours}
        copy = fastest(rows, rival="plain copy", **same)
        assert copy is not None
        body.append(
            [
                case(ours),
                str(ours["bytes_a_lane"]),
                us(ours["median_us"]),
                f"{ours['gb_per_s']:.0f} GB/s",
                f"{copy['gb_per_s']:.0f} GB/s ({copy['variant']})",
                f"{ours['gb_per_s'] / copy['gb_per_s']:.0%}",
            ]
        )
    return table(["", "bytes a lane", "step", "step", "copy", "of the copy"], body)


def everything(rows: list[Row]) -> str:
    """Return every row with its quartiles."""
    body = [
        [
            case(row),
            name(row),
            us(row["median_us"]),
            f"{us(row['p25_us'])} .. {us(row['p75_us'])}",
            f"{row['n']} x {row['calls']:,}",
            times(row["ratio"]),
        ]
        for row in rows
    ]
    return table(["case", "competitor", "median", "p25 .. p75", "samples x calls", "ratio"], body)
