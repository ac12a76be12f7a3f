"""Write benchmarks/RESULTS.md and the README's table from the JSON of step.py, replay.py, gpu.py.

::

    python benchmarks/tables.py [benchmarks/results/cpu.json] [--gpu benchmarks/results/gpu.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
OURS = "torch-plateau"
RIVALS = ["N torch schedulers", "torch.where", "torch.compile", "optax"]
GPU_RIVALS = [(rival, False) for rival in RIVALS[:3]]
GPU_RIVALS += [(rival, True) for rival in RIVALS[1:3]]  # in a graph
REFERENCES = ("empty kernel", "plain copy")  # of the GPU: no rivals, but yardsticks
SCENARIOS = {
    "quiet": "nothing improves, no lane is cut",
    "mixed": "1% of the lanes improve and 1% are cut",
    "cut": "every lane is cut",
    "all improve": "every lane improves, no lane is cut",
}
CLOSE = 1.3  # times within which a comparison is called close

Row = dict[str, Any]


# -- numbers and rows, as the pages show them -----------------------------------------------------


def us(value: float) -> str:
    """Return a time for people."""
    return f"{value / 1000:.3g} ms" if value >= 1000 else f"{value:.3g} us"


def times(ratio: float) -> str:
    """Return a ratio for people; below 1 the rival is faster."""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x" if ratio >= 2 else f"{ratio:.2f}x"


def table(head: list[str], body: Iterable[list[str]]) -> str:
    """Return a Markdown table; columns after the first are set to the right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def find(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def fastest(rows: list[Row], side: str = "", **wanted: Any) -> Row | None:
    """Return the fastest variant of a competitor (by "host" or "device" time), None if none ran."""
    time = lambda row: (row[side] if side else row)["median_us"]  # noqa: E731
    return min(find(rows, **wanted), key=time, default=None)


def name(row: Row) -> str:
    """Return a competitor and its variant."""
    return f"{row['rival']} {row['variant']}".strip()


def left_out(report: Row) -> str:
    """Return what was not run, a line each."""
    return "\n".join(f"- {x['rival']}, {x['what']}: {x['reason']}." for x in report["not_run"])


def cell(row: Row | None) -> str:
    """Return time and ratio of a rival."""
    return f"{us(row['median_us'])} ({times(row['ratio'])})" if row else "-"


def values(rows: list[Row], key: str) -> list[Any]:
    """Return what occurs under a key, in the order of the run."""
    return list(dict.fromkeys(row[key] for row in rows))


# -- the README's three rows ----------------------------------------------------------------------


def headline(report: Row) -> str:
    """Return the block between the README's markers."""
    rows, on = report["rows"], report["machine"]
    names = {"float": "drop-in, Python float metric", "0-d f32": "drop-in, 0-d tensor metric"}
    body = []
    for metric, label in names.items():
        one = find(rows, table="drop-in", metric=metric, groups=1, scenario="quiet")
        ours, torchs = fastest(one, rival=OURS), fastest(one, rival="torch")
        body.append([label, us(ours["median_us"]) if ours else "-", cell(torchs), "", ""])
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
        "Written by `python benchmarks/tables.py` from the JSON of `benchmarks/step.py`; "
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
        left_out(report),
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
            name(row),
            us(row["median_us"]),
            f"{us(row['p25_us'])} .. {us(row['p75_us'])}",
            f"{row['n']} x {row['calls']:,}",
            times(row["ratio"]),
        ]
        for row in rows
    ]
    return table(["case", "competitor", "median", "p25 .. p75", "samples x calls", "ratio"], body)


# -- RESULTS.md, of replay.py ---------------------------------------------------------------------


def replay_part() -> Iterator[str]:
    """Yield the paragraphs and tables, or that there is no run."""
    source = HERE / "results" / "replay.json"
    if not source.exists():
        yield "Not run."
        return
    report = json.loads(source.read_text(encoding="utf-8"))
    million, on = report["million"], report["machine"]
    yield (
        f"1,000 epochs of one history, one thread unless said, {on['cpu']}, {on['date']}; equal to "
        f"torch's class over {report['equal_lane_epochs']:,} epochs of lanes before. The ratio is "
        "to the first row of each kind of settings: how many times its time an epoch of a lane "
        "takes. Below 1 that row is beaten. *Settings per lane*: patience 0 to 99, thresholds, "
        "cooldown and factor mixed."
    )
    for settings in ("uniform", "per lane"):
        body = [
            [
                row["what"],
                f"{row['lanes']:,}",
                f"{row['median_s'] * 1e3:.3g} ms",
                f"{row['lane_epochs_per_s']:.3g}",
                times(row["ratio"]),
            ]
            for row in find(report["rows"], settings=settings)
        ]
        yield f"### Settings {settings}"
        yield table(["", "lanes", "a call", "lane-epochs a second", "ratio"], body)
    runs = ", ".join(f"{seconds:.2f} s" for seconds in million["seconds"])
    yield (
        f"`sweep` of {million['settings']:,} settings over {million['epochs']:,} epochs on "
        f"{million['threads']} threads, results included: {runs}; {million['more_memory_mib']:.0f} "
        f"MiB of memory more than before it ({million['process_peak_mib']:.0f} MiB in all, most of "
        "it torch)."
    )


# -- RESULTS.md, of gpu.py ------------------------------------------------------------------------


