"""What happened to one lane in each epoch of a replay, in words.

The replay has decided already. This counts along only what a record does not hold: the lane's age,
values that are being collected, and whether it is finished, as csrc/plateau/lane.hpp does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..lanes._settings import INT32_MAX

__all__ = ["Narrator", "Step"]


@dataclass(frozen=True)
class Step:
    """One recorded step of a lane: what came, the state before, and what became of it."""

    metric: float
    value: float
    best: float  # before
    bad: int  # before
    cooling: int  # before
    improved: bool
    cut: str  # which rates were lowered to what; empty for none
    cooling_left: int
    at_floor: bool  # before, no rate could be lowered any more


class Narrator:
    """Tell the steps of one lane, in their order.

    Args:
        settings: The lane's settings, one value each.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._keras = settings["counting"] == "keras"
        self._age = self._taken = self._cuts = self._at_floor = 0
        self._fired = self._finished = False

    def tell(self, step: Step) -> tuple[str, str]:
        """Return the words, and the kind of the event.

        Kinds: ``"better"``, ``"cut"``, ``"due"`` (nothing was lowered), ``"finished"``, or ``""``.
        """
        if self._finished:
            return "finished", ""
        words, event = self._told(step)
        if self._finished:
            return f"{words}, finished", event or "finished"
        return words, event

    def _told(self, step: Step) -> tuple[str, str]:
        settings, nan = self._settings, math.isnan(step.metric)
        if nan and settings["nan"] == "skip":
            return "NaN: skipped", ""
        if nan and settings["nan"] == "freeze":
            self._finished = True
            return "NaN", ""
        self._age += 1
        warming = self._age <= settings["warmup_steps"]
        if nan and settings["nan"] == "cut":
            if not warming:
                self._count_at_floor(step)
            return self._cut(step, "NaN: ")
        if settings["accumulate"] > 1:
            self._taken = self._taken % settings["accumulate"] + 1
            if self._taken < settings["accumulate"]:
                return f"collecting: {self._taken} of {settings['accumulate']}", ""
        if warming:
            news = ", new best" if step.improved else ""
            words = f"warm-up {self._age} of {settings['warmup_steps']}{news}"
            return words, "better" if step.improved else ""
        return self._decided(step)

    def _decided(self, step: Step) -> tuple[str, str]:
        cooling = step.cooling > (1 if self._keras else 0)  # Keras counts the last cooling step
        if step.improved:
            self._at_floor = 0
        elif not cooling:
            self._count_at_floor(step)
        if cooling:
            left = f", {step.cooling_left} left" if step.cooling_left else ", the last"
            if step.improved:
                return f"better, cooling{left}", "better"
            return f"cooldown: ignored{left}", ""
        if step.improved:
            return ("first value" if math.isinf(step.best) else "better: new best"), "better"
        return self._bad(step)

    def _bad(self, step: Step) -> tuple[str, str]:
        settings, bad = self._settings, step.bad + 1
        first = settings["initial_patience"] if not self._fired else None
        patience = settings["patience"] if first is None else first
        # Keras and optax cut on bad step number `patience`, torch on the one after it.
        last = patience if settings["counting"] == "torch" else max(patience, 1) - 1
        if bad > last:
            name = "patience" if first is None else "first patience"
            sign = "=" if bad == patience else ">"
            return self._cut(step, f"bad {bad} {sign} {name} {patience}: ")
        return f"{self._prefix(step)}bad {bad} of {patience}", ""

    def _prefix(self, step: Step) -> str:
        if math.isnan(step.value):
            return "NaN: "
        if math.isinf(step.value):
            return "infinite: "
        if (step.value > step.best) if self._settings["mode"] == "max" else step.value < step.best:
            return "gain too small: "
        return "plateau starts: " if step.bad == 0 else ""

    def _cut(self, step: Step, why: str) -> tuple[str, str]:
        self._fired = True
        if not step.cut:
            return f"{why if why == 'NaN: ' else ''}cut due, rate at its floor", "due"
        self._cuts += 1
        limit = self._settings["max_reductions"]
        if self._cuts >= (INT32_MAX if limit is None else limit):
            self._finished = True
        return f"{why}cut {step.cut}", "cut"

    def _count_at_floor(self, step: Step) -> None:
        limit = self._settings["patience_at_min"]
        if limit is None or not step.at_floor:
            return
        self._at_floor += 1
        if self._at_floor >= limit:
            self._finished = True
