"""One lane of a replay epoch by epoch: the numbers that decided, and what happened in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from ..histories.replay import Replay
from .tables import number
from .words import Step, tell

__all__ = ["Row", "annotate"]


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


def annotate(metric: Tensor, result: Replay, lane: int = 0) -> list[Row]:
    """Return a row per epoch of one lane.

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
    metrics: list[float] = (metric[:, lane] if metric.ndim == 2 else metric).double().tolist()

    def column(name: str) -> list[Any]:
        values: list[Any] = getattr(result, name)[:, lane].tolist()
        return values

    groups = _groups_of(result, lane)
    rates: list[list[float]] = result.lr[:, groups].tolist()
    before = [result.lanes.state_dict()["start_lr"][groups].tolist(), *rates]
    moves = [
        _moved(before[i], rates[i]) if reduced or raised else ""
        for i, (reduced, raised) in enumerate(zip(column("reduced"), column("raised"), strict=True))
    ]
    stop = [result.lanes.stop_reasons()[lane]] * result.epochs
    told = [column(each.name) for each in fields(Step) if each.name not in ("move", "stop")]
    steps = [Step(*each) for each in zip(*told, moves, stop, strict=True)]
    states = zip(*map(column, ("best", "num_bad_epochs", "cooldown_counter")), strict=True)
    return [
        Row(
            epoch=i + 1,
            metric=metrics[i],
            value=step.value,
            best=best,
            gate=step.gate,
            bad=bad,
            cooldown=cooldown,
            lr=rates[i][0] if rates[i] else math.nan,
            words=words,
            event=event,
        )
        for i, (step, (best, bad, cooldown), (words, event)) in enumerate(
            zip(steps, states, map(tell, steps), strict=True)
        )
    ]


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
