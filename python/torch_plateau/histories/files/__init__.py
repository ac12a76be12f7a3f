"""Training histories from files: what a metric was after each epoch, of one run or of many."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from ..progress import LateBar
from .errors import WIDTH, FileError, printable, short
from .quick import read_quickly
from .rows import Rows, read_csv, read_jsonl, read_parquet
from .tensorboard import MARK, read_events

__all__ = ["MAX_ROWS", "FileError", "History", "Missing", "read_histories"]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SHOWN = 1 << 14  # rows after which the bar moves
MAX_ROWS = 10_000_000  # of one file: more are refused as soon as they come
KINDS = ".csv, .tsv, .jsonl, .ndjson, .json (an object a line), .parquet, TensorBoard event files"
CURE = "--missing drop leaves such rows out, --missing nan counts them as NaN"

Missing = Literal["error", "drop", "nan"]


@dataclass(frozen=True)
class History:
    """What one training run measured: float64 on the CPU, one value per epoch.

    Attributes:
        name: The file's name without its folder, with escapes for what is not printable, and
            ``seed=3`` or the like where a column split the file.
        metric: What a plateau would watch, ``[epochs]``.
        train: The same on training data, ``[epochs]``, if it was asked for.
        lr: The rates that were used, ``[epochs]``, if they were asked for.
    """

    name: str
    metric: Tensor
    train: Tensor | None = None
    lr: Tensor | None = None


def read_histories(
    paths: Sequence[Path],
    metric: str,
    *,
    train: str | None = None,
    lr: str | None = None,
    by: str | None = None,
    missing: Missing = "error",
    progress: bool = False,
) -> list[History]:
    """Read the histories in files, one after another.

    Rows are epochs, in the order of the file; in TensorBoard's event files (or folders of them)
    the steps at which ``metric`` was written, where ``train`` and ``lr`` are looked up.

    Args:
        paths: Files, of a kind that the suffix tells.
        metric: Name of the column, JSON key or TensorBoard tag that is the metric.
        train: The one that is the metric on training data.
        lr: The one that is the learning rate.
        by: A column that tells runs apart: each value of it is a history of its own, in the order
            in which they first appear. Their rows may be mixed.
        missing: What an empty cell, a null or an absent key is: an ``"error"``, left out of its
            column (``"drop"``; the columns must then be equally long), or ``"nan"``. A NaN that
            was written is a value.
        progress: Whether to show a bar on stderr, if that is a terminal, from a second on; it takes
            rich.

    Raises:
        FileError: a file cannot be read as asked, for the reason and at the line it says.
    """
    histories = []
    for path in paths:
        try:
            histories += _histories(path, [metric, train, lr], by, missing, progress)
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from None
    return histories


def _histories(
    path: Path, asked: list[str | None], by: str | None, missing: Missing, progress: bool
) -> list[History]:
    names = [name for name in asked if name is not None]
    quick = None
    if by is None and path.suffix.lower() in DELIMITERS and path.is_file():
        quick = read_quickly(path, names, DELIMITERS[path.suffix.lower()], MAX_ROWS, progress)
    if quick is not None:
        runs = {"": quick}
    else:
        rows, place = _open(path, names, by, missing)
        bar = LateBar(f"Reading {printable(path.name)}", None, progress)
        with closing(rows), bar:
            runs = _collect(path, rows, place, names, by, missing, bar)
    histories = []
    for key, columns in runs.items():
        run = "" if by is None else f"{by}={_shown(key)}"
        _check_counts(f"{path}: {run}: " if run else f"{path}: ", names, columns)
        tensors = iter([torch.frombuffer(column, dtype=torch.float64) for column in columns])
        parts = [None if name is None else next(tensors) for name in asked]
        name = printable(path.name if path.name.strip(".") else path.resolve().name)
        name = f"{name} {run}" if run else name
        histories.append(History(name, cast("Tensor", parts[0]), *parts[1:]))
    return histories


def _open(path: Path, names: list[str], by: str | None, missing: Missing) -> tuple[Rows, str]:
    """Return the rows of a file, ``by`` in the last column, and what errors put before a line."""
    kind = "" if path.is_dir() else path.suffix.lower()
    columns = names if by is None else [*names, by]
    if kind in DELIMITERS:
        return read_csv(path, columns, DELIMITERS[kind]), ":"
    if kind in (".jsonl", ".ndjson", ".json"):
        return read_jsonl(path, columns), ":"
    if kind == ".parquet":
        return read_parquet(path, columns), ": row "
    path.stat()  # whether it is there comes before what it is called
    if not path.is_dir() and MARK not in path.name:
        raise FileError(f"{path}: what is read is {KINDS} ({MARK} in the name) or folders of them")
    if by is not None:
        raise FileError(
            f"{path}: expected columns to split by {short(by)}, got TensorBoard events; "
            "give a file or folder for each run"
        )
    return read_events(path, names, missing == "drop", MAX_ROWS), ": step "


def _collect(
    path: Path,
    rows: Rows,
    place: str,
    names: list[str],
    by: str | None,
    missing: Missing,
    bar: LateBar,
) -> dict[str, list[array[float]]]:
    """Gather the numbers of each run, a list of columns; all rows are one run without ``by``."""
    runs: dict[str, list[array[float]]] = {}
    for row, (line, cells) in enumerate(rows, 1):
        if row % SHOWN == 0:
            bar.advance(SHOWN)
        if row > MAX_ROWS:
            raise FileError(f"{path}{place}{line}: expected at most {MAX_ROWS:,} rows, got more")
        key = "" if by is None else _text(cells[-1])
        if by is not None and not key:
            raise FileError(f"{path}{place}{line}: column {short(by)}: no value to split rows by")
        columns = runs.get(key)
        if columns is None:
            columns = runs[key] = [array("d") for _ in names]
        for name, column, cell in zip(names, columns, cells, strict=False):
            try:
                value = _number(cell)
                if value is None and missing == "error":
                    raise ValueError(f"no value; {CURE}")
            except ValueError as error:
                raise FileError(f"{path}{place}{line}: column {short(name)}: {error}") from None
            if value is not None:
                column.append(value)
            elif missing == "nan":
                column.append(math.nan)
    return runs


def _number(cell: object) -> float | None:
    """Return a cell as Python's ``float()`` reads it, None where it is empty.

    Raises ValueError for what is no number; a bool is none.
    """
    if isinstance(cell, str):
        cell = cell.strip() or None
    if cell is None:
        return None
    if isinstance(cell, (str, int, float, Decimal)) and not isinstance(cell, bool):
        try:
            return float(cell)
        except OverflowError:  # an integer: the same digits with a point are infinite
            return math.inf if cast("int", cell) > 0 else -math.inf
        except ValueError:
            pass
    raise ValueError(f"expected a number, got {short(cell)}")


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _shown(key: str) -> str:
    """Return a run's text, quoted where it is long or would upset a terminal."""
    return key if key.isprintable() and len(key) <= WIDTH else short(key)


def _check_counts(where: str, names: list[str], columns: list[array[float]]) -> None:
    """Refuse columns that are empty, or of which one has dropped more than another."""
    for name, column in zip(names, columns, strict=True):
        if not column:
            raise FileError(f"{where}no value in column {short(name)}")
        if len(column) != len(columns[0]):
            raise FileError(
                f"{where}expected as many values in each column, got {len(columns[0]):,} in "
                f"{short(names[0])} and {len(column):,} in {short(name)}"
            )
