"""``torch-plateau demo``: networks that are trained now, each with a plateau of its own."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..outputs import check_outputs, replacing
from ..tables import console, written
from ..terminal import extra, stop

__all__ = ["demo"]

CURE = "the demo needs its extra: pip install 'torch-plateau[demo]'"


class Metric(str, Enum):
    """What lanes can watch."""

    f1 = "f1"
    recall = "recall"
    accuracy = "accuracy"
    loss = "loss"


def demo(
    lanes: Annotated[int, typer.Option(min=1, help="Networks, each with a lane.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 60,
    metric: Annotated[Metric, typer.Option(help="What the lanes watch.")] = Metric.f1,
    imbalanced: Annotated[
        bool,
        typer.Option("--imbalanced", help="Find a rare digit; half of the lanes watch accuracy."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same table.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="The picture; torch-plateau-demo.png or -imbalanced.png unless told."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu or cuda.")] = "cpu",
) -> None:
    """Train networks on scikit-learn's digits, each with its own learning rate and plateau.

    Ends with a table and a picture, after some ten seconds. Nothing is downloaded.
    """
    if imbalanced and lanes % 2:
        stop(f"--lanes: expected an even number, for two halves, got {lanes}")
    if imbalanced and metric is Metric.accuracy:
        stop("--metric: one half watches accuracy already; expected f1, recall or loss")
    if out is None:
        out = Path(f"torch-plateau-{'imbalanced' if imbalanced else 'demo'}.png")
    check_outputs({"--out": out})
    with extra(CURE):
        from rich.console import Console
        from rich.progress import track

        from . import report, training
    data = training.rare_digits(seed) if imbalanced else training.all_digits(seed)
    watch = ["accuracy", metric.value] if imbalanced else [metric.value]
    try:
        ensemble = training.Ensemble(data, lanes, watch, seed, device)
    except RuntimeError as error:  # the lanes refuse the device
        stop(str(error).splitlines()[0])
    for _ in track(range(epochs), "Training", console=Console(stderr=True)):
        ensemble.epoch()
    run = ensemble.result()
    show, draw = (report.show_rare, report.draw_rare) if imbalanced else (report.show, report.draw)
    screen = console()
    show(screen, run, data)
    with replacing("--out", out) as file:
        draw(run, data, file)
    written(screen, "Picture", out)
