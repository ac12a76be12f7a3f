"""The rule written in torch, as one would by hand: eager, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .cases import Rule, Start, State

__all__ = ["Compiled", "Where"]


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

        graphs: dict[str, list[Callable[..., Any]]]
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
