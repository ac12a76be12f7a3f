"""The epochs of one lane as a table: aligned numbers, and quiet stretches folded into a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .tables import aligned, new_table, number

if TYPE_CHECKING:
    from rich.console import Console

    from .annotate import Epochs, Row

__all__ = ["columns", "folded", "show"]

BLOCK = 1 << 14  # rows that are looked at together
LONG = 60  # rows that are shown as they are
ENDS = 3  # rows kept at either end
BEFORE, AFTER = 2, 1  # and around a cut, besides the last improvement before it
_MOVES = ("cut", "raised")
LEAST = 20  # characters for words; where numbers are too long columns are left out


def show(console: Console, rows: Epochs, title: str, every: bool = False) -> None:
    """Print the epochs; the quiet ones of a long history in one line each stretch.

    Args:
        console: Where to.
        rows: Of :func:`annotate`.
        title: Printed above, as it is.
        every: Fold nothing.
    """
    stretches = [range(i, i + 1) for i in range(len(rows))] if every else folded(rows)
    alone = torch.tensor([each[0] for each in stretches if len(each) == 1], dtype=torch.int64)
    shown = rows.rows_at(alone)
    value, metric = rows.column("value"), rows.column("metric")
    cells = columns(
        shown,
        averages=bool(((value != metric) & ~value.isnan()).any()),
        cools=bool(rows.column("cooldown").any()),
    )
    numbers = [name for name in cells if name != "words"]
    for name in ("cool", "gate"):  # the words tell of both
        if _room(console.width, numbers, cells) < LEAST and name in numbers:
            numbers.remove(name)
    room = _room(console.width, numbers, cells)
    table = new_table(title, [*numbers, "words"], texts=["words"])
    lines = zip(shown, zip(*(cells[name] for name in numbers), strict=True), strict=True)
    for stretch in stretches:
        if len(stretch) == 1:
            row, line = next(lines)
            words, style = row.words, "bold" * (row.event in _MOVES)
        else:
            line = ("...", *[""] * (len(numbers) - 1))
            words, style = summary(rows, stretch), "dim"
        table.add_row(
            *line, words if len(words) <= room else words.replace(": ", ":\n"), style=style
        )
    console.print(table)


def _room(width: int, names: list[str], cells: dict[str, list[str]]) -> int:
    """Return how many characters are left for words."""
    return width - 2 - sum(2 + max(map(len, [name, *cells[name]])) for name in names)


def columns(
    rows: Sequence[Row], averages: bool | None = None, cools: bool | None = None
) -> dict[str, list[str]]:
    """Return the cells of each column, numbers of one column with equally many decimals.

    Args:
        rows: Whose.
        averages: Whether ``value`` is shown; unless told where it is not the metric throughout.
        cools: Whether ``cool`` is shown; unless told where there is a cooldown.
    """
    if averages is None:
        averages = any(row.value != row.metric and not math.isnan(row.value) for row in rows)
    if cools is None:
        cools = any(row.cooldown for row in rows)
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


def folded(rows: Epochs) -> list[range]:
    """Return which rows to show alone, as ranges of one, and which to fold, as longer ones."""
    size = len(rows)
    if size <= LONG:
        return [range(i, i + 1) for i in range(size)]
    kept = {*range(ENDS), *range(size - ENDS, size)}
    better, before, last_nan = rows.at("better"), "", -2
    marked = torch.zeros(size, dtype=torch.bool)
    marked[rows.at(*_MOVES, "due", "finished")] = True
    marked |= rows.column("value").isnan() | rows.column("metric").isnan()
    for which in marked.nonzero().flatten().split(BLOCK):
        earlier = torch.searchsorted(better, which).tolist()
        for i, row, count in zip(which.tolist(), rows.rows_at(which), earlier, strict=True):
            if row.event in (*_MOVES, "finished") or (row.event == "due" != before):
                best = int(better[count - 1]) if count else 0
                kept |= {best, *range(i - BEFORE, i + AFTER + 1)}
            if "NaN" in row.words:
                if last_nan != i - 1:
                    kept.add(i)
                last_nan = i
            before = row.event if row.event in (*_MOVES, "due") else before
    shown = sorted(i for i in kept if 0 <= i < size)
    stretches = []
    for i, following in zip(shown, [*shown[1:], size], strict=True):
        stretches.append(range(i, i + 1))
        quiet = range(i + 1, following)
        # a line for two or three would hide more than it saves
        stretches += [quiet] if len(quiet) > 3 else [range(j, j + 1) for j in quiet]
    return stretches


def summary(rows: Epochs, stretch: range) -> str:
    """Say in a line what folded rows hold."""
    ends = torch.tensor([stretch.start, stretch.stop])
    better, due = (
        int(torch.searchsorted(rows.at(kind), ends).diff()) for kind in ("better", "due")
    )
    parts = [f"{better} better"] if better else []
    parts.append(f"bad up to {int(rows.column('bad')[stretch.start : stretch.stop].max())}")
    if due:
        parts.append(f"{due} cuts due")
    return f"{len(stretch)} epochs: {', '.join(parts)}"
