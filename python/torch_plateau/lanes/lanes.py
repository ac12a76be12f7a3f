"""The state machine itself: N plateaus in tensors, one fused pass a step, no optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _core
from ._checks import (
    check_device,
    check_dtype,
    checked_settings,
    count_groups,
    offsets_of,
    per_group,
)
from ._life import LaneLife
from ._parts import new_parts
from ._resolve import OPTIONS, options_of, settings_of, uses_options
from ._saving import LaneSaving
from .inputs import mask_of, readable
from .operator import SETTINGS, step_
from .readable import kind_of

__all__ = ["PlateauLanes"]

_Numbers = float | Sequence[float] | Tensor
_Counts = int | Sequence[int] | Tensor
_Words = str | Sequence[str]


class PlateauLanes(LaneLife, LaneSaving):
    """``n`` independent plateaus: each decides as ``ReduceLROnPlateau`` of torch does.

    Args:
        n: Number of lanes, 0 or more.
        lr: Starting rate of every group: a number, one per lane, or one per group.
        mode: ``"min"`` or ``"max"``, or a sequence of them, one per lane.
        factor: A cut multiplies the rate by this; above 0 and below 1.
        patience: Bad steps in a row that are borne; the next one cuts.
        threshold: How much better a metric must be to count.
        threshold_mode: ``"rel"`` (threshold times best), ``"abs"``, or ``"rel_safe"`` (threshold
            times the size of best: right for negative metrics, where torch's rule is not); or one
            per lane.
        cooldown: Steps after a cut in which nothing counts as bad.
        min_lr: Floor of the rate: a number, one per lane, or one per group.
        eps: A rate is left alone if it would change by ``eps`` or less.
        groups: How many rates each lane owns, one count per lane; one each unless told.
        device: Where the lanes live and their metrics must: ``"cpu"`` or a CUDA device.
        dtype: What ``best`` is kept in. ``torch.float64`` takes every metric; ``torch.float32``
            moves fewer bytes and takes metrics that it holds exactly (float32, float16, bfloat16,
            bool, integers up to 16 bits). The arithmetic is float64 either way.

    The rest are optional parts. All off, as they are unless told, they cost nothing; otherwise a
    step takes the lanes one by one on the CPU, and is still one launch on a GPU.

    Args:
        atol: How much better a metric must be besides ``threshold`` (costs nothing).
        nan: What a metric that is NaN does: ``"bad"`` (a bad step, torch's rule), ``"skip"`` (no
            step), ``"cut"`` (the lane is cut now) or ``"freeze"`` (it is finished).
        counting: ``"torch"``; ``"keras"`` and ``"optax"`` cut one bad step earlier, on bad step
            number ``patience``, and Keras counts the step on which a cooldown ends and starts none
            where no rate was lowered. Set ``eps=0`` to port a recipe.
        initial_patience: The patience until the first cut is due.
        smoothing: Decide by an exponential average of the metrics, which keeps this share of itself
            at each step; corrected for its start. From 0 (off) to below 1.
        accumulate: Decide once in so many steps, by the mean of their metrics.
        window: Decide by the mean of the last so many metrics (fewer at the start).
        max_reductions: The lane is finished when its rates were lowered so often.
        patience_at_min: The lane is finished after so many bad steps in a row during which none of
            its rates could be lowered any more.
        warmup_steps: Steps in which ``lr`` rises from ``warmup_start_factor`` times the rate to the
            rate, in a straight line. Metrics count for ``best`` and for nothing else meanwhile.
        warmup_start_factor: See there; from 0 to 1.
        events: Record the last so many cuts, at least one per group, for :meth:`events`.
        on_reduce: Called as ``on_reduce(lanes, index)`` after a step that lowered rates, with the
            numbers of these lanes, int64. On a GPU every step then synchronises.

    Averages need ``dtype=torch.float64``; of several, metrics are accumulated first, then windowed,
    then smoothed. A NaN does not enter an average that would remember it, nor an infinite metric
    the exponential one: it decides as it is.

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
        lr: _Numbers,
        *,
        mode: _Words = "min",
        factor: _Numbers = 0.1,
        patience: _Counts = 10,
        threshold: _Numbers = 1e-4,
        threshold_mode: _Words = "rel",
        cooldown: _Counts = 0,
        min_lr: _Numbers = 0.0,
        eps: _Numbers = 1e-8,
        groups: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        atol: _Numbers = 0.0,
        nan: _Words = "bad",
        counting: _Words = "torch",
        initial_patience: _Counts | None = None,
        smoothing: _Numbers = 0.0,
        accumulate: _Counts = 1,
        window: _Counts = 1,
        max_reductions: _Counts | None = None,
        patience_at_min: _Counts | None = None,
        warmup_steps: _Counts = 0,
        warmup_start_factor: _Numbers = 0.0,
        events: int = 0,
        on_reduce: Callable[[PlateauLanes, Tensor], object] | None = None,
    ) -> None:
        given = dict(locals())
        for name, value in (("n", n), ("events", events)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected an integer of 0 or more, got {value!r}")
        if on_reduce is not None and not callable(on_reduce):
            raise TypeError(f"on_reduce: expected a function or None, got {kind_of(on_reduce)}")
        device = check_device(device)
        check_dtype(dtype)
        offsets = offsets_of(n, groups)
        settings = checked_settings(n, offsets, given, dtype)
        rate = per_group("lr", lr, n, offsets)
        rate = rate.expand(count_groups(n, offsets)).clone() if rate.ndim == 0 else rate
        self._groups = None if offsets is None else offsets.diff().tolist()
        self._settings: dict[str, Any] = settings
        self._capacity = events
        self._on_reduce = on_reduce
        self._state: dict[str, Tensor | None] = {
            "best": torch.full((n,), math.inf, dtype=dtype, device=device),
            "clock": torch.zeros(n, dtype=torch.int32, device=device),
            "outcome": torch.zeros(n, dtype=torch.uint8, device=device),
            "num_reductions": torch.zeros(n, dtype=torch.int32, device=device),
            "num_steps": torch.zeros(1, dtype=torch.int64, device=device),
            "start_rate": rate.to(device, copy=True),
            "rate": rate.to(device),
            "published": rate.float().to(device),
            "offsets": None if offsets is None else offsets.to(device),
        }
        self._parts: dict[str, Tensor] = {}
        self._in_core: dict[str, float | Tensor] = {}
        self._bind()
        self.best.copy_(self._worst())
        self._refresh()

    def _bind(self) -> None:
        """Give the core its pointers: once, and again when tensors or settings are replaced.

        A setting per lane keeps its memory, which captured graphs read.
        """
        self._lr = self._tensor("published")
        settings = self._settings
        for name, value in settings.items():
            if isinstance(value, Tensor) and value.ndim:
                settings[name] = value.to(self.device)
        for name, value in {**settings_of(settings), **options_of(settings)}.items():
            self._in_core[name] = self._kept(name, value)
        self._uses_options = bool(self._capacity) or uses_options(settings)
        if self._uses_options or self._parts:
            self._need_parts()
        self._connect()

    def _kept(self, name: str, value: Tensor) -> float | Tensor:
        """A setting for the core: a number, or a tensor in the memory of the one before it."""
        if value.ndim == 0:
            return float(value)
        old = self._in_core.get(name)
        if isinstance(old, Tensor) and old.device == self.device and old.shape == value.shape:
            return old.copy_(value)
        return value.to(self.device, copy=True)

    def _need_parts(self) -> None:
        """Allocate what optional parts in use lack; what is there stays."""
        sizes = (len(self), len(self._lr), self._capacity, self._longest_window())
        self._parts = new_parts(self._settings, *sizes, self.device, self._parts)

    def _connect(self) -> None:
        core = self._in_core
        options = None
        if self._parts:
            options = {**{name: core[name] for name in OPTIONS}, **self._parts}
        lanes = _core.Lanes(self._state, core, options, self._uses_options)
        self._advance, self._advance_masked = lanes.step, lanes.step_masked
        self._replay = lanes.replay
        if self._on_reduce is not None:
            self._advance = self._calling(lanes.step)
            self._advance_masked = self._calling(lanes.step_masked)
        self._uniform = [0.0 if isinstance(v := core[k], Tensor) else v for k in SETTINGS]
        self._each = [v if isinstance(v := core[k], Tensor) else None for k in SETTINGS]

    def _calling(self, advance: Callable[..., int]) -> Callable[..., int]:
        """Step, and tell ``on_reduce`` which lanes were cut."""

        def advance_and_call(*args: Any) -> int:
            reduced = advance(*args)
            if reduced > 0 or (reduced == 0 and self.device.type != "cpu"):
                index = self.reduced.nonzero().flatten()
                if len(index) and self._on_reduce is not None:
                    self._on_reduce(self, index)
            return reduced

        return advance_and_call

    # -- stepping ---------------------------------------------------------------------------------

    def step(self, metrics: Any, active: Any = None) -> Tensor:
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
            active: Which lanes have a metric now: bool, shape ``(n,)``, on the lanes' device, or a
                sequence of bools; all unless told. The others keep their state, whatever their
                entry in ``metrics``, and read False in :attr:`improved` and :attr:`reduced`.

        Returns:
            The live float32 vector of rates, the same tensor each time; clone it to keep a history.

        Never synchronises. On a CUDA device this is one kernel launch on torch's current stream of
        that device, and may be captured in a graph. On the CPU, from 16,384 lanes on, the
        interpreter lock is released meanwhile. In a compiled function it is one operator,
        ``torch_plateau::step_`` (lanes with optional parts, or a mask, cannot be compiled).

        Raises TypeError or ValueError, with nothing changed, for metrics of a wrong shape, type or
        device, and RuntimeError if the launch fails.
        """
        if is_dynamo_compiling():
            self._step_traced(metrics, active)
        elif active is not None:
            self._step_masked(metrics, active)
        elif self._advance(metrics) < 0:
            self._step_converted(metrics)
        return self._lr

    def _step_converted(self, metrics: Any, *mask: Tensor, fetch: bool = False) -> int:
        """Step by metrics that the core refused; return how many lanes had a rate lowered."""
        advance = self._advance_masked if mask else self._advance
        reduced = advance(readable(metrics, len(self), self.dtype, self.device, fetch), *mask)
        if reduced < 0:
            raise RuntimeError(f"metrics: cannot read this {kind_of(metrics)}; report a bug")
        return reduced

    def _step_masked(self, metrics: Any, active: Any) -> None:
        mask = mask_of("active", active, len(self), self.device)
        if not self._parts:  # masked lanes need flags; whole steps stay as fast as they were
            metrics = readable(metrics, len(self), self.dtype, self.device)
            self._need_parts()
            self._connect()
        if self._advance_masked(metrics, mask) < 0:
            self._step_converted(metrics, mask)

    def _step_traced(self, metrics: Any, active: Any) -> None:
        if self._uses_options or self._on_reduce is not None or active is not None:
            raise RuntimeError(
                "PlateauLanes.step: lanes with optional parts, a mask or on_reduce cannot be "
                "compiled; call it outside the compiled function"
            )
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
