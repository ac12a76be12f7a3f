"""Long CSV files by pyarrow, where nothing in them is odd; others are left to rows.py."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..progress import LateBar
from .errors import printable

__all__ = ["read_quickly"]

PIECE = 1 << 21  # bytes that are looked at together
LEAST = 1 << 22  # bytes: shorter files are read before pyarrow is imported
ODD = re.compile(rb"\r(?!\n)|\0|[\"']")  # line ends, quotes: what readers of CSV differ in


def read_quickly(
    path: Path, names: Sequence[str], delimiter: str, most: int, progress: bool
) -> list[array[float]] | None:
    """Return the columns ``names`` of a table of at most ``most`` rows.

    None for a short file, where pyarrow is not installed, and if anything is not as in most tables:
    an empty or quoted cell, a NaN, a row of another length, a column that is not there. With
    ``progress`` a bar shows how far it is.
    """
    if path.stat().st_size < LEAST:
        return None
    try:
        arrow, csv = import_module("pyarrow"), import_module("pyarrow.csv")
    except ImportError:
        return None
    columns = [array("d") for _ in names]
    options = csv.ConvertOptions(
        include_columns=list(dict.fromkeys(names)),
        column_types=dict.fromkeys(names, arrow.float64()),
    )
    bar = LateBar(f"Reading {printable(path.name)}", path.stat().st_size, progress)
    with path.open("rb") as file, bar:
        header = file.readline(PIECE)
        heads = header.decode("utf-8", "replace").strip().split(delimiter)
        odd = ODD.search(header) or not header.endswith(b"\n")
        if odd or any(heads.count(name) != 1 for name in names):
            return None
        while piece := file.read(PIECE) + file.readline(PIECE):
            if ODD.search(piece) or (not piece.endswith(b"\n") and file.read(1)):
                return None
            try:
                table = csv.read_csv(
                    arrow.BufferReader(header + piece),
                    read_options=csv.ReadOptions(use_threads=False),
                    parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
                    convert_options=options,
                )
            except arrow.ArrowException:
                return None
            if any(column.null_count for column in table.columns):
                return None
            for name, column in zip(names, columns, strict=True):
                for chunk in table.column(name).chunks:  # to_numpy() would import pandas
                    values = memoryview(chunk.buffers()[1])[8 * chunk.offset :]
                    column.frombytes(values[: 8 * len(chunk)])
            if len(columns[0]) > most:
                return None
            bar.advance(len(piece))
    return columns if columns[0] else None
