"""A rate per lane for stacked parameters, with a stock optimizer that knows one rate."""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
    SparseAdam,
)

from .. import _core
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.selection import numbers_of
from ..lanes.table import whole_number
from ..lanes.turns import in_turn
from ..lanes.values import check_keys
from ..lanes.writes import Write
from .optimizers import unwrapped

__all__ = ["LaneLR", "lane_lr_of"]

# Their step is p - lr * u, where u does not depend on lr (weight decay included).
_LINEAR = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Adamax)

_NOT_LINEAR = {
    Rprop: "its step sizes adapt by sign and read the rate only once",
    ASGD: "its average and its decay depend on the rate",
    Adafactor: "it scales the rate by the size of the parameter as it goes",
    LBFGS: "it searches along a line and keeps the rate in its state",
    Muon: "it takes 2-d parameters only, and stacked ones have a dimension more",
    SparseAdam: "it updates only some rows",
}

# The key of our hooks. torch numbers those that it registers, anew in each process: a number that
# came with a pickle could be given again, and ours would be lost.
_KEY = "torch_plateau.LaneLR"
_BEFORE, _AFTER = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"

Index = Tensor | Sequence[int]


class _Place(NamedTuple):
    """Where the lanes are in a parameter."""

    old: Tensor  # the parameter before the step
    shape: list[int]  # in which rates are spread over it
    lane_of: Tensor | None


