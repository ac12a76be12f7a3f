"""``torch-plateau replay``, ``sweep`` and ``inspect``: histories in, words and pictures out.

They exit as terminal.py says; with 2 for what they cannot read or do, nothing is written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from torch.nn.utils.rnn import pad_sequence

from ..histories.diagnose import Finding, diagnose
from ..histories.files import History, read_histories
from ..histories.replay import replay as replay_history
from ..histories.sweep import sweep as sweep_histories
from .annotate import annotate
from .epoch_table import show
from .options import By, Files, Html, MetricColumn, Missing, Only, OnMissing, Rate, option
from .outputs import check_outputs, replacing
from .printed import as_json, print_agreement, print_findings, print_summary, span
from .runs import named, one, refusing
from .settings import flag_of, given_settings, product_of, with_settings
from .tables import console, written
from .terminal import extra, stop

__all__ = ["inspect", "replay", "sweep"]

CURE = "tables and pictures need an extra: pip install 'torch-plateau[cli]'"
PROBLEM = 1  # exit code: terminal.py has the others
MOST_TABLES = 8


@with_settings(mode="min")
def replay(
    file: Files,
    metric: MetricColumn = "val_loss",
    lr: Rate = 1.0,
    by: By = None,
    run: Only = None,
    missing: OnMissing = Missing.error,
    every: Annotated[bool, option("Print quiet epochs too.", "--every")] = False,
    out: Annotated[Path, option("The picture.")] = Path("torch-plateau-replay.png"),
    html: Html = None,
    **settings: str | None,
) -> None:
    """Show what a plateau would have done on a recorded run, epoch by epoch.

    A setting may have several values, like 2,5,10 or 0..20: every
    combination has a table of its own.
    """
    with extra(CURE):
        from .pictures import draw_replay

        screen = console()
    check_outputs({"--out": out, "--html": html}, file)
    with refusing():
        keywords, labels = product_of(given_settings(settings))
        if len(labels) > MOST_TABLES:
            stop(
                f"expected at most {MOST_TABLES} combinations of settings, got {len(labels):,}; "
                "torch-plateau sweep takes a million"
            )
        history = one(
            read_histories(file, metric, by=by, missing=missing.value, progress=True), by, run
        )
        result = replay_history(history.metric, lr=lr, **keywords)
    rows = [annotate(history.metric, result, lane) for lane in range(len(result))]
    for label, each in zip(labels, rows, strict=True):
        show(screen, each, f"{metric} of {history.name}: {label or 'default settings'}", every)
    if len(labels) > 1:
        print_summary(screen, result)
    title = f"{metric} of {history.name}"
    with replacing("--out", out) as picture:
        draw_replay(history.metric, result, labels, picture, title)
    written(screen, "Picture", out)
    if html is not None:
        _report(
            html, title=title, metric=history.metric, results=result, rows=rows[0], labels=labels
        )
        written(screen, "Report", html)


@with_settings(mode="min", patience="0..20", threshold="1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1")
def sweep(
    file: Files,
    metric: MetricColumn = "val_loss",
    lr: Rate = 1.0,
    by: By = None,
    missing: OnMissing = Missing.error,
    within: Annotated[
        int, option("First cuts of settings that agree are at most so many epochs apart.", min=0)
    ] = 3,
    out: Annotated[Path, option("The picture.")] = Path("torch-plateau-sweep.png"),
    html: Html = None,
    **settings: str | None,
) -> None:
    """Try every combination of settings on recorded runs.

    Shows how often each would have cut, and when. A setting may have several
    values, like 0.1,0.5 or 0..20. Over several runs (files, or the values of
    --by) it names the settings that treat all of them alike.
    """
    with extra(CURE):
        from .pictures import draw_sweep

        screen = console()
    check_outputs({"--out": out, "--html": html}, file)
    with refusing():
        keywords: dict[str, Any] = {
            name: values if len(values) > 1 else values[0]
            for name, values in given_settings(settings).items()
        }
        histories = named(read_histories(file, metric, by=by, missing=missing.value, progress=True))
        result = sweep_histories(
            {name: each.metric for name, each in histories.items()}, lr=lr, **keywords
        )
    epochs = span([len(each.metric) for each in histories.values()])
    total = len(result) // len(histories)
    screen.print(f"{total:,} settings, {len(histories):,} runs of {epochs} epochs.")
    print_agreement(screen, result, within)
    with replacing("--out", out) as picture:
        draw_sweep(result, picture)
    written(screen, "Picture", out)
    if html is not None:
        curves = [each.metric for each in histories.values()]
        _report(
            html,
            title=f"Sweep of {metric}",
            metric=pad_sequence(curves, padding_value=math.nan),
            labels=list(histories),
            sweep=result,
        )
        written(screen, "Report", html)


@with_settings(mode="min")
def inspect(
    file: Files,
    metric: MetricColumn = "val_loss",
    train_metric: Annotated[str | None, option("Column of the same on training data.")] = None,
    lr_column: Annotated[
        str | None, option("Column of the rate during each epoch: the cuts that were.")
    ] = None,
    by: By = None,
    run: Only = None,
    missing: OnMissing = Missing.error,
    in_json: Annotated[bool, option("Print JSON, for scripts.", "--json")] = False,
    html: Annotated[Path | None, option("Write a report too, one file, of one run.")] = None,
    **settings: str | None,
) -> None:
    """Say in plain words what a recorded run tells about its plateau.

    Exits with 1 if there is a problem in any run, with 0 for questions, good
    news or nothing.
    """
    with extra(CURE):
        screen = None if in_json else console()
    check_outputs({"--html": html}, file)
    with refusing():
        several = given_settings(settings)
        for name, values in several.items():
            if len(values) > 1:
                stop(f"{flag_of(name)}: expected one value, got {len(values)}")
        one_each = {name: values[0] for name, values in several.items()}
        histories = read_histories(
            file,
            metric,
            train=train_metric,
            lr=lr_column,
            by=by,
            missing=missing.value,
            progress=True,
        )
        if run is not None or html is not None:
            histories = [one(histories, by, run)]
        runs = named(histories)
        found = {
            name: diagnose(each.metric, each.train, each.lr, **one_each)
            for name, each in runs.items()
        }
    if screen is None:
        typer.echo(json.dumps(as_json(runs, found), indent=1, allow_nan=False))
    else:
        print_findings(screen, found)
    if html is not None:
        _report_findings(html, metric, histories[0], next(iter(found.values())), one_each)
        if screen is not None:
            written(screen, "Report", html)
    if any(each.level == "problem" for findings in found.values() for each in findings):
        raise typer.Exit(PROBLEM)


def _report(html: Path, **parts: Any) -> None:
    from .report import write_report

    empty: dict[str, Any] = {"results": None, "rows": None, "findings": []}
    try:
        write_report(html, **{**empty, **parts})
    except OSError as error:
        stop(f"--html: {error.strerror}: {str(html)!r}")


def _report_findings(
    html: Path, metric: str, history: History, findings: list[Finding], settings: dict[str, Any]
) -> None:
    given = ", ".join(f"{name} {value}" for name, value in settings.items())
    result = replay_history(history.metric, **settings)
    _report(
        html,
        title=f"{metric} of {history.name}",
        metric=history.metric,
        results=result,
        rows=annotate(history.metric, result),
        findings=findings,
        labels=[f"what {given} would have done"],
    )
