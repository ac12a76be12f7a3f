"""The recorded cuts of lanes, as Python numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .state import LaneState

__all__ = ["Cut", "Cuts", "read_events"]


class Cut(NamedTuple):
    """One rate that was lowered, or raised."""

    lane: int
    group: int  # numbered over all lanes; the lane's own number where lanes have one rate each
    step: int  # the lane's own, from 1
    old_rate: float
    new_rate: float
    metric: float  # that decided: the average, where there is one
    best: float


class Cuts(NamedTuple):
    """What :meth:`PlateauLanes.events` returns."""

    cuts: list[Cut]
    overwritten: int


def read_events(state: LaneState) -> Cuts:
    """Return the cuts in the ring of ``state``, oldest first; synchronises."""
    fields = state.fields
    written, size = int(fields["events_written"]), len(fields["events_lane"])
    first = max(written - size, int(fields["events_first"]))
    order = torch.arange(first, written, device=state.device) % size
    columns = [fields[f"events_{name}"][order].tolist() for name in Cut._fields]
    return Cuts([Cut(*row) for row in zip(*columns, strict=True)], first)
