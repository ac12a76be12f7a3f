"""Scalars in TensorBoard's event files, as rows of a table with a row for each step."""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from .errors import FileError, check_columns, needed, short

__all__ = ["MARK", "read_events"]

MARK = "tfevents"  # in the name of every event file
CHECKED = 1 << 16  # bytes of an event whose checksum is worth Python's time: more is an image

_Column = dict[int, tuple[float, float]]  # step: wall time and value


def read_events(
    path: Path, names: Sequence[str], every: bool, max_values: int
) -> Generator[tuple[int, list[float | None]], None, None]:
    """Yield ``(step, values)`` of the tags ``names`` in an event file or a folder of them.

    Where a step was written twice the later wall time counts. The rows are the steps of the
    first tag, with None where another has no value; with ``every``, the steps of all of them.
    """
    columns: dict[str, _Column] = {name: {} for name in names}
    there: dict[str, None] = {}  # every scalar's tag, in order
    left = max_values
    for file in _files(path):
        with closing(_scalars(file)) as scalars:
            for step, wall_time, tag, value in scalars:
                there.setdefault(tag)
                if tag not in columns:
                    continue
                left -= 1
                if left < 0:
                    raise FileError(f"{file}: expected at most {max_values:,} values, got more")
                old = columns[tag].get(step)
                if old is None or wall_time >= old[0]:
                    columns[tag][step] = wall_time, value
    if not there:
        raise FileError(f"{path}: no TensorBoard scalars in it")
    check_columns(str(path), names, there, "scalar tag")
    first = columns[names[0]]
    for step in sorted(set().union(*columns.values()) if every else first):
        cells = (columns[name].get(step) for name in names)
        yield step, [None if cell is None else cell[1] for cell in cells]


def _files(path: Path) -> list[Path]:
    """Return the event files that are meant, in the order of their names, which begin with a time.

    Raises FileError for a folder without any, naming those below it that have some.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if MARK in file.name and file.is_file())
    if files:
        return files
    below = sorted({str(file.parent) for file in path.glob(f"*/*{MARK}*")})
    cure = f"; there are some in {', '.join(below[:3])}" if below else ""
    raise FileError(f"{path}: a folder without TensorBoard event files ({MARK} in the name){cure}")


def _events(path: Path) -> Generator[Any, None, None]:
    """Yield the events of a file as protocol buffers.

    The records are read here because TensorBoard's own reader ends in silence at a damaged one,
    and imports TensorFlow where it finds it.
    """
    proto = needed(path, "tensorboard.compat.proto.event_pb2", "tensorboard")
    crc = needed(path, "tensorboard.compat.tensorflow_stub.pywrap_tensorflow", "tensorboard")
    decode_error = needed(path, "google.protobuf.message", "tensorboard").DecodeError
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        for number in count(1):
            head = file.read(12)
            if len(head) < 12:
                return
            size, checksum = struct.unpack("<QI", head)
            if crc.masked_crc32c(head[:8]) != checksum:
                what = "no TensorBoard event file" if number == 1 else f"event {number} is damaged"
                raise FileError(f"{path}: {what}: its length does not fit its checksum")
            left -= size + 16
            if left < 0:
                return  # cut short: the run was killed, or goes on
            data, tail = file.read(size), file.read(4)
            if size <= CHECKED and tail != struct.pack("<I", crc.masked_crc32c(data)):
                raise FileError(f"{path}: event {number} is damaged: it does not fit its checksum")
            try:
                yield proto.Event.FromString(data)
            except decode_error:
                raise FileError(f"{path}: event {number} is not one of TensorBoard's") from None


def _scalars(path: Path) -> Generator[tuple[int, float, str, float], None, None]:
    """Yield step, wall time, tag and number of each scalar: a plain one, or a tensor of one."""
    with closing(_events(path)) as events:
        for event in events:
            for value in event.summary.value:
                number = _number(path, event.step, value)
                if number is not None:
                    yield event.step, event.wall_time, value.tag, number


def _number(path: Path, step: int, value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or any(dim.size != 1 for dim in value.tensor.tensor_shape.dim):
        return None
    tensors = needed(path, "tensorboard.util.tensor_util", "tensorboard")
    try:
        array = tensors.make_ndarray(value.tensor)
    except (KeyError, TypeError, ValueError):
        where = f"{path}: step {step}: scalar tag {short(value.tag)}"
        raise FileError(f"{where}: expected a number, got a broken tensor") from None
    return float(array.item()) if array.dtype.kind in "fiu" else None
