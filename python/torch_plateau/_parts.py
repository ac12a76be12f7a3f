"""The state of optional parts: which tensors lanes need for their settings, and their start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["AT_MIN", "EVENTS", "FINISHED", "LANE_PARTS", "new_parts"]

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


def new_parts(
    settings: Mapping[str, Any],
    n: int,
    groups: int,
    events: int,
    longest: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return fresh tensors for the optional parts that ``settings`` use.

    ``recent``, the window, is flat: ``longest`` rows of ``n``.
    """
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
        name: torch.full((n,), first, dtype=dtype, device=device)
        for name, (dtype, first) in LANE_PARTS.items()
        if name in wanted
    }
    if longest > 1:
        parts["recent"] = torch.zeros(longest * n, dtype=torch.float64, device=device)
    if events:
        capacity = max(events, groups)  # so that the cuts of one step never overwrite each other
        for name, dtype in EVENTS.items():
            parts[name] = torch.zeros(capacity, dtype=dtype, device=device)
        parts["events_written"] = torch.zeros(1, dtype=torch.int64, device=device)
    return parts


def _differs(value: Tensor, off: float) -> bool:
    return value.ndim > 0 or value.item() != off
