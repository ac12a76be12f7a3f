"""Accelerate: a plateau that takes one step for a validation, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..lanes.lanes import PlateauLanes
from .plateaus import A_PLATEAU, check_plateau, to_lanes

__all__ = ["AcceleratedPlateau"]


class AcceleratedPlateau:
    """A scheduler or lanes, in place of what ``accelerator.prepare`` makes of a scheduler.

    ::

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        plateau = AcceleratedPlateau(accelerator, ReduceLROnPlateau(optimizer, patience=3))
        for epoch in range(epochs):
            ...
            plateau.step(val_loss)                                  of this process's part

    ``prepare`` ties the steps of a scheduler to those of the optimizer: a plateau then counts a
    validation once for each process, and not at all while gradients are accumulated.
    ``Accelerator(step_scheduler_with_optimizer=False)`` unties them, and leaves each process its
    own metric. Here a call is a step too, and the metric is that of all processes: one collective,
    after which all decide by the same number, so their rates stay equal, bit for bit; NaN of one
    is NaN of all.

    Args:
        accelerator: Its ``save_state`` and ``load_state`` have the scheduler's state from here on.
        scheduler: A ``ReduceLROnPlateau`` of torch or of this package, a
            ``BatchedReduceLROnPlateau`` or ``PlateauLanes``: stays what it is, as ``scheduler``.
            One of this package with ``process_group=False``, which says that it need not agree, or
            it warns where there are several processes.
        reduction: ``"mean"`` of the processes' metrics, or ``"sum"``, for a metric that is divided
            by the size of all the data. Where the parts are of unequal size, a mean of means is
            not that of all.

    Raises TypeError or ValueError for other things than these.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        scheduler: ReduceLROnPlateau | PlateauLanes,
        reduction: str = "mean",
    ) -> None:
        check_plateau(scheduler, f"scheduler: expected {A_PLATEAU}, before it is prepared")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
        self.accelerator, self.scheduler, self.reduction = accelerator, scheduler, reduction
        accelerator.register_for_checkpointing(self)

    def step(self, metrics: Any) -> None:
        """Take one step, on every process; each must call it, as a collective is taken.

        ``metrics`` is a number or a vector of one for each lane, of this process; taken to float64
        before it is reduced. In one process nothing is reduced. Does not synchronise with a device
        unless the scheduler does. Raises what the scheduler does, on all processes alike.
        """
        if self.accelerator.num_processes > 1:
            values = torch.as_tensor(metrics, dtype=torch.float64, device=self.accelerator.device)
            values = self.accelerator.reduce(values.detach(), self.reduction)
            metrics = to_lanes(values, self.scheduler)
        self.scheduler.step(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        state: dict[str, Any] = self.scheduler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the scheduler's state; raises what the scheduler does."""
        self.scheduler.load_state_dict(dict(state_dict))
