"""What all commands do alike: stop with a message, and write files whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import typer
from typer.core import TyperGroup

from .. import saving

REFUSED = 2  # exit code for what cannot be read or done

__all__ = ["REFUSED", "Commands", "check_writable", "extra", "replacing", "stop"]


def stop(message: str, code: int = 1) -> NoReturn:
    """End the program with ``message`` on stderr."""
    typer.echo(f"torch-plateau: {message}", err=True)
    raise typer.Exit(code)


class Commands(TyperGroup):
    """Commands that end with ``REFUSED`` where stdout takes no more: 1 is a problem found."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the arguments, which may print help."""
        with _printing():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _printing():
            return super().invoke(ctx)


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None:  # what stdout still holds must not fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        stop(f"{error.filename or 'stdout'}: {error.strerror or error}", REFUSED)


@contextmanager
def extra(cure: str, code: int = REFUSED) -> Iterator[None]:
    """End the program with the cure where a package is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        stop(f"no module {missing.name!r}; {cure}", code)


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
