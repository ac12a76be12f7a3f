"""A rate per lane for stacked parameters, with a stock optimizer that knows one rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)
from torch.utils.hooks import RemovableHandle

from ..lanes.lanes import PlateauLanes

__all__ = ["LaneLR", "lane_lr_of"]

# Their step is p - lr * u, where u does not depend on lr (weight decay included).
_LINEAR = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Adamax)

_NOT_LINEAR = {
    "Rprop": "its step sizes adapt by sign and read the rate only once",
    "ASGD": "its average and its decay depend on the rate",
    "Adafactor": "it scales the rate by the size of the parameter as it goes",
    "LBFGS": "it searches along a line and keeps the rate in its state",
    "Muon": "it takes 2-d parameters only, and stacked ones have a dimension more",
    "SparseAdam": "it updates only some rows",
}


class LaneLR:
    """Give each lane of stacked ``[n, ...]`` parameters its own rate.

    The optimizer runs with ``lr=1``; around each of its steps::

        before: old = p
        after:  p   = old + lr[lane] * (p - old)           for every parameter, as torch.lerp

    For an optimizer whose step is linear in its rate this is the step that a separate optimizer
    with rate ``lr[lane]`` would have taken, to rounding: SGD (momentum, nesterov and weight decay
    included), Adam, AdamW, amsgrad, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Adamax. It costs one
    copy of the parameters and two passes over them.

    Rates are read from ``lanes`` at every step, in the parameter's own precision: float64
    parameters get the float64 master. Nothing synchronises, and with an optimizer that can be
    captured in a CUDA graph (``capturable=True`` for most) the whole step can. A copy or a pickle
    needs the LaneLR itself: those of an optimizer alone do not carry it.

    Args:
        optimizer: Holds the stacked parameters; every group's ``lr`` must be 1 and stay so.
        lanes: ``n`` lanes of one group each.

    Raises:
        TypeError: the optimizer is not one of those above, with the reason.
        ValueError: a rate that is not 1, lanes with several groups, an optimizer that has a LaneLR
            already, or a parameter that is not real floating point with ``n`` as first dimension,
            on the lanes' device.
    """

    def __init__(self, optimizer: Optimizer, lanes: PlateauLanes) -> None:
        _check_linear(optimizer)
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {type(lanes).__name__}")
        if any(count != 1 for count in lanes.groups or ()):
            raise ValueError(f"lanes: expected one rate per lane, got {len(lanes.lr)} groups")
        if lane_lr_of(optimizer) is not None:
            raise ValueError(
                "optimizer: expected one without a LaneLR, got one that has it already"
            )
        self.lanes = lanes
        self._optimizer = optimizer
        self._old: dict[Tensor, Tensor] = {}
        self._stepping: list[Tensor] = []
        self._check(optimizer)
        self._hooks: tuple[RemovableHandle, ...] = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        )

    def remove(self) -> None:
        """Detach from the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = ()

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer, "lanes": self.lanes, "attached": bool(self._hooks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LaneLR.__init__(self, state["optimizer"], state["lanes"])
        if not state["attached"]:
            self.remove()

    def _check(self, optimizer: Optimizer) -> None:
        """Check groups and parameters; those added later are checked at their first step."""
        n = len(self.lanes)
        for i, group in enumerate(optimizer.param_groups):
            rate = group["lr"]
            on_host = not isinstance(rate, Tensor) or rate.is_cpu  # elsewhere asking would sync
            if on_host and float(rate) != 1.0:
                raise ValueError(
                    f"param_groups[{i}]['lr']: expected 1, got {float(rate):g}; the lanes hold "
                    "the rates"
                )
            for param in group["params"]:
                if not self._knows(param):
                    _check_param(param, n, self.lanes.device, i)

    def _knows(self, param: Tensor) -> bool:
        """Return whether there is a copy to write to; lanes that come or go change the shape."""
        return param in self._old and self._old[param].shape == param.shape

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._check(optimizer)
        closure = args[0] if args else kwargs.get("closure")
        self._stepping = [
            param
            for group in optimizer.param_groups
            for param in group["params"]
            if param.grad is not None or closure is not None  # a closure makes gradients later
        ]
        for param in self._stepping:
            if not self._knows(param):
                self._old[param] = torch.empty_like(param, requires_grad=False)
        torch._foreach_copy_([self._old[param] for param in self._stepping], self._stepping)

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        rates = {torch.float32: self.lanes.lr}
        for param in self._stepping:
            if param.dtype not in rates:
                rates[param.dtype] = self.lanes.lr_master.to(param.dtype)
            rate = rates[param.dtype].view(-1, *[1] * (param.ndim - 1))
            torch.lerp(self._old[param], param, rate, out=param)


def lane_lr_of(optimizer: Optimizer) -> LaneLR | None:
    """Return the LaneLR that an optimizer has, if any."""
    hooks = optimizer._optimizer_step_pre_hooks.values()
    owners = (getattr(hook, "__self__", None) for hook in hooks)
    return next((each for each in owners if isinstance(each, LaneLR)), None)


def _check_linear(optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    if type(optimizer) not in _LINEAR:
        name = type(optimizer).__name__
        reason = _NOT_LINEAR.get(name, "its step is not known to be linear in the rate")
        allowed = ", ".join(each.__name__ for each in _LINEAR)
        raise TypeError(f"optimizer: {name} cannot have a rate per lane: {reason}; use {allowed}")


def _check_param(param: Tensor, n: int, device: torch.device, group: int) -> None:
    shape = tuple(param.shape)
    if not shape or shape[0] != n:
        raise ValueError(
            f"param_groups[{group}]: expected parameters [{n}, ...], got shape {shape}"
        )
    if not param.is_floating_point():
        raise ValueError(f"param_groups[{group}]: expected real parameters, got {param.dtype}")
    if param.device != device:
        raise ValueError(
            f"param_groups[{group}]: expected parameters on the lanes' device, {device}, got "
            f"{param.device}"
        )