class LaneLR:
    """Give each lane of stacked ``[n, ...]`` parameters its own rate.

    Around each step of the optimizer::

        before: old = p
        after:  p   = old + lr[lane] * (p - old)           for every parameter, as torch.lerp

    For an optimizer whose step is linear in its rate this is the step that a separate optimizer
    with rate ``group["lr"] * lr[lane]`` would have taken, to rounding: SGD (momentum, nesterov and
    weight decay included), Adam, AdamW, amsgrad, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Adamax.
    It costs one copy of the parameters and two passes over them.

    The group's own ``lr`` is a factor that all lanes share: build the optimizer with ``lr=1.0`` for
    the lanes' rates as they are. Whatever writes it (a warm-up of torch's schedules, a search for a
    rate, SWA, ``load_state_dict``) scales the rates of all lanes.

    Rates are read from ``lanes`` at every step, in the parameter's own precision: float64
    parameters get the float64 master. Nothing synchronises, and with an optimizer that can be
    captured in a CUDA graph (``capturable=True`` for most) the whole step can.

    A copy or a pickle of the optimizer brings a LaneLR and lanes of its own along, as they are
    then; copy or pickle ``(optimizer, lanes)`` together to hold the lanes too. The optimizer holds
    its LaneLR, not the other way round. The optimizer's ``state_dict`` has no rates of lanes: save
    that of ``lanes`` beside it.

    Args:
        optimizer: Holds the stacked parameters. One that is wrapped (by Fabric, Lightning,
            accelerate or others that keep it as ``optimizer`` or ``_optimizer``) is unwrapped.
        lanes: ``n`` lanes of one group each.
        linear: Take an optimizer of another class than those above. Its step must be
            ``p - lr * u``, weight decay included, where ``u`` and what it remembers do not depend
            on ``lr``. That cannot be checked: with another step the rates are silently wrong.
        dim: Which dimension of a parameter holds the lanes: a number; or a mapping from parameters
            to numbers (0 for those not in it), or a function from a parameter to one.
        lane_of: Where that dimension holds other rows than one for each lane (folds times members,
            atoms of systems, blocks): the lane of each row, integers, shape ``(rows,)``, copied. Or
            a mapping or function as for ``dim``, with None for parameters of ``n`` rows.

    Groups that are added later count from the next step on. If lanes are added, removed or moved
    to another device, parameters are checked again at the next step, before it changes anything;
    with ``lane_of`` for all parameters that is an error: build another LaneLR.

    Raises:
        TypeError: the optimizer is not one of those above, with the reason; ``linear``, ``dim`` or
            ``lane_of`` is of another kind.
        IndexError: a lane in ``lane_of`` that does not exist (on a GPU this is not checked).
        ValueError: lanes with several groups, an optimizer that has a LaneLR already, or a
            parameter that is not real floating point with ``n`` (or as many as ``lane_of`` has) at
            dimension ``dim``, on the lanes' device.

    Warns if a group's ``lr`` is the default of its optimizer's class and not 1: that is more often
    forgotten than meant.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lanes: PlateauLanes,
        *,
        linear: bool = False,
        dim: int | Mapping[Tensor, int] | Callable[[Tensor], int] = 0,
        lane_of: Index | Mapping[Tensor, Index] | Callable[[Tensor], Index | None] | None = None,
    ) -> None:
        optimizer = unwrapped(optimizer)
        _check_linear(optimizer, linear)
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {type(lanes).__name__}")
        if any(count != 1 for count in lanes.groups or ()):
            raise ValueError(f"lanes: expected one rate per lane, got {len(lanes.lr)} groups")
        if lane_lr_of(optimizer) is not None:
            raise ValueError(
                "optimizer: expected one without a LaneLR, got one that has it already"
            )
        self.lanes = lanes
        self._optimizer = _held_weakly(optimizer)
        self._dim = dim
        self._lane_of = lane_of
        if not (lane_of is None or callable(lane_of) or isinstance(lane_of, Mapping)):
            self._lane_of = numbers_of("lane_of", lane_of, len(lanes), lanes.device).clone()
        self._size = len(lanes), lanes.device
        self._places: dict[Tensor, _Place] = {}
        self._moves: list[tuple[Tensor, Tensor, Tensor]] = []
        self._check(optimizer)
        _warn_of_defaults(optimizer)
        try:
            self._attach(optimizer)
        except BaseException:
            self.remove()
            raise

    def _attach(self, optimizer: Optimizer) -> None:
        writes: list[Write] = [
            partial(getattr(optimizer, name).__setitem__, _KEY, hook)
            for name, hook in ((_BEFORE, self._before), (_AFTER, self._after))
        ]
        # torch's own leaves the hooks out, so that a copy would step with rates of 1
        state = partial(optimizer.__dict__.__setitem__, "__getstate__", self._state_of_optimizer)
        _core.call_each([*writes, state])

    def remove(self) -> None:
        """Detach from the optimizer, if it is there."""
        optimizer = self._optimizer()
        writes: list[Write] = []
        for name in (_BEFORE, _AFTER):
            hooks = getattr(optimizer, name, {})
            if optimizer is not None and getattr(hooks.get(_KEY), "__self__", None) is self:
                writes.append(partial(hooks.__delitem__, _KEY))
                writes.append(partial(optimizer.__dict__.pop, "__getstate__", None))
        _core.call_each(writes)

    # -- copies -----------------------------------------------------------------------------------

    def _state_of_optimizer(self) -> dict[str, Any]:
        """Return the optimizer as it is copied and pickled: as torch does, with these hooks."""
        optimizer = self._optimizer()
        assert optimizer is not None  # it asks
        return {
            **type(optimizer).__getstate__(optimizer),
            _BEFORE: OrderedDict({_KEY: self._before}),
            _AFTER: OrderedDict({_KEY: self._after}),
            "__getstate__": self._state_of_optimizer,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {
            "optimizer": self._optimizer(),
            "lanes": self.lanes,
            "dim": self._dim,
            "lane_of": self._lane_of,
            "size": self._size,
        }

    def __setstate__(self, state: Any) -> None:
        # The optimizer, which brings the hooks, may not be complete yet: its next step checks it.
        check_keys("state", state, ("optimizer", "lanes", "dim", "lane_of", "size"))
        self.lanes, self._optimizer = state["lanes"], _held_weakly(state["optimizer"])
        self._dim, self._lane_of, self._size = state["dim"], state["lane_of"], state["size"]
        self._places, self._moves = {}, []

    # -- around a step ----------------------------------------------------------------------------

    def _check(self, optimizer: Optimizer) -> None:
        """Find the lanes in the parameters of which that is not known yet."""
        size = len(self.lanes), self.lanes.device
        if size != self._size:
            if isinstance(self._lane_of, Tensor):
                raise ValueError(
                    f"lanes: expected {self._size[0]} on {self._size[1]}, for which lane_of was "
                    f"given, got {size[0]} on {size[1]}; remove this LaneLR and build another"
                )
            self._places, self._size = {}, size
        known, places = self._places, {}
        for i, group in enumerate(optimizer.param_groups):
            for param in group["params"]:
                place = known.get(param)
                if place is None or not _alike(place.old, param):
                    place = self._place_of(param, i)
                places[param] = place
        self._places = places

    def _place_of(self, param: Tensor, group: int) -> _Place:
        n, device = self._size
        dim, index = _given_for(param, self._dim, 0), _given_for(param, self._lane_of, None)
        if not whole_number(dim, -(2**63)):
            raise TypeError(f"dim: expected an integer for each parameter, got {kind_of(dim)}")
        if index is not None and index is not self._lane_of:
            index = numbers_of("lane_of", index, n, device).clone()
        rows, shape = n if index is None else len(index), tuple(param.shape)
        label = f"param_groups[{group}]"
        if not -len(shape) <= dim < len(shape) or shape[dim] != rows:
            wanted = f"[{rows}, ...]" if dim == 0 else f"with {rows} at dimension {dim}"
            raise ValueError(f"{label}: expected parameters {wanted}, got shape {shape}")
        if not param.is_floating_point():
            raise ValueError(f"{label}: expected real parameters, got {param.dtype}")
        if param.device != device:
            raise ValueError(
                f"{label}: expected parameters on the lanes' device, {device}, got {param.device}"
            )
        spread = [1] * len(shape)
        spread[dim] = rows
        return _Place(torch.empty_like(param, requires_grad=False), spread, index)

    @property
    def _turn(self) -> _core.Lanes:
        return self.lanes._core

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._check(optimizer)
        closure = args[0] if args else kwargs.get("closure")
        stepping = [
            param
            for param in self._places
            if param.grad is not None or closure is not None  # a closure makes gradients later
        ]
        torch._foreach_copy_([self._places[param].old for param in stepping], stepping)
        rates: dict[tuple[torch.dtype, int], Tensor] = {}
        self._moves = []
        for param in stepping:
            old, shape, lane_of = self._places[param]
            kind = (param.dtype, id(lane_of))
            if kind not in rates:
                single = param.dtype == torch.float32
                rate = self.lanes.lr if single else self.lanes.lr_master.to(param.dtype)
                rates[kind] = rate if lane_of is None else rate.index_select(0, lane_of)
            self._moves.append((old, param, rates[kind].view(shape)))

    @torch.no_grad()
    @in_turn
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if (size := (len(self.lanes), self.lanes.device)) != self._size:
            for old, param, _ in self._moves:
                if _alike(old, param):
                    param.copy_(old)
            raise RuntimeError(
                f"lanes: expected {self._size[0]} on {self._size[1]} until the optimizer's step is "
                f"over, got {size[0]} on {size[1]}; its parameters are what they were before"
            )
        if is_dynamo_compiling():
            for old, param, rate in self._moves:
                torch.lerp(old, param, rate, out=param)
        else:
            _core.call_each([partial(torch.lerp, *move, out=move[1]) for move in self._moves])


def lane_lr_of(optimizer: Optimizer) -> LaneLR | None:
    """Return the LaneLR that an optimizer has, if any."""
    hook = getattr(optimizer, _BEFORE).get(_KEY)
    found = getattr(hook, "__self__", None)
    return found if isinstance(found, LaneLR) else None


def _held_weakly(optimizer: Optimizer | None) -> Callable[[], Optimizer | None]:
    """Return what finds an optimizer that lives: it holds its LaneLR, and is no cycle with it."""
    return (lambda: None) if optimizer is None else weakref.ref(optimizer)


def _given_for(param: Tensor, given: Any, default: Any) -> Any:
    """Return what was given for a parameter: by a mapping, by a function or for all."""
    if isinstance(given, Mapping):
        return given.get(param, default)
    return given(param) if callable(given) else given


def _alike(old: Tensor, param: Tensor) -> bool:
    return (old.shape, old.dtype, old.device) == (param.shape, param.dtype, param.device)


def _check_linear(optimizer: object, linear: object) -> None:
    if not isinstance(linear, bool):
        raise TypeError(f"linear: expected a bool, got {kind_of(linear)}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    if type(optimizer) in _LINEAR:
        return
    name, allowed = type(optimizer).__name__, ", ".join(each.__name__ for each in _LINEAR)
    for kind, reason in _NOT_LINEAR.items():
        if isinstance(optimizer, kind):
            raise TypeError(
                f"optimizer: {name} cannot have a rate per lane: {reason}; use {allowed}"
            )
    if not linear:
        raise TypeError(
            f"optimizer: {name} cannot have a rate per lane: its step is not known to be linear in "
            f"the rate; use {allowed}, or pass linear=True if it is p - lr * u"
        )


def _warn_of_defaults(optimizer: Optimizer) -> None:
    name = type(optimizer).__name__
    default = getattr(signature(type(optimizer)).parameters.get("lr"), "default", None)
    for i, group in enumerate(optimizer.param_groups):
        factor = group.get("initial_lr", group["lr"])  # a schedule has written "lr"
        if isinstance(factor, float) and factor == default != 1.0:
            warnings.warn(
                f"param_groups[{i}]['lr'] is {factor:g}, the default of {name}, and "
                "scales the rates of all lanes; build it with lr=1.0 for the rates as they are",
                UserWarning,
                stacklevel=3,
            )
