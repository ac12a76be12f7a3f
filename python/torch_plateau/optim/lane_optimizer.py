"""What optimizers with a rate per lane share: lanes, settings per lane, rows of state, the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from .. import _core
from ..lanes.lanes import PlateauLanes
from ..lanes.placed import INCREMENT_VERSION
from ..lanes.readable import kind_of
from ..lanes.selection import Which, chosen
from ..lanes.table import Row
from ..lanes.turns import in_turn
from ..lanes.values import check_keys, checked, shown
from ..lanes.writes import Write

__all__ = ["FACTOR", "SHARE", "LaneOptimizer", "finite"]

PerLane = float | list[float] | tuple[float, ...] | Tensor  # one number, or one per lane

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def finite(name: str, low: float = 0.0) -> Row:
    """Return what a setting may be: finite, and at least ``low``."""
    expected = "finite and not negative" if low == 0.0 else "finite"
    return Row(name, torch.float64, "lane", 0.0, low, math.inf, low != 0.0, True, expected, ())


FACTOR = finite("lr")
SHARE = Row(
    "betas", torch.float64, "lane", 0.0, 0.0, 1.0, False, True, "at least 0 and below 1", ()
)


class LaneOptimizer(Optimizer):
    """An optimizer over stacked ``[n, ...]`` parameters in which each lane has a rate of its own.

    A subclass says what its settings may be, which states it keeps of a parameter and how a step
    of a group is built.
    """

    _step_supports_amp_scaling = True  # GradScaler then leaves grad_scale and found_inf to step()
    _settings: ClassVar[dict[str, Row]]

    lanes: PlateauLanes

    def __init__(self, params: Any, lanes: PlateauLanes, defaults: dict[str, Any]) -> None:
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {kind_of(lanes)}")
        if any(count != 1 for count in lanes.groups or ()):
            raise ValueError(f"lanes: expected one rate per lane, got {len(lanes.lr)} groups")
        self.lanes = lanes
        super().__init__(params, defaults)

    # -- what a subclass says ---------------------------------------------------------------------

    def _states(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the states kept of each parameter of a group, in the core's order."""
        raise NotImplementedError

    def _built(
        self, group: dict[str, Any], lanes: Any, amp: Any, lr: Any, tensors: list[tuple[Any, ...]]
    ) -> Any:
        """Return the step of a group, checked by the core and not taken yet."""
        raise NotImplementedError

    # -- the step ---------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what ``closure`` returns, None without one.

        In place: parameters, states, and gradients too where a GradScaler's scale is taken out of
        them. Parameters without a gradient are passed over, and so are rows of finished lanes.
        Where ``found_inf`` (set by GradScaler) is not 0 nothing is written. Does not synchronise.

        Raises RuntimeError for sparse gradients and ValueError for parameters that have not a row
        for each lane (any more), gradients of another type or place, or settings of a wrong shape
        or type; with nothing changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step()
        return loss

    @property
    def _turn(self) -> _core.Lanes:
        return self.lanes._core

    @in_turn
    def _step(self) -> None:
        n = len(self.lanes)
        lanes, amp = self._lanes_now(), self._amp_now()
        writes: list[Write] = []
        steps, written, copied = [], [], []
        for number, group in enumerate(self.param_groups):
            tensors, names = [], self._states(group)
            for param in group["params"]:
                given = param.grad
                if given is None or param.numel() == 0:
                    continue
                if param.shape[0] != n:
                    raise ValueError(_shape_message(param, n, number))
                grad = _dense(given, number)
                if grad is not given:
                    copied.append((given, grad))
                state = self._state_of(param, names)
                if names and state is not self.state.get(param):
                    writes.append(partial(self.state.__setitem__, param, state))
                step = state["step"] if names else None
                tensors.append((param, grad, step, *(state[name] for name in names)))
                written.append(param)
            if tensors:
                lr = _factor(group["lr"], n, self.lanes.device)
                steps.append(self._built(group, lanes, amp, lr, tensors))
        threads = torch.get_num_threads()
        writes += [partial(each.run, threads) for each in steps]
        if "grad_scale" in amp:  # these are unscaled now, as torch's fused optimizers leave them
            writes += [partial(given.copy_, grad) for given, grad in copied]
            written += [param.grad for param in written]
        with torch.no_grad():
            _core.call_each([*writes, partial(INCREMENT_VERSION, written)])

    def _lanes_now(self) -> dict[str, Tensor]:
        fields = self.lanes._state.fields
        return {name: fields[name] for name in ("rate", "published", "flags") if name in fields}

    def _amp_now(self) -> dict[str, Tensor]:
        """Return what a GradScaler set on this optimizer for the step."""
        found = {}
        for name in ("grad_scale", "found_inf"):
            value = getattr(self, name, None)
            if value is not None:
                found[name] = value.detach().to(self.lanes.device, torch.float32).reshape(1)
        return found

    def _state_of(self, param: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the states of a parameter; another dict where some had to be made."""
        state: dict[str, Tensor] = self.state.get(param, {}) if names else {}
        made = {
            name: torch.zeros_like(param, dtype=_state_dtype(param), requires_grad=False)
            for name in names
            if name not in state
        }
        if names and "step" not in state:
            made["step"] = torch.zeros(len(param), dtype=torch.float32, device=param.device)
        return {**state, **made} if made else state

    # -- lanes ------------------------------------------------------------------------------------

    @torch.no_grad()
    @in_turn
    def reset_lanes(self, lanes: Which) -> None:
        """Forget what was remembered of lanes, as of models that have not been trained.

        ::

            state[...][lane] = 0          for every parameter: averages, buffers, count of steps

        Their next step is the first one of a new optimizer. Parameters, rates and settings stay:
        ``PlateauLanes.reset`` is for the rates. In place, without a synchronisation, and may be
        captured in a CUDA graph if ``lanes`` is a tensor.

        Args:
            lanes: A bool tensor of shape ``(n,)``, lane numbers (both on the lanes' device), a
                sequence of either, or one number.

        Raises TypeError, ValueError or IndexError, with nothing changed, for lanes that do not
        exist.
        """
        mask = chosen("lanes", lanes, len(self.lanes), self.lanes.device).mask
        _core.call_each(
            [
                partial(tensor.masked_fill_, mask.view(-1, *[1] * (tensor.ndim - 1)), 0)
                for state in self.state.values()
                for tensor in state.values()
            ]
        )

    # -- groups -----------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with settings of its own, as the constructor takes them.

        Raises as the constructor does, with nothing changed.
        """
        before = len(self.param_groups)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._settle(group)
            for param in group["params"]:
                _check_param(param, len(self.lanes), self.lanes.device, before)
        except BaseException:
            del self.param_groups[before:]
            raise

    def _settle(self, group: dict[str, Any]) -> None:
        """Check a group's settings; one per lane become float64 tensors on the lanes' device."""
        for name, row in self._settings.items():
            if name not in group:
                raise KeyError(f"param_groups: expected {name!r}, got {sorted(group)}")
            value = group[name]
            if name == "betas":
                if not isinstance(value, (tuple, list)) or len(value) != 2:
                    raise ValueError(f"betas: expected two values, got {shown(value)}")
                group[name] = tuple(
                    self._placed(row, each, f"betas[{i}]") for i, each in enumerate(value)
                )
            elif not (name == "lr" and _is_scalar(value)):
                group[name] = self._placed(row, value, name)

    def _placed(self, row: Row, value: Any, label: str) -> float | Tensor:
        values = checked(row, value, len(self.lanes), label=label)
        return values.to(self.lanes.device) if values.ndim else float(values)

    # -- copies and saved states ------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "lanes": self.lanes}

    @in_turn
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict()`` returned, in the types that it was kept in.

        The lanes have a state of their own: save and load it beside this one. Tensors may lie on
        any device (this synchronises then), and are copied.

        Raises KeyError, TypeError or ValueError, with nothing changed, for other groups, settings
        out of range, or states of other names, shapes or types.
        """
        before = self.state, self.param_groups
        given: list[dict[str, Any]] = []
        hooks = (
            self.register_load_state_dict_pre_hook(lambda _, saved: given.append(saved)),
            # torch has cast states to the parameters' type by now: the first hook afterwards
            self.register_load_state_dict_post_hook(
                lambda _: self._restore(given[-1]), prepend=True
            ),
        )
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            self.state, self.param_groups = before
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _restore(self, saved: dict[str, Any]) -> None:
        for number, (old, group) in enumerate(
            zip(saved["param_groups"], self.param_groups, strict=True)
        ):
            self._settle(group)
            names = self._states(group)
            for key, param in zip(old["params"], group["params"], strict=True):
                if key in saved["state"]:
                    label = f"state[{key!r}]"
                    self.state[param] = _restored(label, saved["state"][key], param, names)
                _check_param(param, len(self.lanes), self.lanes.device, number)


def _restored(
    label: str, saved: Mapping[str, Any], param: Tensor, names: tuple[str, ...]
) -> dict[str, Tensor]:
    check_keys(label, saved, ("step", *names) if names else ())
    found = {}
    for name, value in saved.items():
        dtype, shape = _state_dtype(param), param.shape
        if name == "step":
            dtype, shape = torch.float32, param.shape[:1]
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (shape, dtype):
            raise ValueError(
                f"{label}[{name!r}]: expected {dtype} of shape {tuple(shape)}, got {shown(value)}"
            )
        found[name] = value.detach().to(param.device, copy=True).contiguous()
    return found


def _state_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _is_scalar(value: Any) -> bool:
    """Return whether a rate's factor is a tensor of one number, which torch's schedules fill."""
    return isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()


def _factor(lr: Any, n: int, device: torch.device) -> Any:
    """Return a group's factor of all rates as the core takes it; no device is waited for."""
    if not isinstance(lr, Tensor):
        return float(lr)
    if lr.ndim:
        return lr
    return float(lr) if lr.is_cpu else lr.to(device, torch.float64).expand(n).contiguous()


def _dense(grad: Tensor, group: int) -> Tensor:
    if grad.layout != torch.strided:
        raise RuntimeError(
            f"param_groups[{group}]: expected dense gradients, got {grad.layout}; "
            "use torch.optim.SparseAdam"
        )
    return grad if grad.is_contiguous() and not grad.is_neg() else grad.contiguous().resolve_neg()


def _check_param(param: Tensor, n: int, device: torch.device, group: int) -> None:
    if param.ndim == 0 or param.shape[0] != n:
        raise ValueError(_shape_message(param, n, group))
    wrong = (
        (param.dtype not in _DTYPES, "float64, float32, bfloat16 or float16", param.dtype),
        (param.device != device, f"on the lanes' device, {device}", param.device),
        (not param.is_contiguous(), "contiguous", f"strides {param.stride()}"),
    )
    for is_wrong, expected, got in wrong:
        if is_wrong:
            raise ValueError(f"param_groups[{group}]: expected parameters {expected}, got {got}")


def _shape_message(param: Tensor, n: int, group: int) -> str:
    return (
        f"param_groups[{group}]: expected parameters [{n}, ...], a row for each lane, got shape "
        f"{tuple(param.shape)}"
    )
