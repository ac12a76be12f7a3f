"""The command line: ``torch-plateau demo``, ``replay``, ``sweep``, ``inspect`` and ``bench``.

Without typer, importing this ends the program with the cure: it is there to be run.
"""

from __future__ import annotations

CURE = "the command line needs its extra: pip install 'torch-plateau[cli]'"

try:
    import typer
except ModuleNotFoundError as missing:
    raise SystemExit(f"torch-plateau: no module {missing.name!r}; {CURE}") from None

from . import bench, commands, demo  # noqa: E402
from .terminal import Commands  # noqa: E402

app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """ReduceLROnPlateau for one model or for a million.

    Exit codes: 0 is well, 1 a problem that was found, 2 what cannot be read
    or done, 130 a stop by Ctrl-C, 141 that nobody reads stdout any more.
    """


for command in (demo.demo, commands.replay, commands.sweep, commands.inspect, bench.bench):
    app.command()(command)
