"""``torch-plateau replay``, ``sweep`` and ``inspect``: histories in, words and pictures out.

They exit with 2 for what they cannot read or do, with nothing written.
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
from .options import (
    By,
    Cooldown,
    Counting,
    Eps,
    Factor,
    Files,
    Html,
    MetricColumn,
    MinLr,
    Missing,
    Mode,
    Nan,
    Only,
    OnMissing,
    Patience,
    Rate,
    Smoothing,
    Threshold,
    ThresholdMode,
    Window,
    option,
    setting,
)
from .printed import (
    CURE,
    as_json,
    console,
    print_agreement,
    print_findings,
    print_summary,
    span,
    written,
)
from .runs import check_outputs, extra, given_settings, named, one, refusing
from .setting_values import product_of
from .terminal import REFUSED, replacing, stop

__all__ = ["inspect", "replay", "sweep"]

PROBLEM = 1  # exit code: REFUSED is the other
MOST_TABLES = 8
THRESHOLDS = "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1"


def replay(
    file: Files,
    metric: MetricColumn = "val_loss",
    mode: Mode = "min",
    patience: Patience = None,
    threshold: Threshold = None,
    threshold_mode: ThresholdMode = None,
    factor: Factor = None,
    cooldown: Cooldown = None,
    min_lr: MinLr = None,
    eps: Eps = None,
    smoothing: Smoothing = None,
    window: Window = None,
    nan: Nan = None,
    counting: Counting = None,
    lr: Rate = 1.0,
    by: By = None,
    run: Only = None,
    missing: OnMissing = Missing.error,
    every: Annotated[bool, option("Print quiet epochs too.", "--every")] = False,
    out: Annotated[Path, option("The picture.")] = Path("torch-plateau-replay.png"),
    html: Html = None,
) -> None:
    """Show what a plateau would have done on a recorded run, epoch by epoch.

    A setting may have several values, like 2,5,10 or 0..20: every
    combination has a table of its own.
    """
    settings = given_settings(locals())
    with extra(CURE):
        from .annotate import annotate
        from .epoch_table import show
        from .pictures import draw_replay
    with refusing():
        keywords, labels = product_of(settings)
        if len(labels) > MOST_TABLES:
            stop(
                f"expected at most {MOST_TABLES} combinations of settings, got {len(labels):,}; "
                "torch-plateau sweep takes a million",
                REFUSED,
            )
        history = one(read_histories(file, metric, by=by, missing=missing.value), by, run)
        check_outputs(out, html)
        result = replay_history(history.metric, lr=lr, record="all", **keywords)
    screen = console()
    rows = [annotate(history.metric, result, lane) for lane in range(len(result))]
    for label, each in zip(labels, rows, strict=True):
        show(screen, each, f"{metric} of {history.name}: {label or 'default settings'}", every)
    if len(labels) > 1:
        print_summary(screen, result)
    title = f"{metric} of {history.name}"
    with replacing("--out", out, REFUSED) as picture:
        draw_replay(history.metric, result, labels, picture, title)
    written(screen, "Picture", out)
    if html is not None:
        _report(
            html, title=title, metric=history.metric, results=result, rows=rows[0], labels=labels
        )
        written(screen, "Report", html)


def sweep(
    file: Files,
    metric: MetricColumn = "val_loss",
    mode: Mode = "min",
    patience: Annotated[str, setting("Bad epochs that are borne; the next one cuts.")] = "0..20",
    threshold: Annotated[str, setting("How much better is better.")] = THRESHOLDS,
    threshold_mode: ThresholdMode = None,
    factor: Factor = None,
    cooldown: Cooldown = None,
    min_lr: MinLr = None,
    eps: Eps = None,
    smoothing: Smoothing = None,
    window: Window = None,
    nan: Nan = None,
    counting: Counting = None,
    lr: Rate = 1.0,
    by: By = None,
    missing: OnMissing = Missing.error,
    within: Annotated[
        int, option("First cuts of settings that agree are at most so many epochs apart.", min=0)
    ] = 3,
    out: Annotated[Path, option("The picture.")] = Path("torch-plateau-sweep.png"),
    html: Html = None,
) -> None:
    """Try every combination of settings on recorded runs.

    Shows how often each would have cut, and when. A setting may have several
    values, like 0.1,0.5 or 0..20. Over several runs (files, or the values of
    --by) it names the settings that treat all of them alike.
    """
    settings = given_settings(locals())
    with extra(CURE):
        from .pictures import draw_sweep
    with refusing():
        histories = named(read_histories(file, metric, by=by, missing=missing.value))
        check_outputs(out, html)
        keywords: dict[str, Any] = {
            name: values if len(values) > 1 else values[0] for name, values in settings.items()
        }
        result = sweep_histories(
            {name: each.metric for name, each in histories.items()}, lr=lr, **keywords
        )
    screen = console()
    epochs = span([len(each.metric) for each in histories.values()])
    total = len(result) // len(histories)
    screen.print(f"{total:,} settings, {len(histories):,} runs of {epochs} epochs.")
    print_agreement(screen, result, within)
    with replacing("--out", out, REFUSED) as picture:
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


def inspect(
    file: Files,
    metric: MetricColumn = "val_loss",
    train_metric: Annotated[str | None, option("Column of the same on training data.")] = None,
    lr_column: Annotated[
        str | None, option("Column of the rate during each epoch: the cuts that were.")
    ] = None,
    mode: Mode = "min",
    patience: Patience = None,
    threshold: Threshold = None,
    threshold_mode: ThresholdMode = None,
    factor: Factor = None,
    cooldown: Cooldown = None,
    smoothing: Smoothing = None,
    window: Window = None,
    counting: Counting = None,
    by: By = None,
    run: Only = None,
    missing: OnMissing = Missing.error,
    in_json: Annotated[bool, option("Print JSON, for scripts.", "--json")] = False,
    html: Annotated[Path | None, option("Write a report too, one file, of one run.")] = None,
) -> None:
    """Say in plain words what a recorded run tells about its plateau.

    Exits with 1 if there is a problem in any run, with 0 for questions, good
    news or nothing.
    """
    several = given_settings(locals())
    with refusing():
        for name, values in several.items():
            if len(values) > 1:
                flag = name.replace("_", "-")
                stop(f"--{flag}: expected one value, got {len(values)}", REFUSED)
        settings = {name: values[0] for name, values in several.items()}
        histories = read_histories(
            file, metric, train=train_metric, lr=lr_column, by=by, missing=missing.value
        )
        if run is not None or html is not None:
            histories = [one(histories, by, run)]
        check_outputs(None, html)
        runs = named(histories)
        found = {
            name: diagnose(each.metric, each.train, each.lr, **settings)
            for name, each in runs.items()
        }
    if in_json:
        typer.echo(json.dumps(as_json(runs, found), indent=1, allow_nan=False))
    else:
        print_findings(console(), found)
    if html is not None:
        _report_findings(html, metric, histories[0], next(iter(found.values())), settings)
        if not in_json:
            written(console(), "Report", html)
    if any(each.level == "problem" for findings in found.values() for each in findings):
        raise typer.Exit(PROBLEM)


def _report(html: Path, **parts: Any) -> None:
    from .report import write_report

    empty: dict[str, Any] = {"results": None, "rows": [], "findings": []}
    try:
        write_report(html, **{**empty, **parts})
    except OSError as error:
        stop(f"--html: {error.strerror}: {str(html)!r}", REFUSED)


def _report_findings(
    html: Path, metric: str, history: History, findings: list[Finding], settings: dict[str, Any]
) -> None:
    with extra(CURE):
        from .annotate import annotate
    given = ", ".join(f"{name} {value}" for name, value in settings.items())
    result = replay_history(history.metric, record="all", **settings)
    _report(
        html,
        title=f"{metric} of {history.name}",
        metric=history.metric,
        results=result,
        rows=annotate(history.metric, result),
        findings=findings,
        labels=[f"what {given} would have done"],
    )
