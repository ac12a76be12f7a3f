"""The page's part on the GPU: from gpu.json and gpu_check.json, which gpu_check.sh writes."""

from __future__ import annotations

from collections.abc import Iterator

from shown import CLOSE, REFERENCES, RIVALS, left_out, report_of, table, told
from torch_plateau.bench.cases import SCENARIOS
from torch_plateau.bench.figures import Row, fastest, find, name, times, us, values
from torch_plateau.bench.rivals import OURS

GPU_RIVALS = [(rival, False) for rival in RIVALS[:3]]
GPU_RIVALS += [(rival, True) for rival in RIVALS[1:3]]  # in a graph


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


def gpu_check_part() -> Iterator[str]:
    """Yield how the steps of ``gpu_check.sh`` ended that wrote the rows."""
    report = report_of("gpu_check")
    if report is None:
        return
    ended = "all passed" if report["passed"] else "not all required ones passed"
    yield f"### The check that wrote them: {ended}"
    yield f"`benchmarks/gpu_check.sh`, {report['date']}, commit {report['commit'][:7]}."
    body = [
        [step["name"], step["status"], f"{step['seconds']} s", step.get("reason", "")]
        for step in report["steps"]
    ]
    yield table(["step", "ended", "took", "reason"], body)
