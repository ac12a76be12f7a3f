"""The state machine itself: N plateaus in tensors, one fused pass a step, no optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from . import _core
from ._checks import (
    brief,
    check_device,
    check_dtype,
    check_held,
    check_keys,
    checked_settings,
    count_groups,
    loaded_field,
    loaded_flags,
    offsets_of,
    per_group,
    plain,
)
from ._metrics import readable
from ._ops import GATE, SETTINGS, step_
from ._settings import gate_of, setting
from ._tensors import kind_of

__all__ = ["PlateauLanes"]

_IMPROVED, _REDUCED = 1, 2  # bits of the outcome byte, csrc/plateau/types.hpp
_STATE_KEYS = (
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "improved",
    "reduced",
    "num_reductions",
    "num_steps",
    "lr",
    "groups",
    "settings",
)


class PlateauLanes:
    """``n`` independent plateaus: each decides as ``ReduceLROnPlateau`` of torch does.

    Args:
        n: Number of lanes, 0 or more.
        lr: Starting rate of every group: a number, one per lane, or one per group.
        mode: ``"min"`` or ``"max"``, or a sequence of them, one per lane.
        factor: A cut multiplies the rate by this; above 0 and below 1.
        patience: Bad steps in a row that are borne; the next one cuts.
        threshold: How much better a metric must be to count.
        threshold_mode: ``"rel"`` (threshold times best) or ``"abs"``, or one per lane.
        cooldown: Steps after a cut in which nothing counts as bad.
        min_lr: Floor of the rate: a number, one per lane, or one per group.
        eps: A rate is left alone if it would change by ``eps`` or less.
        groups: How many rates each lane owns, one count per lane; one each unless told.
        device: Where the lanes live and their metrics must: ``"cpu"`` or a CUDA device.
        dtype: What ``best`` is kept in. ``torch.float64`` takes every metric; ``torch.float32``
            moves fewer bytes and takes metrics that it holds exactly (float32, float16, bfloat16,
            bool, integers up to 16 bits). The arithmetic is float64 either way.

    Numbers are taken as float64 whatever the default dtype; a float32 tensor of settings is
    widened, so ``torch.tensor(0.1)`` is not 0.1. Every setting that is not a number or a word has
    one value per lane, shape ``(n,)``.

    Raises:
        ValueError, TypeError: a setting is out of range, of a wrong shape or not a number.
        RuntimeError: ``device`` is neither the CPU nor a CUDA device that can be used.

    Nothing that reads or steps lanes synchronises with a CUDA device, except where it says so;
    building, loading and moving them may. A step can be captured in a CUDA graph: replays keep
    deciding and counting (:attr:`num_steps` too). Settings that are one number for all lanes are
    constants of the captured graph; those with a value per lane are read from memory that keeps
    its place when a state is loaded. Capture again after loading a state of other numbers.
    """

    def __init__(
        self,
        n: int,
        lr: float | Sequence[float] | Tensor,
        *,
        mode: str | Sequence[str] = "min",
        factor: float | Sequence[float] | Tensor = 0.1,
        patience: int | Sequence[int] | Tensor = 10,
        threshold: float | Sequence[float] | Tensor = 1e-4,
        threshold_mode: str | Sequence[str] = "rel",
        cooldown: int | Sequence[int] | Tensor = 0,
        min_lr: float | Sequence[float] | Tensor = 0.0,
        eps: float | Sequence[float] | Tensor = 1e-8,
        groups: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"n: expected an integer of 0 or more, got {n!r}")
        device = check_device(device)
        check_dtype(dtype)
        offsets = offsets_of(n, groups)
        settings = checked_settings(
            n,
            offsets,
            {
                "mode": mode,
                "factor": factor,
                "patience": patience,
                "threshold": threshold,
                "threshold_mode": threshold_mode,
                "cooldown": cooldown,
                "min_lr": min_lr,
                "eps": eps,
            },
        )
        rate = per_group("lr", lr, n, offsets)
        rate = rate.expand(count_groups(n, offsets)).clone() if rate.ndim == 0 else rate
        self._groups = None if offsets is None else offsets.diff().tolist()
        self._settings: dict[str, Any] = settings
        self._state: dict[str, Tensor | None] = {
            "best": torch.full((n,), math.inf, dtype=dtype, device=device),
            "clock": torch.zeros(n, dtype=torch.int32, device=device),
            "outcome": torch.zeros(n, dtype=torch.uint8, device=device),
            "num_reductions": torch.zeros(n, dtype=torch.int32, device=device),
            "num_steps": torch.zeros(1, dtype=torch.int64, device=device),
            "rate": rate.to(device),
            "published": rate.float().to(device),
            "offsets": None if offsets is None else offsets.to(device),
        }
        self._in_core: dict[str, float | Tensor] = {}
        self._bind()
        self.best[self._maximized()] = -math.inf

    def _maximized(self) -> Tensor:
        """Whether each lane maximizes its metric; bool, shape ``(n,)``."""
        maximize = self._in_core["maximize"]
        if isinstance(maximize, Tensor):
            return maximize.bool()
        return torch.full((len(self),), bool(maximize), device=self.device)

    def _bind(self) -> None:
        """Give the core its pointers: once, and again when tensors or settings are replaced.

        A setting per lane keeps its memory, which captured graphs read.
        """
        self._lr = self._tensor("published")
        settings = self._settings
        for name, value in settings.items():
            if isinstance(value, Tensor) and value.ndim:
                settings[name] = value.to(self.device)
        gate = gate_of(settings["mode"], settings["threshold"], settings["threshold_mode"])
        for name, value in zip(GATE, gate, strict=True):
            self._in_core[name] = self._kept(name, value)
        for name in SETTINGS[len(GATE) :]:
            kept = self._in_core[name] = self._kept(name, settings[name])
            settings[name] = kept if isinstance(kept, Tensor) else settings[name]
        self._advance = _core.Lanes(self._state, self._in_core).step
        self._uniform = [0.0 if isinstance(v := self._in_core[k], Tensor) else v for k in SETTINGS]
        self._each = [v if isinstance(v := self._in_core[k], Tensor) else None for k in SETTINGS]

    def _kept(self, name: str, value: Tensor) -> float | Tensor:
        """A setting for the core: a number, or a tensor in the memory of the one before it."""
        if value.ndim == 0:
            return float(value)
        old = self._in_core.get(name)
        if isinstance(old, Tensor) and old.device == self.device:
            return old.copy_(value)
        return value.to(self.device)

    def _tensor(self, name: str) -> Tensor:
        tensor = self._state[name]
        assert tensor is not None
        return tensor

    # -- stepping ---------------------------------------------------------------------------------

    def step(self, metrics: Any) -> Tensor:
        """Advance every lane by one metric, in place, and return :attr:`lr`.

        ::

            better = metric < best*gate_scale + gate_shift     (> for mode "max"; NaN never is)
            best   = metric                   where better, also during cooldown
            clock  = clock + 1                where clock < 0  (cooling: the step is ignored)
                     0                        else where better
                     clock + 1                else
            where clock > patience:
                new = max(lr*factor, min_lr); lr = new if lr - new > eps     for each group
                clock = -cooldown

        Args:
            metrics: Shape ``(n,)``, any stride, on the lanes' device; float64, float32, float16,
                bfloat16, bool or any integer type. A tensor is read in place, with no copy and no
                reference kept; arrays of other libraries (``__dlpack__``) and sequences of ``n``
                numbers work too. For one lane also a number or a 0-d tensor.

        Returns:
            The live float32 vector of rates, the same tensor each time; clone it to keep a history.

        Never synchronises. On a CUDA device this is one kernel launch on torch's current stream of
        that device, and may be captured in a graph. On the CPU, from 16,384 lanes on, the
        interpreter lock is released meanwhile. In a compiled function it is one operator,
        ``torch_plateau::step_``.

        Raises TypeError or ValueError, with nothing changed, for metrics of a wrong shape, type or
        device, and RuntimeError if the launch fails.
        """
        if is_dynamo_compiling():
            self._step_traced(metrics)
        elif self._advance(metrics) < 0:
            self._step_converted(metrics)
        return self._lr

    def _step_converted(self, metrics: Any, fetch: bool = False) -> int:
        """Step by metrics that the core refused; return how many lanes had a rate lowered."""
        reduced: int = self._advance(readable(metrics, len(self), self.dtype, self.device, fetch))
        if reduced < 0:
            raise RuntimeError(f"metrics: cannot read this {kind_of(metrics)}; report a bug")
        return reduced

    def _step_traced(self, metrics: Any) -> None:
        state = self._state
        step_(
            metrics.detach(),
            state["best"],
            state["clock"],
            state["outcome"],
            state["num_reductions"],
            state["num_steps"],
            state["rate"],
            state["published"],
            state["offsets"],
            self._uniform,
            self._each,
        )

    # -- reading: no property synchronises --------------------------------------------------------

    @property
    def lr(self) -> Tensor:
        """Published rates, float32, shape ``(groups,)``: live, and what optimizers read.

        Writing to it in place is allowed (``lanes.lr[3] = 0.01``): the next cut of that group
        starts from the written value.
        """
        return self._lr

    @property
    def lr_master(self) -> Tensor:
        """Rates at full precision, float64, shape ``(groups,)``; a new tensor each time."""
        rate, published = self._tensor("rate"), self._lr
        return torch.where(rate.float() == published, rate, published.double())

    @property
    def best(self) -> Tensor:
        """Best metric of each lane, ``dtype``, shape ``(n,)``: live. Infinite before the first."""
        return self._tensor("best")

    @property
    def num_bad_epochs(self) -> Tensor:
        """Bad steps in a row, int32, shape ``(n,)``; a new tensor each time."""
        return self._tensor("clock").clamp(min=0)

    @property
    def cooldown_counter(self) -> Tensor:
        """Cooldown steps that are left, int32, shape ``(n,)``; a new tensor each time."""
        return -self._tensor("clock").clamp(max=0)

    @property
    def improved(self) -> Tensor:
        """Whether the last metric was better than best; bool, shape ``(n,)``, a new tensor."""
        return (self._tensor("outcome") & _IMPROVED).bool()

    @property
    def reduced(self) -> Tensor:
        """Whether the last step lowered a rate of the lane; bool, shape ``(n,)``, a new tensor."""
        return (self._tensor("outcome") & _REDUCED).bool()

    @property
    def num_reductions(self) -> Tensor:
        """Steps so far that lowered a rate of the lane, int32, shape ``(n,)``: live."""
        return self._tensor("num_reductions")

    @property
    def num_steps(self) -> Tensor:
        """Steps taken by the batch, int64, 0-d: live."""
        return self._tensor("num_steps")[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The hyper-parameters: numbers and words where uniform, else one value per lane."""
        return {name: plain(value) for name, value in self._settings.items()}

    @property
    def groups(self) -> list[int] | None:
        """How many rates each lane owns; None for one each."""
        return None if self._groups is None else list(self._groups)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self._lr.device

    @property
    def dtype(self) -> torch.dtype:
        """What ``best`` is kept in."""
        return self._tensor("best").dtype

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self._tensor("best"))

    def __repr__(self) -> str:
        """Show the settings; synchronises where there are some per lane, to show their range."""
        settings = ", ".join(f"{name}={brief(value)}" for name, value in self.settings.items())
        groups = f", groups={len(self._lr)}" if self._state["offsets"] is not None else ""
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"PlateauLanes({len(self)}{groups}, {settings}, dtype={self.dtype}{where})"

    # -- saving and moving ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot: tensors (clones) and primitives only, safe for ``weights_only=True``.

        Keys: ``best``, ``num_bad_epochs``, ``cooldown_counter``, ``improved``, ``reduced``,
        ``num_reductions``, ``num_steps``, ``lr`` (float64, one per group), ``groups`` (rates per
        lane, or None for one each) and ``settings``. Does not synchronise: tensors stay on their
        device.
        """
        return {
            "best": self.best.clone(),
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "improved": self.improved,
            "reduced": self.reduced,
            "num_reductions": self.num_reductions.clone(),
            "num_steps": self.num_steps.clone(),
            "lr": self.lr_master,
            "groups": self.groups,
            "settings": self.settings,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot in place: ``lr``, ``best`` and the rest keep their identity.

        The snapshot's hyper-parameters replace these lanes' own, as torch's schedulers do. Tensors
        may lie on any device (this synchronises then).

        Raises KeyError, TypeError or ValueError, with nothing changed, for a snapshot of another
        number of lanes or groups, missing or unknown keys, settings out of range, or a ``best``
        that float32 lanes cannot hold exactly.
        """
        check_keys("state_dict", state_dict, _STATE_KEYS)
        n, groups = len(self), self.groups
        if state_dict["groups"] != groups:
            raise ValueError(
                f"state_dict['groups']: expected {brief(groups)}, got {brief(state_dict['groups'])}"
            )
        check_keys("state_dict['settings']", state_dict["settings"], self._settings)
        settings = checked_settings(n, offsets_of(n, groups), state_dict["settings"])
        bad = loaded_field(state_dict, "num_bad_epochs", n)
        cooling = loaded_field(state_dict, "cooldown_counter", n)
        improved = loaded_flags(state_dict, "improved", n)
        reduced = loaded_flags(state_dict, "reduced", n)
        num_steps = setting("num_steps", state_dict["num_steps"], label="state_dict['num_steps']")
        loaded = {
            "best": loaded_field(state_dict, "best", n),
            "clock": torch.where(cooling > 0, -cooling, bad),
            "outcome": improved * _IMPROVED + reduced * _REDUCED,
            "num_reductions": loaded_field(state_dict, "num_reductions", n),
            "num_steps": num_steps.view(1),
            "rate": loaded_field(state_dict, "lr", len(self._lr)),
        }
        loaded["published"] = loaded["rate"].float()
        check_held(loaded["best"], self.dtype)
        for name, value in loaded.items():
            self._tensor(name).copy_(value)
        self._settings = settings
        self._bind()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PlateauLanes:
        """Move the lanes, or change what ``best`` is kept in, and return ``self``.

        With ``dtype`` only ``best`` is replaced; on another device every tensor is, ``lr`` too.
        Raises RuntimeError for a device that cannot be used and ValueError, with nothing changed,
        for a ``best`` that float32 cannot hold exactly. Synchronises.
        """
        device = self.device if device is None else check_device(device)
        dtype = self.dtype if dtype is None else dtype
        check_dtype(dtype)
        if dtype != self.dtype:
            check_held(self.best, dtype)
        moved = {name: None if t is None else t.to(device) for name, t in self._state.items()}
        moved["best"] = self.best.to(device, dtype)
        self._state = moved
        self._bind()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"state": self._state, "settings": self._settings, "groups": self._groups}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self._state, self._settings = pickled["state"], pickled["settings"]
        self._groups, self._in_core = pickled["groups"], {}
        self._bind()
