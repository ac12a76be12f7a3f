"""Lanes bound to optimizers: one decision pass for many models, or for many param groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING

from .. import _core
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.saved import restored
from ..lanes.state import LaneState
from ..lanes.table import SETTINGS
from ..lanes.values import check_keys, shown
from .fields import as_dict, checked_field
from .hooks import call_after_load
from .optimizers import checked_optimizers, rate_in, rates_of
from .tensor_rates import check_takes_tensor_rate, device_of, sync_of

__all__ = ["BatchedReduceLROnPlateau"]

# A warm-up writes rates at every step, not only at cuts: that is for compose.
_SETTINGS = [name for name in SETTINGS if not name.startswith("warmup_")]
_RESULTS = ("best", "num_bad_epochs", "cooldown_counter")
_CURES = "reset, set_lanes, copy_lanes, load_state_dict"
_OPTIONS = {*_SETTINGS, "events"}
_FIXED = ("lanes", "optimizer", "publish")
_PICKLED = {*_FIXED, "_optimizers", "last_epoch"}


class BatchedReduceLROnPlateau(lr_scheduler.ReduceLROnPlateau):
    """``ReduceLROnPlateau`` for many optimizers, or for each param group of one.

    Given a sequence of optimizers there is a lane per optimizer, which owns all its groups; given
    one optimizer there is a lane per param group. Every other argument is torch's, each a scalar
    or one value per lane (``min_lr`` also one per group), and every lane decides as a
    ``ReduceLROnPlateau`` of its own would with float rates. The lanes themselves, with ``best``,
    ``lr``, ``reduced`` and the rest as tensors, are :attr:`lanes`.

    Args:
        optimizers: One optimizer, or a sequence of different ones.
        publish: How rates reach the optimizers. ``"float"``: ``group["lr"]`` is a Python float,
            written when the lane is cut. ``"tensor"``: it is a 0-d float32 view into ``lanes.lr``,
            so a cut reaches the optimizer with no write. Unless told, ``"tensor"`` if any group's
            rate is a tensor now or ``device`` is given, else ``"float"``.
        device: Where the lanes live and their metrics must, with ``publish="tensor"``. Unless told,
            with the rates, if these are on a GPU, else with the parameters. With
            ``publish="float"`` it is the CPU.
        dtype: As in :class:`PlateauLanes`: what metrics are kept in.
        options: The other settings of docs/settings.md, and ``events`` of :class:`PlateauLanes`.
            (For a warm-up see :func:`compose`.)

    With lanes on a GPU a step is one kernel launch and never synchronises; it may be captured in a
    CUDA graph, whose replays count in ``lanes.num_steps`` (``last_epoch`` counts calls). An
    optimizer that would itself wait for its rate at every step is warned of, with what to set.
    With lanes on the CPU metrics may lie on any device; one transfer a step, which synchronises,
    brings them all.

    Rates set on :attr:`lanes` (``lanes.set_lanes``, ``reset``, ``copy_lanes``, ``lanes.lr[i] = x``)
    reach the optimizers at once as tensors, and at the next step as floats. Lanes cannot be added
    or removed.

    Rates that other code sets are adopted at the next step: a group that was given a new number
    or one-element tensor, one written in place, and those that ``optimizer.load_state_dict``
    brings (views are put back by a hook, which copies of the optimizer do not carry). To adopt a
    rate on a GPU synchronises, once.

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
        publish: Literal["float", "tensor"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
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
        per_group = isinstance(optimizers, Optimizer)
        self.lanes = PlateauLanes(
            len(groups) if per_group else len(self._optimizers),
            [rate_in(group, i) for i, group in enumerate(groups)],
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
            groups=None if per_group else [len(o.param_groups) for o in self._optimizers],
            device=device or "cpu",
            dtype=dtype,
            **options,
        )
        if self.lanes.device.type == "cuda":
            _warn_of_syncs(self._optimizers)
        self.optimizer = optimizers  # type: ignore[assignment]
        self.publish = publish
        self.last_epoch = 0
        self._attach()

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Advance every lane by one metric, and publish the rates of the lanes that are cut.

        Args:
            metrics: Shape ``(lanes,)``, anything that :meth:`PlateauLanes.step` takes; where the
                lanes are on the CPU, a tensor on any device (fetching it synchronises).
            epoch: Deprecated, as in torch: warns, and becomes ``last_epoch``.

        Raises TypeError or ValueError, with no lane advanced, for metrics of a wrong shape, type
        or device, and if the optimizers' groups changed in number or hold a rate that is not one
        finite number.
        """
        if epoch is not None:
            epoch = checked_field("last_epoch", epoch, "epoch")
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        self._adopt_if_replaced()
        reduced = self.lanes._advance(metrics)
        if reduced < 0:
            reduced = self.lanes._step_again(reduced, metrics, fetch=True)
            self._adopt_if_replaced()
        # past __setattr__, which would take as long as many a step
        self.__dict__["last_epoch"] = self.last_epoch + 1 if epoch is None else epoch
        if self.publish == "float" and (reduced or self._version != _version_of(self._vector)):
            self._publish()

    def _attach(self) -> None:
        """Publish to the optimizers for the first time, and keep it so when they load a state."""
        self._publish()
        self._hooks = [call_after_load(self, optimizer) for optimizer in self._optimizers]

    def _after_load(self) -> None:
        """Put the views back, which ``optimizer.load_state_dict`` replaces with its own rates."""
        self._adopt()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _check_groups(self) -> list[dict[str, Any]]:
        groups = self._groups()
        if len(groups) != len(self._published):
            raise ValueError(
                f"optimizers: expected {len(self._published)} param groups, as when the scheduler "
                f"was built, got {len(groups)}; build a new scheduler"
            )
        return groups

    def _publish(self) -> None:
        """Write the lanes' rates where the optimizers read them, and remember those objects."""
        groups = self._groups()
        with self.lanes._core:
            self.lanes._take_moved()
        handed = self.lanes._handed["published"]
        if self.publish == "tensor":
            here = self.__dict__.get("_handed") is handed  # and so the views are good
            rates: list[Any] = self._published if here else list(handed.tensor.unbind())
        else:
            rates = self.lanes.lr_master.tolist()
            for i, group in enumerate(groups):  # an unchanged rate stays the user's own object
                if isinstance(group["lr"], float) and group["lr"] == rates[i]:
                    rates[i] = group["lr"]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        self._published, self._handed, self._vector = rates, handed, handed.tensor
        self._version = _version_of(self._vector)

    def _adopt_if_replaced(self) -> None:
        if not _core.same_rates(self._optimizers, self._published):
            self._adopt()
        elif self._handed is not self.lanes._handed["published"]:  # lr is elsewhere now
            self._publish()

    def _adopt(self) -> None:
        """Take over rates that other code put into the groups."""
        groups = self._check_groups()
        replaced = {
            i: rate_in(group, i)
            for i, group in enumerate(groups)
            if group["lr"] is not self._published[i]
        }
        published = self.lanes.lr
        for i, value in list(replaced.items()):
            # a float32 copy of the rate that is there already must not cost it its digits
            if isinstance(groups[i]["lr"], Tensor) and value == float(published[i]):
                del replaced[i]
        self.lanes._set_rates(replaced)
        self._publish()

    def __getattr__(self, name: str) -> Any:
        # torch's names for the settings; only reached for what is no attribute
        settings = self.__dict__["lanes"].settings if "lanes" in self.__dict__ else {}
        if name not in settings:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return settings[name]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a setting, which reaches the lanes, or ``last_epoch``; other names are refused.

        A subclass may have attributes of its own.
        """
        if name in _SETTINGS and "lanes" in self.__dict__:
            self.lanes._set_settings(**{name: value})
            return
        if name in _RESULTS:
            raise AttributeError(f"{name}: cannot be set here; use the methods of lanes: {_CURES}")
        if name in _FIXED and name in self.__dict__:
            raise AttributeError(f"{name}: cannot be set; build a new scheduler")
        mine = type(self) is BatchedReduceLROnPlateau and not name.startswith("_")
        if mine and name not in _PICKLED and not hasattr(type(self), name):
            raise AttributeError(f"{name}: expected one of the settings, {_SETTINGS}")
        super().__setattr__(name, checked_field(name, value) if name == "last_epoch" else value)

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

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of tensors and primitives: ``lanes`` and ``last_epoch``."""
        return {"lanes": self.lanes.state_dict(), "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot and publish its rates to the optimizers.

        Raises KeyError, TypeError or ValueError, with nothing changed, as
        :meth:`PlateauLanes.load_state_dict` does.
        """
        self._take(self._checked(state_dict))

    def _checked(self, state_dict: Any) -> tuple[LaneState, int]:
        """Return what a state brings."""
        check_keys("state_dict", state_dict, ("lanes", "last_epoch"))
        label = "state_dict['last_epoch']"
        last_epoch = checked_field("last_epoch", state_dict["last_epoch"], label)
        self._check_groups()
        old = self.lanes._state
        new = restored(state_dict["lanes"], old.n, old.groups, old.capacity, old.dtype, old.device)
        if SETTINGS["warmup_steps"].needs_part(new.settings["warmup_steps"]):
            raise ValueError(
                "state_dict['lanes']['settings']['warmup_steps']: expected 0, got others; for a "
                "warm-up see compose"
            )
        return new, last_epoch

    def _take(self, state: tuple[LaneState, int]) -> None:
        new, last_epoch = state
        self.lanes._change(lambda _: new)
        self.last_epoch = last_epoch
        self._publish()

    def __getstate__(self) -> dict[str, Any]:
        self._adopt_if_replaced()
        remade = ("_handed", "_vector", "_version", "_published", "_hooks")
        return {name: value for name, value in self.__dict__.items() if name not in remade}

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
        given["last_epoch"] = checked_field("last_epoch", given["last_epoch"])
        count = sum(len(each.param_groups) for each in own)
        if count != len(lanes.lr):
            raise ValueError(
                f"lanes: expected {count} rates, one for each group, got {len(lanes.lr)}"
            )
        self.__dict__.update(given)
        self._attach()


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
