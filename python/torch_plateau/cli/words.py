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
    raised: bool
    move: str  # which rates were moved to what; empty for none
    stop: str | None  # what finished the lane, if anything ever did


def tell(step: Step) -> tuple[str, str]:
    """Return the words, and the kind of the event.

    Kinds: ``"better"``, ``"cut"``, ``"raised"``, ``"due"`` (nothing was moved), ``"finished"``, or
    ``""``.
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


def _above(step: Step) -> tuple[str, str]:
    return _cut(step, "above the band: ", "above: ") if step.fired else ("above the band", "")


def _below(step: Step) -> tuple[str, str]:
    return _raise(step, "below the band: ") if step.fired else ("below the band", "")


def _within(step: Step) -> tuple[str, str]:
    return ("NaN" if math.isnan(step.value) else "within the band"), ""


def _good(step: Step) -> tuple[str, str]:
    if not step.fired:
        return f"better: good {step.count} of {step.limit}", "better"
    sign = "=" if step.count == step.limit else ">"
    name = "first patience" if step.why & BITS["first"] else "patience"
    return _raise(step, f"good {step.count} {sign} {name} {step.limit}: ")


def _anew(step: Step) -> tuple[str, str]:
    words = f"cut {step.count} at the floor: begun anew"
    return _moved(step, f"{words}, ", words)


def _cut(step: Step, why: str, why_due: str) -> tuple[str, str]:
    return _moved(step, why, f"{why_due}cut due, rate at its floor")


def _raise(step: Step, why: str) -> tuple[str, str]:
    return _moved(step, why, f"{why}raise due, rate at its ceiling")


def _moved(step: Step, why: str, due: str) -> tuple[str, str]:
    """Say which way the rates went, whatever was due: a band brings them back to its bounds."""
    if not step.move:
        return due, "due"
    way = "raised" if step.raised else "cut"
    return f"{why}{way} {step.move}", way


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
    "above": _above,
    "below": _below,
    "within": _within,
    "good": _good,
    "anew": _anew,
}
