"""The page's other parts: one for each JSON of the other scripts."""

from __future__ import annotations

from collections.abc import Iterator

from shown import machine_line, report_of, table
from torch_plateau.bench.figures import Row, find, times, us, values

NOT_RUN = "Not run."


def replay_part() -> Iterator[str]:
    """Yield the paragraphs and tables, or that there is no run."""
    report = report_of("replay")
    if report is None:
        yield NOT_RUN
        return
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


def options_part() -> Iterator[str]:
    """Yield what ``step.py --parts`` found."""
    report = report_of("options")
    if report is None:
        yield NOT_RUN
        return
    rows = report["rows"]
    sizes = values(rows, "lanes")
    yield (
        "Quiet steps of float64 lanes, each optional part alone; in brackets, the times of plain "
        f"lanes. The first three rows show the noise. {machine_line(report['machine'])}"
    )
    body = []
    for part in values(rows, "with"):
        found = [find(rows, lanes=n, **{"with": part})[0] for n in sizes]
        body.append([part, *(f"{us(x['median_us'])} ({times(x['ratio'])})" for x in found)])
    yield table(["with", *(f"{n:,} lanes" for n in sizes)], body)


def life_part() -> Iterator[str]:
    """Yield what ``life.py`` found."""
    report = report_of("life")
    if report is None:
        yield NOT_RUN
        return
    yield (
        "Calls that make and change lanes, and in brackets how many times the time of plain copies "
        "of as many bytes they take; *parts*: with a window and two rules that stop lanes. "
        f"{machine_line(report['machine'])}"
    )
    rows = find(report["rows"], rival="ours")
    sizes = [(n, kind) for n in values(rows, "lanes") for kind in values(rows, "kind")]
    body = []
    for call in values(rows, "call"):
        found = [find(rows, lanes=n, kind=kind, call=call)[0] for n, kind in sizes]
        body.append([call, *(f"{us(x['median_us'])} ({times(x['ratio'])})" for x in found)])
    yield table(["call", *(f"{n:,} lanes, {kind}" for n, kind in sizes)], body)


def optimizers_part() -> Iterator[str]:
    """Yield what ``optimizers.py`` found."""
    report = report_of("optimizers")
    if report is None:
        yield NOT_RUN
        return
    yield (
        "One step of an optimizer over a whole stack. The ratio is to the fastest of torch's: "
        f"above 1 ours is slower, and says so. {machine_line(report['machine'])}"
    )
    body = [
        [
            f"{row['case']}, {row['optimizer']}",
            str(row["threads"]),
            row["rival"],
            us(row["median_us"]),
            f"{us(row['p25_us'])} .. {us(row['p75_us'])}",
            times(row["ratio"]) + lost(row),
        ]
        for row in report["rows"]
    ]
    yield table(["stack", "threads", "optimizer", "median", "p25 .. p75", "ratio"], body)


def lost(row: Row) -> str:
    """Say where ours is slower than the fastest of torch's."""
    return ", slower" if row["rival"].startswith("ours") and row["ratio"] > 1 else ""


def versions_part() -> Iterator[str]:
    """Yield what ``versions.py`` found."""
    report = report_of("versions")
    if report is None:
        yield NOT_RUN
        return
    old = report["old"]["is"] or "an older version"
    yield (
        f"Steps of this version beside those of {old}, both with settings alike for all lanes. "
        "Above 1 a step became slower; the last column has the least and the most of the rounds. "
        f"{machine_line(report['machine'])}"
    )
    body = [
        [
            f"{row['lanes']:,} lanes, {row['dtypes']}, {row['scenario']}",
            us(row["old_us"]),
            us(row["new_us"]),
            times(row["ratio"]),
            f"{row['least']:.2f} .. {row['most']:.2f}",
        ]
        for row in report["rows"]
    ]
    yield table(["case", "old", "new", "ratio", "of the rounds"], body)


def false_alarms_part() -> Iterator[str]:
    """Yield what ``false_alarms.py`` counted."""
    report = report_of("false_alarms")
    if report is None:
        yield NOT_RUN
        return
    yield (
        "Histories of networks that were trained on seeds which no threshold was chosen on, and "
        "what `diagnose` says of them. *found*: with one of the codes that are right; *other "
        "alarms*: with a problem, or a leak, that is not there."
    )
    body = []
    for row in report["rows"]:
        hits = "" if row["hits"] is None else str(row["hits"])
        said = ", ".join(f"{code} {count}" for code, count in row["said"].items())
        name = f"{row['scene']} ({', '.join(row['expected']) or 'nothing is wrong'})"
        body.append([name, str(row["histories"]), hits, str(row["with_other_alarms"]), said])
    yield table(["scene (what is right)", "histories", "found", "other alarms", "said"], body)
