"""The state of a whole stack as it is saved, and back: all checks, and then all writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..lanes.readable import check_readable
from ..lanes.saved import restored
from ..lanes.table import STATE
from ..lanes.values import check_keys, checked
from .fields import as_dict, items_of
from .rows import state_rows
from .stacked import check_like, named_tensors

if TYPE_CHECKING:
    from .stack import LaneStack

__all__ = ["load", "snapshot"]

_KEYS = ("lanes", "optimizer", "best", "params", "buffers", "skipped")


def snapshot(stack: LaneStack) -> dict[str, Any]:
    """Return clones and primitives; does not synchronise."""
    return {
        "lanes": stack.lanes.state_dict(),
        "optimizer": _cloned(stack.optimizer.state_dict(), "optimizer"),
        "best": None if stack.best is None else stack.best.state_dict(),
        "params": _cloned(stack.params, "params"),
        "buffers": _cloned(stack.buffers, "buffers"),
        "skipped": stack.skipped,
    }


@torch.no_grad()
def load(stack: LaneStack, given: Any) -> None:
    """Restore a snapshot, as ``LaneStack.load_state_dict`` documents."""
    check_keys("state_dict", given, _KEYS)
    lanes, state = stack.lanes, stack.lanes._state
    restored(given["lanes"], state.n, lanes.groups, state.capacity, lanes.dtype, lanes.device)
    if (given["best"] is None) != (stack.best is None):
        raise ValueError(
            f"state_dict['best']: expected {'one' if stack.best else 'None'}, as this stack has, "
            "got the other"
        )
    if stack.best is not None:
        stack.best._checked(given["best"])
    writes = [
        pair
        for label, own in (("params", stack.params), ("buffers", stack.buffers))
        for pair in _checked(f"state_dict[{label!r}]", given[label], own)
    ]
    row = STATE["num_steps"]
    skipped = checked(
        row, given["skipped"], len(stack), scalar=False, label="state_dict['skipped']"
    )
    _load_optimizer(stack.optimizer, given["optimizer"])
    for tensor, value in writes:
        tensor.detach().copy_(value)
    stack._skipped.copy_(skipped)
    if stack.best is not None:
        stack.best.load_state_dict(given["best"])
    lanes.load_state_dict(given["lanes"])


def _checked(label: str, given: Any, own: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    found = named_tensors(label, as_dict(label, given))
    check_keys(label, found, own)
    for name, tensor in own.items():
        check_like(f"{label}[{name!r}]", found[name], tensor)
    return [(tensor, found[name]) for name, tensor in own.items()]


def _load_optimizer(optimizer: Optimizer, given: Any) -> None:
    """Load an optimizer's state; whatever goes wrong, it is then as it was."""
    before = optimizer.state, optimizer.param_groups
    label = "state_dict['optimizer']"
    try:
        check_keys(label, given, ("state", "param_groups"))
        for group in items_of(given["param_groups"], f"{label}['param_groups']"):
            own = as_dict(f"{label}['param_groups']", group)
            items_of(own.get("params"), f"{label}['param_groups']['params']")
        for param, values in as_dict(f"{label}['state']", given["state"]).items():
            as_dict(f"{label}['state'][{param!r}]", values)
        optimizer.load_state_dict(_cloned(given, label))
        list(state_rows(optimizer))
    except BaseException as error:
        optimizer.state, optimizer.param_groups = before
        if isinstance(error, Exception) and not isinstance(
            error, (KeyError, TypeError, ValueError)
        ):
            raise ValueError(f"{label}: cannot load this: {error}") from error
        raise


def _cloned(value: Any, label: str) -> Any:
    """Return a copy of mappings and sequences in which every tensor is a clone.

    Raises TypeError or ValueError for tensors that cannot be read.
    """
    if isinstance(value, Tensor):
        check_readable(value, label)
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _cloned(each, f"{label}[{key!r}]") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cloned(each, f"{label}[{i}]") for i, each in enumerate(value))
    return value
