"""The state of optional parts: which tensors lanes need for their settings, and their start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["AT_MIN", "EVENTS", "EVENT_COUNTS", "FINISHED", "LANE_PARTS", "new_parts"]

FINISHED, AT_MIN = 1, 4  # bits of the flags, csrc/plateau/options.hpp

# Name, type and first value of what each lane has one of.
LANE_PARTS: dict[str, tuple[torch.dtype, float]] = {
    "flags": (torch.uint8, 0),
    "age": (torch.int64, 0),
    "last_reduction": (torch.int64, 0),
    "at_min_steps": (torch.int32, 0),
    "total": (torch.float64, 0.0),
    "taken": (torch.int32, 0),
    "pushed": (torch.int64, 0),
    "smooth": (torch.float64, 0.0),
    "smooth_rest": (torch.float64, 1.0),
}
EVENTS: dict[str, torch.dtype] = {
    "events_lane": torch.int64,
    "events_group": torch.int64,
    "events_step": torch.int64,
    "events_old_rate": torch.float64,
    "events_new_rate": torch.float64,
    "events_metric": torch.float64,
    "events_best": torch.float64,
}
EVENT_COUNTS = ("events_written", "events_first")  # all ever; those that the ring never held


def new_parts(
    settings: Mapping[str, Any],
    n: int,
    groups: int,
    events: int,
    longest: int,
    device: torch.device,
    kept: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return tensors for the optional parts that ``settings`` use: those in ``kept``, or fresh.

    ``recent``, the window, is flat: ``longest`` rows of ``n``.
    """

    def part(name: str, size: int, dtype: torch.dtype, first: float = 0) -> Tensor:
        if kept is not None and name in kept:
            return kept[name]
        return torch.full((size,), first, dtype=dtype, device=device)

    wanted = ["flags", "age", "last_reduction"]
    if settings["patience_at_min"] is not None:
        wanted.append("at_min_steps")
    if _differs(settings["accumulate"], 1):
        wanted += ["total", "taken"]
    if _differs(settings["smoothing"], 0.0):
        wanted += ["smooth", "smooth_rest"]
    if longest > 1:
        wanted.append("pushed")
    parts = {
        name: part(name, n, dtype, first)
        for name, (dtype, first) in LANE_PARTS.items()
        if name in wanted
    }
    if longest > 1:
        parts["recent"] = part("recent", longest * n, torch.float64)
    if events:
        capacity = max(events, groups)  # so that the cuts of one step never overwrite each other
        for name, dtype in EVENTS.items():
            parts[name] = part(name, capacity, dtype)
        for name in EVENT_COUNTS:
            parts[name] = part(name, 1, torch.int64)
    return parts


def _differs(value: Tensor, off: float) -> bool:
    return value.ndim > 0 or value.item() != off
