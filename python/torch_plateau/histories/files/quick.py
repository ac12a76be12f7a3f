"""Long CSV files by pyarrow, where nothing in them is odd; others are left to rows.py."""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

__all__ = ["read_quickly"]

LEAST = 1 << 22  # bytes: shorter files are read before pyarrow is imported
ODD = re.compile(rb"\r(?!\n)|\0|[\"']")  # line ends, quotes: what readers of CSV differ in


def read_quickly(
    path: Path, names: Sequence[str], delimiter: str, most: int
) -> list[array[float]] | None:
    """Return the columns ``names`` of a table of at most ``most`` rows.

    None for a short file, where pyarrow is not installed, and if anything is not as in most tables:
    an empty or quoted cell, a NaN, a row of another length, a column that is not there.
    """
    if path.stat().st_size < LEAST:
        return None
    try:
        arrow, csv = import_module("pyarrow"), import_module("pyarrow.csv")
    except ImportError:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        header = text.readline().decode("utf-8", "replace").strip().split(delimiter)
        if ODD.search(text) or any(header.count(name) != 1 for name in names):
            return None
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=list(dict.fromkeys(names)),
                column_types=dict.fromkeys(names, arrow.float64()),
            ),
        )
    except (arrow.ArrowException, OSError):
        return None
    if not 0 < table.num_rows <= most or any(column.null_count for column in table.columns):
        return None
    return [array("d", table.column(name).to_numpy().tobytes()) for name in names]
