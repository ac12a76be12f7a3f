"""The epochs of one lane as a table: aligned numbers, and quiet stretches folded into a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .tables import aligned, new_table, number

if TYPE_CHECKING:
    from rich.console import Console

    from .annotate import Row

__all__ = ["columns", "folded", "show"]

LONG = 60  # rows that are shown as they are
ENDS = 3  # rows kept at either end
BEFORE, AFTER = 2, 1  # and around a cut, besides the last improvement before it
_MOVES = ("cut", "raised")
LEAST = 20  # characters for words; where numbers are too long columns are left out


def show(console: Console, rows: list[Row], title: str, every: bool = False) -> None:
    """Print the epochs; the quiet ones of a long history in one line each stretch.

    Args:
        console: Where to.
        rows: Of :func:`annotate`.
        title: Printed above, as it is.
        every: Fold nothing.
    """
    stretches = [range(i, i + 1) for i in range(len(rows))] if every else folded(rows)
    alone = [stretch[0] for stretch in stretches if len(stretch) == 1]
    cells, place = columns(rows, alone), {row: i for i, row in enumerate(alone)}
    numbers = [name for name in cells if name != "words"]
    for name in ("cool", "gate"):  # the words tell of both
        if _room(console.width, numbers, cells) < LEAST and name in numbers:
            numbers.remove(name)
    room = _room(console.width, numbers, cells)
    table = new_table(title, [*numbers, "words"], texts=["words"])
    for stretch in stretches:
        if len(stretch) == 1:
            row = rows[stretch[0]]
            line = [cells[name][place[stretch[0]]] for name in numbers]
            words, style = row.words, "bold" * (row.event in _MOVES)
        else:
            line = ["...", *[""] * (len(numbers) - 1)]
            words, style = summary([rows[i] for i in stretch]), "dim"
        table.add_row(
            *line, words if len(words) <= room else words.replace(": ", ":\n"), style=style
        )
    console.print(table)


def _room(width: int, names: list[str], cells: dict[str, list[str]]) -> int:
    """Return how many characters are left for words."""
    return width - 2 - sum(2 + max(map(len, [name, *cells[name]])) for name in names)


def columns(rows: Sequence[Row], which: Sequence[int] | None = None) -> dict[str, list[str]]:
    """Return the cells of each column, numbers of one column with equally many decimals.

    ``value`` is left out where it is the metric throughout, ``cool`` where there is no cooldown.

    Args:
        rows: All rows, which say what is left out.
        which: The numbers of those whose cells are returned; all unless told.
    """
    averages = any(row.value != row.metric and not math.isnan(row.value) for row in rows)
    cools = any(row.cooldown for row in rows)
    rows = rows if which is None else [rows[i] for i in which]
    numbers = {
        "metric": [row.metric for row in rows],
        "value": [row.value for row in rows],
        "best": [row.best for row in rows],
        "gate": [row.gate for row in rows],
    }
    if not averages:
        del numbers["value"]
    cells = {"epoch": [str(row.epoch) for row in rows], **aligned(numbers)}
    for name in ("best", "gate"):
        cells[name] = ["-" if "inf" in cell else cell for cell in cells[name]]
    cells["bad"] = [str(row.bad) for row in rows]
    if cools:
        cells["cool"] = [str(row.cooldown) for row in rows]
    cells["rate"] = [number(row.lr) for row in rows]
    cells["words"] = [row.words for row in rows]
    return cells


def folded(rows: Sequence[Row]) -> list[range]:
    """Return which rows to show alone, as ranges of one, and which to fold, as longer ones."""
    size = len(rows)
    if size <= LONG:
        return [range(i, i + 1) for i in range(size)]
    kept = {*range(ENDS), *range(size - ENDS, size)}
    better, before = 0, ""
    for i, row in enumerate(rows):
        if row.event in (*_MOVES, "finished") or (row.event == "due" != before):
            kept |= {better, *range(i - BEFORE, i + AFTER + 1)}
        if "NaN" in row.words and not (i and "NaN" in rows[i - 1].words):
            kept.add(i)
        if row.event == "better":
            better = i
        before = row.event if row.event in (*_MOVES, "due") else before
    shown = sorted(i for i in kept if 0 <= i < size)
    stretches = []
    for i, following in zip(shown, [*shown[1:], size], strict=True):
        stretches.append(range(i, i + 1))
        quiet = range(i + 1, following)
        # a line for two or three would hide more than it saves
        stretches += [quiet] if len(quiet) > 3 else [range(j, j + 1) for j in quiet]
    return stretches


def summary(rows: Sequence[Row]) -> str:
    """Say in a line what folded rows hold."""
    better = sum(row.event == "better" for row in rows)
    due = sum(row.event == "due" for row in rows)
    parts = [f"{better} better"] if better else []
    parts.append(f"bad up to {max(row.bad for row in rows)}")
    if due:
        parts.append(f"{due} cuts due")
    return f"{len(rows)} epochs: {', '.join(parts)}"
