"""The command line: ``torch-plateau demo``, ``replay``, ``sweep`` and ``inspect``.

Without typer, importing this ends the program with the cure: it is there to be run.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

CURE = "the demo needs its extra: pip install 'torch-plateau[demo]'"
CLI_CURE = "the command line needs its extra: pip install 'torch-plateau[cli]'"

try:
    import typer
except ModuleNotFoundError as missing:
    raise SystemExit(f"torch-plateau: no module {missing.name!r}; {CLI_CURE}") from None

from .commands import inspect, replay, sweep  # noqa: E402
from .terminal import check_writable, replacing, stop  # noqa: E402

app = typer.Typer(add_completion=False, no_args_is_help=True)


class Metric(str, Enum):
    """What lanes can watch."""

    f1 = "f1"
    recall = "recall"
    accuracy = "accuracy"
    loss = "loss"


@app.callback()
def main() -> None:
    """ReduceLROnPlateau for one model or for a million."""


@app.command()
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
    check_writable("--out", out)
    try:
        from rich.console import Console
        from rich.progress import track

        from .demo import report, training
    except ModuleNotFoundError as missing:
        stop(f"no module {missing.name!r}; {CURE}")
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
    console = Console(highlight=False)
    show(console, run, data)
    with replacing("--out", out) as file:
        draw(run, data, file)
    console.print(f"Picture: {out}", soft_wrap=True, markup=False)


for command in (replay, sweep, inspect):
    app.command()(command)
