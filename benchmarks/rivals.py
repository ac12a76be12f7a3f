"""Ours and every rival, with the same three methods each, and the check that all decide alike.

``step(feed(metrics))`` advances all lanes by one metric; ``feed`` is not timed. ``state()`` returns
``(best, clock, rate)`` as tensors, so that decisions can be compared; the clock counts bad steps
above zero and cooldown steps that are left below zero.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, lr_scheduler

from torch_plateau import PlateauLanes

OURS = "torch-plateau"
FAR = 10.0  # a metric that improves nothing once there is a `best`

F32, F64 = torch.float32, torch.float64
# name: dtype of the lanes (of `best`), dtype of the metrics
DTYPES = {"f32": (F32, F32), "f64": (F64, F64), "f64, f32 metrics": (F64, F32)}

State = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rule:
    """Settings in mode "min", threshold "rel"; patience and threshold may be one per lane."""

    patience: int | Tensor
    threshold: float | Tensor = 1e-4
    factor: float = 0.999999  # so that a rate survives a million cuts
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 0.0


@dataclass(frozen=True)
class Start:
    """Where all competitors begin: ``best`` (its dtype is the lanes'), ``clock`` and ``rate``.

    Either no metric was seen (``best`` infinite, ``clock`` 0), or every ``best`` is far below FAR
    and every ``clock`` from 0 to its patience.
    """

    best: Tensor
    clock: Tensor
    rate: Tensor


class Case(Protocol):
    """What a competitor offers."""

    rival: str
    variant: str
    step: Callable[[Any], object]

    def feed(self, metrics: Tensor) -> Any:
        """Return what ``step`` takes; not timed."""

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""


class Ours:
    """PlateauLanes."""

    rival, variant = OURS, ""

    def __init__(self, rule: Rule, start: Start) -> None:
        best, clock = start.best, start.clock
        lanes = PlateauLanes(
            len(best), lr=start.rate, device=best.device, dtype=best.dtype, **vars(rule)
        )
        # load_state_dict would do, but it takes every field over the CPU: long at 1e8 lanes. So the
        # lanes are stepped there: each improved, to its best, as many steps ago as its clock says.
        if best.isfinite().all():
            for ago in range(int(clock.amax()), -1, -1):
                lanes.step(torch.where(clock == ago, best, FAR))
        self.lanes, self.step = lanes, lanes.step

    def feed(self, metrics: Tensor) -> Tensor:
        """Return the tensor itself."""
        return metrics

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        lanes = self.lanes
        return lanes.best, lanes.num_bad_epochs - lanes.cooldown_counter, lanes.lr_master


class Schedulers:
    """N schedulers of torch in a Python loop, each with an optimizer of its own."""

    rival = "N torch schedulers"

    def __init__(self, rule: Rule, start: Start, variant: str) -> None:
        self.variant = variant
        patience, threshold = (
            value.tolist() if isinstance(value, Tensor) else [value] * len(start.best)
            for value in (rule.patience, rule.threshold)
        )
        self.each = []
        for i, (best, clock, rate) in enumerate(
            zip(start.best.tolist(), start.clock.tolist(), start.rate.tolist(), strict=True)
        ):
            scheduler = lr_scheduler.ReduceLROnPlateau(
                SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate),
                factor=rule.factor,
                patience=patience[i],
                threshold=threshold[i],
                cooldown=rule.cooldown,
                min_lr=rule.min_lr,
                eps=rule.eps,
            )
            scheduler.best, scheduler.num_bad_epochs = best, clock
            self.each.append(scheduler)
        steps: dict[str, Callable[[Any], None]] = {
            "list of floats": self._step_each,
            "tolist": self._step_list,
            "iterated": self._step_each,
        }
        self.step = steps[variant]

    def feed(self, metrics: Tensor) -> list[float] | Tensor:
        """Return floats or the tensor, as the variant says."""
        return metrics.tolist() if self.variant == "list of floats" else metrics

    def _step_each(self, metrics: list[float] | Tensor) -> None:
        for scheduler, metric in zip(self.each, metrics, strict=True):
            scheduler.step(metric)

    def _step_list(self, metrics: Tensor) -> None:
        # one tolist() for all lanes is counted: far cheaper than an element at a time
        for scheduler, metric in zip(self.each, metrics.tolist(), strict=True):
            scheduler.step(metric)

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        best = [scheduler.best for scheduler in self.each]
        clock = [scheduler.num_bad_epochs - scheduler.cooldown_counter for scheduler in self.each]
        rate = [scheduler.optimizer.param_groups[0]["lr"] for scheduler in self.each]
        return (
            torch.tensor(best, dtype=torch.float64),
            torch.tensor(clock),
            torch.tensor(rate, dtype=torch.float64),
        )


class _Vectorised:
    """State and settings of the versions written in torch; the comparison is in float64."""

    variant: str

    def __init__(self, rule: Rule, start: Start, variant: str) -> None:
        self.variant = variant
        self.rule = rule
        self.scale = 1.0 - rule.threshold
        self.best, self.clock = start.best.clone(), start.clock.clone()
        self.rate = start.rate.clone()
        self.step: Callable[[Tensor], object] = getattr(self, "_" + variant.replace(" ", "_"))

    def feed(self, metrics: Tensor) -> Tensor:
        """Return the tensor itself."""
        return metrics

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        return self.best, self.clock, self.rate


class Where(_Vectorised):
    """The torch.where version, eager.

    ``plain`` is what one writes first; ``in place`` keeps its scratch tensors and converts before
    it compares (aten is slow at mixed dtypes); ``tuned`` does too, and skips the rates when no lane
    is cut, which it must ask the device for.
    """

    rival = "torch.where"

    def __init__(self, rule: Rule, start: Start, variant: str) -> None:
        super().__init__(rule, start, variant)
        self.bar = torch.empty_like(self.rate)
        self.metric64 = torch.empty_like(self.rate)
        self.better = torch.empty_like(self.rate, dtype=torch.bool)
        self.other = torch.empty_like(self.better)

    def _plain(self, metrics: Tensor) -> None:
        rule = self.rule
        better = metrics.double() < self.best.double() * self.scale
        self.best = torch.where(better, metrics, self.best)
        clock = torch.where(better & (self.clock >= 0), 0, self.clock + 1)
        fired = clock > rule.patience
        lowered = (self.rate * rule.factor).clamp(min=rule.min_lr)
        lower = fired & (self.rate - lowered > rule.eps)
        self.rate = torch.where(lower, lowered, self.rate)
        self.clock = torch.where(fired, -rule.cooldown, clock)

    def _tuned(self, metrics: Tensor) -> None:
        self._advance(metrics)
        patience = self.rule.patience
        if isinstance(patience, int) and self.clock.amax() <= patience:
            return
        fired = torch.gt(self.clock, patience, out=self.better)
        if isinstance(patience, int) or fired.any():
            self._cut(fired)

    def _in_place(self, metrics: Tensor) -> None:
        self._advance(metrics)
        self._cut(torch.gt(self.clock, self.rule.patience, out=self.better))

    def _advance(self, metrics: Tensor) -> None:
        best, clock, better, other = self.best, self.clock, self.better, self.other
        wide = metrics.dtype == torch.float64
        metrics64 = metrics if wide else self.metric64.copy_(metrics)
        if best.dtype != torch.float64:
            bar = self.bar.copy_(best).mul_(self.scale)
        else:
            bar = torch.mul(best, self.scale, out=self.bar)
        torch.lt(metrics64, bar, out=better)
        torch.where(better, metrics if metrics.dtype == best.dtype else metrics64, best, out=best)
        torch.ge(clock, 0, out=other).logical_and_(better)
        clock.add_(1).masked_fill_(other, 0)

    def _cut(self, fired: Tensor) -> None:
        rule = self.rule
        lowered = torch.mul(self.rate, rule.factor, out=self.bar).clamp_(min=rule.min_lr)
        change = torch.sub(self.rate, lowered, out=self.metric64)
        lower = torch.gt(change, rule.eps, out=self.other).logical_and_(fired)
        torch.where(lower, lowered, self.rate, out=self.rate)
        self.clock.masked_fill_(fired, -rule.cooldown)


class Compiled(_Vectorised):
    """The torch.where version under ``torch.compile(fullgraph=True, dynamic=False)``.

    ``functional`` returns new tensors; ``in place`` copies into the state; ``two graphs`` does so
    too, but runs the second graph, which cuts, only when an eager ``amax`` (or ``any``) between
    them says that some lane is due. Patience is an argument, everything else is a constant.
    """

    rival = "torch.compile"

    def __init__(self, rule: Rule, start: Start, variant: str) -> None:
        super().__init__(rule, start, variant)
        patience = rule.patience
        self.patience = torch.as_tensor(patience, dtype=torch.int32, device=start.best.device)
        scale, factor, min_lr, eps = self.scale, rule.factor, rule.min_lr, rule.eps
        cooldown = rule.cooldown

        def advance(metrics: Tensor, best: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
            better = metrics.double() < best.double() * scale
            best = torch.where(better, metrics, best)
            return best, torch.where(better & (clock >= 0), 0, clock + 1)

        def cut(clock: Tensor, patience: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
            fired = clock > patience
            lowered = (rate * factor).clamp(min=min_lr)
            rate = torch.where(fired & (rate - lowered > eps), lowered, rate)
            return torch.where(fired, -cooldown, clock), rate

        def functional(metrics: Tensor, patience: Tensor, *state: Tensor) -> State:
            best, clock = advance(metrics, state[0], state[1])
            return best, *cut(clock, patience, state[2])

        def in_place(metrics: Tensor, patience: Tensor, *state: Tensor) -> None:
            for old, new in zip(state, functional(metrics, patience, *state), strict=True):
                old.copy_(new)

        def first(metrics: Tensor, best: Tensor, clock: Tensor) -> None:
            for old, new in zip((best, clock), advance(metrics, best, clock), strict=True):
                old.copy_(new)

        def second(clock: Tensor, patience: Tensor, rate: Tensor) -> None:
            for old, new in zip((clock, rate), cut(clock, patience, rate), strict=True):
                old.copy_(new)

        graphs = {"functional": [functional], "in place": [in_place], "two graphs": [first, second]}
        self.run: list[Callable[..., Any]] = [
            torch.compile(graph, fullgraph=True, dynamic=False) for graph in graphs[variant]
        ]

    def _functional(self, metrics: Tensor) -> None:
        self.best, self.clock, self.rate = self.run[0](
            metrics, self.patience, self.best, self.clock, self.rate
        )

    def _in_place(self, metrics: Tensor) -> None:
        self.run[0](metrics, self.patience, self.best, self.clock, self.rate)

    def _two_graphs(self, metrics: Tensor) -> None:
        self.run[0](metrics, self.best, self.clock)
        if isinstance(self.rule.patience, int):
            due = self.clock.amax() > self.rule.patience
        else:
            due = (self.clock > self.patience).any()
        if due:
            self.run[1](self.clock, self.patience, self.rate)


class Optax:
    """``jax.jit(jax.vmap(optax.contrib.reduce_on_plateau))`` with donated float32 state.

    For its time only: it compares in float32, has no ``eps`` and cuts on bad step number
    ``patience``, not ``patience + 1`` (so it gets one more here).
    """

    rival, variant = "optax", ""

    def __init__(self, rule: Rule, start: Start) -> None:
        jax, reduce_on_plateau = _optax()
        transform = reduce_on_plateau(
            factor=rule.factor,
            patience=rule.patience + 1,
            rtol=rule.threshold,
            cooldown=rule.cooldown,
            min_scale=rule.min_lr,
        )
        self.jnp = jax.numpy
        fresh = jax.vmap(lambda _: transform.init(()))(jax.numpy.zeros(len(start.best)))
        self.now = fresh._replace(
            best_value=self.feed(start.best.float()), plateau_count=self.feed(start.clock)
        )
        update = jax.vmap(lambda state, metric: transform.update((), state, value=metric)[1])
        self.update = jax.jit(update, donate_argnums=0)

    def feed(self, metrics: Tensor) -> Any:
        """Return a JAX array."""
        return self.jnp.array(metrics.numpy())

    def step(self, metrics: Any) -> None:
        """Advance, and wait until it is done."""
        self.now = self.update(self.now, metrics)
        self.now.scale.block_until_ready()

    def state(self) -> State:
        """Refuse: there is nothing to compare."""
        raise TypeError("optax is timed only: it counts patience otherwise")


def optax_versions() -> dict[str, str | None]:
    """Return the versions of jax and optax, None where they are not installed."""
    try:
        jax, _ = _optax()
        import optax
    except ImportError:
        return {"jax": None, "optax": None}
    return {"jax": jax.__version__, "optax": optax.__version__}


def _optax() -> tuple[Any, Callable[..., Any]]:
    """Import JAX with a thread pool of one: it has as many threads as it sees processors."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    pinnable = hasattr(os, "sched_setaffinity")
    processors = os.sched_getaffinity(0) if pinnable else set()
    try:
        if pinnable:
            os.sched_setaffinity(0, {min(processors)})
        import jax
        from optax.contrib import reduce_on_plateau

        jax.config.update("jax_cpu_enable_async_dispatch", False)  # no hop to another thread
        jax.devices()
    finally:
        if pinnable:
            os.sched_setaffinity(0, processors)
    return jax, reduce_on_plateau


class Copy:
    """A plain copy; ``traffic`` bytes are read and written, half each."""

    rival = "plain copy"

    def __init__(self, traffic: int, variant: str, device: torch.device | str = "cpu") -> None:
        self.variant = variant
        self.source = torch.rand(traffic // 8, dtype=torch.float32, device=device)
        self.target = torch.zeros_like(self.source)
        self.bytes = self.source.nbytes
        self.step = self._memmove if variant == "memmove" else self.target.copy_

    def argument(self) -> Any:
        """Return what ``step`` takes."""
        return None if self.variant == "memmove" else self.source

    def _memmove(self, _: None) -> None:
        ctypes.memmove(self.target.data_ptr(), self.source.data_ptr(), self.bytes)


# -- all decide alike -----------------------------------------------------------------------------


class DifferenceError(AssertionError):
    """A competitor decided otherwise than another."""


def same(case: Case, truth: Case) -> None:
    """Raise DifferenceError unless both are in the same state, bit for bit."""
    for name, got, expected in zip(
        ("best", "clock", "rate"), case.state(), truth.state(), strict=True
    ):
        if not torch.equal(got.double(), expected.to(got.device).double()):
            raise DifferenceError(f"{case.rival} {case.variant}, {name}")


def check_lanes(
    dtypes: str,
    per_lane: bool,
    competitors: Callable[[Rule, Start], list[Case]],
    device: torch.device | str = "cpu",
) -> int:
    """Hold all competitors to N torch schedulers on a random history; return the steps checked."""
    n, steps = 64, 80
    lanes, metric = DTYPES[dtypes]
    random = torch.Generator().manual_seed(7)
    patience: int | Tensor = 2
    threshold: float | Tensor = 0.01
    if per_lane:
        patience = torch.randint(0, 4, (n,), generator=random, dtype=torch.int32).to(device)
        threshold = (torch.rand(n, generator=random, dtype=F64) * 0.1).to(device)
    rule = Rule(patience, threshold, factor=0.3, cooldown=2, min_lr=1e-3, eps=1e-8)
    start = Start(
        torch.full((n,), torch.inf, dtype=lanes, device=device),
        torch.zeros(n, dtype=torch.int32, device=device),
        torch.logspace(-2, 0, n, dtype=F64).to(device),
    )
    truth = Schedulers(rule, start, "list of floats")
    cases = competitors(rule, start)
    cuts = cooling = 0
    for step in range(steps):
        metrics = torch.rand(n, generator=random, dtype=metric) * 0.98**step
        metrics[torch.rand(n, generator=random) < 0.05] = torch.nan
        before = truth.state()[2]
        truth.step(truth.feed(metrics))
        for case in cases:
            case.step(case.feed(metrics.to(device)))
            same(case, truth)
        cuts += int((truth.state()[2] < before).sum())
        cooling += int((truth.state()[1] < 0).sum())
    assert min(cuts, cooling) > n, "the history exercises too little"
    assert bool((truth.state()[2] == rule.min_lr).any()), "no rate reached its floor"
    return n * steps
