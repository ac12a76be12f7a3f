"""How all commands end that do not end well: with a line, and a code that says why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from ..histories.files.errors import printable

REFUSED = 2  # exit code for what cannot be read or done; 1 is what a command found
STOPPED = 130  # by Ctrl-C: what a shell says of any program that SIGINT ended
UNREAD = 141  # nobody reads what is printed: what a shell says of any that SIGPIPE ended

__all__ = ["REFUSED", "Commands", "extra", "stop"]


def stop(message: str, code: int = REFUSED) -> NoReturn:
    """End the program with ``message`` on stderr."""
    _say(message)
    raise typer.Exit(code)


class Commands(TyperGroup):
    """Commands whose end says why, where the user stops them or nothing more can be printed."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Do all; typer prints here what is wrong with the arguments."""
        with _ending():
            return super().main(*args, **more)

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the arguments, which may print help."""
        with _ending():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _ending():
            return super().invoke(ctx)


@contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _say("stopped")
        raise SystemExit(STOPPED) from None
    except SystemExit as end:  # by which typer and rich end where a pipe is closed
        if isinstance(end.__context__, BrokenPipeError):
            _silence(sys.stdout)
            raise SystemExit(UNREAD) from None
        raise
    except OSError as error:
        if error.filename is None:
            _silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(UNREAD) from None
        _say(f"{error.filename or 'stdout'}: {error.strerror or error}")
        raise SystemExit(REFUSED) from None


def _say(message: str) -> None:
    """Print a line on stderr, if it takes any."""
    try:
        typer.echo(f"torch-plateau: {printable(message)}", err=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO | None) -> None:
    """Drop what a stream still holds, which would fail once more at the end of the program."""
    with suppress(OSError, AttributeError):  # no stream, or one without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]


@contextmanager
def extra(cure: str, code: int = REFUSED) -> Iterator[None]:
    """End the program with the cure where a package is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        stop(f"no module {missing.name!r}; {cure}", code)
