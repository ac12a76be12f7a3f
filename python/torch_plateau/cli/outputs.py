"""What commands write: checked before anything is read, whole or not at all, and never an input."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from .. import saving
from .terminal import extra, stop

__all__ = ["check_outputs", "replacing"]

HTML_CURE = "--html needs its extra: pip install 'torch-plateau[report]'"


class _NothingToWriteError(Exception):
    """What ends a trial."""


def check_outputs(outputs: Mapping[str, Path | None], files: Sequence[Path] = ()) -> None:
    """Refuse outputs that overwrite what is read, or each other, or that could not be written.

    Links, relative paths and other names of one file are seen through. Leaves nothing behind.

    Args:
        outputs: Paths by the option that gave them.
        files: What is read.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    taken = [(f"FILE {str(each)!r}", each, [each]) for path in files for each in _read_from(path)]
    for option, path in given.items():
        try:
            if saving.is_stream(path):
                continue
            if option == "--out" and path.suffix.lower() != ".png":
                stop(f"--out: expected a name that ends in .png, got {str(path)!r}")
            mine = [path, Path(f"{os.path.realpath(path)}.tmp")]  # as saving.py calls it
            for name, _, theirs in taken:
                if any(_same(one, other) for one in mine for other in theirs):
                    stop(f"{option}: {str(path)!r} would overwrite {name}")
            for number, name in ((1, "stdout"), (2, "stderr")):
                if _goes_to(number, path):
                    stop(f"{option}: {str(path)!r} would overwrite what goes to {name}")
        except OSError as error:
            _refuse(option, path, error)
        taken.append((f"{option} {str(path)!r}", path, mine))
    if "--html" in given:
        with extra(HTML_CURE):
            import_module("plotly")
    for option, path in given.items():
        try:
            _try(path)
        except OSError as error:
            _refuse(option, path, error)


@contextmanager
def replacing(option: str, out: Path) -> Iterator[BinaryIO]:
    """Open a file that becomes ``out`` when the block ends well, and vanishes if not."""
    try:
        with saving.replacing(out) as file:
            yield file
    except OSError as error:
        _refuse(option, out, error)


def _refuse(option: str, path: Path, error: OSError) -> None:
    stop(f"{option}: {error.strerror or error}: {str(path)!r}")


def _read_from(path: Path) -> list[Path]:
    """Return what is read where a file or a folder is given."""
    try:
        return [each for each in path.iterdir() if each.is_file()] if path.is_dir() else [path]
    except OSError:  # whoever reads it will say so
        return [path]


def _same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _goes_to(number: int, path: Path) -> bool:
    try:
        there = os.fstat(number)
        return stat.S_ISREG(there.st_mode) and os.path.samestat(there, path.stat())
    except OSError:
        return False


def _try(path: Path) -> None:
    """Raise what writing would."""
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not saving.is_stream(path):
        with suppress(_NothingToWriteError), saving.replacing(path):
            raise _NothingToWriteError
