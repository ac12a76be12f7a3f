"""Plateaus under transformers' ``Trainer``: each evaluation is one step of the scheduler.

::

    class MyTrainer(PlateauTrainerMixin, Trainer): ...

    trainer = MyTrainer(..., optimizers=(optimizer, ReduceLROnPlateau(optimizer)))

transformers' own ``GreedyLR`` also raises the rate while a metric keeps improving, one rate for the
whole model: take it to have it by a name in ``TrainingArguments``, and ``rule="greedy"`` of our
``BatchedReduceLROnPlateau`` for many rates, rates on a GPU or a state that stands with the others.
The rates are the same, bit for bit; GreedyLR's ``warmup`` is ``raise_cooldown`` there, its
``reset_start`` is ``reset_at_min``, and ``smooth=True`` with a ``window_size`` is ``window``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import Trainer

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from .plateaus import A_PLATEAU, SchedulerOfLanes

__all__ = ["PlateauTrainerMixin"]


class PlateauTrainerMixin(Trainer):
    """Step a plateau, of one metric or of a vector, once for each evaluation.

    Stands before ``Trainer`` among the bases. Hand the scheduler in as ``optimizers=``, or set
    ``self.lr_scheduler`` in ``create_scheduler``. It may be torch's ``ReduceLROnPlateau``, ours,
    ``BatchedReduceLROnPlateau`` or the ``PlateauLanes`` of an optimizer with a ``LaneLR`` or of our
    own; the trainer saves its state as ``scheduler.pt`` and resumes it. Lanes are
    ``trainer.lr_scheduler.lanes`` from then on. The trainer clips the gradients of all of them
    together unless ``max_grad_norm=0``.

    Its metric is :meth:`plateau_metrics`, by default that of ``metric_for_best_model``, and
    ``eval_loss`` where this is not set. The scheduler's mode must be that of
    ``greater_is_better``, which transformers derives from ``metric_for_best_model`` unless told;
    with a mode for each lane, that of one lane at least.

    Raises ValueError as the scheduler is handed in or set if the two contradict each other, and as
    training begins if it is that of another optimizer. Warns if it is no plateau, or
    ``eval_strategy`` is ``"no"``.

    The trainer reads the rate after each training step, which synchronises if it is a tensor on a
    GPU; with this class it is read when it is logged. That rate is the first group's ``lr``: with a
    ``LaneLR`` the factor that all lanes share.
    """

    @property
    def lr_scheduler(self) -> Any:
        """The scheduler; lanes stand in it as ``lanes``."""
        return self._scheduler

    @lr_scheduler.setter
    def lr_scheduler(self, given: Any) -> None:
        scheduler = SchedulerOfLanes(given) if isinstance(given, PlateauLanes) else given
        self._check_mode(scheduler)
        self._scheduler = scheduler
        wrong = None
        if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
            wrong = f"lr_scheduler: expected {A_PLATEAU}, got {kind_of(scheduler)}"
        elif scheduler is not None and self.args.eval_strategy == "no":
            wrong = "eval_strategy: expected 'steps' or 'epoch', got 'no'"
        if wrong is not None:
            warnings.warn(f"{wrong}: PlateauTrainerMixin steps nothing", UserWarning, stacklevel=2)

    def create_scheduler(self, *args: Any, **options: Any) -> Any:
        """Create the scheduler as the trainer does; check that it is the optimizer's."""
        made = super().create_scheduler(*args, **options)
        scheduler: Any = self.lr_scheduler
        if isinstance(scheduler, ReduceLROnPlateau) and hasattr(scheduler, "optimizer"):
            given = scheduler.optimizer  # lanes know none, and a batched scheduler may have several
            optimizers: Any = given if isinstance(given, (list, tuple)) else [given]
            own = {id(group) for group in cast(Any, self.optimizer).param_groups}
            if own.isdisjoint(id(group) for each in optimizers for group in each.param_groups):
                raise ValueError(
                    "optimizers: expected a scheduler of the trainer's optimizer, got a "
                    f"{kind_of(scheduler)} of another; hand in both"
                )
        return made

    def plateau_metrics(self, metrics: Mapping[str, Any]) -> Any:
        """Return what the scheduler gets of one evaluation's metrics; override for a vector.

        Called after each evaluation while training, in every process, with the same metrics. The
        trainer gathers what ``compute_metrics`` computes, so nothing is reduced here; a metric of
        each process's own must be, or rates differ. A vector is a list or tensor, one metric for
        each lane, from several metrics or from an attribute that ``compute_metrics`` wrote.

        Raises ValueError, with the scheduler not stepped, if there is no such metric.
        """
        name = self._plateau_name()
        if name not in metrics:
            raise ValueError(
                f"metric_for_best_model: expected one of {sorted(metrics)}, got {name!r}"
            )
        return metrics[name]

    def _plateau_name(self) -> str:
        name = self.args.metric_for_best_model or "loss"
        return name if name.startswith("eval_") else f"eval_{name}"

    def _check_mode(self, scheduler: Any) -> None:
        greater = self.args.greater_is_better
        if greater is None or not isinstance(scheduler, ReduceLROnPlateau):
            return
        wanted = "max" if greater else "min"
        modes = [scheduler.mode] if isinstance(scheduler.mode, str) else list(scheduler.mode)
        if wanted not in modes:  # lanes of a vector may have others beside it
            raise ValueError(
                f"mode: expected {wanted!r}, as greater_is_better is {greater} for "
                f"{self._plateau_name()!r}, got {scheduler.mode!r}; set either"
            )

    def _evaluate(self, trial: Any, ignore_keys: Any, skip_scheduler: bool = False) -> Any:
        """Evaluate as the trainer does, without its own step, then step once."""
        scheduler: Any = self.lr_scheduler
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        metrics = super()._evaluate(trial, ignore_keys, skip_scheduler=skip_scheduler or plateau)
        if plateau and not skip_scheduler:
            scheduler.step(self.plateau_metrics(metrics))
        return metrics

    def _get_learning_rate(self) -> Any:
        """Return the rate for the log; a plateau's tensor unread, as few steps are logged."""
        optimizer: Any = self.optimizer
        rate = optimizer.param_groups[0]["lr"]
        if isinstance(rate, Tensor) and isinstance(self.lr_scheduler, ReduceLROnPlateau):
            return rate
        return super()._get_learning_rate()

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        """Log as the trainer does, the rate as a float."""
        rate = options.get("learning_rate")
        if isinstance(rate, Tensor) and self.control.should_log:
            options["learning_rate"] = rate.item()
        super()._maybe_log_save_evaluate(*args, **options)
