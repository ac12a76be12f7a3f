"""The drop-in: torch's ReduceLROnPlateau, decided by the core."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from .. import _core
from ..lanes.agreement import Agreement, agreement_of
from ..lanes.comparison import State
from ..lanes.inputs import one_metric
from ..lanes.memory import kept_for_spawn
from ..lanes.readable import kind_of
from ..lanes.table import SETTINGS
from ..lanes.values import checked
from ..lanes.writes import Write
from .fields import GATE, IN_CORE, KEYS, Field, as_dict, checked_field, set_gate
from .optimizers import rates_of

__all__ = ["ReduceLROnPlateau"]

_NUMBERS = ("threshold", "factor", "eps")
_FLOORS = ("min_lrs", "default_min_lr")
_HIDDEN = ("optimizer", "_lane", "_gate")


class ReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    """``torch.optim.lr_scheduler.ReduceLROnPlateau`` with the same decisions, faster.

    A subclass of torch's class with its signature (and ``process_group``), attributes and
    ``state_dict`` keys; either class loads the other's state. What differs:

    - ``factor`` must be above 0, ``patience``, ``cooldown``, ``eps`` and ``min_lr`` not negative,
      and none NaN; ``patience`` and ``cooldown`` must be whole numbers below 2**31 - 1. torch
      takes any of these.
    - Param groups that share one tensor as their rate are cut once a step, where torch cuts them
      once for each group. The floor is that of the first of them.
    - A string is no metric, where torch parses it.
    - The core compares metrics: a subclass that overrides ``_is_better`` has no effect. One that
      overrides ``_reduce_lr`` does; if that raises, the step is taken back.

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
        process_group: Ranks that decide alike: by the mean of their metrics, as
            :class:`PlateauLanes` has it, or another :class:`~torch_plateau.distributed.Agreement`.

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
        *,
        process_group: Any = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        checked(SETTINGS["factor"], factor)
        checked(SETTINGS["eps"], eps)
        floors = checked(SETTINGS["min_lr"], min_lr, len(optimizer.param_groups))
        if not isinstance(min_lr, (list, tuple, int, float)):
            min_lr = floors.tolist()  # an array; torch would take it for one floor
        self._lane = _lane(agreement_of(process_group, stacklevel=2))
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
            epoch = checked_field("last_epoch", epoch, "epoch")
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        lane, groups = self._lane, self.optimizer.param_groups
        if not lane.step(metrics, groups, self._last_lr, self, epoch):
            lane.step(one_metric(metrics), groups, self._last_lr, self, epoch)

    def _finish_step(self, left: int, epoch: int | None) -> None:
        """Do what the core leaves to Python: cuts of other rates than floats, new snapshots.

        All is prepared, and then done at once.
        """
        groups, lane = self.optimizer.param_groups, self._lane
        counted: list[Write] = (
            [] if epoch is None else [partial(setattr, lane, "last_epoch", epoch)]
        )
        if not left:
            _core.call_each(counted)
        elif not left & _core.FIRED:
            rates = partial(setattr, self, "_last_lr", rates_of(groups))
            _core.call_each([lane.swap, *counted, rates])
        elif self._lacks_floors():  # torch's error comes after what a step counts
            _core.call_each([lane.swap, *counted])
            self._reduce_lr(lane.last_epoch)
        elif getattr(self._reduce_lr, "__func__", None) is _OWN_CUT:
            writes, lowered = self._cut()
            rates = partial(setattr, self, "_last_lr", lowered)
            _core.call_each([*writes, lane.swap, *counted, lane.cool, rates])
        else:
            self._finish_by_other(counted)

    def _finish_by_other(self, counted: list[Write]) -> None:
        """Let a subclass cut, which may look at what a step counts, or raise."""
        lane = self._lane
        try:
            _core.call_each([lane.swap, *counted])
            self._reduce_lr(lane.last_epoch)
            rates = rates_of(self.optimizer.param_groups)
        except BaseException:
            lane.swap()
            raise
        _core.call_each([lane.cool, partial(setattr, self, "_last_lr", rates)])

    @property
    def _agreement(self) -> Agreement | None:
        return self._lane.agreement if isinstance(self._lane, _AgreedLane) else None

    def _compared(self) -> State:
        numbers = {name: [float(getattr(self, name))] for name in (*IN_CORE, *_NUMBERS)}
        words = {name: [float(ord(getattr(self, name)[-1]))] for name in ("mode", "threshold_mode")}
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        lists = {"lr": rates, "min_lrs": [float(each) for each in self.min_lrs]}
        tensors = {
            name: torch.tensor(each, dtype=torch.float64)
            for name, each in {**numbers, **words, **lists}.items()
        }
        return State(tensors, lambda name, i: f"{name}[{i}]" if name in lists else name)

    def _reduce_lr(self, epoch: int) -> None:
        _core.call_each(self._cut()[0])

    def _cut(self) -> tuple[list[Write], list[Any]]:
        """Return what cuts every rate when called, and the rates as they are then."""
        groups, floors = self.optimizer.param_groups, self.min_lrs
        writes: list[Write] = []
        if len(groups) != len(floors):
            if self._lacks_floors():
                raise RuntimeError(
                    f"The number of param groups in the `optimizer` ({len(groups)}) differs from "
                    f"when `ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due "
                    "to a new param group being added to the optimizer. Please modify the "
                    "`min_lrs` field to match the length of the `optimizer` param groups."
                )
            floors = [self.default_min_lr] * len(groups)
            writes.append(partial(self.__dict__.__setitem__, "min_lrs", floors))
        lowered: dict[int, Any] = {}  # by the group, or the tensor, which groups may share
        for group, min_lr in zip(groups, floors, strict=True):
            rate = group["lr"]
            if not isinstance(rate, Tensor):
                lowered[id(group)] = self._lowered(lowered.get(id(group), rate), min_lr)
                writes.append(partial(group.__setitem__, "lr", lowered[id(group)]))
            elif id(rate) not in lowered:
                old = float(rate)
                new = self._lowered(old, min_lr)
                lowered[id(rate)] = rate.clone() if new == old else torch.full_like(rate, new)
                if new != old:
                    writes.append(partial(rate.fill_, new))
        return writes, [
            lowered[id(rate)].clone() if isinstance(rate, Tensor) else lowered[id(group)]
            for group in groups
            for rate in (group["lr"],)
        ]

    def _lacks_floors(self) -> bool:
        """Whether there are groups that have no floor."""
        return self.default_min_lr is None and len(self.optimizer.param_groups) != len(self.min_lrs)

    def _lowered(self, rate: float, min_lr: float) -> float:
        lowered = _core.cut(rate, self.factor, min_lr, self.eps)
        return rate if lowered == rate else lowered

    def get_last_lr(self) -> list[Any]:
        """Return the rates after the last step, one per group; tensors are clones."""
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in self._last_lr]

    # -- state and settings: numbers in the core, words here ---------------------------------------

    best = Field("Best metric so far; infinite before the first.")
    num_bad_epochs = Field("Bad steps in a row.")
    cooldown_counter = Field("Cooldown steps that are left.")
    last_epoch = Field("Steps taken.")
    patience = Field(SETTINGS["patience"].help)
    cooldown = Field(SETTINGS["cooldown"].help)
    mode = Field(SETTINGS["mode"].help)
    threshold = Field(SETTINGS["threshold"].help)
    threshold_mode = Field(SETTINGS["threshold_mode"].help)
    factor = Field(SETTINGS["factor"].help)
    eps = Field(SETTINGS["eps"].help)
    min_lrs = Field("Floor of the rate of each param group.")
    default_min_lr = Field("Floor of groups that are added later; None if each has its own.")

    def _init_is_better(self, mode: Any, threshold: Any, threshold_mode: Any) -> None:
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.mode_worse = -math.inf if mode == "max" else math.inf

    # -- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return torch's keys: numbers, words, and ``_last_lr`` with cloned tensors."""
        with self._lane:
            state = {name: value for name, value in self.__dict__.items() if name not in _HIDDEN}
            state.update({name: getattr(self, name) for name in (*IN_CORE, *GATE)})
            state["_last_lr"], state["min_lrs"] = self.get_last_lr(), list(self.min_lrs)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state of this class or of torch's, hyper-parameters included.

        As in torch, rates are not written: they come back with the optimizer; and what is not in
        the state stays. Raises KeyError, TypeError or ValueError, with nothing changed, for keys
        that neither class writes (other attributes are known where this object, or its subclass,
        has them already), values out of range, and floors that are not one for each param group.
        """
        with self._lane:
            self._take(self._checked(state_dict))

    def _checked(self, state_dict: Any) -> dict[str, Any]:
        """Return the attributes that a state brings, with a lane of their own."""
        given = as_dict("state_dict", state_dict)
        given.pop("verbose", None)  # which torch before 2.7 saved
        own = ReduceLROnPlateau.state_dict(self)
        unknown = [name for name in given.keys() - own.keys() if not self._has_added(name)]
        if unknown:
            raise KeyError(
                f"state_dict: unknown keys {sorted(map(str, unknown))}; expected some of "
                f"{sorted(own)}"
            )
        return _attributes({**own, **given}, given, self.optimizer, self._agreement)

    def _has_added(self, name: object) -> bool:
        """Whether this is an attribute that a subclass gives every object."""
        mine = isinstance(name, str) and hasattr(type(self), name)
        return mine and not hasattr(ReduceLROnPlateau, str(name))

    def _take(self, attributes: dict[str, Any], also: Sequence[Write] = ()) -> None:
        """Take over what a state brings, and do what else is to be written, all at once."""
        lane = attributes.pop("_lane")
        become = [partial(self._lane.take, lane), partial(self.__dict__.update, attributes)]
        _core.call_each([*become, *also])

    def __getstate__(self) -> dict[str, Any]:
        own = {"optimizer": self.optimizer, "_agreement": self._agreement}
        return kept_for_spawn({**ReduceLROnPlateau.state_dict(self), **own})

    def __setstate__(self, state: Any) -> None:
        given = as_dict("state", state)
        missing = sorted({*KEYS, "optimizer"} - given.keys())
        if missing or "_lane" in given or "_gate" in given:
            raise KeyError(f"state: expected a pickled {type(self).__name__}; missing {missing}")
        optimizer, agreement = given.pop("optimizer"), given.pop("_agreement", None)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {kind_of(optimizer)}")
        attributes = _attributes(given, given, optimizer, agreement)
        self.__dict__.update(attributes, optimizer=optimizer)


_OWN_CUT = ReduceLROnPlateau._reduce_lr  # in whose place the core may cut


class _AgreedLane(_core.Lane):
    """A lane that decides by what ranks agree on; others do not even ask whether there are any."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(_OWN_CUT)
        self.agreement = agreement

    def step(self, metric: Any, groups: Any, rates: Any, plateau: Any, epoch: Any) -> bool:
        self.agreement.check(plateau._compared)
        agreed = float(self.agreement.agree_on_one(metric))
        return super().step(agreed, groups, rates, plateau, epoch)


def _lane(agreement: Agreement | None) -> _core.Lane:
    return _core.Lane(_OWN_CUT) if agreement is None else _AgreedLane(agreement)


def _attributes(
    state: dict[str, Any],
    given: Mapping[str, Any],
    optimizer: Optimizer,
    agreement: Agreement | None,
) -> dict[str, Any]:
    """Return the attributes for a whole state, of which what was ``given`` is checked here."""
    fields = dict(state)
    for name in KEYS & given.keys():
        fields[name] = checked_field(name, given[name], f"state_dict[{name!r}]")
    count = len(optimizer.param_groups)
    each_its_own = fields["default_min_lr"] is None
    if each_its_own and len(fields["min_lrs"]) != count and not given.keys().isdisjoint(_FLOORS):
        raise ValueError(
            f"state_dict['min_lrs']: expected {count}, one for each param group, got "
            f"{len(fields['min_lrs'])}"
        )
    lane, gate = _lane(agreement), {name: fields.pop(name) for name in GATE}
    for name in IN_CORE:
        setattr(lane, name, fields.pop(name))
    set_gate(lane, gate)
    worse = -math.inf if gate["mode"] == "max" else math.inf
    return {**fields, "mode_worse": worse, "_lane": lane, "_gate": gate}
