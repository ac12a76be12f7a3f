"""What stands in for a composed plateau's optimizers: its rates, which begin at 1, are scales."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim import SGD, Optimizer

from .. import _core
from .batched import BatchedReduceLROnPlateau
from .plateau import ReduceLROnPlateau

__all__ = ["Plateau", "Scales", "as_before", "optimizers_of", "take_over_lanes"]

Plateau = ReduceLROnPlateau | BatchedReduceLROnPlateau


class Scales(SGD):
    """Stands in for an optimizer of the plateau: its rates, which begin at 1, are the scales."""

    def __init__(self, count: int) -> None:
        params = [torch.zeros(1, device="cpu") for _ in range(count)]
        super().__init__([{"params": [param]} for param in params], lr=1.0)


def optimizers_of(plateau: Plateau) -> list[Optimizer]:
    """Return the optimizers whose rates the plateau lowers."""
    if isinstance(plateau, BatchedReduceLROnPlateau):
        return plateau._optimizers
    return [plateau.optimizer]


def as_before(plateau: Plateau) -> Callable[[], None]:
    """Return what makes a plateau, and the rates that it lowers, what they are now.

    No context manager: memory could end, or Ctrl-C come, as that is left when all is done.
    """
    groups = [group for each in optimizers_of(plateau) for group in each.param_groups]
    rates, attributes = [group["lr"] for group in groups], dict(plateau.__dict__)
    if isinstance(plateau, BatchedReduceLROnPlateau):
        own, hooks = plateau._own, plateau._hooks
        params, state = own.params, plateau._checked(plateau.state_dict())
    values = [rate.clone() if isinstance(rate, torch.Tensor) else None for rate in rates]

    def put_back() -> None:
        if isinstance(plateau, BatchedReduceLROnPlateau):
            own.params = params
            for hook in hooks:
                hook.add(plateau)
            plateau._take(state)
        for rate, value in zip(rates, values, strict=True):
            if value is not None:
                rate.copy_(value)
        _core.put_rates(groups, rates, plateau, {})
        plateau.__dict__.update(attributes)  # unchecked, which would take memory

    return put_back


def take_over_lanes(plateau: BatchedReduceLROnPlateau) -> list[float]:
    """Make the lanes' rates scales, on stand-ins; return the floors that they had."""
    state = plateau.state_dict()
    lanes, count = state["lanes"], len(plateau._published)
    floors = torch.as_tensor(lanes["settings"]["min_lr"], dtype=torch.float64).expand(count)
    lanes["lr"], lanes["start_lr"] = torch.ones_like(lanes["lr"]), torch.ones_like(lanes["lr"])
    lanes["settings"]["min_lr"] = 0.0
    for hook in plateau._hooks:
        hook.remove(plateau)
    one = isinstance(plateau.optimizer, Optimizer)
    plateau._optimizers = [Scales(len(each.param_groups)) for each in plateau._optimizers]
    plateau.__dict__["optimizer"] = plateau._optimizers[0] if one else plateau._optimizers
    plateau._own.params = [group["params"] for group in plateau._groups()]
    plateau.load_state_dict(state)
    plateau._attach()
    return plateau._own.by_group(floors.tolist())
