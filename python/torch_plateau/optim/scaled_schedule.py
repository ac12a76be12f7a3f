"""A schedule whose rates are scaled by a plateau: what ``compose`` returns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING, LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from .. import _core
from ..lanes.readable import kind_of
from ..lanes.table import RATE, SETTINGS
from ..lanes.turns import in_turn
from ..lanes.values import check_keys, checked
from ..lanes.writes import Write
from .batched import BatchedReduceLROnPlateau
from .fields import as_dict, checked_field, checked_rate, items_of
from .hooks import call_after_load, call_no_more
from .optimizers import checked_optimizers, rates_of
from .plateau import ReduceLROnPlateau
from .scales import Plateau, Scales, as_before, optimizers_of, take_over_lanes
from .schedules import check_schedule, restored_on_error

__all__ = ["Composed"]

_STATE_KEYS = ("schedules", "plateau", "rates", "scale", "min_lr")
_FIXED = ("schedules", "plateau", "optimizer")
_PICKLED = {*_FIXED, "_optimizers", "_plain", "_rates", "_floors"}
# What the plateau would take for floors of the scale.
_FLOORS = ("min_lrs", "default_min_lr")


class Composed(TorchPlateau):
    """What :func:`compose` returns: it holds the rates, and steps the schedule and the plateau.

    One of torch's plateaus by ``isinstance``, so that trainers call ``step`` with a metric and save
    the state of both; ``step_schedule`` is called by the training loop, or by a trainer's hook.
    What else the plateau has (``best``, ``patience``, ``lanes``, ...) can be read here too, and
    its settings can be set here.

    A rate that other code writes into a param group, ``optimizer.load_state_dict`` included, does
    not count: the loaded rates are replaced at once, others at the next step.

    Attributes:
        schedules: The schedules. To step or load one by itself is refused at the next step here.
        plateau: The plateau. Stepped by itself it cuts the scale; rates follow at the next step
            here.
        optimizer: The plateau's: one, or a list of them.
        min_lr: The floor of each param group; may be set to one number or one for each, which
            counts from the next step on.
    """

    _stepping = False  # the schedules', whose rates in the groups are not scaled then

    def __init__(self, schedules: list[LRScheduler], plateau: Plateau) -> None:
        # torch's constructor is not called: the plateau has its attributes.
        self.schedules, self.plateau = schedules, plateau
        self.optimizer = plateau.optimizer
        self._optimizers = optimizers_of(plateau)
        groups = self._groups()
        self._plain: list[Any] = [
            each if isinstance(each, Tensor) else float(each) for each in rates_of(groups)
        ]
        self._seen = self._fingerprints()
        put_back = as_before(plateau)
        try:
            if isinstance(plateau, BatchedReduceLROnPlateau):  # its tensors become the scales
                self._rates: list[Any] = rates_of(groups)
                self._floors = take_over_lanes(plateau)
            else:
                self._rates = [group["lr"] for group in groups]
                self._floors = checked(SETTINGS["min_lr"], plateau.min_lrs, len(groups)).tolist()
                plateau.optimizer = Scales(1)
                plateau.min_lrs, plateau.default_min_lr = [0.0], 0.0
            self._attach()
        except BaseException:
            put_back()
            raise

    def step(  # type: ignore[override]
        self, metrics: Any, epoch: int | None = None, *, active: Any = None
    ) -> None:
        """Step the plateau, as its own ``step`` does, and write the rates.

        Args:
            metrics: As the plateau takes them: one number, or one for each lane.
            epoch: Deprecated, as in torch: warns, and becomes ``last_epoch``.
            active: Which lanes have a metric now, as :meth:`BatchedReduceLROnPlateau.step` takes
                it; all unless told. The others keep their state and scale; what the schedule does
                is for all. Only for lanes: a single plateau has none.

        Raises what the plateau's ``step`` raises, TypeError for ``active`` with a single plateau,
        and RuntimeError if a schedule was stepped or loaded by itself; all with nothing changed.
        """
        if epoch is not None:
            epoch = checked_field("last_epoch", epoch, "epoch")
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        with self._turn:
            self._step(metrics, epoch, active)

    def _step(self, metrics: Any, epoch: int | None, active: Any) -> None:
        self._check()
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            self.plateau.step(metrics, active=active)
        elif active is not None:
            raise TypeError(
                "active: expected none, for the plateau is a ReduceLROnPlateau and has no lanes, "
                f"got {kind_of(active)}"
            )
        else:
            self.plateau.step(metrics)
        if epoch is not None:
            self.plateau.last_epoch = epoch
        self._write()

    @property
    def _turn(self) -> _core.Lanes | _core.Lane:
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            return self.plateau.lanes._core
        return self.plateau._lane

    @in_turn
    def step_schedule(self, *args: Any) -> None:
        """Step every schedule, as if there were no plateau, and write the rates.

        Args:
            *args: Passed to each; CosineAnnealingWarmRestarts takes a fractional epoch.

        Raises what a schedule raises (OneCycleLR past its end, for instance; the rates stay right),
        and RuntimeError, with nothing changed, if one was stepped or loaded by itself.
        """
        self._check()
        _core.put_rates(self._groups(), self._plain, self, {"_stepping": True})
        try:
            for schedule in self.schedules:
                schedule.step(*args)
        finally:
            self._note_steps()
            self._write()

    def _note_steps(self) -> None:
        """Take the schedules' new rates; where that was interrupted, the next call does it."""
        _core.call_each(self._noting([group["lr"] for group in self._groups()]))

    @property
    def scale(self) -> float | Tensor:
        """What the cuts have made of 1: a number, or float64 with one per group if batched."""
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            return self.plateau._per_group(self.plateau.lanes.lr_master)
        return float(self.plateau.optimizer.param_groups[0]["lr"])

    @in_turn
    def get_last_lr(self) -> list[Any]:
        """Return the rate of every group: floats, or clones of the tensors, which do not sync."""
        return rates_of(self._groups())

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of both: tensors and primitives, if the schedules' states are such."""
        schedules = [schedule.state_dict() for schedule in self.schedules]
        return {
            "schedules": copy.deepcopy(schedules),
            "plateau": self.plateau.state_dict(),
            "rates": [rate.clone() if isinstance(rate, Tensor) else rate for rate in self._plain],
            "scale": self.scale,
            "min_lr": self.min_lr,
        }

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot and write the rates, before or after the optimizers load theirs.

        As torch's schedulers do, it brings its hyper-parameters along. A state of one of torch's
        schedules must be of the kind that the schedule has now, and a copy of the schedule must be
        able to go on from it.

        Raises KeyError, TypeError or ValueError, with nothing changed, for a snapshot of other
        keys, of another number of schedules or groups, or with values that cannot be.
        """
        check_keys("state_dict", state_dict, _STATE_KEYS)
        given, count = dict(state_dict), len(self._plain)
        self._check_count()
        label = "state_dict['rates']"
        plain = [
            checked_rate(RATE, rate, f"{label}[{i}]")
            for i, rate in enumerate(items_of(given["rates"], label, count))
        ]
        floors = self._checked_floors(given["min_lr"], "state_dict['min_lr']")
        plateau: Any = self.plateau._checked(given["plateau"])
        label = "state_dict['scale']"
        if isinstance(self.plateau, ReduceLROnPlateau):
            scale = checked(RATE, given["scale"], label=label)
        else:
            scale = checked(RATE, given["scale"], count, scalar=False, label=label)
            if not torch.equal(scale, self.plateau._per_group(plateau[0].master().cpu())):
                raise ValueError(f"{label}: expected the rates in state_dict['plateau']['lanes']")
        rates = torch.tensor([float(rate) for rate in plain], dtype=torch.float64, device="cpu")
        checked(RATE, rates * scale, count, label="state_dict['rates'] times the scale")
        label = "state_dict['schedules']"
        states = items_of(given["schedules"], label, len(self.schedules))
        first = 0
        for i, (schedule, state) in enumerate(zip(self.schedules, states, strict=True)):
            own = rates.tolist()[first : first + len(schedule.optimizer.param_groups)]
            check_schedule(schedule, state, own, f"{label}[{i}]")
            first += len(own)
        with restored_on_error(self.schedules) as done:
            for schedule, state in zip(self.schedules, states, strict=True):
                schedule.load_state_dict(copy.deepcopy(state))
            writes: list[Write] = self._noting(plain)
            writes.append(partial(self.__dict__.__setitem__, "_floors", floors))
            if isinstance(self.plateau, ReduceLROnPlateau):
                group = self.plateau.optimizer.param_groups[0]
                writes.append(partial(group.__setitem__, "lr", scale.item()))
            self.plateau._take(plateau, [*writes, partial(done.append, True)])
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            self.plateau._publish()
        self._write()

    # -- rates ------------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _noting(self, rates: list[Any]) -> list[Write]:
        """Return what notes the schedules' own rates; what was a tensor stays that tensor."""
        plain: list[Any] = []
        writes: list[Write] = []
        for was, rate in zip(self._plain, rates, strict=True):
            plain.append(was if isinstance(was, Tensor) else float(rate))
            if isinstance(was, Tensor) and rate is not was:
                writes.append(partial(was.copy_, torch.as_tensor(rate).reshape(was.shape)))
        noted = {"_plain": plain, "_seen": self._fingerprints(), "_stepping": False}
        return [*writes, partial(self.__dict__.update, noted)]

    def _scales(self) -> list[Any]:
        """The scale of each group, where its rate is."""
        if isinstance(self.plateau, BatchedReduceLROnPlateau):
            lanes, by_group = self.plateau.lanes, self.plateau._own.by_group
            floats = self.plateau.publish == "float"
            return by_group(lanes._core.rates() if floats else lanes.lr_master.unbind())
        return [self.scale] * len(self._plain)

    @torch.no_grad()
    def _write(self) -> None:
        """Write the product of plain rate and scale to every group."""
        pairs = zip(self._groups(), self._scales(), strict=True)
        for i, (group, scale) in enumerate(pairs):
            plain, floor, rate = self._plain[i], self._floors[i], self._rates[i]
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
        if self._stepping:
            self._note_steps()
        for i, (seen, now) in enumerate(zip(self._seen, self._fingerprints(), strict=True)):
            if now is not seen:
                raise RuntimeError(
                    f"schedules[{i}]: this {type(self.schedules[i]).__name__} was stepped or "
                    "loaded by itself and has overwritten composed rates; call step_schedule() and "
                    "load_state_dict() of the composed object instead"
                )
        self._check_count()

    def _check_count(self) -> None:
        if len(self._groups()) != len(self._plain):
            raise ValueError(
                f"optimizer: expected {len(self._plain)} param groups, as when it was composed, "
                f"got {len(self._groups())}"
            )

    # -- attributes -------------------------------------------------------------------------------

    @property
    def min_lr(self) -> list[float]:
        """The floor of each param group."""
        return list(self._floors)

    @min_lr.setter
    def min_lr(self, value: Any) -> None:
        self._floors = self._checked_floors(value, "min_lr")

    def _checked_floors(self, value: Any, label: str) -> list[float]:
        count = len(self._plain)
        floors: list[float] = (
            checked(SETTINGS["min_lr"], value, count, label=label).expand(count).tolist()
        )
        return floors

    def __getattr__(self, name: str) -> Any:
        if "plateau" not in self.__dict__:  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.plateau, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set ``min_lr``, or what can be set on the plateau; other names are refused."""
        if name in _FIXED and name in self.__dict__:
            raise AttributeError(f"{name}: cannot be set; compose again")
        if name in _FIXED or name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        elif name in _FLOORS or not hasattr(self.plateau, name):
            raise AttributeError(f"{name}: expected min_lr or a setting of the plateau")
        else:
            setattr(self.plateau, name, value)

    # -- life -------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Write the rates for the first time, and again whenever an optimizer loads a state."""
        self._write()
        try:
            for optimizer in self._optimizers:
                call_after_load(self, optimizer)
        except BaseException:
            call_no_more(self, self._optimizers)
            raise

    def _after_load(self) -> None:
        if len(self._groups()) == len(self._plain):
            self._write()

    def __getstate__(self) -> dict[str, Any]:
        self._check()  # what is restored cannot tell any more
        return {name: value for name, value in self.__dict__.items() if name != "_seen"}

    def __setstate__(self, state: Any) -> None:
        given = as_dict("state", state)
        if not given.keys() >= _PICKLED:
            raise KeyError(f"state: missing keys {sorted(_PICKLED - given.keys())}")
        plateau, schedules = given["plateau"], items_of(given["schedules"], "schedules")
        if not isinstance(plateau, (ReduceLROnPlateau, BatchedReduceLROnPlateau)):
            raise TypeError(f"plateau: expected a plateau, got {kind_of(plateau)}")
        optimizers = checked_optimizers(given["_optimizers"])
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        plain, rates = (items_of(given[name], name, len(groups)) for name in ("_plain", "_rates"))
        given["_plain"] = [checked_rate(RATE, each, f"_plain[{i}]") for i, each in enumerate(plain)]
        for i, (each, rate) in enumerate(zip(plain, rates, strict=True)):
            checked_rate(RATE, rate, f"_rates[{i}]")
            shapes = {one.shape if isinstance(one, Tensor) else None for one in (each, rate)}
            if len(shapes) > 1:
                raise TypeError(f"_rates[{i}]: expected the kind and shape of _plain[{i}]")
        for i, schedule in enumerate(items_of(schedules, "schedules", len(optimizers))):
            if not isinstance(schedule, LRScheduler) or schedule.optimizer is not optimizers[i]:
                raise TypeError(f"schedules[{i}]: expected one of its optimizer")
        floors = checked(SETTINGS["min_lr"], given["_floors"], len(groups), scalar=False)
        given["_floors"] = floors.tolist()
        self.__dict__.update(given)
        self._seen = self._fingerprints()
        self._attach()
