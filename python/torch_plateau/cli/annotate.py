"""One lane of a replay epoch by epoch: the numbers that decided, and what happened in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..histories.replay import Replay
from ..lanes._resolve import gate_of
from .words import Narrator, Step

__all__ = ["Row", "annotate"]


@dataclass(frozen=True)
class Row:
    """One epoch of one lane.

    Attributes:
        epoch: From 1.
        metric: What came.
        value: What decided: the metric, or an average of it.
        best: After the step.
        gate: What ``value`` had to beat; infinite as long as there was no best.
        bad: ``num_bad_epochs`` after the step, so 0 after a cut.
        cooldown: Steps of it that are left.
        lr: After the step: what the next epoch uses. The first rate of a lane that owns several.
        words: What happened.
        event: ``"better"``, ``"cut"``, ``"due"`` (a cut that lowered nothing), ``"finished"``
            (without a cut), or ``""``.
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
    settings = {name: _at(value, lane) for name, value in result.lanes.settings.items()}
    values, best, improved, bad, cooldown = (
        getattr(result, name)[:, lane].tolist()
        for name in ("value", "best", "improved", "num_bad_epochs", "cooldown_counter")
    )
    first, last = _groups_of(result, lane)
    start = result.lanes._tensor("start_rate")[first:last].tolist()
    rates: list[list[float]] = result.lr[:, first:last].tolist()
    cut: list[bool] = result.reduced[:, lane].tolist()
    # rates at their floor at the end have been there since the last cut
    last_cut = max((i for i, reduced in enumerate(cut) if reduced), default=-1)
    stuck = last_cut if result.lanes.at_min_lr[lane] else result.epochs
    narrator, bar, rows = Narrator(settings), _bar_of(settings), []
    worst = -math.inf if settings["mode"] == "max" else math.inf
    for i, came in enumerate(metrics):
        old = best[i - 1] if i else worst
        step = Step(
            metric=came,
            value=values[i],
            best=old,
            bad=bad[i - 1] if i else 0,
            cooling=cooldown[i - 1] if i else 0,
            improved=improved[i],
            cut=_lowered(rates[i - 1] if i else start, rates[i]) if cut[i] else "",
            cooling_left=cooldown[i],
            at_floor=i > stuck,
        )
        words, event = narrator.tell(step)
        rate = rates[i][0] if rates[i] else math.nan
        numbers = (came, values[i], best[i], bar(old), bad[i], cooldown[i], rate)
        rows.append(Row(i + 1, *numbers, words, event))
    return rows


def _at(value: Any, lane: int) -> Any:
    """Return a setting of one lane."""
    if isinstance(value, Tensor):
        return value[lane].item() if value.ndim else value.item()
    return value[lane] if isinstance(value, list) else value


def _groups_of(result: Replay, lane: int) -> tuple[int, int]:
    groups = result.lanes.groups
    if groups is None:
        return lane, lane + 1
    first = sum(groups[:lane])
    return first, first + groups[lane]


def _lowered(old: list[float], new: list[float]) -> str:
    if len(old) == 1:
        return f"{old[0]:.4g} -> {new[0]:.4g}"
    count = sum(after < before for before, after in zip(old, new, strict=True))
    return f"{count} of {len(new)} rates"


def _bar_of(settings: dict[str, Any]) -> Callable[[float], float]:
    """Return the function from a best to what beats it, as csrc/plateau/rule.hpp has it."""
    threshold, atol = (
        torch.tensor(settings[name], dtype=torch.float64, device="cpu")
        for name in ("threshold", "atol")
    )
    kind = settings["threshold_mode"]
    scale, shift = (float(each) for each in gate_of(settings["mode"], threshold, kind, atol)[:2])

    def bar(best: float) -> float:
        if kind != "rel_safe":
            return best * scale + shift
        return best + abs(best) * scale + shift if math.isfinite(best) else best

    return bar
