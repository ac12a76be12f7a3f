"""Keras on torch: its ReduceLROnPlateau, decided by the core, with a state that is kept."""

from __future__ import annotations

import math
import os
import sys
import warnings
from typing import Any, Literal

import keras
import torch

from ..lanes.lanes import PlateauLanes
from ..saving import save_atomically

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):  # type: ignore[misc]  # no types
    """``keras.callbacks.ReduceLROnPlateau`` with the same rates, and what that has not.

    Set ``KERAS_BACKEND=torch`` before this module is imported: it imports keras. ``wait``, ``best``
    and ``cooldown_counter`` can be read. Without further arguments each rate is that of Keras' own,
    bit for bit, but for a first metric that is NaN: for Keras the best for ever, here a bad one.

    Args:
        monitor, factor, patience, verbose, mode, min_delta, cooldown, min_lr: As in Keras.
        state_path: A file for the state, written whole at the end of each epoch. A later ``fit``
            that begins after that epoch or the one before (``BackupAndRestore`` or
            ``initial_epoch`` say so) goes on with it, rates included; one from epoch 0 on begins
            anew. It stands apart from the folder of ``BackupAndRestore``, which is deleted.
        counting: ``"keras"`` or ``"torch"``: whose bad epochs.
        optimizer: That of a ``MultiOptimizer`` which is cut, by its name; unless told all, by one
            metric. With a callback for each, each has a metric and a plateau of its own.
        options: Other settings of docs/settings.md, such as ``initial_patience`` (until the first
            cut) or ``stop_patience``. A lane that they finish ends the training;
            ``lanes.stop_reasons()`` says why.

    Rates that other code sets are cut from: they are read at each epoch, which synchronises.
    Raises TypeError or ValueError for what is of a wrong kind or out of range. Warns if the logs
    have no such metric, and if a training that goes on finds no state of its epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Literal["auto", "min", "max"] = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        *,
        state_path: str | os.PathLike[str] | None = None,
        counting: Literal["keras", "torch"] = "keras",
        optimizer: str | None = None,
        **options: Any,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {mode!r}")
        super().__init__(monitor, factor, patience, verbose, mode, min_delta, cooldown, min_lr)
        floor = torch.tensor(min_lr, dtype=torch.float32).item()  # as Keras compares it
        given: dict[str, Any] = {"factor": factor, "patience": patience, "cooldown": cooldown}
        given |= {"threshold": self.min_delta, "threshold_mode": "abs", "counting": counting}
        self._settings = {**given, "min_lr": floor, "eps": 0.0, **options}
        # With these the core decides by another number than Keras compares.
        other = {"smoothing", "accumulate", "window", "threshold_mode"}
        self._as_keras = counting == "keras" and other.isdisjoint(options)
        PlateauLanes(1, 0.0, **self._settings)  # which checks them
        self.state_path, self.optimizer = state_path, optimizer
        self.lanes: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin anew; called by Keras."""
        super().on_train_begin(logs)
        self._optimizers()  # checks the name
        self.lanes = None
        self._states: dict[int, dict[str, Any]] = {}  # by epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Take up the state of a training that goes on: what restores it has done so by now."""
        if self.lanes is not None or epoch == 0 or self.state_path is None:
            return
        if os.path.exists(self.state_path):
            self._states = torch.load(self.state_path, weights_only=True)
        if epoch in self._states:
            self.lanes = self._lanes("min")  # the state has the mode
            self.lanes.load_state_dict(self._states[epoch])
            self._publish()
        else:
            says = f"state_path: expected the state after {epoch} epochs in {self.state_path!s}, "
            says += f"got those after {sorted(self._states)}; the plateau begins anew"
            warnings.warn(says, UserWarning, stacklevel=2)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Take one step with the metric of the epoch, and save the state."""
        if self.monitor_op is None:  # for "auto" the model must have its metrics
            self._set_monitor_op()
        if self.lanes is None:
            self.lanes = self._lanes("min" if self.monitor_op(0.0, 1.0) else "max")
        rates = [float(each.learning_rate) for each in self._optimizers()]
        several = hasattr(self.model.optimizer, "optimizers")
        for each, rate in zip(self._optimizers(), rates, strict=True):
            logs[f"learning_rate_{each.name}" if several else "learning_rate"] = rate
        if (metric := logs.get(self.monitor)) is None:
            says = f"monitor: expected one of {sorted(logs)}, got {self.monitor!r}; the rate stays"
            warnings.warn(says, UserWarning, stacklevel=2)
        else:
            self.lanes._set_rates(dict(enumerate(rates)))
            self.lanes.step([self._as_compared(float(metric))])
            self._publish()
            if self.verbose > 0 and (now := self.lanes.lr_master.tolist()) != rates:
                sys.stdout.write(f"\nEpoch {epoch + 1}: rates {rates} are now {now}\n")
            if self.lanes.all_finished():
                self.model.stop_training = True
        if self.state_path is not None:
            kept = {at: state for at, state in self._states.items() if at == epoch}
            self._states = {**kept, epoch + 1: self.lanes.state_dict()}
            save_atomically(self._states, self.state_path)

    def _optimizers(self) -> list[Any]:
        every = list(getattr(self.model.optimizer, "optimizers", [self.model.optimizer]))
        found = [each for each in every if self.optimizer is None or each.name == self.optimizer]
        if not found:
            names = [each.name for each in every]
            raise ValueError(f"optimizer: expected one of {names}, got {self.optimizer!r}")
        return found

    def _lanes(self, mode: str) -> PlateauLanes:
        rates = [float(each.learning_rate) for each in self._optimizers()]
        return PlateauLanes(1, rates, groups=[len(rates)], mode=mode, **self._settings)

    def _publish(self) -> None:
        for optimizer, rate in zip(self._optimizers(), self.lanes.lr_master.tolist(), strict=True):
            optimizer.learning_rate = rate
        self.best, self.wait = self.lanes.best.item(), int(self.lanes.num_bad_epochs)
        self.cooldown_counter = int(self.lanes.cooldown_counter)

    def _as_compared(self, metric: float) -> float:
        """Return a metric that is better for the core where this one is for Keras' float32."""
        best = self.lanes.best.item()
        sign = -1.0 if self.lanes.settings["mode"] == "min" else 1.0
        bar = best + sign * abs(self.min_delta)
        theirs = math.isinf(best) or bool(self._is_improvement(metric, best))
        if not self._as_keras or math.isnan(metric) or theirs == (sign * metric > sign * bar):
            return metric
        return math.nextafter(bar, sign * math.inf) if theirs else bar
