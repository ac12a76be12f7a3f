"""Optimizers as schedulers are given them, and the rates in their param groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..lanes.readable import check_readable
from ..lanes.table import RATE
from ..lanes.values import checked

__all__ = ["checked_optimizers", "rate_in", "rates_of", "unwrapped"]


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside of wrappers, such as Fabric's, Lightning's and accelerate's."""
    for name in ("optimizer", "_optimizer"):
        inner = getattr(optimizer, name, None)
        if inner is not optimizer and isinstance(inner, Optimizer):
            return unwrapped(inner)
    return optimizer


def rates_of(groups: list[dict[str, Any]]) -> list[Any]:
    """Return the rates of param groups; tensors are cloned, so nothing is aliased."""
    return [
        group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in groups
    ]


def rate_in(group: dict[str, Any], index: int) -> float:
    """Read one group's rate; synchronises if it is a tensor on another device."""
    value, label = group["lr"], f"param_groups[{index}]['lr']"
    if isinstance(value, Tensor):
        check_readable(value, label)
        if value.numel() != 1:
            raise ValueError(f"{label}: expected one element, got shape {tuple(value.shape)}")
        value = value.reshape(())
    return checked(RATE, value, label=label).item()


def checked_optimizers(optimizers: Any) -> list[Optimizer]:
    """Return optimizers as a list: at least one, all different, with different groups."""
    many = isinstance(optimizers, Sequence)
    given = list(optimizers) if many else [optimizers]
    if not given:
        raise ValueError("optimizers: expected at least one, got an empty sequence")
    for i, optimizer in enumerate(given):
        if not isinstance(optimizer, Optimizer):
            where = f"optimizers[{i}]" if many else "optimizers"
            raise TypeError(f"{where}: expected an Optimizer, got {type(optimizer).__name__}")
    _check_distinct("optimizers", given)
    _check_distinct("param groups", [group for o in given for group in o.param_groups])
    return given


def _check_distinct(name: str, things: list[Any]) -> None:
    first: dict[int, int] = {}
    for i, thing in enumerate(things):
        if first.setdefault(id(thing), i) != i:
            raise ValueError(
                f"{name}: expected different ones, got the same at {first[id(thing)]} and {i}"
            )
