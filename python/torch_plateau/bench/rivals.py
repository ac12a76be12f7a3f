"""Ours, N schedulers of torch, and a plain copy of memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, lr_scheduler

from torch_plateau import PlateauLanes

from .cases import FAR, Rule, Start, State

__all__ = ["OURS", "Copy", "Ours", "Schedulers"]

OURS = "torch-plateau"


class Ours:
    """PlateauLanes."""

    rival, variant = OURS, ""

    def __init__(self, rule: Rule, start: Start) -> None:
        best, clock = start.best, start.clock
        lanes = PlateauLanes(
            len(best), lr=start.rate, device=best.device, dtype=best.dtype, **vars(rule)
        )
        # load_state_dict would do, but it takes every field over the CPU: long at 1e8 lanes. So the
        # lanes are stepped there: each improved, to its best, as many steps ago as its clock says.
        if best.isfinite().all():
            for ago in range(int(clock.amax()), -1, -1):
                lanes.step(torch.where(clock == ago, best, FAR))
        self.lanes, self.step = lanes, lanes.step

    def feed(self, metrics: Tensor) -> Tensor:
        """Return the tensor itself."""
        return metrics

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        lanes = self.lanes
        return lanes.best, lanes.num_bad_epochs - lanes.cooldown_counter, lanes.lr_master


class Schedulers:
    """N schedulers of torch in a Python loop, each with an optimizer of its own."""

    rival = "N torch schedulers"

    def __init__(self, rule: Rule, start: Start, variant: str) -> None:
        self.variant = variant
        patience, threshold = (_each(x, len(start.best)) for x in (rule.patience, rule.threshold))
        self.each = []
        for i, (best, clock, rate) in enumerate(
            zip(start.best.tolist(), start.clock.tolist(), start.rate.tolist(), strict=True)
        ):
            scheduler = lr_scheduler.ReduceLROnPlateau(
                SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate),
                factor=rule.factor,
                patience=patience[i],
                threshold=threshold[i],
                cooldown=rule.cooldown,
                min_lr=rule.min_lr,
                eps=rule.eps,
            )
            scheduler.best, scheduler.num_bad_epochs = best, clock
            self.each.append(scheduler)
        steps: dict[str, Callable[[Any], None]] = {
            "list of floats": self._step_each,
            "tolist": self._step_list,
            "iterated": self._step_each,
        }
        self.step = steps[variant]

    def feed(self, metrics: Tensor) -> list[float] | Tensor:
        """Return floats or the tensor, as the variant says."""
        return metrics.tolist() if self.variant == "list of floats" else metrics

    def _step_each(self, metrics: list[float] | Tensor) -> None:
        for scheduler, metric in zip(self.each, metrics, strict=True):
            scheduler.step(metric)

    def _step_list(self, metrics: Tensor) -> None:
        # one tolist() for all lanes is counted: far cheaper than an element at a time
        for scheduler, metric in zip(self.each, metrics.tolist(), strict=True):
            scheduler.step(metric)

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        best = [scheduler.best for scheduler in self.each]
        clock = [scheduler.num_bad_epochs - scheduler.cooldown_counter for scheduler in self.each]
        rate = [scheduler.optimizer.param_groups[0]["lr"] for scheduler in self.each]
        return (
            torch.tensor(best, dtype=torch.float64),
            torch.tensor(clock),
            torch.tensor(rate, dtype=torch.float64),
        )


def _each(value: float | Tensor, n: int) -> list[Any]:
    return value.tolist() if isinstance(value, Tensor) else [value] * n


class Copy:
    """A plain copy; ``traffic`` bytes are read and written, half each."""

    rival = "plain copy"

    def __init__(self, traffic: int, variant: str, device: torch.device | str = "cpu") -> None:
        self.variant = variant
        self.source = torch.ones(traffic // 8, dtype=torch.float32, device=device)
        self.target = torch.zeros_like(self.source)
        self.bytes = self.source.nbytes
        self.step = self._memmove if variant == "memmove" else self.target.copy_

    def argument(self) -> Any:
        """Return what ``step`` takes."""
        return None if self.variant == "memmove" else self.source

    def _memmove(self, _: None) -> None:
        ctypes.memmove(self.target.data_ptr(), self.source.data_ptr(), self.bytes)
