"""What all commands do alike: stop with a message, and write files whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import typer

from .. import saving

REFUSED = 2  # exit code for what cannot be read or done

__all__ = ["REFUSED", "check_writable", "replacing", "stop"]


def stop(message: str, code: int = 1) -> NoReturn:
    """End the program with ``message`` on stderr."""
    typer.echo(f"torch-plateau: {message}", err=True)
    raise typer.Exit(code)


def check_writable(option: str, out: Path, code: int = 1) -> None:
    """Refuse before the work what could not be written after it; leaves nothing behind."""
    new = not out.exists()
    try:
        with out.open("ab"):
            pass
        if new:
            out.unlink()
    except OSError as error:
        stop(f"{option}: {error.strerror}: {str(out)!r}", code)


@contextmanager
def replacing(option: str, out: Path, code: int = 1) -> Iterator[BinaryIO]:
    """Open a file that becomes ``out`` when the block ends well, and vanishes if not."""
    try:
        with saving.replacing(out) as file:
            yield file
    except OSError as error:
        stop(f"{option}: {error.strerror}: {str(out)!r}", code)
