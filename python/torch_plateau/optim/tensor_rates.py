"""Which of torch's optimizers take a rate that is a tensor, and which do so without a sync.

The facts are torch 2.13's: where an optimizer reads its rate with ``float(lr)`` or ``.item()``, a
rate on a GPU makes the host wait for it at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import optim
from torch.optim import Optimizer

__all__ = ["check_takes_tensor_rate", "device_of", "sync_of"]


class _Kind(NamedTuple):
    types: tuple[type, ...]
    stays: Callable[[dict[str, Any]], bool]  # whether a group's options leave the rate on the GPU
    cure: str


_KINDS = [
    _Kind((optim.SGD,), lambda g: bool(g["fused"]), "set fused=True and leave foreach unset"),
    _Kind(
        (optim.Adam,),  # AdamW is one
        lambda g: bool(g["fused"] or g["capturable"]),
        "set capturable=True or fused=True",
    ),
    _Kind(
        (optim.RMSprop, optim.Adadelta),
        lambda g: g["capturable"] and g["foreach"] is not False,
        "set capturable=True and leave foreach unset",
    ),
    _Kind(
        (optim.Adagrad,),  # which takes foreach by itself only where fused is unset too
        lambda g: bool(g["fused"] or g["foreach"] or (g["fused"] is g["foreach"] is None)),
        "set foreach=True",  # fused=True too, but only newer torch has it on a GPU
    ),
    _Kind((optim.NAdam, optim.Adamax), lambda g: bool(g["capturable"]), "set capturable=True"),
    _Kind(
        (optim.Adafactor, optim.Muon),
        lambda _: False,
        "no option of it avoids that: use publish='float'",
    ),
]  # RAdam, SparseAdam and ASGD never wait for the rate (ASGD, unless capturable, for its averages)


def sync_of(optimizer: Optimizer) -> str | None:
    """Return what to set so that steps with a rate on the GPU need not wait for it.

    None if they do not wait for it as it is set, or if the kind of optimizer is not known.
    """
    for kind in _KINDS:
        if isinstance(optimizer, kind.types):
            waits = not all(kind.stays(group) for group in optimizer.param_groups)
            return kind.cure if waits else None
    return None


def check_takes_tensor_rate(optimizer: Optimizer) -> None:
    """Refuse an optimizer that cannot use a rate that changes in place."""
    name = type(optimizer).__name__
    if isinstance(optimizer, optim.LBFGS):
        raise ValueError(
            f"publish: expected 'float' for {name}, got 'tensor': it keeps a reference to its rate "
            "between steps, so a rate that changes in place corrupts them"
        )
    if isinstance(optimizer, optim.Adam):
        for group in optimizer.param_groups:
            if group["foreach"] and not group["capturable"]:
                raise ValueError(
                    f"publish: expected 'float' for {name} with foreach=True and capturable=False, "
                    "got 'tensor': it refuses a tensor rate; leave foreach unset"
                )


def device_of(groups: list[dict[str, Any]]) -> torch.device:
    """Return where tensor rates must lie: with the rates that are tensors, or with the parameters.

    Raises ValueError if the parameters are spread over several devices.
    """
    for group in groups:
        if isinstance(group["lr"], torch.Tensor) and not group["lr"].is_cpu:
            return group["lr"].device
    found = {param.device for group in groups for param in group["params"]}
    if len(found) > 1:
        several = ", ".join(sorted(map(str, found)))
        raise ValueError(
            f"optimizers: expected parameters on one device, got {several}; build a scheduler for "
            "each, or use publish='float'"
        )
    return next(iter(found), torch.device("cpu"))
