"""Lanes bound to optimizers: one decision pass for many models, or for many param groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from .. import _core
from ..lanes.agreement import agreement_of
from ..lanes.inputs import mask_of
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.saved import restored
from ..lanes.state import LaneState
from ..lanes.table import SETTINGS
from ..lanes.turns import in_turn
from ..lanes.values import check_keys, shown
from ..lanes.writes import Write
from .fields import as_dict, checked_field, items_of
from .hooks import call_after_load, call_no_more
from .lane_groups import LaneGroups, LaneOf, carried_over, numbers_for
from .optimizers import checked_optimizers, rate_in, rates_of
from .tensor_rates import check_takes_tensor_rate, device_of, sync_of

__all__ = ["BatchedReduceLROnPlateau"]

# A warm-up and noise write rates at every step, not only at cuts: that is for compose.
_SETTINGS = [name for name in SETTINGS if not name.startswith(("warmup_", "noise_"))]
_PER_GROUP = [name for name in _SETTINGS if SETTINGS[name].of == "group"]
_RESULTS = ("best", "num_bad_epochs", "cooldown_counter")
_CURES = "reset, set_lanes, copy_lanes, load_state_dict"
_OPTIONS = {*_SETTINGS, "events"}
_FIXED = ("lanes", "optimizer", "publish")
_PICKLED = {*_FIXED, "_optimizers", "_lane_of", "_lanes", "last_epoch"}


class BatchedReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    """``ReduceLROnPlateau`` for many optimizers, each param group of one, or any sets of groups.

    Given a sequence of optimizers there is a lane per optimizer, which owns all its groups; given
    one optimizer there is a lane per param group; with ``lane_of`` lanes own the groups that it
    says. Every other argument is torch's, each a scalar or one value per lane (``min_lr`` also one
    per group), and every lane decides as a ``ReduceLROnPlateau`` of its own would with float rates.
    The lanes themselves, with ``best``, ``lr``, ``reduced`` and the rest as tensors, are
    :attr:`lanes`; there the rates stand lane by lane.

    Args:
        optimizers: One optimizer, or a sequence of different ones.
        lane_of: The lane of each param group, of all optimizers in their order: a list of numbers
            from 0 on, or a function from a group to one, such as ``lambda group: group["slot"]``,
            which is asked once for each group. There are as many lanes as the highest number says;
            those that no group names own none.
        publish: How rates reach the optimizers. ``"float"``: ``group["lr"]`` is a Python float,
            written when the lane is cut. ``"tensor"``: it is a 0-d float32 view into ``lanes.lr``,
            so a cut reaches the optimizer with no write. Unless told, ``"tensor"`` if any group's
            rate is a tensor now or ``device`` is given, else ``"float"``.
        device: Where the lanes live and their metrics must, with ``publish="tensor"``. Unless told,
            with the rates, if these are on a GPU, else with the parameters. With
            ``publish="float"`` it is the CPU.
        dtype: As in :class:`PlateauLanes`: what metrics are kept in.
        process_group: As there: ranks that decide alike.
        options: The other settings of docs/settings.md, and ``events`` of :class:`PlateauLanes`.
            (For a warm-up see :func:`compose`.)

    With lanes on a GPU a step is one kernel launch and never synchronises; it may be captured in a
    CUDA graph, whose replays count in ``lanes.num_steps`` (``last_epoch`` counts calls). An
    optimizer that would itself wait for its rate at every step is warned of, with what to set.
    With lanes on the CPU metrics may lie on any device; one transfer a step, which synchronises,
    brings them all.

    Rates set on :attr:`lanes` (``lanes.set_lanes``, ``reset``, ``copy_lanes``, ``lanes.lr[i] = x``)
    reach the optimizers at once as tensors, and at the next step as floats. Lanes cannot be added
    or removed there.

    Groups may come and go: the next step takes over those that there are then, before it reads
    metrics, which are one for each lane that there is then. A group that an optimizer was given
    (``add_param_group``) is another rate of the lane that owns it (with ``lane_of`` that which a
    function says; in a sequence that of its optimizer), which goes on; else it is a new lane, with
    the settings of the last one. A lane all of whose groups were replaced begins anew, with its
    settings. A lane whose groups were taken away stays, without a rate; without ``lane_of`` the
    lane of a group goes with it. New rates have the floor of their lane. Then ``lanes.lr`` is
    another tensor; to take groups over synchronises.

    Rates that other code sets are adopted at the next step: a group that was given a new number
    or one-element tensor, one written in place, and those that ``optimizer.load_state_dict``
    brings (views are put back by a hook, which copies of the optimizer do not carry: a copy of it
    alone keeps the rates of then, in memory of its own). To adopt a rate on a GPU synchronises,
    once.

    The class is one of torch's by ``isinstance``, so that trainers pass it a metric;
    ``optimizer`` is the object handed in, and ``mode``, ``patience`` and the other settings read
    as in :attr:`PlateauLanes.settings`. They may be set too, as the constructor takes them, and
    reach the lanes at once; ``best`` and the counts may not: :attr:`lanes` has methods for that.

    Raises:
        TypeError, ValueError: no optimizer, the same optimizer or param group twice, a setting out
            of range, or ``publish="tensor"`` with an optimizer that cannot take it.
        RuntimeError: ``device`` cannot be used.
    """

    _published: list[Any]  # what was put into the groups
    _own: LaneGroups

    def __init__(
        self,
        optimizers: Optimizer | Sequence[Optimizer],
        mode: str | Sequence[str] = "min",
        factor: float | Sequence[float] | Tensor = 0.1,
        patience: int | Sequence[int] | Tensor = 10,
        threshold: float | Sequence[float] | Tensor = 1e-4,
        threshold_mode: str | Sequence[str] = "rel",
        cooldown: int | Sequence[int] | Tensor = 0,
        min_lr: float | Sequence[float] | Tensor = 0.0,
        eps: float | Sequence[float] | Tensor = 1e-8,
        *,
        lane_of: LaneOf | None = None,
        publish: Literal["float", "tensor"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        process_group: Any = None,
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise TypeError(f"options: expected some of {sorted(_OPTIONS)}, got {unknown}")
        # torch's constructor is not called: it makes one plateau, and this holds many.
        _check_publish(publish, "float", "tensor", None)
        self._optimizers = checked_optimizers(optimizers)
        groups = self._groups()
        if publish is None:
            tensors = any(isinstance(group["lr"], Tensor) for group in groups)
            publish = "tensor" if tensors or device is not None else "float"
        if publish == "tensor":
            for optimizer in self._optimizers:
                check_takes_tensor_rate(optimizer)
            device = device_of(groups) if device is None else device
        elif device is not None and str(device) != "cpu":
            raise ValueError(f"device: expected 'cpu' with publish='float', got {str(device)!r}")
        self.optimizer = optimizers  # type: ignore[assignment]
        self._lane_of = lane_of
        self._own = own = self._owned()
        each = {name: own.by_lane(v) for name, v in options.items() if name in _PER_GROUP}
        each["min_lr"] = own.by_lane(min_lr)
        self.lanes = PlateauLanes(
            own.n,
            own.by_lane([rate_in(group, i) for i, group in enumerate(groups)]),
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            eps=eps,
            groups=None if self._one_each() else own.counts,
            device=device or "cpu",
            dtype=dtype,
            process_group=agreement_of(process_group, stacklevel=2) or False,
            **options | each,
        )
        if self.lanes.device.type == "cuda":
            _warn_of_syncs(self._optimizers)
        self.publish = publish
        self.last_epoch = 0
        self._attach()

    def step(  # type: ignore[override]
        self, metrics: Any, epoch: int | None = None, *, active: Any = None
    ) -> None:
        """Advance every lane by one metric, and publish the rates of the lanes that are cut.

        Args:
            metrics: Shape ``(lanes,)``, anything that :meth:`PlateauLanes.step` takes; where the
                lanes are on the CPU, a tensor on any device (fetching it synchronises).
            epoch: Deprecated, as in torch: warns, and becomes ``last_epoch``.
            active: Which lanes have a metric now: bool, shape ``(lanes,)``, where metrics may be,
                or a sequence of bools; all unless told. The others keep their state and rates.

        If Ctrl-C comes between the decision and the write of float rates, the next step writes
        them.

        Raises TypeError or ValueError, with no lane advanced, for metrics or a mask of a wrong
        shape, type or device, and if a group holds a rate that is not one finite number, there are
        no groups left, or ``lane_of`` does not say the lane of a new one.
        """
        if epoch is not None:
            epoch = checked_field("last_epoch", epoch, "epoch")
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        with self.lanes._core:
            self._step(metrics, epoch, active)

    def _step(self, metrics: Any, epoch: int | None, active: Any) -> None:
        """Step while no other thread does, so that rates in groups are those of the last step."""
        self._adopt_if_replaced()
        if (agreement := self.lanes._agreement) is not None:
            metrics, active = self.lanes._agree(metrics, active, agreement)
        if active is None:
            reduced = self.lanes._advance(metrics)
        else:
            active = self._mask(active)
            reduced = self.lanes._core.step_masked(metrics, active)
        if reduced < 0:
            reduced = self.lanes._step_again(reduced, metrics, active, fetch=True)
            self._adopt_if_replaced()
        if epoch is not None:
            self.lanes._core.calls = epoch
        if self.publish == "float" and (reduced or self._version != _version_of(self._vector)):
            self._publish()

    @property
    def last_epoch(self) -> int:
        """Steps taken, which the core counts as it takes them."""
        return self.lanes._core.calls

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        self.lanes._core.calls = checked_field("last_epoch", value)

    def _attach(self) -> None:
        """Publish to the optimizers for the first time, and keep it so when they load a state."""
        groups = self._groups()
        before = [group["lr"] for group in groups]
        try:
            self._hooks = [call_after_load(self, optimizer) for optimizer in self._optimizers]
            self._publish()
        except BaseException:
            call_no_more(self, self._optimizers)  # whoever catches it may hold what is half built
            _core.put_rates(groups, before, self, {})
            raise

    @property
    def _turn(self) -> _core.Lanes:
        return self.lanes._core

    @in_turn
    def _after_load(self) -> None:
        """Put the views back, which ``optimizer.load_state_dict`` replaces with its own rates."""
        self._adopt()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _mask(self, active: Any) -> Tensor:
        """Return a mask where the lanes are; one elsewhere comes to lanes on the CPU."""
        here = self.lanes.device
        elsewhere = isinstance(active, Tensor) and active.device.type not in ("cpu", "meta")
        if here.type == "cpu" and elsewhere:
            active = active.cpu()
        return mask_of("active", active, len(self.lanes), here)

    def _one_each(self) -> bool:
        """Whether each group is a lane."""
        return self._lane_of is None and isinstance(self.optimizer, Optimizer)

    def _owned(self, old: LaneGroups | None = None) -> LaneGroups:
        """Return the groups that there are, and the lane of each."""
        groups = self._groups()
        if not groups:
            raise ValueError("optimizers: expected at least one param group, got none")
        if self._lane_of is not None:
            numbers = numbers_for(self._lane_of, groups, old)
            return LaneGroups(groups, numbers, max(*numbers, 0 if old is None else old.n - 1) + 1)
        if self._one_each():
            return LaneGroups(groups, list(range(len(groups))), len(groups))
        each = enumerate(self._optimizers)
        numbers = [i for i, optimizer in each for _ in optimizer.param_groups]
        return LaneGroups(groups, numbers, len(self._optimizers))

    def _per_group(self, rates: Tensor) -> Tensor:
        """Return what is the lanes', one for each rate, in the order of the groups."""
        return rates if self._lane_of is None else rates[self._own.place]

    @property
    def lane_of(self) -> list[int]:
        """The lane of each param group that was known at the last step."""
        return list(self._own.lanes)

    def _publish(self) -> None:
        """Write the lanes' rates where the optimizers read them, and remember those objects."""
        groups = self._groups()
        with self.lanes._core:
            self.lanes._take_moved()
        handed = self.lanes._handed["published"]
        if self.publish == "tensor":
            here = self.__dict__.get("_handed") is handed  # and so the views are good
            views = self._published if here else self._own.by_group(handed.tensor.unbind())
            rates: list[Any] = views
        else:
            rates = self._own.by_group(self.lanes._core.rates())
            for i, group in enumerate(groups):  # an unchanged rate stays the user's own object
                if isinstance(group["lr"], float) and group["lr"] == rates[i]:
                    rates[i] = group["lr"]
        names = {
            "_published": rates,
            "_handed": handed,
            "_vector": handed.tensor,
            "_version": _version_of(handed.tensor),
        }
        _core.put_rates(groups, rates, self, names)

    def _adopt_if_replaced(self) -> None:
        if not _core.same_groups(self._optimizers, self._published, self._own.params):
            self._adopt()
        elif self._handed is not self.lanes._handed["published"]:  # lr is elsewhere now
            self._publish()

    def _adopt(self) -> None:
        """Take over groups, and rates that other code put into them."""
        groups, old = self._groups(), self._own
        own = old if old.fit(groups) else self._owned(old)
        origins = own.origins(old)
        replaced = {
            i: rate_in(group, i)
            for i, (group, was) in enumerate(zip(groups, origins, strict=True))
            if was is None or group["lr"] is not self._published[was]
        }
        published = self.lanes.lr
        for i, value in list(replaced.items()):
            was = origins[i]
            # a float32 copy of the rate that is there already must not cost it its digits
            copied = isinstance(groups[i]["lr"], Tensor)
            if copied and was is not None and value == float(published[old.place[was]]):
                del replaced[i]
        if own is not old:
            if self.publish == "tensor":
                for optimizer in self._optimizers:
                    check_takes_tensor_rate(optimizer)
            known = [
                group["lr"] if was is None else self._published[was]
                for group, was in zip(groups, origins, strict=True)
            ]
            taken = partial(self.__dict__.update, {"_own": own, "_published": known})
            self.lanes._change(
                lambda state: carried_over(state, old, own, replaced), False, lambda: [taken]
            )
        self.lanes._set_rates(
            {own.place[i]: replaced[i] for i in replaced if origins[i] is not None}
        )
        self._publish()

    def __getattr__(self, name: str) -> Any:
        # torch's names for the settings; only reached for what is no attribute
        settings = self.__dict__["lanes"].settings if "lanes" in self.__dict__ else {}
        if name not in settings:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = settings[name]
        each = name in _PER_GROUP and isinstance(value, Tensor)
        return self._per_group(value) if each else value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a setting, which reaches the lanes, or ``last_epoch``; other names are refused.

        A subclass may have attributes of its own.
        """
        if name in _SETTINGS and "lanes" in self.__dict__:
            value = self._own.by_lane(value) if name in _PER_GROUP else value
            self.lanes._set_settings(**{name: value})
            return
        if name in _RESULTS:
            raise AttributeError(f"{name}: cannot be set here; use the methods of lanes: {_CURES}")
        if name in _FIXED and name in self.__dict__:
            raise AttributeError(f"{name}: cannot be set; build a new scheduler")
        mine = type(self) is BatchedReduceLROnPlateau and not name.startswith("_")
        if mine and name not in _PICKLED and not hasattr(type(self), name):
            raise AttributeError(f"{name}: expected one of the settings, {_SETTINGS}")
        super().__setattr__(name, value)

    @in_turn
    def get_last_lr(self) -> list[Any]:
        """Return the rate of every group: floats, or clones of the tensors, which do not sync."""
        return rates_of(self._groups())

    @property
    def best(self) -> Tensor:  # type: ignore[override]
        """Best metric of each lane; see :attr:`PlateauLanes.best`."""
        return self.lanes.best

    @property
    def num_bad_epochs(self) -> Tensor:  # type: ignore[override]
        """Bad steps in a row; see :attr:`PlateauLanes.num_bad_epochs`."""
        return self.lanes.num_bad_epochs

    @property
    def cooldown_counter(self) -> Tensor:  # type: ignore[override]
        """Cooldown steps that are left; see :attr:`PlateauLanes.cooldown_counter`."""
        return self.lanes.cooldown_counter

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of tensors and primitives: ``lanes`` and ``last_epoch``.

        With ``lane_of`` also that, a list of numbers.
        """
        own = {} if self._lane_of is None else {"lane_of": self.lane_of}
        return {"lanes": self.lanes.state_dict(), "last_epoch": self.last_epoch, **own}

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot and publish its rates to the optimizers.

        It must be one of lanes that own as many groups each, and with ``lane_of`` the same ones.

        Raises KeyError, TypeError or ValueError, with nothing changed, as
        :meth:`PlateauLanes.load_state_dict` does.
        """
        self._take(self._checked(state_dict))
        self._publish()

    def _checked(self, state_dict: Any) -> tuple[LaneState, int]:
        """Return what a state brings."""
        own = () if self._lane_of is None else ("lane_of",)
        check_keys("state_dict", state_dict, ("lanes", "last_epoch", *own))
        label = "state_dict['last_epoch']"
        last_epoch = checked_field("last_epoch", state_dict["last_epoch"], label)
        if not self._own.fit(self._groups()):
            self._adopt()
        if own and state_dict["lane_of"] != self.lane_of:
            raise ValueError(
                f"state_dict['lane_of']: expected {self.lane_of}, got "
                f"{shown(state_dict['lane_of'])}"
            )
        old = self.lanes._state
        new = restored(state_dict["lanes"], old.n, old.groups, old.capacity, old.dtype, old.device)
        if SETTINGS["warmup_steps"].needs_part(new.settings["warmup_steps"]):
            raise ValueError(
                "state_dict['lanes']['settings']['warmup_steps']: expected 0, got others; for a "
                "warm-up see compose"
            )
        return new, last_epoch

    def _take(self, state: tuple[LaneState, int], also: Sequence[Write] = ()) -> None:
        """Take over what a state brings, and do what else is to be written, all at once."""
        new, last_epoch = state
        counted = partial(setattr, self.lanes._core, "calls", last_epoch)
        self.lanes._change(lambda _: new, also=lambda: [counted, *also])

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        self._adopt_if_replaced()
        remade = ("_handed", "_vector", "_version", "_published", "_hooks", "_own")
        kept = {name: value for name, value in self.__dict__.items() if name not in remade}
        return {**kept, "_lanes": self.lane_of, "last_epoch": self.last_epoch}

    def __setstate__(self, state: Any) -> None:
        given = as_dict("state", state)
        if not given.keys() >= _PICKLED:
            raise KeyError(f"state: missing keys {sorted(_PICKLED - given.keys())}")
        lanes, own = given["lanes"], checked_optimizers(given["_optimizers"])
        shown = given["optimizer"]
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {kind_of(lanes)}")
        if (checked_optimizers(shown) if shown is not own[0] else [shown]) != own:
            raise ValueError("optimizer: expected the optimizers of the scheduler, got others")
        _check_publish(given["publish"], "float", "tensor")
        last_epoch = checked_field("last_epoch", given.pop("last_epoch"))
        groups = [group for each in own for group in each.param_groups]
        if len(groups) != len(lanes.lr):
            raise ValueError(
                f"lanes: expected {len(groups)} rates, one for each group, got {len(lanes.lr)}"
            )
        owned = LaneGroups(groups, _checked_owners(given.pop("_lanes"), groups, lanes), len(lanes))
        lanes._core.calls = last_epoch
        self.__dict__.update(given, _own=owned)
        self._attach()


def _checked_owners(numbers: Any, groups: list[dict[str, Any]], lanes: PlateauLanes) -> list[int]:
    """Check the lane of each group in a state that is restored."""
    found = numbers_for(items_of(numbers, "_lanes", len(groups)), groups)
    counts = [found.count(lane) for lane in range(len(lanes))]
    if sum(counts) != len(found) or counts != (lanes.groups or [1] * len(lanes)):
        raise ValueError(f"_lanes: expected the lanes of the groups, got {shown(numbers)}")
    return found


def _check_publish(value: object, *allowed: str | None) -> None:
    if not any(value is each or (isinstance(value, str) and value == each) for each in allowed):
        raise ValueError(f"publish: expected 'float', 'tensor' or None, got {shown(value)}")


def _version_of(tensor: Tensor) -> int:
    """Return how often torch wrote to a tensor; the core's own writes do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _warn_of_syncs(optimizers: list[Optimizer]) -> None:
    cures = {type(each).__name__: cure for each in optimizers if (cure := sync_of(each))}
    for name, cure in cures.items():
        warnings.warn(
            f"{name} waits for its rate at every step when that is on a GPU; {cure}",
            UserWarning,
            stacklevel=3,
        )
