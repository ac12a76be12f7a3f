"""The command line, ``torch-plateau``: demo, replay, sweep, inspect, bench and doctor.

Without typer, importing this ends the program with the cure: it is there to be run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

CURE = "the command line needs its extra: pip install 'torch-plateau[cli]'"

try:
    import typer
except ModuleNotFoundError as missing:
    sys.stderr.write(f"torch-plateau: no module {missing.name!r}; {CURE}\n")
    raise SystemExit(2) from None

from . import bench, commands, demo, doctor  # noqa: E402
from .terminal import Commands  # noqa: E402

app = typer.Typer(cls=Commands, no_args_is_help=True)


@app.callback(
    epilog="Example: torch-plateau replay history.csv --metric val_loss --patience 2,5,10\n\n"
    "torch-plateau COMMAND --help says what a command reads, writes and exits with."
)
def main() -> None:
    """ReduceLROnPlateau for one model or for a million.

    Exit codes: 0 is well, 1 a problem that was found, 2 what cannot be read
    or done, 130 a stop by Ctrl-C, 141 that nobody reads stdout any more.
    """


# Under the help of each command: an example, what is written where, and what it exits with.
ENDS: dict[Callable[..., None], tuple[str, str, str]] = {
    demo.demo: (
        "torch-plateau demo --lanes 64 --epochs 60 --out demo.png",
        "Prints a table and writes torch-plateau-demo.png (-imbalanced.png), or where --out says.",
        "0, or 2 for what cannot be done",
    ),
    commands.replay: (
        "torch-plateau replay history.csv --patience 2,5,10 --lr 0.1",
        "Prints tables and writes torch-plateau-replay.png, or where --out says; --html one file "
        "more.",
        "0, or 2 for a file or a setting that is refused",
    ),
    commands.sweep: (
        "torch-plateau sweep seed0.csv seed1.csv --patience 0..20 --factor 0.1,0.5",
        "Prints a table and writes torch-plateau-sweep.png, or where --out says; --html one file "
        "more.",
        "0, or 2 for a file or a setting that is refused",
    ),
    commands.inspect: (
        "torch-plateau inspect history.csv --train-metric train_loss --lr-column lr",
        "Prints findings, as JSON with --json; writes nothing without --html.",
        "0, 1 if there is a problem in any run, or 2 for a file or a setting that is refused",
    ),
    bench.bench: (
        "torch-plateau bench --quick --json bench.json",
        "Prints tables and writes torch-plateau-bench.png, or where --out says; --json the rows.",
        "0, 1 if two ways decide differently, or 2 for what cannot be done",
    ),
    doctor.doctor: ("torch-plateau doctor", "Prints; writes nothing.", "0"),
}
for command, (example, writes, exits) in ENDS.items():
    app.command(epilog=f"Example: {example}\n\n{writes}\n\nExits with {exits}.")(command)