def gpu_part(report: Row | None) -> Iterator[str]:
    """Yield the paragraphs of the part: one sentence where there was no run."""
    if report is None:
        yield "No GPU run has been recorded."
        return
    rows, checks = report["rows"], report["checks"]
    notes = "" if report["finished"] else " The run did not finish."
    notes += " This was a quick run: too short to quote." if report["quick"] else ""
    yield (
        "From the JSON of `benchmarks/gpu.py`. Before anything was timed, "
        f"{checks['lane_steps']:,} lane steps of all competitors were equal to torch's schedulers, "
        f"bit for bit, and {checks['lane_steps_of_cpu_lanes']:,} of ours to our own lanes on the "
        f"CPU; then three steps of every case below.{notes}"
    )
    yield table(["", ""], [[key, told(value)] for key, value in report["machine"].items()])
    if report["targets"]:
        yield "### Targets"
        body = [[x["what"], "yes" if x["met"] else "no", x["got"]] for x in report["targets"]]
        yield table(["target", "met", "measured"], body)
    yield f"### Where we lose on the GPU, or win by less than {CLOSE}x"
    yield (
        "By host or by device time, every variant, eager steps beside eager ones and replays "
        "beside replays."
    )
    yield gpu_close(rows)
    for scenario in values(rows, "scenario"):
        yield f"### f32 on the GPU, {scenario}: {SCENARIOS[scenario]}"
        yield (
            "Host time, then device time of a step; of each rival the variant of the least device "
            "time, and in brackets how many times ours that is, in a graph where it is in one."
        )
        yield gpu_sizes(find(rows, scenario=scenario))
    if [row for row in rows if "gb_per_s" in row]:
        yield "### Bandwidth of the GPU"
        yield gpu_bandwidth(rows)
    if report["not_run"]:
        yield "### Not run on the GPU"
        yield left_out(report)
    yield "### Every row of the GPU"
    yield gpu_everything(rows)


def told(value: object) -> str:
    """Return a value of the machine's block; some are blocks themselves."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def gpu_case(row: Row) -> str:
    """Return a row's case in words."""
    return f"{row['lanes']:,} lanes, {row['scenario']}"


def gpu_cell(row: Row | None) -> str:
    """Return host and device time, and the ratio of device times to ours."""
    if row is None:
        return "-"
    both = f"{us(row['host']['median_us'])}, {us(row['device']['median_us'])}"
    ratio = row.get("device_ratio")
    return both if row["rival"] == OURS or ratio is None else f"{both} ({times(ratio)})"


def gpu_sizes(rows: list[Row]) -> str:
    """Return ours and the rivals, a line a size."""
    body = []
    shown = [(OURS, False), (OURS, True), *GPU_RIVALS, ("empty kernel", True)]
    shown = [(rival, graph) for rival, graph in shown if find(rows, rival=rival, graph=graph)]
    for n in sorted(values(rows, "lanes")):
        each = find(rows, lanes=n)
        cells = [
            gpu_cell(fastest(each, "device", rival=rival, graph=graph)) for rival, graph in shown
        ]
        body.append([f"{n:,}", *cells])
    head = [f"{rival}, graph" if graph else rival for rival, graph in shown]
    return table(["lanes", *head], body)


def gpu_close(rows: list[Row]) -> str:
    """Return the comparisons that are lost or close."""
    lost = []
    for row in rows:
        ratios = {side: row.get(f"{side}_ratio", CLOSE) for side in ("host", "device")}
        if row["rival"] in (OURS, *REFERENCES) or min(ratios.values()) >= CLOSE:
            continue
        near = [times(ratio) if ratio < CLOSE else "" for ratio in ratios.values()]
        lost.append([gpu_case(row), name(row), *near])
    head = ["case", "rival", "ratio of host times", "ratio of device times"]
    return table(head, lost) if lost else "Nowhere in this run."


def gpu_bandwidth(rows: list[Row]) -> str:
    """Return bytes a second beside a copy's."""
    body = []
    for ours in rows:
        copy = fastest(
            rows, "device", rival="plain copy", lanes=ours["lanes"], scenario=ours["scenario"]
        )
        if ours["rival"] != OURS or copy is None:
            continue
        share = ours["gb_per_s"] / copy["gb_per_s"]
        rates = [f"{row['gb_per_s']:,.0f} GB/s" for row in (ours, copy)]
        kind = "graph" if ours["graph"] else "eager"
        body.append(
            [f"{gpu_case(ours)}, {kind}", str(ours["bytes_a_lane"]), *rates, f"{share:.0%}"]
        )
    return table(["", "bytes a lane", "step", "copy", "of the copy"], body)


def gpu_everything(rows: list[Row]) -> str:
    """Return every row with its quartiles, host and device."""
    body = []
    for row in rows:
        cells = []
        for side in ("host", "device"):
            figures = row[side]
            cells += [
                us(figures["median_us"]),
                f"{us(figures['p25_us'])} .. {us(figures['p75_us'])}",
                f"{figures['n']} x {figures['calls'] * figures.get('steps_a_call', 1):,}",
                times(row[f"{side}_ratio"]) if f"{side}_ratio" in row else "",
            ]
        body.append([gpu_case(row), name(row), *cells])
    head = ["median", "p25 .. p75", "samples x steps", "ratio"]
    head = [f"{side} {each}" for side in ("host", "device") for each in head]
    return table(["case", "competitor", *head], body)


# -- all of it ------------------------------------------------------------------------------------


def main() -> int:
    """Read the JSON, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
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
        print(f"{source.name} is missing: run benchmarks/step.py first", file=sys.stderr)
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
