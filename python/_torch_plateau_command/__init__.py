"""Where ``torch-plateau`` begins: beside the package, whose import takes a second for torch's.

Ctrl-C in that second would show whatever was being imported.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]

STOPPED = 130  # as cli/terminal.py has it, which cannot be imported yet


def main() -> None:
    """Run the command line; Ctrl-C ends it with a line from the first import on."""
    # left alone where it is ignored, as in a shell's background
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, _stop)
    from torch_plateau.cli import app

    if heard:  # commands remove what they have half written
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:  # before the command begins
        _stop()


def _stop(*_: object) -> NoReturn:
    """End the process at once: an exception may be lost in what is being imported."""
    with suppress(OSError):
        os.write(2, b"torch-plateau: stopped\n")
    os._exit(STOPPED)
