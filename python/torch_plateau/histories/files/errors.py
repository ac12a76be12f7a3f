"""What is said of a file that cannot be read as a training history."""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FileError", "check_columns", "needed", "printable", "short"]

LISTED, WIDTH = 12, 60  # columns that an error lists; characters of a value that it shows


class FileError(ValueError):
    """A file that cannot be read, in words for its owner: ``FILE: ...`` or ``FILE:LINE: ...``."""


def short(value: object) -> str:
    """Show a value in at most ``WIDTH`` characters, none of which a terminal would obey."""
    text = repr(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def printable(text: str) -> str:
    """Show a text with what a terminal would obey, or cannot show, as escapes."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def check_columns(
    where: str, names: Sequence[str], there: Collection[str], kind: str = "column"
) -> None:
    """Refuse, as ``where``, columns without one name, or without one that is asked for."""
    twice = [name for name, times in Counter(list(there)).items() if name and times > 1]
    if twice:
        raise FileError(f"{where}: {kind} {short(twice[0])} is there twice")
    for name in names:
        if name in there:
            continue
        near = difflib.get_close_matches(name, there, n=1)
        guess = f"; did you mean {short(near[0])}?" if near else "."
        listed = ", ".join(short(one) for one in list(there)[:LISTED]) or "none"
        more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
        raise FileError(f"{where}: no {kind} {short(name)}{guess} There are: {listed}{more}")


def needed(path: Path, module: str, extra: str) -> Any:
    """Import what only some files need, or say which extra of this package brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise FileError(
            f"{path}: reading it needs {module.split('.')[0]} ({missing}): "
            f"pip install 'torch-plateau[{extra}]'"
        ) from None
