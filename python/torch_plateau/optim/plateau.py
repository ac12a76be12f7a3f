"""The drop-in: torch's ReduceLROnPlateau, decided by the core."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from .. import _core
from ..lanes._resolve import gate_of
from ..lanes._settings import check_mode, setting
from ..lanes.inputs import one_metric
from ..lanes.readable import kind_of

__all__ = ["EPOCH_WARNING", "ReduceLROnPlateau", "rates_of"]

EPOCH_WARNING = (
    "The epoch parameter of scheduler.step() is deprecated: call scheduler.step(metrics) alone"
)
# What torch's class keeps in its state_dict, and the core or a property here keeps instead.
_OWN_KEYS = (
    "patience",
    "cooldown",
    "mode",
    "threshold",
    "threshold_mode",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "last_epoch",
)


def rates_of(groups: list[dict[str, Any]]) -> list[Any]:
    """Return the rates of param groups; tensors are cloned, so nothing is aliased."""
    return [
        group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in groups
    ]


class ReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    """``torch.optim.lr_scheduler.ReduceLROnPlateau`` with the same decisions, faster.

    A subclass of torch's class with its signature, attributes and ``state_dict`` keys; either
    class loads the other's state. What differs:

    - ``factor`` must be above 0, ``patience``, ``cooldown``, ``eps`` and ``min_lr`` not negative,
      and none NaN; ``patience`` and ``cooldown`` must be whole numbers below 2**31 - 1. torch
      takes any of these.
    - Param groups that share one tensor as their rate are cut once a step, where torch cuts them
      once for each group. The floor is that of the first of them.
    - A string is no metric, where torch parses it.
    - The core compares metrics: a subclass that overrides ``_is_better`` has no effect. One that
      overrides ``_reduce_lr`` does.

    Args:
        optimizer: Whose rates are lowered; floats stay floats, tensors are written in place.
        mode: ``"min"`` or ``"max"``: whether smaller or larger metrics are better.
        factor: A cut multiplies the rate by this.
        patience: Bad steps in a row that are borne; the next one cuts.
        threshold: How much better a metric must be to count.
        threshold_mode: ``"rel"`` (threshold times best) or ``"abs"``.
        cooldown: Steps after a cut in which nothing counts as bad.
        min_lr: Floor of the rate, or a list with one floor per param group.
        eps: A rate is left alone if it would change by ``eps`` or less.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        setting("factor", factor)
        setting("eps", eps)
        floors = setting("min_lr", min_lr, len(optimizer.param_groups))
        if not isinstance(min_lr, (list, tuple, int, float)):
            min_lr = floors.tolist()  # an array; torch would take it for one floor
        self._lane = _core.Lane()
        self._gate: dict[str, Any] = {"mode": "min", "threshold": 0.0, "threshold_mode": "rel"}
        super().__init__(
            optimizer,
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
        )

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take one metric and lower the rates if it completes a plateau.

        ::

            better = metrics < best*(1 - threshold)        (rel, min; see torch for the others)
            if better: best, num_bad_epochs = metrics, 0   else: num_bad_epochs += 1
            if cooldown_counter > 0: cooldown_counter -= 1; num_bad_epochs = 0
            if num_bad_epochs > patience:
                new = max(lr*factor, min_lr); lr = new if lr - new > eps     for each group
                cooldown_counter, num_bad_epochs = cooldown, 0

        Args:
            metrics: A number, or a tensor with one element; a CPU tensor is read in place, one on
                another device synchronises with it, and so does a cut of a rate there.
            epoch: Deprecated, as in torch: warns, and becomes ``last_epoch``.

        Raises TypeError or ValueError, with nothing changed, for what is not one real number, and
        RuntimeError, as torch does and also only when a cut is due, if a param group was added
        after ``min_lr`` was given as a list.
        """
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
        answer = self._lane.step(metrics, self.optimizer.param_groups, self._last_lr)
        if answer or epoch is not None:
            self._finish_step(answer, metrics, epoch)

    def _finish_step(self, answer: int, metrics: Any, epoch: int | None) -> None:
        """Do what the core left to Python: rare metrics, cuts, a new snapshot of the rates."""
        if answer < 0:
            groups = self.optimizer.param_groups
            answer = self._lane.step(one_metric(metrics), groups, self._last_lr)
        if epoch is not None:
            self.last_epoch = epoch
        if answer & _core.FIRED:
            self._reduce_lr(self.last_epoch)
            self._lane.cool()
        if answer:
            self._last_lr = rates_of(self.optimizer.param_groups)

    def _reduce_lr(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        if _core.cut_floats(groups, self.min_lrs, self.factor, self.eps):
            return
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"The number of param groups in the `optimizer` ({len(groups)}) differs from "
                    f"when `ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due "
                    "to a new param group being added to the optimizer. Please modify the "
                    "`min_lrs` field to match the length of the `optimizer` param groups."
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        seen: set[int] = set()
        for group, min_lr in zip(groups, self.min_lrs, strict=True):
            rate = group["lr"]
            if not isinstance(rate, Tensor):
                group["lr"] = self._lowered(rate, min_lr)
            elif id(rate) not in seen:
                seen.add(id(rate))
                old = float(rate)
                new = self._lowered(old, min_lr)
                if new != old:
                    rate.fill_(new)

    def _lowered(self, rate: float, min_lr: float) -> float:
        lowered = _core.cut(rate, self.factor, min_lr, self.eps)
        return rate if lowered == rate else lowered

    def get_last_lr(self) -> list[Any]:
        """Return the rates after the last step, one per group; tensors are clones."""
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in self._last_lr]

    # -- state: numbers in the core, words here ---------------------------------------------------

    @property
    def best(self) -> float:
        """Best metric so far; infinite before the first."""
        return self._lane.best

    @best.setter
    def best(self, value: float) -> None:
        self._lane.best = setting("best", value).item()

    @property
    def num_bad_epochs(self) -> int:
        """Bad steps in a row."""
        return self._lane.num_bad_epochs

    @num_bad_epochs.setter
    def num_bad_epochs(self, value: int) -> None:
        self._lane.num_bad_epochs = setting("num_bad_epochs", value).item()

    @property
    def cooldown_counter(self) -> int:
        """Cooldown steps that are left."""
        return self._lane.cooldown_counter

    @cooldown_counter.setter
    def cooldown_counter(self, value: int) -> None:
        self._lane.cooldown_counter = setting("cooldown_counter", value).item()

    @property
    def last_epoch(self) -> int:
        """Steps taken."""
        return self._lane.last_epoch

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        self._lane.last_epoch = setting("last_epoch", value).item()

    @property
    def patience(self) -> int:
        """Bad steps in a row that are borne."""
        return self._lane.patience

    @patience.setter
    def patience(self, value: int) -> None:
        self._lane.patience = setting("patience", value).item()

    @property
    def cooldown(self) -> int:
        """Steps after a cut in which nothing counts as bad."""
        return self._lane.cooldown

    @cooldown.setter
    def cooldown(self, value: int) -> None:
        self._lane.cooldown = setting("cooldown", value).item()

    @property
    def mode(self) -> str:
        """``"min"`` or ``"max"``."""
        return str(self._gate["mode"])

    @mode.setter
    def mode(self, value: str) -> None:
        self._set_gate(mode=check_mode("mode", value))

    @property
    def threshold(self) -> float:
        """How much better a metric must be to count."""
        return float(self._gate["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._set_gate(threshold=setting("threshold", value).item())

    @property
    def threshold_mode(self) -> str:
        """``"rel"`` or ``"abs"``."""
        return str(self._gate["threshold_mode"])

    @threshold_mode.setter
    def threshold_mode(self, value: str) -> None:
        self._set_gate(threshold_mode=check_mode("threshold_mode", value))

    def _set_gate(self, **changes: Any) -> None:
        gate = {**self._gate, **changes}
        threshold = setting("threshold", gate["threshold"])
        scale, shift, maximize = gate_of(gate["mode"], threshold, gate["threshold_mode"])
        self._lane.set_gate(scale.item(), shift.item(), bool(maximize))
        self._gate = gate

    def _init_is_better(self, mode: Any, threshold: Any, threshold_mode: Any) -> None:
        check_mode("mode", mode)
        check_mode("threshold_mode", threshold_mode)
        self.mode_worse = -math.inf if mode == "max" else math.inf
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode

    # -- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return torch's keys: numbers, words, and ``_last_lr`` with cloned tensors."""
        hidden = ("optimizer", "_lane", "_gate")
        state = {name: value for name, value in self.__dict__.items() if name not in hidden}
        state.update({name: getattr(self, name) for name in _OWN_KEYS})
        state["_last_lr"] = self.get_last_lr()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state of this class or of torch's, hyper-parameters included.

        As in torch, rates are not written: they come back with the optimizer. Raises TypeError or
        ValueError, with nothing changed, for a value out of range.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {kind_of(state_dict)}")
        for name in ("factor", "eps", *_OWN_KEYS):
            if name in state_dict:
                check = check_mode if name in ("mode", "threshold_mode") else setting
                check(name, state_dict[name])
        if "min_lrs" in state_dict:
            _check_floors(state_dict["min_lrs"])
        for name, value in state_dict.items():
            setattr(self, name, value)
        self._init_is_better(self.mode, self.threshold, self.threshold_mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.state_dict(), "optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lane = _core.Lane()
        self._gate = {"mode": "min", "threshold": 0.0, "threshold_mode": "rel"}
        self.__dict__["optimizer"] = state.pop("optimizer")
        self.load_state_dict(state)


def _check_floors(floors: Any) -> None:
    """Check a loaded ``min_lrs``; its length is compared at the next cut, as torch does."""
    setting("min_lr", floors, len(floors) if isinstance(floors, list) else 0, label="min_lrs")
    if not isinstance(floors, list):
        raise TypeError(f"min_lrs: expected a list, got {type(floors).__name__}")
