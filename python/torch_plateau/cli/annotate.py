"""One lane of a replay epoch by epoch: the numbers that decided, and what happened in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import overload

import torch
from torch import Tensor

from ..histories.replay import REASONS, Replay, in_pieces
from ..lanes.lanes import PlateauLanes
from ..lanes.table import BITS
from .tables import number
from .words import Step, tell

__all__ = ["Column", "Epochs", "Row", "annotate"]

PIECE = 1 << 14  # epochs that are looked at together: too few for torch to share out to threads
EVENTS = ("better", "cut", "raised", "due", "finished", "NaN")  # a bit each
_FLAGS = ("improved", "reduced", "raised", "fired", "nan")  # what tells events besides ``why``
_TOLD = [each.name for each in fields(Step) if each.name not in ("move", "stop")]
_COLUMNS = {  # of a row, by what was recorded
    "value": "value",
    "best": "best",
    "gate": "gate",
    "bad": "num_bad_epochs",
    "cooldown": "cooldown_counter",
}
_RECORDED = tuple(dict.fromkeys([*_TOLD, "reduced", *_COLUMNS.values(), "lr"]))
# Names and a size to what was recorded, [size, ...] each, piece by piece.
_Pieces = Callable[[Sequence[str], int], Iterator[dict[str, Tensor]]]


@dataclass(frozen=True)
class Row:
    """One epoch of one lane.

    Attributes:
        epoch: From 1.
        metric: What came.
        value: What decided: the metric, or an average of it.
        best: After the step.
        gate: What ``value`` had to beat; infinite as long as there was no best. An edge of a band.
        bad: ``num_bad_epochs`` after the step, so 0 after a cut.
        cooldown: Steps of it that are left.
        lr: After the step: what the next epoch uses. The first rate of a lane that owns several.
        words: What happened.
        event: ``"better"``, ``"cut"``, ``"raised"``, ``"due"`` (a cut or a raise that moved
            nothing), ``"finished"`` (without a cut), or ``""``.
    """

    epoch: int
    metric: float
    value: float
    best: float
    gate: float
    bad: int
    cooldown: int
    lr: float
    words: str
    event: str = ""


@dataclass(frozen=True)
class Column:
    """Numbers of all epochs, made a piece at a time: its methods are those of a tensor."""

    size: int
    split: Callable[[int], Iterator[Tensor]]

    def __len__(self) -> int:
        """Return the number of epochs."""
        return self.size


class Epochs(Sequence[Row]):
    """The epochs of one lane, which are put into words when they are asked for.

    A million of them take no more memory than what was recorded, and where that is nothing a byte
    each: then the lane is replayed for what is asked, piece by piece.
    """

    def __init__(self, metric: Tensor, pieces: _Pieces, start: Tensor, stop: str | None) -> None:
        self._metric, self._pieces = metric, pieces
        self._start, self._stop = start, stop

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self._metric)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Return an epoch, or some."""
        found = range(len(self))[index]
        if isinstance(found, int):
            return self.rows_at(torch.tensor([found]))[0]
        return self.rows_at(torch.tensor(found, dtype=torch.int64))

    def __iter__(self) -> Iterator[Row]:
        """Go through all epochs, a block at a time."""
        for which in torch.arange(len(self)).split(PIECE):
            yield from self.rows_at(which)

    def column(self, name: str) -> Tensor | Column:
        """Return a column of numbers by its name in :class:`Row`, ``[epochs]``."""
        if name == "metric":
            return self._metric
        recorded = _COLUMNS.get(name, name)

        def split(size: int) -> Iterator[Tensor]:
            for _, columns in self._in_turn([recorded], size):
                values = columns[recorded]
                if values.ndim == 1:
                    yield values
                else:  # the first rate, if there is one
                    yield values[:, 0] if values.shape[1] else torch.full((len(values),), math.nan)

        return Column(len(self), split)

    def _in_turn(self, names: Sequence[str], size: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield what was recorded, piece by piece, and where each begins."""
        return zip(range(0, max(len(self), 1), size), self._pieces(names, size), strict=True)

    def rows_at(self, which: Tensor) -> list[Row]:
        """Return the epochs of these numbers, from 0."""
        if not len(which):
            return []
        picked: dict[str, Tensor] = {}
        last, before = int(which.max()), self._start[None]
        for begin, columns in self._in_turn(_RECORDED, PIECE):
            rates = columns["lr"]
            columns["earlier"], before = torch.cat([before, rates[:-1]]), rates[-1:]
            here = ((which >= begin) & (which < begin + PIECE)).nonzero().flatten()
            for name, column in columns.items():
                if name not in picked:
                    picked[name] = column.new_empty(len(which), *column.shape[1:])
                picked[name][here] = column[which[here] - begin]
            if last < begin + PIECE:
                break
        found = {name: values.tolist() for name, values in picked.items()}
        moves = [
            _moved(old, new) if reduced or raised else ""
            for old, new, reduced, raised in zip(
                *(found[name] for name in ("earlier", "lr", "reduced", "raised")), strict=True
            )
        ]
        told = [*(found[name] for name in _TOLD), moves, [self._stop] * len(moves)]
        steps = [Step(*each) for each in zip(*told, strict=True)]
        return [
            Row(
                epoch=epoch + 1,
                metric=metric,
                value=step.value,
                best=best,
                gate=step.gate,
                bad=bad,
                cooldown=cooldown,
                lr=rate[0] if rate else math.nan,
                words=words,
                event=event,
            )
            for epoch, metric, step, best, bad, cooldown, rate, (words, event) in zip(
                which.tolist(),
                self._metric[which].tolist(),
                steps,
                *(found[_COLUMNS[name]] for name in ("best", "bad", "cooldown")),
                found["lr"],
                map(tell, steps),
                strict=True,
            )
        ]

    @cached_property
    def _events(self) -> Tensor:
        """The events of each epoch, as the bits of a byte."""
        found = torch.empty(len(self), dtype=torch.uint8)
        for begin, columns in self._in_turn(["why", *_FLAGS[:-1], "value"], PIECE):
            columns["nan"] = columns["value"].isnan()
            code = columns["why"].int()
            for bit, name in enumerate(_FLAGS, 8):
                code |= columns[name].int() << bit
            found[begin : begin + PIECE] = _event_table().index_select(0, code)
        return found

    def are(self, which: Tensor | slice, *events: str) -> Tensor:
        """Return whether these epochs are one of these events, bool.

        They are as words.py tells them; ``"NaN"`` are those whose words speak of a NaN.
        """
        return (self._events[which] & sum(1 << EVENTS.index(each) for each in events)).bool()

    def at(self, *events: str) -> Tensor:
        """Return the numbers of the epochs of these events, from 0, in their order."""
        return self.are(slice(None), *events).nonzero().flatten()


@cache
def _event_table() -> Tensor:
    """Return the events of whatever can be recorded: ``why`` in the low byte, flags above it."""
    codes = torch.arange(1 << (8 + len(_FLAGS)))
    columns = {name: (codes >> bit & 1).bool() for bit, name in enumerate(_FLAGS, 8)}
    there = _events_in({"why": (codes & 0xFF).to(torch.uint8), **columns})
    table = torch.zeros(len(codes), dtype=torch.uint8)
    for bit, name in enumerate(EVENTS):
        table |= there[name].to(torch.uint8) << bit
    return table


def _events_in(column: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return where each event is, by what was recorded."""
    why, improved, fired = (column[name] for name in ("why", "improved", "fired"))
    reason, raised = why & BITS["reason"], column["raised"]

    def by(*names: str) -> Tensor:
        return torch.isin(reason, torch.tensor([REASONS.index(n) for n in names]).to(why))

    wanted = (fired & by("bad", "above", "below", "good")) | by("nan", "anew")
    moved = column["reduced"] | raised
    better = by("better") | (by("warming", "cooling") & improved) | (by("good") & ~fired)
    quiet = (by("bad") & ~fired) | by("diverged", "within")
    return {
        "better": better,
        "cut": wanted & moved & ~raised,
        "raised": wanted & moved & raised,
        "due": wanted & ~moved,
        "finished": (why & BITS["finishes"]).bool() & ~wanted & ~better,
        "NaN": by("skipped", "froze", "nan") | (quiet & column["nan"].bool()),
    }


def annotate(metric: Tensor, result: Replay, lane: int = 0) -> Epochs:
    """Return the epochs of one lane.

    Args:
        metric: What was replayed, ``[epochs]`` or ``[epochs, lanes]``.
        result: Of a replay with ``record="all"``; its lanes not stepped on since. Or of one that
            recorded nothing, with a rate for each lane.
        lane: Which of its lanes.

    Raises:
        ValueError: ``metric`` has another number of epochs, or there is no such lane.
        AttributeError: something was not recorded.
    """
    if len(metric) != result.epochs:
        raise ValueError(f"metric: expected {result.epochs} epochs, got {len(metric)}")
    if not 0 <= lane < len(result):
        raise ValueError(f"lane: expected one from 0 to {len(result) - 1}, got {lane}")
    mine = (metric[:, lane] if metric.ndim == 2 else metric).double().cpu()
    groups = _groups_of(result, lane)
    start = result.lanes.state_dict()["start_lr"][groups].cpu()
    stop = result.lanes.stop_reasons()[lane]
    if result.recorded or not result.epochs:
        kept = {
            name: getattr(result, name)[:, groups if name == "lr" else lane].cpu()
            for name in _RECORDED
        }

        def pieces(names: Sequence[str], size: int) -> Iterator[dict[str, Tensor]]:
            for begin in range(0, max(len(mine), 1), size):  # one of none, as split() gives
                yield {name: kept[name][begin : begin + size] for name in names}
    else:
        settings, dtype = result.lanes.settings_of(lane), result.lanes.dtype

        def pieces(names: Sequence[str], size: int) -> Iterator[dict[str, Tensor]]:
            again = PlateauLanes(1, float(start), dtype=dtype, **settings)
            # with "why" lanes are taken one by one, which is faster for one
            for _, one in in_pieces(again, mine, ["why", *names], size):
                yield {
                    name: getattr(one, name) if name == "lr" else getattr(one, name)[:, 0]
                    for name in names
                }

    return Epochs(mine, pieces, start.float(), stop)


def _groups_of(result: Replay, lane: int) -> slice:
    """Return where the rates of a lane are."""
    counts = result.lanes.groups
    first = lane if counts is None else sum(counts[:lane])
    return slice(first, first + (1 if counts is None else counts[lane]))


def _moved(old: list[float], new: list[float]) -> str:
    if len(old) == 1:
        return f"{number(old[0])} -> {number(new[0])}"
    count = sum(after != before for before, after in zip(old, new, strict=True))
    return f"{count} of {len(new)} rates"
