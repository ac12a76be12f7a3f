"""The states of torch's schedules: checked before one is loaded, which torch's own load does not.

What a state may be is read off the state that the schedule has now: the same keys, the same kinds
of values. Whether the schedule can go on from it is tried on a copy.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CyclicLR,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    OneCycleLR,
)

from ..lanes.readable import check_readable, is_out_of_memory, kind_of
from ..lanes.table import RATE, SETTINGS
from ..lanes.values import checked
from .fields import as_dict, checked_rate, items_of

__all__ = ["check_schedule", "restored_on_error"]

REHEARSED = 100
_EPOCHS = SETTINGS["threshold"]._replace(
    low=-1.0, open_low=False, expected="a finite number of -1 or more"
)
_RATES = ("base_lrs", "_last_lr")
_CALLABLES = ("lr_lambdas", "_scale_fn_custom")  # objects of the user's, as dicts or None


def check_schedule(schedule: LRScheduler, state: Any, rates: Sequence[float], label: str) -> None:
    """Refuse a state with which ``schedule`` could not go on from ``rates``; changes nothing.

    Of a schedule that is not torch's only what torch's base class keeps is checked.

    Raises KeyError, TypeError or ValueError.
    """
    _check_state(schedule, state, label)
    if _may_be_rehearsed(schedule):
        _rehearse(schedule, state, rates, label)


@contextmanager
def restored_on_error(schedules: Sequence[LRScheduler]) -> Iterator[list[bool]]:
    """Give the schedules their states back if the block raises before it filled this list."""
    done: list[bool] = []
    before = [copy.deepcopy(schedule.state_dict()) for schedule in schedules]
    last = [schedule._last_lr for schedule in schedules]  # these very objects are compared later
    try:
        yield done
    except BaseException:
        for schedule, state, rates in zip(schedules, before, last, strict=True):
            if done:
                break
            schedule.load_state_dict(state)
            schedule._last_lr = rates
        raise


# -- what is in a state ---------------------------------------------------------------------------


def _check_state(schedule: LRScheduler, state: Any, label: str) -> None:
    given, now = as_dict(label, state), schedule.state_dict()
    own = type(schedule).__module__.startswith("torch.")
    odd = sorted(map(str, given.keys() - now.keys())) if own else []
    # names of torch's bookkeeping differ between its versions
    odd += sorted(name for name in now.keys() - given.keys() if own and name[0] != "_")
    if odd:
        raise KeyError(f"{label}: missing or unknown keys {odd}; expected the keys {sorted(now)}")
    for name in given.keys() & now.keys():
        here = f"{label}[{name!r}]"
        if name == "_schedulers":
            _check_states(schedule._schedulers, given[name], here)  # type: ignore[attr-defined]
        elif name in ("last_epoch", "_step_count"):
            _check_alike(here, given[name], now[name])
            checked(_EPOCHS, given[name], label=here)
        elif name in _RATES:
            _check_rates(here, given[name], now[name])
        elif name in _CALLABLES:
            _check_callables(here, given[name], now[name])
        elif own:
            _check_alike(here, given[name], now[name])


def _check_states(schedules: Sequence[LRScheduler], states: Any, label: str) -> None:
    given = items_of(states, label, len(schedules))
    for i, (schedule, state) in enumerate(zip(schedules, given, strict=True)):
        _check_state(schedule, state, f"{label}[{i}]")


def _check_rates(label: str, given: Any, now: Any) -> None:
    for i, rate in enumerate(items_of(given, label, len(now))):
        checked_rate(RATE, rate, f"{label}[{i}]")
        _check_has_no_past(f"{label}[{i}]", rate)


def _check_has_no_past(label: str, given: Any) -> None:
    """Refuse a tensor from which rates would be computed that cannot be copied, so not saved."""
    if isinstance(given, Tensor) and given.requires_grad:
        raise TypeError(f"{label}: expected a tensor that requires no grad; pass .detach()")


def _check_callables(label: str, given: Any, now: Any) -> None:
    if isinstance(now, list):
        items = items_of(given, label, len(now))
        for i, (each, own) in enumerate(zip(items, now, strict=True)):
            _check_callables(f"{label}[{i}]", each, own)
    elif (given is None) != (now is None) or not isinstance(given, (dict, type(None))):
        raise TypeError(f"{label}: expected {kind_of(now)}, got {kind_of(given)}")


def _check_alike(label: str, given: Any, now: Any) -> None:
    """Refuse a value that is not of the kind of the one that is there now."""
    if _is_number(now) and _is_number(given):
        _check_number(label, given, now)
    elif type(given) is not type(now):
        raise TypeError(f"{label}: expected {kind_of(now)}, got {kind_of(given)}")
    elif isinstance(now, (list, tuple)):
        items = items_of(given, label, len(now))
        for i, (each, own) in enumerate(zip(items, now, strict=True)):
            _check_alike(f"{label}[{i}]", each, own)
    elif isinstance(now, dict):
        _check_dict(label, given, now)


def _check_dict(label: str, given: dict[Any, Any], now: dict[Any, Any]) -> None:
    if all(isinstance(name, str) for name in now) and now:
        if given.keys() != now.keys():
            odd = sorted(map(str, given.keys() ^ now.keys()))
            raise KeyError(f"{label}: missing or unknown keys {odd}")
        for name, own in now.items():
            _check_alike(f"{label}[{name!r}]", given[name], own)
        return
    for name, value in given.items():  # milestones and how often each comes
        for each in (name, value):
            if not _is_number(each):
                raise TypeError(f"{label}: expected numbers, got {kind_of(each)}")
            _check_number(label, each, 0)


def _is_number(value: Any) -> bool:
    """Whether this is a number that may stand for another: a tensor only for a real one."""
    return isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)


def _check_number(label: str, given: Any, now: Any) -> None:
    if isinstance(given, Tensor):
        check_readable(given, label)
        _check_has_no_past(label, given)
        shape = now.shape if isinstance(now, Tensor) else torch.Size()
        if not given.is_floating_point() or isinstance(now, int) or given.shape != shape:
            raise TypeError(f"{label}: expected {_kind(now)}, got {_kind(given)}")
        finite = bool(given.isfinite().all())
    else:
        if isinstance(now, Tensor) and now.ndim > 0:
            raise TypeError(f"{label}: expected {_kind(now)}, got {kind_of(given)}")
        try:
            finite = math.isfinite(given)
        except OverflowError:
            finite = False
    if not finite:
        raise ValueError(f"{label}: expected a finite number, got {given}")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor, {value.dtype} {tuple(value.shape)}"
    return kind_of(value)


# -- whether it can go on -------------------------------------------------------------------------


def _may_be_rehearsed(schedule: LRScheduler) -> bool:
    """Whether all that a step calls is torch's: functions of the user's may do anything."""
    parts = getattr(schedule, "_schedulers", ())
    calls = isinstance(schedule, (LambdaLR, MultiplicativeLR)) or (
        isinstance(schedule, CyclicLR) and schedule._scale_fn_custom is not None
    )
    torchs = type(schedule).__module__.startswith("torch.")
    return torchs and not calls and all(map(_may_be_rehearsed, parts))


def _is_over(schedule: LRScheduler) -> bool:
    """Whether a step led past the end that one of torch's schedules has."""
    ends = isinstance(schedule, OneCycleLR) and schedule.last_epoch > schedule.total_steps
    return ends or any(map(_is_over, getattr(schedule, "_schedulers", ())))


