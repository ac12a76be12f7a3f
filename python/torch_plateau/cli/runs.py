"""From a command's arguments to the runs that it works on, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..histories.files import FileError, History
from .terminal import stop


def one(histories: list[History], by: str | None, run: str | None) -> History:
    """Return the only history, or the one that ``run`` names."""
    if run is not None and by is None:
        stop("--run: expected --by too, the column whose value it is")
    names = [each.name for each in histories]
    if run is not None:
        histories = [each for each in histories if each.name.endswith(f" {by}={run}")]
    if len(histories) != 1:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        if run is not None and not histories:
            stop(f"--run: no {by}={run} among {len(names)} runs: {shown}")
        cure = "--run picks one" if by else "give one file"
        stop(f"expected one run, got {len(histories)}: {shown}; {cure}")
    return histories[0]


def named(histories: list[History]) -> dict[str, History]:
    """Return histories by names, which are made different where they are not."""
    named: dict[str, History] = {}
    for each in histories:
        name, number = each.name, 2
        while name in named:
            name, number = f"{each.name} ({number})", number + 1
        named[name] = each
    return named


@contextmanager
def refusing() -> Iterator[None]:
    """End the program where arguments or files are refused."""
    try:
        yield
    except FileError as error:
        stop(str(error))
    except (TypeError, ValueError) as error:
        stop(str(error).splitlines()[0])
