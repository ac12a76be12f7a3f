"""Which tensors of an optimizer have a row for each lane, and how rows are moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..lanes.selection import Chosen

__all__ = ["across", "append_rows", "fill", "keep_rows", "options_of", "state_rows"]


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


def fill(which: Chosen, tensor: Tensor, rows: Tensor | None = None) -> None:
    """Write new rows, as many as were named, to the chosen lanes; 0 unless told."""
    mask = across(which.mask, tensor)
    if rows is None:
        tensor.detach().masked_fill_(mask, 0)
    else:
        target = tensor.detach()
        torch.where(mask, which.spread(rows), target, out=target)


def keep_rows(tensors: Iterable[Tensor], numbers: Tensor) -> None:
    """Make tensors of fewer rows of themselves: the same objects, of other memory."""
    for tensor, kept in [(each, each.detach()[numbers]) for each in tensors]:
        tensor.data = kept


def append_rows(added: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Make tensors longer: the same objects, of other memory."""
    for tensor, joined in [(each, torch.cat([each.detach(), rows])) for each, rows in added]:
        tensor.data = joined
