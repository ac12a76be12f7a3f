"""How all commands end that do not end well: with a line, and a code that says why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

REFUSED = 2  # exit code for what cannot be read or done

__all__ = ["REFUSED", "Commands", "extra", "stop"]


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
