"""Which tensors of an optimizer have a row for each lane, and how rows are moved.

A move is prepared, with all memory that it takes, and then done by a call that takes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..lanes.selection import Chosen
from ..lanes.writes import Write

__all__ = [
    "across",
    "appending",
    "copying_rows",
    "filling",
    "keeping",
    "options_of",
    "state_rows",
]

_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]  # tensor.data = other


def state_rows(optimizer: Optimizer) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Yield the tensors of the optimizer's state that have a row for each lane.

    Those are shaped as their parameter or ``[n]``; a tensor of no dimension, as torch's optimizers
    count steps in, and what is no tensor, belong to all lanes. Each comes with its parameter and
    its name. Raises ValueError for any other shape, of which nobody knows whose it is.
    """
    for number, group in enumerate(optimizer.param_groups):
        for param in group["params"]:
            for name, value in optimizer.state.get(param, {}).items():
                if not isinstance(value, Tensor) or value.ndim == 0:
                    continue
                if value.shape not in (param.shape, param.shape[:1]):
                    raise ValueError(
                        f"optimizer: expected in the state of param_groups[{number}] rows of shape "
                        f"{tuple(param.shape)}, one number a lane, or one for all, got "
                        f"{name!r} of shape {tuple(value.shape)}"
                    )
                yield param, name, value


def options_of(optimizer: Optimizer, n: int) -> Iterator[Tensor]:
    """Yield the options in param groups that have one number for each lane, as LaneAdamW's may."""
    for group in optimizer.param_groups:
        for name, option in group.items():
            for each in option if isinstance(option, (list, tuple)) else (option,):
                if name != "params" and isinstance(each, Tensor) and each.shape == (n,):
                    yield each


def across(values: Tensor, tensor: Tensor) -> Tensor:
    """Return a vector of one value per lane, shaped to broadcast over the rows of ``tensor``."""
    return values.view(-1, *[1] * (tensor.ndim - 1))


def filling(which: Chosen, tensor: Tensor, rows: Tensor | None = None) -> Write:
    """Return what writes new rows, as many as were named, to the chosen lanes; 0 unless told."""
    mask, target = across(which.mask, tensor), tensor.detach()
    if rows is None:
        return partial(target.masked_fill_, mask, 0)
    return partial(torch.where, mask, which.spread(rows), target, out=target)


def copying_rows(tensor: Tensor, come_from: Tensor, to: Tensor) -> Write:
    """Return what writes some rows to where others are."""
    target = tensor.detach()
    return partial(target.index_copy_, 0, to, target.index_select(0, come_from))


def keeping(tensor: Tensor, numbers: Tensor) -> Write:
    """Return what makes a tensor one of fewer rows: the same object, of other memory."""
    return partial(_SET_DATA, tensor, tensor.detach()[numbers])


def appending(tensor: Tensor, rows: Tensor) -> Write:
    """Return what makes a tensor longer: the same object, of other memory."""
    return partial(_SET_DATA, tensor, torch.cat([tensor.detach(), rows]))
