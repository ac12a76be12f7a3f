"""Files that are whole whatever happens while they are written: checkpoints, pictures, reports."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import torch

__all__ = ["is_stream", "replacing", "save_atomically"]


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save(state, path)``, after which ``path`` is whole whatever happens meanwhile.

    ::

        write to path + ".tmp"; flush it to the disk; rename it to path; flush the directory

    A process that is killed at any moment, or a machine that loses power, leaves the old file or
    the new one at ``path``, never a part of one, and at most a ``.tmp`` beside it, which the next
    save overwrites. One process at a time may save to a path.

    A link at ``path`` stays, and the file that it points to is replaced; the new file has the
    mode, and where that is allowed the owner, of the old one. A device or a FIFO is written to.

    Args:
        state: What ``torch.save`` takes.
        path: Where to; its directory must exist.

    Raises what ``torch.save`` and the file system do, with the file at ``path`` as it was.
    """
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # of a full disk torch says "unexpected pos"
                raise error.__context__ from None
            raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` when the block ends, and is removed if it raises.

    A device or a FIFO is opened as it is.
    """
    if is_stream(path):
        with open(path, "wb", opener=_open_stream) as stream:
            yield stream
        return
    real = os.path.realpath(path)
    temporary = f"{real}.tmp"
    before = os.stat(real) if os.path.exists(real) else None
    mode = 0o666 if before is None else stat.S_IMODE(before.st_mode)
    mine: os.stat_result | None = None
    try:
        with suppress(FileNotFoundError):
            os.remove(temporary)  # of a process that was killed
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            mine = os.fstat(file.fileno())
            if before is not None and os.name == "posix":
                _take_after(file.fileno(), before)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not _is_at(temporary, mine):
            raise FileExistsError(errno.EEXIST, "another process saves to it", os.fspath(path))
        os.replace(temporary, real)
    except BaseException:
        with suppress(OSError):
            if mine is not None and _is_at(temporary, mine):
                os.remove(temporary)
        raise
    if os.name == "posix":  # elsewhere a directory cannot be opened
        with suppress(OSError):  # nor where it may not be read: the file is whole all the same
            directory = os.open(os.path.dirname(real), os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a device or a FIFO, which is written to and never replaced.

    Raises OSError for what is neither that nor a file, nor free.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        raise OSError(errno.EINVAL, "neither a file nor a character device", os.fspath(path))
    return not stat.S_ISREG(mode)


def _open_stream(path: str, flags: int) -> int:
    """Open what is there, without waiting for somebody who reads a FIFO."""
    flags &= ~(os.O_CREAT | os.O_TRUNC)
    if os.name != "posix":
        return os.open(path, flags)
    try:
        opened = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads from it", path) from None
        raise
    os.set_blocking(opened, True)
    return opened


def _take_after(file: int, old: os.stat_result) -> None:
    """Give a file the owner, the group and the mode of an older one, as far as that is allowed."""
    for owner in (old.st_uid, -1):
        with suppress(OSError):
            os.fchown(file, owner, old.st_gid)
            break
    with suppress(OSError):
        os.fchmod(file, stat.S_IMODE(old.st_mode))


def _is_at(path: str, file: os.stat_result) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), file)
    return False
