"""The state of a whole stack as it is saved, and back: all checks, and then all writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..lanes.readable import check_readable, is_out_of_memory
from ..lanes.saved import restored
from ..lanes.table import STATE
from ..lanes.values import check_keys, checked
from ..lanes.writes import Write
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
    new = restored(given["lanes"], state.n, state.groups, state.capacity, lanes.dtype, lanes.device)
    if (given["best"] is None) != (stack.best is None):
        raise ValueError(
            f"state_dict['best']: expected {'one' if stack.best else 'None'}, as this stack has, "
            "got the other"
        )
    writes: list[Write] = [] if stack.best is None else stack.best._restoring(given["best"])
    writes += [
        copy
        for label, own in (("params", stack.params), ("buffers", stack.buffers))
        for copy in _copies(f"state_dict[{label!r}]", given[label], own)
    ]
    row = STATE["num_steps"]
    skipped = checked(
        row, given["skipped"], len(stack), scalar=False, label="state_dict['skipped']"
    )
    writes.append(partial(stack._skipped.copy_, skipped))
    with _restored_on_error(stack.optimizer) as done:
        _load_optimizer(stack.optimizer, given["optimizer"])
        lanes._change(lambda _: new, also=lambda: [*writes, partial(done.append, True)])


@contextmanager
def _restored_on_error(optimizer: Optimizer) -> Iterator[list[bool]]:
    """Give an optimizer its state back if the block raises before it filled this list."""
    before, done = (optimizer.state, optimizer.param_groups), list[bool]()
    try:
        yield done
    except BaseException:
        if not done:
            optimizer.state, optimizer.param_groups = before
        raise


def _copies(label: str, given: Any, own: Mapping[str, Tensor]) -> list[Write]:
    """Return what writes the given values into the stack's own tensors."""
    found = named_tensors(label, as_dict(label, given))
    check_keys(label, found, own)
    for name, tensor in own.items():
        check_like(f"{label}[{name!r}]", found[name], tensor)
    return [partial(tensor.detach().copy_, found[name]) for name, tensor in own.items()]


def _load_optimizer(optimizer: Optimizer, given: Any) -> None:
    """Load an optimizer's state; raises KeyError, TypeError or ValueError where that fails."""
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
    except Exception as error:
        if isinstance(error, (KeyError, TypeError, ValueError)) or is_out_of_memory(error):
            raise
        raise ValueError(f"{label}: cannot load this: {error}") from error


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
