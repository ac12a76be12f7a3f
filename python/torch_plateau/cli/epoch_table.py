"""The epochs of one lane as a table: aligned numbers, and quiet stretches folded into a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .tables import aligned, new_table, number

if TYPE_CHECKING:
    from rich.console import Console

    from .annotate import Epochs, Row

__all__ = ["columns", "folded", "show", "summaries"]

LONG = 60  # rows that are shown as they are
ENDS = 3  # rows kept at either end
MOST = 500  # cuts that are shown: the first and the last ones of more
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
    cells = columns(
        shown,
        averages=_averages(rows.column("value"), rows.column("metric")),
        cools=bool(rows.column("cooldown").any()),
    )
    numbers = [name for name in cells if name != "words"]
    for name in ("cool", "gate"):  # the words tell of both
        if _room(console.width, numbers, cells) < LEAST and name in numbers:
            numbers.remove(name)
    room = _room(console.width, numbers, cells)
    table = new_table(title, [*numbers, "words"], texts=["words"])
    lines = zip(shown, zip(*(cells[name] for name in numbers), strict=True), strict=True)
    folds = summaries(rows, [each for each in stretches if len(each) > 1])
    for stretch in stretches:
        if len(stretch) == 1:
            row, line = next(lines)
            words, style = row.words, "bold" * (row.event in _MOVES)
        else:
            line = ("...", *[""] * (len(numbers) - 1))
            words, style = next(folds), "dim"
        table.add_row(
            *line, words if len(words) <= room else words.replace(": ", ":\n"), style=style
        )
    console.print(table)


def _averages(value: Tensor, metric: Tensor) -> bool:
    return bool(((value != metric) & ~value.isnan()).any())


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
    better, nan = rows.at("better"), rows.at("NaN")
    told = _first_of_dues(rows, rows.at(*_MOVES, "due", "finished"))
    if len(told) > MOST:
        told = torch.cat([told[: MOST // 2], told[-MOST // 2 :]])
    earlier = torch.searchsorted(better, told).tolist()
    for i, count in zip(told.tolist(), earlier, strict=True):
        best = int(better[count - 1]) if count else 0
        kept |= {best, *range(i - BEFORE, i + AFTER + 1)}
    begins = torch.ones(len(nan), dtype=torch.bool)
    begins[1:] = nan.diff() > 1
    kept |= set(nan[begins][:MOST].tolist())
    shown = sorted(i for i in kept if 0 <= i < size)
    stretches = []
    for i, following in zip(shown, [*shown[1:], size], strict=True):
        stretches.append(range(i, i + 1))
        quiet = range(i + 1, following)
        # a line for two or three would hide more than it saves
        stretches += [quiet] if len(quiet) > 3 else [range(j, j + 1) for j in quiet]
    return stretches


def _first_of_dues(rows: Epochs, told: Tensor) -> Tensor:
    """Leave out what is due and moves nothing where that was so the time before as well."""
    due, finished = (torch.isin(told, rows.at(kind)) for kind in ("due", "finished"))
    before = torch.zeros(len(told), dtype=torch.bool)
    before[~finished] = torch.cat([torch.zeros(1, dtype=torch.bool), due[~finished]])[:-1]
    return told[~(due & before)]


def summaries(rows: Epochs, stretches: list[range]) -> Iterator[str]:
    """Say in a line each what folded rows hold."""
    bad = rows.column("bad")
    for stretch in stretches:
        ends = torch.tensor([stretch.start, stretch.stop])
        better, cuts, due = (
            int(torch.searchsorted(rows.at(*kinds), ends).diff())
            for kinds in (("better",), _MOVES, ("due",))
        )
        parts = [f"{better} better"] if better else []
        parts.append(f"bad up to {int(bad[stretch.start : stretch.stop].max())}")
        parts += [f"{cuts} cuts or raises"] if cuts else []
        parts += [f"{due} cuts due"] if due else []
        yield f"{len(stretch)} epochs: {', '.join(parts)}"
