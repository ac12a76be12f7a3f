"""Write benchmarks/RESULTS.md and the README's table from the JSON of run.py, gpu.py, replay.py.

::

    python benchmarks/table.py [benchmarks/results/cpu.json] [--gpu benchmarks/results/gpu.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from formats import CLOSE, OURS, SCENARIOS, Row, cell, fastest, find, table, times, us, values
from gpu_table import gpu_part
from replay_table import replay_part

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
RIVALS = ["N torch schedulers", "torch.where", "torch.compile", "optax"]


# -- the README's three rows ----------------------------------------------------------------------


def headline(report: Row) -> str:
    """Return the block between the README's markers."""
    rows, on = report["rows"], report["machine"]
    names = {"float": "drop-in, Python float metric", "0-d f32": "drop-in, 0-d tensor metric"}
    body = []
    for metric, name in names.items():
        one = find(rows, table="drop-in", metric=metric, groups=1, scenario="quiet")
        ours, torchs = fastest(one, rival=OURS), fastest(one, rival="torch")
        body.append([name, us(ours["median_us"]) if ours else "-", cell(torchs), "", ""])
    many = find(rows, table="lanes", lanes=4096, dtypes="f32", settings="uniform", scenario="mixed")
    ours = fastest(many, rival=OURS)
    cells = [cell(fastest(many, rival=rival)) for rival in RIVALS[:3]]
    body.append(["`PlateauLanes`, 4,096 lanes", us(ours["median_us"]) if ours else "-", *cells])
    head = ["one `step`", OURS, "torch's schedulers", "`torch.where`", "`torch.compile`"]
    note = (
        f"Median times, one thread of an {on['cpu']}, torch {on['torch']}; in brackets, how many "
        f"times ours. The lanes are float32, and in each step {SCENARIOS['mixed']}."
    )
    return f"{table(head, body)}\n\n{note}"


def insert(text: str, block: str) -> str | None:
    """Return ``text`` with the block between the markers, None if they are missing."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n{block}\n{end}{after}" if end else None


# -- RESULTS.md -----------------------------------------------------------------------------------


def results(report: Row, gpu: Row | None) -> str:
    """Return the whole page."""
    rows, checks = report["rows"], report["checks"]
    quick = " This was a quick run: too short to quote." if report["quick"] else ""
    parts = [
        "# Results",
        "Written by `python benchmarks/table.py` from the JSON of `benchmarks/run.py`; "
        "[how to read it](README.md)." + quick,
        f"Before anything was timed, {checks['lane_steps']:,} lane steps and "
        f"{checks['drop_in_steps']:,} steps of the drop-in were equal to torch's, bit for bit; "
        "then three steps of every case below.",
        table(["", ""], [[key, str(value)] for key, value in report["machine"].items()]),
        f"## Where we lose, or win by less than {CLOSE}x",
        close(rows),
        "## The drop-in",
        drop_in(find(rows, table="drop-in")),
        "## PlateauLanes",
        "Of each rival the fastest variant; all variants are at the end.",
        *lanes(find(rows, table="lanes")),
        "## Bandwidth",
        "What a step reads and writes, over its time, beside a plain copy that reads and writes as "
        "many bytes (the faster of `Tensor.copy_` and `memmove`). *improving*: 1% of the lanes "
        "improve, so nearly every block of `best` is written.",
        bandwidth(find(rows, table="bandwidth")),
        "## Replay",
        *replay_part(),
        "## GPU",
        *gpu_part(gpu),
        "## Not run",
        "\n".join(f"- {x['rival']}, {x['what']}: {x['reason']}." for x in report["not_run"]),
        "## Every row",
        everything(rows),
    ]
    return "\n\n".join(parts) + "\n"


def close(rows: list[Row]) -> str:
    """Return the comparisons of ``step`` that are lost or close, with the fastest variants."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = case(row), row["rival"]
        if row["table"] != "bandwidth" and row["rival"] != OURS:
            best[key] = min(row, best.get(key, row), key=lambda each: each["median_us"])
    lost = [
        [where, f"{rival} {row['variant']}".strip(), us(row["median_us"]), times(row["ratio"])]
        for (where, rival), row in best.items()
        if row["ratio"] < CLOSE
    ]
    return table(["case", "rival", "its time", "ratio"], lost) if lost else "Nowhere in this run."


def case(row: Row) -> str:
    """Return a row's case in words."""
    if row["table"] == "drop-in":
        groups = "1 group" if row["groups"] == 1 else f"{row['groups']} groups"
        return f"drop-in, {row['metric']}, {groups}, {row['scenario']}"
    settings = ", settings per lane" if row.get("settings") == "per lane" else ""
    return f"{row['lanes']:,} lanes, {row['dtypes']}, {row['scenario']}{settings}"


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


def bandwidth(rows: list[Row]) -> str:
    """Return the table of bytes a second."""
    body = []
    for ours in find(rows, rival=OURS):
        same = {key: ours[key] for key in ("lanes", "dtypes", "scenario")}
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
            f"{row['rival']} {row['variant']}".strip(),
            us(row["median_us"]),
            f"{us(row['p25_us'])} .. {us(row['p75_us'])}",
            f"{row['n']} x {row['calls']:,}",
            times(row["ratio"]),
        ]
        for row in rows
    ]
    return table(["case", "competitor", "median", "p25 .. p75", "samples x calls", "ratio"], body)


def main() -> int:
    """Read the JSON, write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", default=HERE / "results" / "cpu.json")
    parser.add_argument("--gpu", type=Path, default=HERE / "results" / "gpu.json")
    options = parser.parse_args()
    source, gpu = options.json, None
    if options.gpu.exists():
        gpu = json.loads(options.gpu.read_text(encoding="utf-8"))
        if not gpu["gpu_run"]:
            print(f"{options.gpu.name} was not run on a GPU", file=sys.stderr)
            return 1
    if not source.exists():
        print(f"{source.name} is missing: run benchmarks/run.py first", file=sys.stderr)
        return 1
    report = json.loads(source.read_text(encoding="utf-8"))
    (HERE / "RESULTS.md").write_text(results(report, gpu), encoding="utf-8")
    text = insert(README.read_text(encoding="utf-8"), headline(report))
    if text is None:
        print(f"{README.name} lacks {START} or {END}", file=sys.stderr)
        return 1
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
