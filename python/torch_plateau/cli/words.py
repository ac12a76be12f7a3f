"""What a step of a lane did, in words: looked up from what the core said of it.

Nothing is decided or counted here: csrc/plateau/lane.hpp told the reason, and how far of how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..histories.replay import REASONS
from ..lanes.table import BITS

__all__ = ["Step", "tell"]


@dataclass(frozen=True)
class Step:
    """What was recorded of one step of a lane, by the names of the records, and what came of it."""

    why: int
    count: int
    limit: int
    value: float
    gate: float
    improved: bool
    fired: bool
    cut: str  # which rates were lowered to what; empty for none
    stop: str | None  # what finished the lane, if anything ever did


def tell(step: Step) -> tuple[str, str]:
    """Return the words, and the kind of the event.

    Kinds: ``"better"``, ``"cut"``, ``"due"`` (nothing was lowered), ``"finished"``, or ``""``.
    """
    words, event = _TOLD[REASONS[step.why & BITS["reason"]]](step)
    if step.why & BITS["finishes"]:
        return f"{words}, finished ({step.stop})", event or "finished"
    return words, event


def _warming(step: Step) -> tuple[str, str]:
    words = f"warm-up {step.count} of {step.limit}"
    return (f"{words}, new best", "better") if step.improved else (words, "")


def _cooling(step: Step) -> tuple[str, str]:
    left = f"{step.count} left" if step.count else "the last"
    if step.improved:
        return f"better, cooling, {left}", "better"
    return f"cooldown: ignored, {left}", ""


def _better(step: Step) -> tuple[str, str]:
    # there is no best yet as long as the gate is infinite
    return ("first value" if math.isinf(step.gate) else "better: new best"), "better"


def _bad(step: Step) -> tuple[str, str]:
    if not step.fired:
        return f"{_odd(step)}bad {step.count} of {step.limit}", ""
    sign = "=" if step.count == step.limit else ">"  # Keras and optax cut on the last one borne
    name = "first patience" if step.why & BITS["first"] else "patience"
    return _cut(step, f"bad {step.count} {sign} {name} {step.limit}: ", "")


def _odd(step: Step) -> str:
    """Say what is to be said of a bad step besides its number."""
    if math.isnan(step.value):
        return "NaN: "
    if math.isinf(step.value):
        return "infinite: "
    if step.why & BITS["gain"]:
        return "gain too small: "
    return "plateau starts: " if step.count == 1 else ""


def _diverged(step: Step) -> tuple[str, str]:
    if math.isfinite(step.value):
        return "past the bound", ""
    return "NaN" if math.isnan(step.value) else "infinite", ""


def _cut(step: Step, why: str, why_due: str) -> tuple[str, str]:
    if step.cut:
        return f"{why}cut {step.cut}", "cut"
    return f"{why_due}cut due, rate at its floor", "due"


_TOLD: dict[str, Callable[[Step], tuple[str, str]]] = {
    "passed": lambda _: ("finished", ""),
    "skipped": lambda _: ("NaN: skipped", ""),
    "froze": lambda _: ("NaN", ""),
    "collecting": lambda step: (f"collecting: {step.count} of {step.limit}", ""),
    "warming": _warming,
    "cooling": _cooling,
    "better": _better,
    "bad": _bad,
    "nan": lambda step: _cut(step, "NaN: ", "NaN: "),
    "diverged": _diverged,
}
