"""One lane of a replay epoch by epoch: the numbers that decided, and what happened in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from ..histories.replay import REASONS, Replay, replay
from ..lanes.table import BITS
from .tables import number
from .words import Step, tell

__all__ = ["Epochs", "Row", "annotate"]

BLOCK = 1 << 14  # rows that are put into words at once
PIECE = 1 << 18  # epochs that are looked at together
# Recorded names that are looked at together: some ten bytes an epoch of each.
_TOGETHER = (
    ("why", "improved", "reduced", "raised", "fired"),
    ("num_bad_epochs",),
    ("cooldown_counter",),
    ("count", "limit"),
    ("value",),
    ("best",),
    ("gate",),
    ("lr",),
)
_TOLD = [each.name for each in fields(Step) if each.name not in ("move", "stop")]
_COLUMNS = {  # of a row, by what was recorded
    "value": "value",
    "best": "best",
    "gate": "gate",
    "bad": "num_bad_epochs",
    "cooldown": "cooldown_counter",
}
_Columns = Callable[[Sequence[str]], dict[str, Tensor]]  # recorded ones by name, [epochs, ...]


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

    A million of them take no more memory than their numbers do, and where nothing was recorded no
    more than the metric: then the lane is replayed for what is asked.
    """

    def __init__(self, metric: Tensor, columns: _Columns, start: Tensor, stop: str | None) -> None:
        self._metric, self._columns = metric, columns
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
        for which in torch.arange(len(self)).split(BLOCK):
            yield from self.rows_at(which)

    def column(self, name: str) -> Tensor:
        """Return a column of numbers by its name in :class:`Row`, ``[epochs]``."""
        if name == "metric":
            return self._metric
        if name == "lr":
            rates = self._columns(["lr"])["lr"]
            none = torch.full((len(self),), math.nan, dtype=torch.float64)
            return rates[:, 0] if rates.shape[1] else none
        return self._columns([_COLUMNS[name]])[_COLUMNS[name]]

    def rows_at(self, which: Tensor) -> list[Row]:
        """Return the epochs of these numbers, from 0."""
        found: dict[str, list[Any]] = {}
        earlier = self._start.expand(len(which), -1)
        for names in _TOGETHER:
            columns = self._columns(names)
            found |= {name: column[which].tolist() for name, column in columns.items()}
            if names == ("lr",):
                earlier = columns["lr"][(which - 1).clamp(min=0)]
                earlier[which == 0] = self._start
        moves = [
            _moved(old, new) if reduced or raised else ""
            for old, new, reduced, raised in zip(
                earlier.tolist(), found["lr"], found["reduced"], found["raised"], strict=True
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
    def events(self) -> dict[str, Tensor]:
        """The numbers of the epochs of each event, from 0, int64, in their order.

        They are as words.py tells them; by ``"NaN"`` those whose words speak of a NaN.
        """
        columns = self._columns(_TOGETHER[0])
        odd = not all(bool(each.isfinite().all()) for each in self._metric.split(PIECE))
        columns["nan"] = self.column("value").isnan() if odd else torch.zeros(1).expand(len(self))
        pieces: dict[str, list[Tensor]] = {}
        for begin in range(0, max(len(self), 1), PIECE):
            part = {name: column[begin : begin + PIECE] for name, column in columns.items()}
            for kind, there in _events_in(part).items():
                pieces.setdefault(kind, []).append(begin + there.nonzero().flatten())
        return {kind: torch.cat(each) for kind, each in pieces.items()}

    def at(self, *kinds: str) -> Tensor:
        """Return the numbers of the epochs of these events, from 0, in their order."""
        return torch.cat([self.events[kind] for kind in kinds]).sort().values


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

        def columns(names: Sequence[str]) -> dict[str, Tensor]:
            which = {name: groups if name == "lr" else lane for name in names}
            return {name: getattr(result, name)[:, at].cpu() for name, at in which.items()}

        columns([name for names in _TOGETHER for name in names])
    else:
        settings, dtype = result.lanes.settings_of(lane), result.lanes.dtype

        def columns(names: Sequence[str]) -> dict[str, Tensor]:
            # with "why" lanes are taken one by one, which is faster for one
            again = replay(
                mine.to(dtype), lr=float(start), record=["why", *names], dtype=dtype, **settings
            )
            return {
                name: getattr(again, name) if name == "lr" else getattr(again, name)[:, 0]
                for name in names
            }

    return Epochs(mine, columns, start.float(), stop)


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
