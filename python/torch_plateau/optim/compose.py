"""A plateau and any schedule of torch on the same optimizers: their rates multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from ..lanes.readable import kind_of
from .batched import BatchedReduceLROnPlateau
from .plateau import ReduceLROnPlateau
from .scaled_schedule import Composed
from .scales import Scales, optimizers_of

__all__ = ["compose"]


def compose(
    schedule: LRScheduler | Sequence[LRScheduler],
    plateau: ReduceLROnPlateau | BatchedReduceLROnPlateau,
) -> Composed:
    """Multiply the rates of a schedule by the cuts of a plateau.

    ::

        scale = 1                                  of each lane
        step(metrics):    the plateau decides as ever; where it cuts:
                          new = scale*factor; scale = new if scale - new > eps
        step_schedule():  s = schedule's rate      of each group, as if there were no plateau
        after either:     rate = max(s*scale, min(s, min_lr))

    So a cut is kept whatever the schedule does next, the schedule never sees it, and ``min_lr``
    stops cuts but never raises a rate above the schedule's own. Computed in float64; a rate that
    is a float stays one, a tensor is written in place, without a sync, and keeps its type.

    ``optimizer.step()`` comes before ``step_schedule()``, as in torch; how often either step is
    called (every batch, every epoch) is up to the caller::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=500)
        scheduler = compose(warm_up, ReduceLROnPlateau(optimizer, patience=5))
        for epoch in range(100):
            for batch in batches:
                ...
                optimizer.step()
                scheduler.step_schedule()
            scheduler.step(validation_loss)

    Args:
        schedule: Any ``LRScheduler`` of torch, fresh or part-way, built on the plateau's optimizer;
            or a sequence of them, one for each optimizer of the plateau, in their order.
        plateau: A :class:`ReduceLROnPlateau` or :class:`BatchedReduceLROnPlateau` that has not been
            stepped. It is taken over: from now on its own rates are the scales, on a stand-in for
            its optimizer, and its ``min_lr`` is 0, with the floors in the result's ``min_lr``.

    Raises:
        TypeError: an argument is of another kind; a plateau of torch's own, or one in the place of
            the schedule, is.
        ValueError: another number of schedules than optimizers, a schedule of another optimizer, or
            a plateau that has been stepped or is composed already.
    """
    if not isinstance(plateau, (ReduceLROnPlateau, BatchedReduceLROnPlateau)):
        hint = "" if not isinstance(plateau, TorchPlateau) else " of torch's own or composed"
        raise TypeError(
            "plateau: expected a torch_plateau.ReduceLROnPlateau or BatchedReduceLROnPlateau, got "
            f"{kind_of(plateau)}{hint}"
        )
    optimizers = optimizers_of(plateau)
    if any(isinstance(each, Scales) for each in optimizers):
        raise ValueError("plateau: expected one that is not composed yet, got one that is")
    if plateau.last_epoch != 0:
        raise ValueError(
            "plateau: expected one that has not been stepped, got one with last_epoch="
            f"{plateau.last_epoch}; compose first, then step or load"
        )
    return Composed(_checked_schedules(schedule, optimizers), plateau)


def _checked_schedules(schedule: Any, optimizers: list[Optimizer]) -> list[LRScheduler]:
    many = isinstance(schedule, Sequence)
    schedules = list(schedule) if many else [schedule]
    for i, each in enumerate(schedules):
        name = f"schedule[{i}]" if many else "schedule"
        if isinstance(each, TorchPlateau):
            raise TypeError(f"{name}: expected a schedule, got a plateau, {type(each).__name__}")
        if not isinstance(each, LRScheduler):
            raise TypeError(f"{name}: expected an LRScheduler of torch, got {kind_of(each)}")
    if len(schedules) != len(optimizers):
        raise ValueError(
            f"schedule: expected {len(optimizers)}, one for each optimizer of the plateau, got "
            f"{len(schedules)}"
        )
    for i, (each, optimizer) in enumerate(zip(schedules, optimizers, strict=True)):
        if each.optimizer is not optimizer:
            name = f"schedule[{i}]" if many else "schedule"
            raise ValueError(
                f"{name}: expected one of the plateau's optimizer, got a {type(each).__name__} of "
                "another"
            )
    return schedules