def _rehearse(schedule: LRScheduler, state: Any, rates: Sequence[float], label: str) -> None:
    """Load a state into a copy, on a stand-in for the optimizer, and step that for a while."""
    name, optimizer = type(schedule).__name__, schedule.optimizer
    try:
        twin = copy.deepcopy(schedule, {id(optimizer): _StandIn(optimizer, rates)})
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return  # what cannot be copied cannot be tried
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the order of steps
            twin.load_state_dict(copy.deepcopy(state))
            for _ in range(REHEARSED):
                try:
                    twin.step()
                except ValueError:
                    if _is_over(twin):
                        return
                    raise
                for i, group in enumerate(twin.optimizer.param_groups):
                    checked_rate(RATE, group["lr"], f"rate of group {i}")
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"{kind_of(error)}: {error}"
        raise ValueError(f"{label}: this {name} could not go on from it ({reason})") from error


class _StandIn(SGD):
    """An optimizer with the groups of another, but no parameters worth a copy."""

    def __init__(self, optimizer: Optimizer, rates: Sequence[float]) -> None:
        params = [torch.zeros(1, device="cpu") for _ in optimizer.param_groups]
        super().__init__([{"params": [param]} for param in params], lr=1.0)
        self.defaults = dict(optimizer.defaults)
        for mine, group, rate in zip(self.param_groups, optimizer.param_groups, rates, strict=True):
            options = {name: value for name, value in group.items() if name != "params"}
            mine.update(copy.deepcopy(options), lr=rate)
