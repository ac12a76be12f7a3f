"""One lane of a replay epoch by epoch: the numbers that decided, and what happened in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from ..histories.replay import REASONS, Replay
from ..lanes.table import BITS
from .tables import number
from .words import Step, tell

__all__ = ["Epochs", "Row", "annotate"]

BLOCK = 1 << 14  # rows that are put into words at once
_TOLD = [each.name for each in fields(Step) if each.name not in ("move", "stop")]
_COLUMNS = {  # of a row, by what was recorded
    "value": "value",
    "best": "best",
    "gate": "gate",
    "bad": "num_bad_epochs",
    "cooldown": "cooldown_counter",
}


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


class Epochs(Sequence[Row]):
    """The epochs of one lane, which are put into words when they are asked for.

    A million of them take no more memory than their numbers do.
    """

    def __init__(
        self,
        metric: Tensor,
        recorded: dict[str, Tensor],
        rates: Tensor,
        start: Tensor,
        stop: str | None,
    ) -> None:
        self._metric, self._recorded, self._stop = metric, recorded, stop
        self._rates, self._start = rates, start

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
        for which in torch.arange(len(self)).split(BLOCK):
            yield from self.rows_at(which)

    def column(self, name: str) -> Tensor:
        """Return a column of numbers by its name in :class:`Row`, ``[epochs]``."""
        if name == "metric":
            return self._metric
        if name == "lr":
            none = torch.full((len(self),), math.nan, dtype=torch.float64)
            return self._rates[:, 0] if self._rates.shape[1] else none
        return self._recorded[_COLUMNS[name]]

    def rows_at(self, which: Tensor) -> list[Row]:
        """Return the epochs of these numbers, from 0."""

        def column(name: str) -> list[Any]:
            values: list[Any] = self._recorded[name][which].tolist()
            return values

        rates: list[list[float]] = self._rates[which].tolist()
        earlier = self._rates[(which - 1).clamp(min=0)]
        earlier[which == 0] = self._start
        moves = [
            _moved(old, new) if reduced or raised else ""
            for old, new, reduced, raised in zip(
                earlier.tolist(), rates, column("reduced"), column("raised"), strict=True
            )
        ]
        told = [*map(column, _TOLD), moves, [self._stop] * len(moves)]
        steps = [Step(*each) for each in zip(*told, strict=True)]
        numbers = [column(_COLUMNS[name]) for name in ("best", "bad", "cooldown")]
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
                *numbers,
                rates,
                map(tell, steps),
                strict=True,
            )
        ]

    @cached_property
    def events(self) -> dict[str, Tensor]:
        """The numbers of the epochs of each event, from 0, int64, in their order."""
        why, fired, improved = (self._recorded[name] for name in ("why", "fired", "improved"))
        reason = why & BITS["reason"]

        def by(*names: str) -> Tensor:
            return torch.isin(reason, torch.tensor([REASONS.index(n) for n in names]).to(why))

        # as words.py tells it; whatever may have moved a rate or ended a lane is asked there
        better = by("better") | (by("warming", "cooling") & improved) | by("good")
        asked = fired | (why & BITS["finishes"]).bool() | by("nan", "anew")
        found = {"better": [(better & ~asked).nonzero().flatten()]}
        for which in asked.nonzero().flatten().split(BLOCK):
            kinds = [row.event for row in self.rows_at(which)]
            for kind in set(kinds) - {""}:
                mine = torch.tensor([each == kind for each in kinds])
                found.setdefault(kind, []).append(which[mine])
        return {kind: torch.cat(parts).sort().values for kind, parts in found.items()}

    def at(self, *kinds: str) -> Tensor:
        """Return the numbers of the epochs of these events, from 0, in their order."""
        parts = [self.events[kind] for kind in kinds if kind in self.events]
        return torch.cat(parts).sort().values if parts else torch.empty(0, dtype=torch.int64)


def annotate(metric: Tensor, result: Replay, lane: int = 0) -> Epochs:
    """Return the epochs of one lane.

    Args:
        metric: What was replayed, ``[epochs]`` or ``[epochs, lanes]``.
        result: Of a replay with ``record="all"``; its lanes not stepped on since.
        lane: Which of its lanes.

    Raises:
        ValueError: ``metric`` has another number of epochs, or there is no such lane.
        AttributeError: something was not recorded.
    """
    if len(metric) != result.epochs:
        raise ValueError(f"metric: expected {result.epochs} epochs, got {len(metric)}")
    if not 0 <= lane < len(result):
        raise ValueError(f"lane: expected one from 0 to {len(result) - 1}, got {lane}")
    names = {*_TOLD, *_COLUMNS.values(), "reduced", "raised"}
    recorded = {name: getattr(result, name)[:, lane].cpu() for name in names}
    groups = _groups_of(result, lane)
    return Epochs(
        (metric[:, lane] if metric.ndim == 2 else metric).double().cpu(),
        recorded,
        result.lr[:, groups].cpu(),
        result.lanes.state_dict()["start_lr"][groups].cpu().to(result.lr.dtype),
        result.lanes.stop_reasons()[lane],
    )


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
