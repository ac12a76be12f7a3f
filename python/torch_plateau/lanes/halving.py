"""Finishing the worst lanes, ranked on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import placed
from .state import FINISHED, LaneState
from .table import SETTINGS, STOP_REASONS

__all__ = ["finishing", "halved", "maximizes", "worst"]

_PRUNED = STOP_REASONS.index("pruned")


def maximizes(state: LaneState) -> bool:
    """Return whether higher metrics are better. Raises ValueError where lanes differ in that."""
    mode = state.settings["mode"]
    if isinstance(mode, Tensor):
        raise ValueError("mode: expected one for all lanes, to rank them, got one per lane")
    return mode == SETTINGS["mode"].words.index("max")


def worst(values: Tensor, finished: Tensor, keep: float, maximize: bool) -> Tensor:
    """Return which live lanes are not among the best, bool ``(n,)``; never synchronises.

    ``PlateauLanes.halve`` says which those are.
    """
    ranked = (-values if maximize else values).argsort(stable=True)  # which puts NaN last
    ranked = ranked[finished[ranked].byte().argsort(stable=True)]  # live ones first
    places = torch.arange(len(values), device=values.device)
    place = torch.empty_like(ranked).scatter_(0, ranked, places)
    kept = ((~finished).sum() * keep).round().clamp(min=1)
    return (place >= kept) & ~finished


def finishing(state: LaneState, found: Tensor) -> LaneState:
    """Return the lanes with those in the mask ``found`` finished; never synchronises."""
    if not state.has_parts:  # a plain step does not ask whether a lane is finished: one that is
        row = SETTINGS["nan"]  # told by each lane what NaN does takes all parts, and adds no state
        nan = placed(row, state.settings["nan"], state.device).expand(state.n).contiguous()
        state = state.replaced({}, {"nan": nan}).complete()
    flags, reason = state.fields["flags"], state.fields["stop_reason"]
    fields = {
        "flags": torch.where(found, flags | FINISHED, flags),
        "stop_reason": reason.masked_fill(found, _PRUNED),
    }
    return state.replaced(fields)


def halved(state: LaneState, metrics: Tensor, keep: float) -> tuple[LaneState, Tensor]:
    """Return the lanes with the worst finished, and which those are; never synchronises."""
    flags = state.fields.get("flags")
    none = torch.zeros(state.n, dtype=torch.bool, device=state.device)
    finished = none if flags is None else (flags & FINISHED).bool()
    found = worst(metrics.double(), finished, keep, maximizes(state))
    return finishing(state, found), found
