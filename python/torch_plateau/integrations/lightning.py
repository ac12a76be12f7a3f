"""Lightning: a callback that steps a plateau once for each validation, and keeps its state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from .plateaus import check_plateau, rates_of

__all__ = ["PlateauCallback"]

FEW = 16  # rates up to which each is logged


class PlateauCallback(Callback):
    """Step a scheduler or lanes of the module when a validation of ``fit`` ends.

    ::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters())
            self.plateau = ReduceLROnPlateau(optimizer, patience=3)      # kept, not returned
            return optimizer

        Trainer(callbacks=[PlateauCallback("plateau", "val_loss")])

    Lightning itself steps a plateau that ``configure_optimizers`` returns at the end of an epoch:
    after ``ModelCheckpoint`` has saved, so that a resumed run lacks a step, and with a stale metric
    in epochs without a validation. Here each validation is one step, but for the sanity check's,
    before anything is saved, and the state is in the trainer's checkpoint.

    Args:
        scheduler: The attribute of the module, or a function of ``(trainer, module)``, that is a
            ``ReduceLROnPlateau`` of torch or of this package, a ``BatchedReduceLROnPlateau`` (of
            any number of optimizers) or ``PlateauLanes``. Asked when training begins.
        metric: A name in ``trainer.callback_metrics``, several (a vector, in their order), or a
            function of ``(trainer, module)`` for any other vector, such as one that the module
            keeps. Of several ranks: log with ``sync_dist=True``, or build with ``process_group=``.
        log: Log the rates after each step to the trainer's loggers, as ``plateau/lr/0`` and so on;
            of more than 16 their ``min``, ``median`` and ``max``. Synchronises with a GPU. Cuts,
            stops and histograms of lanes a ``LaneLog`` writes, of ``integrations.logging``, in the
            module's ``on_validation_end``: that comes after this step.

    It does not synchronise otherwise, unless the scheduler does. A ``ModelCheckpoint`` of steps
    saves an epoch's last before its validation, which a resumed run then lacks, unless it has a
    ``monitor`` and ``save_on_train_epoch_end=False``.

    Raises TypeError if ``scheduler`` is neither a name nor a function; when training begins,
    ValueError if the module has no such attribute or Lightning steps it too, TypeError if it is
    none of those; in a step ValueError if a metric is not there, and what the scheduler raises.
    Warns if the fit has no validation.
    """

    def __init__(
        self,
        scheduler: str | Callable[[Trainer, LightningModule], Any] = "plateau",
        metric: str | Sequence[str] | Callable[[Trainer, LightningModule], Any] = "val_loss",
        log: bool = False,
    ) -> None:
        if not isinstance(scheduler, str) and not callable(scheduler):
            raise TypeError(
                "scheduler: expected the name of an attribute of the module, or a function of "
                f"(trainer, module), got {kind_of(scheduler)}"
            )
        self.named, self.metric, self.log = scheduler, metric, log
        self.scheduler: ReduceLROnPlateau | PlateauLanes | None = None
        self._loaded: Mapping[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """Whose state this is in a checkpoint: a trainer may have a callback for each plateau."""
        named = self.named
        if not isinstance(named, str):  # nor by an address, which another process has not
            named = getattr(named, "__qualname__", type(named).__qualname__)
        return self._generate_state_key(scheduler=named)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the scheduler, and give it the state of the checkpoint, if there was one."""
        if callable(self.named):
            found = self.named(trainer, pl_module)
        elif hasattr(pl_module, self.named):
            found = getattr(pl_module, self.named)
        else:
            raise ValueError(
                f"scheduler: expected an attribute of {type(pl_module).__name__}, which "
                f"configure_optimizers sets, got {self.named!r}"
            )
        check_plateau(found)
        if any(each.scheduler is found for each in trainer.lr_scheduler_configs):
            raise ValueError(
                "scheduler: expected one that configure_optimizers keeps and does not return, or "
                f"Lightning steps it as well, got the {kind_of(found)} that it returned"
            )
        if not trainer.enable_validation:
            warnings.warn("PlateauCallback: fit has no validation, so the rates stay", stacklevel=2)
        if self._loaded is not None:
            found.load_state_dict(dict(self._loaded))
        self.scheduler, self._loaded = found, None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take one step: before ``ModelCheckpoint``, which Lightning calls last."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        assert self.scheduler is not None  # training has begun
        self.scheduler.step(self._metric(trainer, pl_module))
        if self.log:
            self._log(trainer)

    def _metric(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        if callable(self.metric):
            return self.metric(trainer, pl_module)
        if isinstance(self.metric, str):
            return self._named_metric(trainer, self.metric)
        return torch.stack([self._named_metric(trainer, name) for name in self.metric])

    def _named_metric(self, trainer: Trainer, name: str) -> Tensor:
        if name not in trainer.callback_metrics:
            raise ValueError(
                f"metric: expected one of {sorted(trainer.callback_metrics)}, which were logged, "
                f"got {name!r}"
            )
        return trainer.callback_metrics[name]

    def _log(self, trainer: Trainer) -> None:
        rates = rates_of(self.scheduler)
        names = [str(i) for i in range(len(rates))]
        if len(rates) > FEW:
            names, rates = ["min", "median", "max"], sorted(rates)
            rates = [rates[0], rates[(len(rates) - 1) // 2], rates[-1]]
        logged = {f"plateau/lr/{name}": rate for name, rate in zip(names, rates, strict=True)}
        for each in trainer.loggers:
            each.log_metrics(logged, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state; called by Lightning for a checkpoint."""
        return dict(self._loaded or {}) if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a state for the scheduler, which Lightning builds later."""
        self._loaded = state_dict or None
