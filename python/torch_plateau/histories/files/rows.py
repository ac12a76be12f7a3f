"""Rows of tables in files, one at a time, with where they stand: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from .errors import FileError, check_columns, needed, short

__all__ = ["Rows", "read_csv", "read_jsonl", "read_parquet"]

MAX_LINE = 1 << 24  # bytes: longer lines are no table's, and are not read into memory
BATCH = 1 << 14  # rows of a Parquet file that are in memory at once

# Physical line or row from 1, and the cells of it. Whoever leaves rows halfway closes them, because
# an error's traceback would keep the file open.
Rows = Generator[tuple[int, Sequence[object]], None, None]


def read_csv(path: Path, names: Sequence[str], delimiter: str) -> Rows:
    """Yield the cells of the columns ``names``, as text. Lines without anything are left out."""
    with closing(_lines(path)) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        rows = 0
        try:
            header = [name.strip() for name in next(filter(None, reader), [])]
            if not header:
                raise FileError(f"{path}: an empty file")
            check_columns(f"{path}:{reader.line_num}", names, header)
            wanted = [header.index(name) for name in names]
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise FileError(
                        f"{path}:{reader.line_num}: expected {len(header)} cells, "
                        f"as in the header, got {len(row)}"
                    )
                rows += 1
                yield reader.line_num, [row[index] for index in wanted]
        except csv.Error as error:
            what = str(error)
            if what.startswith("new-line character"):  # goes on with advice to programmers
                what = "a carriage return inside a line; lines end in LF or CRLF"
            raise FileError(f"{path}:{reader.line_num}: not a table: {what}") from None
        if not rows:
            raise FileError(f"{path}: a header, but no rows")


def read_jsonl(path: Path, names: Sequence[str]) -> Rows:
    """Yield the values of the keys ``names``, None where a line has no such key."""
    rows = 0
    with closing(_objects(path)) as objects:
        for line, row in objects:
            if not rows and not row.keys() >= set(names):  # a later line may have what it lacks
                check_columns(str(path), names, _keys(path), "key")
            rows += 1
            yield line, [row.get(name) for name in names]
    if not rows:
        raise FileError(f"{path}: an empty file")


def read_parquet(path: Path, names: Sequence[str]) -> Rows:
    """Yield the values of the columns ``names``, None for null; no others are read."""
    arrow = needed(path, "pyarrow", "parquet")
    parquet = needed(path, "pyarrow.parquet", "parquet")
    row = 0
    try:
        with path.open("rb") as raw, parquet.ParquetFile(raw) as file:
            check_columns(str(path), names, file.schema_arrow.names)
            for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(names))):
                columns = [batch.column(name).to_pylist() for name in names]
                for cells in zip(*columns, strict=True):
                    row += 1
                    yield row, cells
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise FileError(f"{path}: not a Parquet file: {_first_line(error)}") from None
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or _first_line(error)}") from None
    if not row:
        raise FileError(f"{path}: columns, but no rows")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _lines(path: Path) -> Generator[str, None, None]:
    """Yield the lines of a text file with their ends; refuse what is not text, at its line."""
    with path.open("rb") as file:
        for number in count(1):
            raw = file.readline(MAX_LINE + 1)
            if not raw:
                return
            where = f"{path}:{number}"
            if len(raw) > MAX_LINE:
                raise FileError(f"{where}: expected at most {MAX_LINE:,} bytes in a line, got more")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise FileError(f"{where}: expected UTF-8 text, got byte 0x{byte:02x}") from None
            if "\0" in line:
                raise FileError(f"{where}: expected text, got a NUL byte")
            yield line


def _keys(path: Path) -> list[str]:
    """Return the keys of all objects in a file, in order of appearance."""
    with closing(_objects(path)) as objects:
        return list(dict.fromkeys(key for _, row in objects for key in row))


def _objects(path: Path) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Yield the JSON objects of a file with one on a line, and their lines."""
    with closing(_lines(path)) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}: expected a JSON object"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                at = f"{error.msg} at character {error.colno}"
                raise FileError(f"{where}, got {short(line.strip())}: {at}") from None
            except (ValueError, RecursionError):  # an integer of thousands of digits; deep lists
                raise FileError(f"{where}, got one that is too big or too deep") from None
            if not isinstance(row, dict):
                raise FileError(f"{where}, got {short(row)}")
            yield number, row
