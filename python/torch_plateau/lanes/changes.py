"""Other rates or settings for some lanes: checked, and merged with those of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .readable import check_readable
from .selection import Chosen
from .settings import check_averages, check_rule, checked_setting, placed
from .state import LONGER, LaneState
from .table import RATE, SETTINGS, STATE, Row
from .values import shown
from .writes import Write, writing

__all__ = ["changed", "changed_for_all"]

_WARM_UP = {"warmup_steps", "warmup_start_factor"}


def changed(state: LaneState, which: Chosen, changes: Mapping[str, Any]) -> LaneState | list[Write]:
    """Return what makes the changes, ``lr`` or settings, that ``PlateauLanes.set_lanes`` takes.

    Raises TypeError or ValueError.
    """
    given = {name: _value(state, name, value, which) for name, value in changes.items()}
    groups = state.per_group(which.mask)
    rates = {}
    if "lr" in given:
        rate = state.per_group(given.pop("lr"))
        rates = {"rate": rate, "published": rate.float()}
    if not given and not state.settles:
        return writing(state, which.mask, groups, rates)
    merged = {}
    for name, value in given.items():
        row, old = SETTINGS[name], state.setting(name)
        if row.of == "group":
            merged[name] = torch.where(groups, state.per_group(value), old)
        else:
            merged[name] = torch.where(which.mask, value, old)
    check_averages({**state.settings, **merged}, state.dtype)
    fields = _sums_forgotten(state, which.mask, merged)
    if merged.keys() & _WARM_UP:  # what others wrote goes into the master, before a warm-up
        master = state.master()  # begins to scale it; and what a warm-up scaled comes back
        fields |= {"rate": master, "published": master.float()}
    state = state.replaced(fields, merged).complete()
    return state.where(which.mask, groups, rates).settled()


def changed_for_all(state: LaneState, changes: Mapping[str, Any]) -> LaneState:
    """Return the lanes with settings as the constructor takes them: one value stays one.

    Raises TypeError or ValueError.
    """
    offsets = None if state.offsets is None else state.offsets.cpu()
    given: dict[str, float | Tensor] = {}
    for name, value in changes.items():
        found = checked_setting(SETTINGS[name], value, state.n, offsets)
        given[name] = found.to(state.device) if isinstance(found, Tensor) else found
    check_averages({**state.settings, **given}, state.dtype)
    check_rule({**state.settings, **given})
    every = torch.ones(state.n, dtype=torch.bool, device=state.device)
    new = state.replaced(_sums_forgotten(state, every, given), given)
    window = new.settings["window"]
    longest = window if not isinstance(window, Tensor) else window.max() if len(window) else 1
    if "recent" in state.fields and 1 < state.window_rows < longest:
        raise ValueError(LONGER.format(state.window_rows, int(longest)))
    for name in [name for name in new.fields if not new.needs(STATE[name])]:
        del new.fields[name]  # a state that is saved holds what its settings need
    return new.complete().settled()


def _sums_forgotten(
    state: LaneState, mask: Tensor, changes: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return what is left of the sums of windows: with others they are added up anew."""
    if "window" not in changes or "recent_sum" not in state.fields:
        return {}
    return {"recent_sum": state.fields["recent_sum"].masked_fill(mask, math.nan)}


def _value(state: LaneState, name: str, value: Any, which: Chosen) -> Tensor:
    """A value to set, checked: on the lanes' device, 0-d or one per lane."""
    row = RATE if name == "lr" else SETTINGS[name]
    if row.of == "batch":
        raise ValueError(
            f"{name}: expected it for all lanes, in the constructor, got {shown(value)}"
        )
    old = state.settings.get(name)
    if row.may_be_none and not isinstance(old, Tensor) and old == row.first:
        raise ValueError(f"{name}: expected lanes that were built with it, got None in the others")
    if isinstance(value, Tensor) and not value.is_cpu:
        return which.spread(_unchecked(row, name, value, which.size, state.device))
    if row.may_be_none and value is None:
        raise TypeError(f"{name}: expected a number for these lanes, got None")
    found = checked_setting(row._replace(name=name, of="lane"), value, which.size)
    if name == "window" and "recent" in state.fields:
        longest = state.window_rows
        new = max(found.tolist(), default=1) if isinstance(found, Tensor) else int(found)
        if new > longest:
            raise ValueError(LONGER.format(longest, new))
    return which.spread(placed(row, found, state.device))


def _unchecked(row: Row, name: str, value: Tensor, size: int, device: torch.device) -> Tensor:
    """A value to set that is on a GPU: only what is known without waiting is checked."""
    check_readable(value, name)
    if value.device != device or value.shape not in ((), (size,)):
        raise ValueError(
            f"{name}: expected one number or shape ({size},) on {device}, got shape "
            f"{tuple(value.shape)} on {value.device}"
        )
    wrong = value.dtype != torch.uint8 if row.words else value.dtype == torch.bool
    if wrong or value.is_complex():
        wanted = "uint8 codes" if row.words else "numbers"
        raise TypeError(f"{name}: expected {wanted}, got {value.dtype}")
    return value.detach().to(row.dtype)
