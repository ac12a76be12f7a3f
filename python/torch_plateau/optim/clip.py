"""Clipping the gradients of stacked parameters, lane by lane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .stacked import named_tensors

__all__ = ["clip_lane_grad_norm_"]


@torch.no_grad()
def clip_lane_grad_norm_(params: Any, max_norm: float | Tensor, norm_type: float = 2.0) -> Tensor:
    """Clip the gradients of each lane by the norm of that lane's own; return the norms, ``(n,)``.

    ::

        norm[lane] = norm of all gradients of the lane, as one vector
        grad[lane] = grad[lane] * min(1, max_norm / (norm[lane] + 1e-6))

    What ``torch.nn.utils.clip_grad_norm_`` does to separate models; of a stack that takes one norm
    of all lanes, and one lane with a NaN makes NaN of all. Here a lane whose norm is not finite
    spoils its own gradients alone: :meth:`LaneStack.step` skips it.

    In place; does not synchronise.

    Args:
        params: Stacked parameters ``[n, ...]`` on one device, or a mapping to them. Those without
            a gradient are left out.
        max_norm: The largest norm, or one for each lane, shape ``(n,)`` on their device.
        norm_type: Of the p-norm; may be ``inf``.

    Raises TypeError or ValueError, with nothing changed, for parameters that have not equally many
    rows, sparse gradients, or none at all.
    """
    named = named_tensors("params", params)
    if not named:
        raise ValueError("params: expected at least one tensor, got none")
    rows = {name: _rows(name, param) for name, param in named.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"params: expected equally many rows in all, got {rows}")
    n = next(iter(rows.values()))
    device = next(iter(named.values())).device
    if isinstance(max_norm, Tensor) and max_norm.shape not in ((), (n,)):
        raise ValueError(
            f"max_norm: expected one number or shape ({n},), got {tuple(max_norm.shape)}"
        )
    grads = list(_dense_gradients(named.values()))
    if not grads:
        return torch.zeros(n, device=device)
    each = torch.stack([_norm_of(grad, norm_type) for grad in grads])
    norms: Tensor = torch.linalg.vector_norm(each, norm_type, dim=0)
    factor = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor.to(grad.dtype).view(-1, *[1] * (grad.ndim - 1)))
    return norms


def _rows(name: str, param: Tensor) -> int:
    if param.ndim == 0:
        raise ValueError(f"params[{name!r}]: expected shape [n, ...], got ()")
    return len(param)


def _dense_gradients(params: Iterable[Tensor]) -> Iterable[Tensor]:
    for param in params:
        if param.grad is not None:
            if param.grad.layout != torch.strided:
                raise ValueError(f"params: expected dense gradients, got {param.grad.layout}")
            yield param.grad


def _norm_of(grad: Tensor, norm_type: float) -> Tensor:
    """Return the norm of each row."""
    inside = tuple(range(1, grad.ndim + 1))
    norm: Tensor = torch.linalg.vector_norm(grad[..., None], norm_type, dim=inside)
    return norm
