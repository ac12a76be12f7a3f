"""Finishing the worst lanes, ranked on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from .settings import placed
from .state import FINISHED, LaneState
from .table import SETTINGS, STOP_REASONS

__all__ = ["halved", "worst"]

_PRUNED = STOP_REASONS.index("pruned")


def worst(state: LaneState, metrics: Tensor, keep: float) -> Tensor:
    """Return which live lanes are not among the best, bool ``(n,)``; never synchronises.

    ``PlateauLanes.halve`` says which those are. Raises ValueError where lanes differ in their mode.
    """
    mode = state.settings["mode"]
    if isinstance(mode, Tensor):
        raise ValueError("mode: expected one for all lanes, to rank them, got one per lane")
    maximize = mode == SETTINGS["mode"].words.index("max")
    values = metrics.double()
    ranked = (-values if maximize else values).argsort(stable=True)  # which puts NaN last
    finished = (state.fields["flags"] & FINISHED).bool()
    ranked = ranked[finished[ranked].byte().argsort(stable=True)]  # live ones first
    place = torch.empty_like(ranked).scatter_(0, ranked, torch.arange(state.n, device=state.device))
    kept = ((~finished).sum() * keep).round().clamp(min=1)
    return (place >= kept) & ~finished


def halved(state: LaneState, metrics: Tensor, keep: float) -> tuple[LaneState, Tensor]:
    """Return the lanes with the worst finished, and which those are; never synchronises."""
    if not state.has_parts:  # a plain step does not ask whether a lane is finished: one that is
        row = SETTINGS["nan"]  # told by each lane what NaN does takes all parts, and adds no state
        nan = placed(row, state.settings["nan"], state.device).expand(state.n).contiguous()
        state = state.replaced({}, {"nan": nan}).complete()
    found = worst(state, metrics, keep)
    flags, reason = state.fields["flags"], state.fields["stop_reason"]
    fields = {
        "flags": torch.where(found, flags | FINISHED, flags),
        "stop_reason": reason.masked_fill(found, _PRUNED),
    }
    return state.replaced(fields), found
