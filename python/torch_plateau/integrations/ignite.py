"""Ignite: a handler that steps a plateau when an evaluator has its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ignite.engine import Engine
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from .plateaus import check_plateau, to_lanes

__all__ = ["PlateauHandler"]


class PlateauHandler:
    """Step a scheduler or lanes with what an evaluator found, once each time it completes.

    ::

        evaluator.add_event_handler(Events.COMPLETED, PlateauHandler(scheduler, "loss"))

    Args:
        scheduler: A ``ReduceLROnPlateau`` of torch or of this package, a
            ``BatchedReduceLROnPlateau``, or ``PlateauLanes``.
        metric: The name of a metric of the engine, or a function from the engine to a metric: one
            number for a scheduler of one model, a vector of one for each lane otherwise.

    Give validation an evaluator of its own: where one runs on the training data too, as in ignite's
    quick start, each run would be a step. Or call the handler, after a run on the validation data::

        evaluator.run(val_loader)
        plateau(evaluator)

    Nothing but the step is done here, so rates stay as the scheduler has them: tensors, floors and
    all. A vector with a name comes from ignite on the CPU and goes to the lanes' device; one from
    a function is taken as it is, and does not synchronise. Ask the lanes themselves when to stop::

        if scheduler.lanes.all_finished():
            trainer.terminate()

    Its state is the scheduler's: save either, with ``Checkpoint({"plateau": handler, ...})``. Give
    the trainer the handler that runs the evaluator before that which saves, or the checkpoint is
    of before the step, and a resumed run lacks one.

    Raises:
        TypeError: ``scheduler`` is none of those, or ``metric`` neither a name nor a function.
    """

    def __init__(
        self,
        scheduler: ReduceLROnPlateau | PlateauLanes,
        metric: str | Callable[[Engine], Any],
    ) -> None:
        check_plateau(scheduler)
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                "metric: expected the name of a metric or a function of the engine, got "
                f"{kind_of(metric)}"
            )
        self.scheduler = scheduler
        self.metric = metric

    def __call__(self, engine: Engine) -> None:
        """Take one step; called by ``engine``, the evaluator, or with it.

        Raises ValueError if the engine has no metric of that name, and what the scheduler's own
        ``step`` does, with nothing changed.
        """
        if isinstance(self.metric, str):
            value = self._named(engine, self.metric)
        else:
            value = self.metric(engine)
        self.scheduler.step(value)

    def _named(self, engine: Engine, name: str) -> Any:
        if name not in engine.state.metrics:
            cure = "" if engine.state.metrics else "; attach it to the evaluator"
            raise ValueError(
                f"metric: expected one of {sorted(engine.state.metrics)}, which the engine has, "
                f"got {name!r}{cure}"
            )
        value = engine.state.metrics[name]
        # ignite has put tensors on the CPU
        return to_lanes(value, self.scheduler) if isinstance(value, Tensor) else value

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the scheduler's state; raises what the scheduler does."""
        self.scheduler.load_state_dict(dict(state_dict))
