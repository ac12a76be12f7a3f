"""Checkpoints that a crash cannot break."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch

__all__ = ["save_atomically"]


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save(state, path)``, after which ``path`` is whole whatever happens meanwhile.

    ::

        write to path + ".tmp"; flush it to the disk; rename it to path; flush the directory

    A process that is killed at any moment, or a machine that loses power, leaves the old file or
    the new one at ``path``, never a part of one, and at most a ``.tmp`` beside it, which the next
    save overwrites. One process at a time may save to a path.

    Args:
        state: What ``torch.save`` takes.
        path: Where to; its directory must exist.

    Raises what ``torch.save`` and the file system do, with the file at ``path`` as it was.
    """
    with replacing(path) as file:
        torch.save(state, file)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` when the block ends, and is removed if it raises."""
    path = os.fspath(path)
    temporary = path + ".tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    if os.name == "posix":  # elsewhere a directory cannot be opened
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
