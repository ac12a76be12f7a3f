"""What ``compose`` returns: the rates of a schedule times the scale of a plateau."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from ..lanes._checks import check_keys
from ..lanes._settings import setting
from .batched import BatchedReduceLROnPlateau
from .plateau import ReduceLROnPlateau, rates_of

__all__ = ["Composed", "Scales", "optimizers_of"]

Plateau = ReduceLROnPlateau | BatchedReduceLROnPlateau
_STATE_KEYS = ("schedules", "plateau", "rates", "scale", "min_lr")


class Composed(TorchPlateau):
    """What :func:`compose` returns: it holds the rates, and steps the schedule and the plateau.

    One of torch's plateaus by ``isinstance``, so that trainers call ``step`` with a metric and save
    the state of both; ``step_schedule`` is called by the training loop, or by a trainer's hook.
    What else the plateau has (``best``, ``patience``, ``lanes``, ...) can be read here too.

    A rate that other code writes into a param group, ``optimizer.load_state_dict`` included, does
    not count: the loaded rates are replaced at once, others at the next step.

    Attributes:
        schedules: The schedules. To step or load one by itself is refused at the next step here.
        plateau: The plateau. Stepped by itself it cuts the scale; rates follow at the next step
            here.
        optimizer: The plateau's: one, or a list of them.
        min_lr: The floor of each param group.
    """

    def __init__(self, schedules: list[LRScheduler], plateau: Plateau) -> None:
        # torch's constructor is not called: the plateau has its attributes.
        self.schedules, self.plateau = schedules, plateau
        self.optimizer = plateau.optimizer
        self._optimizers = optimizers_of(plateau)
        groups = self._groups()
        self._plain = [_own(rate) for rate in rates_of(groups)]
        if isinstance(plateau, BatchedReduceLROnPlateau):  # its tensors become the scales
            self._rates: list[Any] = rates_of(groups)
            self.min_lr = _take_over_lanes(plateau)
        else:
            self._rates = [group["lr"] for group in groups]
            floors = setting("min_lr", plateau.min_lrs, len(groups))
            self.min_lr = floors.tolist()
            plateau.optimizer = Scales(1)
            plateau.min_lrs, plateau.default_min_lr = [0.0], 0.0
        self._seen = self._fingerprints()
        self._attach()

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Step the plateau, as its own ``step`` does, and write the rates.

        Raises what that raises, with nothing changed, and RuntimeError, with nothing changed, if a
        schedule was stepped or loaded by itself.
        """
        self._check()
        self.plateau.step(metrics)
        self._write()

    def step_schedule(self, *args: Any) -> None:
        """Step every schedule, as if there were no plateau, and write the rates.

        Args:
            *args: Passed to each; CosineAnnealingWarmRestarts takes a fractional epoch.

        Raises what a schedule raises (OneCycleLR past its end, for instance; the rates stay right),
        and RuntimeError, with nothing changed, if one was stepped or loaded by itself.
        """
        self._check()
        groups = self._groups()
        for group, plain in zip(groups, self._plain, strict=True):
            group["lr"] = plain
        try:
            for schedule in self.schedules:
                schedule.step(*args)
        finally:
            for i, group in enumerate(groups):
                self._set_plain(i, group["lr"])
            self._seen = self._fingerprints()
            self._write()

    @property
    def scale(self) -> float | Tensor:
        """What the cuts have made of 1: a number, or float64 with one per group if batched."""
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            return self.plateau.lanes.lr_master
        return float(self.plateau.optimizer.param_groups[0]["lr"])

    def get_last_lr(self) -> list[Any]:
        """Return the rate of every group: floats, or clones of the tensors, which do not sync."""
        return rates_of(self._groups())

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of both: tensors and primitives, if the schedules' states are such."""
        schedules = [schedule.state_dict() for schedule in self.schedules]
        return {
            "schedules": copy.deepcopy(schedules),
            "plateau": self.plateau.state_dict(),
            "rates": [rate.clone() if isinstance(rate, Tensor) else rate for rate in self._plain],
            "scale": self.scale,
            "min_lr": list(self.min_lr),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot and write the rates, before or after the optimizers load theirs.

        As torch's schedulers do, it brings its hyper-parameters along. Raises KeyError, TypeError
        or ValueError, with nothing changed, for a snapshot of other keys, of another number of
        schedules or groups, or that the plateau refuses.
        """
        check_keys("state_dict", state_dict, _STATE_KEYS)
        count, given = len(self._plain), len(state_dict["schedules"])
        if given != len(self.schedules):
            raise ValueError(
                f"state_dict['schedules']: expected {len(self.schedules)} states, got {given}"
            )
        plain = list(state_dict["rates"])
        setting("lr", [float(each) for each in plain], count, label="state_dict['rates']")
        floors = setting("min_lr", state_dict["min_lr"], count, label="state_dict['min_lr']")
        if isinstance(self.plateau, ReduceLROnPlateau):
            scale = setting("lr", state_dict["scale"], label="state_dict['scale']").item()
            self.plateau.load_state_dict(state_dict["plateau"])
            self.plateau.optimizer.param_groups[0]["lr"] = scale
        else:
            self.plateau.load_state_dict(state_dict["plateau"])
        for schedule, state in zip(self.schedules, state_dict["schedules"], strict=True):
            schedule.load_state_dict(copy.deepcopy(state))
        for i, rate in enumerate(plain):
            self._set_plain(i, rate)
        self.min_lr = floors.expand(count).tolist()
        self._seen = self._fingerprints()
        self._write()

    # -- rates ------------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _set_plain(self, i: int, rate: Any) -> None:
        """Note the schedule's own rate of a group; what was a tensor stays that tensor."""
        plain = self._plain[i]
        if not isinstance(plain, Tensor):
            self._plain[i] = float(rate)
        elif rate is not plain:
            plain.copy_(torch.as_tensor(rate).reshape(plain.shape))

    def _scales(self) -> list[Any]:
        """The scale of each group, where its rate is."""
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            scales = self.plateau.lanes.lr_master
            return scales.tolist() if self.plateau.publish == "float" else list(scales.unbind())
        return [self.scale] * len(self._plain)

    @torch.no_grad()
    def _write(self) -> None:
        """Write the product of plain rate and scale to every group."""
        pairs = zip(self._groups(), self._scales(), strict=True)
        for i, (group, scale) in enumerate(pairs):
            plain, floor, rate = self._plain[i], self.min_lr[i], self._rates[i]
            if isinstance(rate, Tensor):
                plain = plain.double()
                rate.copy_(torch.maximum(plain * scale, plain.clamp(max=floor)))
                group["lr"] = rate
            else:
                group["lr"] = max(plain * scale, min(plain, floor))

    def _fingerprints(self) -> list[Any]:
        """What every step and every load of a torch schedule replaces."""
        return [getattr(schedule, "_last_lr", None) for schedule in self.schedules]

    def _check(self) -> None:
        for i, (seen, now) in enumerate(zip(self._seen, self._fingerprints(), strict=True)):
            if now is not seen:
                raise RuntimeError(
                    f"schedules[{i}]: this {type(self.schedules[i]).__name__} was stepped or "
                    "loaded by itself and has overwritten composed rates; call step_schedule() and "
                    "load_state_dict() of the composed object instead"
                )
        if len(self._groups()) != len(self._plain):
            raise ValueError(
                f"optimizer: expected {len(self._plain)} param groups, as when it was composed, "
                f"got {len(self._groups())}"
            )

    # -- life -------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Write the rates for the first time, and again whenever an optimizer loads a state."""
        self._write()
        self._hooks = [_write_after_load(self, optimizer) for optimizer in self._optimizers]

    def __getattr__(self, name: str) -> Any:
        if "plateau" not in self.__dict__:  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.plateau, name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_hooks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()


class Scales(SGD):
    """Stands in for an optimizer of the plateau: its rates, which begin at 1, are the scales."""

    def __init__(self, count: int) -> None:
        params = [torch.zeros(1, device="cpu") for _ in range(count)]
        super().__init__([{"params": [param]} for param in params], lr=1.0)


def _own(rate: Any) -> Any:
    return rate if isinstance(rate, Tensor) else float(rate)


def optimizers_of(plateau: Plateau) -> list[Optimizer]:
    """Return the optimizers whose rates the plateau lowers."""
    if isinstance(plateau, BatchedReduceLROnPlateau):
        return plateau._optimizers
    return [plateau.optimizer]


def _take_over_lanes(plateau: BatchedReduceLROnPlateau) -> list[float]:
    """Make the lanes' rates scales, on stand-ins; return the floors that they had."""
    state = plateau.state_dict()
    lanes, count = state["lanes"], len(plateau._published)
    floors = torch.as_tensor(lanes["settings"]["min_lr"], dtype=torch.float64).expand(count)
    lanes["lr"], lanes["start_lr"] = torch.ones_like(lanes["lr"]), torch.ones_like(lanes["lr"])
    lanes["settings"]["min_lr"] = 0.0
    for hook in plateau._hooks:
        hook.remove()
    one = isinstance(plateau.optimizer, Optimizer)
    plateau._optimizers = [Scales(len(each.param_groups)) for each in plateau._optimizers]
    plateau.optimizer = plateau._optimizers[0] if one else plateau._optimizers  # type: ignore[assignment]
    plateau.load_state_dict(state)
    plateau._attach()
    return floors.tolist()


def _write_after_load(composed: Composed, optimizer: Optimizer) -> Any:
    alive = weakref.ref(composed)

    def write(_: Optimizer) -> None:
        owner = alive()
        if owner is not None and len(owner._groups()) == len(owner._plain):
            owner._write()

    while not hasattr(optimizer, "_optimizer_load_state_dict_post_hooks"):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]  # e.g. accelerate's wrapper
    return optimizer.register_load_state_dict_post_hook(write)
