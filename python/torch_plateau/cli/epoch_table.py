"""The epochs of one lane as a table: aligned numbers, and quiet stretches folded into a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .annotate import PIECE
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
        averages=_averages(rows),
        cools=any(bool(each.any()) for each in rows.column("cooldown").split(PIECE)),
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


def _averages(rows: Epochs) -> bool:
    pairs = zip(*(rows.column(name).split(PIECE) for name in ("value", "metric")), strict=True)
    return any(bool(((value != metric) & ~value.isnan()).any()) for value, metric in pairs)


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
    better, nan = rows.at("better"), rows.are(slice(None), "NaN")
    told = _told(rows)
    if len(told) > MOST:
        told = torch.cat([told[: MOST // 2], told[-MOST // 2 :]])
    earlier = torch.searchsorted(better, told).tolist()
    for i, before in zip(told.tolist(), earlier, strict=True):
        best = int(better[before - 1]) if before else 0
        kept |= {best, *range(i - BEFORE, i + AFTER + 1)}
    nan[1:] &= ~nan[:-1]  # where a stretch of them begins
    kept |= set(nan.nonzero().flatten()[:MOST].tolist())
    shown = sorted(i for i in kept if 0 <= i < size)
    stretches = []
    for i, following in zip(shown, [*shown[1:], size], strict=True):
        stretches.append(range(i, i + 1))
        quiet = range(i + 1, following)
        # a line for two or three would hide more than it saves
        stretches += [quiet] if len(quiet) > 3 else [range(j, j + 1) for j in quiet]
    return stretches


def _told(rows: Epochs) -> Tensor:
    """Return cuts, raises and ends, and the first of those in a row that are due and move nothing.

    It goes by pieces, since each epoch may be one of them.
    """
    found, last = [], torch.zeros(1, dtype=torch.bool)
    for begin in range(0, len(rows), PIECE):
        here = rows.are(slice(begin, begin + PIECE), *_MOVES, "due", "finished")
        told = begin + here.nonzero().flatten()
        due, finished = (rows.are(told, kind) for kind in ("due", "finished"))
        before = torch.zeros(len(told), dtype=torch.bool)
        dues = torch.cat([last, due[~finished]])
        before[~finished], last = dues[:-1], dues[-1:]
        found.append(told[~(due & before)])
    return torch.cat(found)


def summaries(rows: Epochs, stretches: list[range]) -> Iterator[str]:
    """Say in a line each what folded rows hold."""
    ends = torch.tensor([end for each in stretches for end in (each.start, each.stop)])
    bad = torch.zeros(len(ends) + 1, dtype=torch.int32)  # between the ends, in turn
    for begin, piece in zip(count(0, PIECE), rows.column("bad").split(PIECE), strict=False):
        place = torch.searchsorted(ends, torch.arange(begin, begin + len(piece)), right=True)
        bad.scatter_reduce_(0, place, piece, "amax")
    for stretch, worst in zip(stretches, bad[1::2].tolist(), strict=True):
        whole = slice(stretch.start, stretch.stop)
        better, cuts, due = (
            int(rows.are(whole, *events).count_nonzero())
            for events in (("better",), _MOVES, ("due",))
        )
        parts = [f"{better} better"] if better else []
        parts.append(f"bad up to {worst}")
        parts += [f"{cuts} cuts or raises"] if cuts else []
        parts += [f"{due} cuts due"] if due else []
        yield f"{len(stretch)} epochs: {', '.join(parts)}"
