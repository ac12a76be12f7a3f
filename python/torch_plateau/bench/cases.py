"""What a step is timed in: rules, beginnings, metrics, and what every competitor offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = [
    "DTYPES",
    "FAR",
    "NEVER",
    "PATIENCE",
    "SCENARIOS",
    "Case",
    "Rule",
    "Start",
    "State",
    "bytes_a_lane",
    "scenario",
]

FAR = 10.0  # a metric that improves nothing once there is a `best`
NEVER = 10**9
PATIENCE = {"quiet": NEVER, "improving": NEVER, "all improve": NEVER, "mixed": 99, "cut": 0}
SCENARIOS = {
    "quiet": "nothing improves, no lane is cut",
    "mixed": "1% of the lanes improve and 1% are cut",
    "cut": "every lane is cut",
    "improving": "1% of the lanes improve, no lane is cut",
    "all improve": "every lane improves, no lane is cut",
}
IMPROVING = {"improving": 0.01, "mixed": 0.01, "all improve": 1.0}  # share of the lanes

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

    @property
    def rival(self) -> str:
        """Return who it is."""

    @property
    def variant(self) -> str:
        """Return of what kind, "" where there is one."""

    @property
    def step(self) -> Callable[[Any], object]:
        """Return what advances all lanes by one metric each, given what ``feed`` returned."""

    def feed(self, metrics: Tensor) -> Any:
        """Return what ``step`` takes; not timed."""

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""


def scenario(
    name: str, n: int, dtypes: str, per_lane: bool = False, device: torch.device | str = "cpu"
) -> tuple[Rule, Start, Tensor]:
    """Return a rule, a beginning and the metrics that are fed again and again.

    Each step of a scenario is what ``SCENARIOS`` says. In "mixed" about 1% are cut, because their
    clocks are spread evenly; in "all improve" all of ``best`` is written.

    ``best`` is -1 to begin with: by torch's relative threshold a metric of -1 or less then
    improves for ever (-1 < -1 + 1e-4) and one of 10 or more never does, so all steps are alike.
    """
    lanes, metric = DTYPES[dtypes]
    random = torch.Generator(device).manual_seed(n)
    noise = torch.rand(n, generator=random, dtype=metric, device=device)
    metrics = noise + FAR
    clock = torch.zeros(n, dtype=torch.int32, device=device)
    if name in IMPROVING:
        better = torch.rand(n, generator=random, device=device) < IMPROVING[name]
        metrics = torch.where(better, -1.0 - noise, metrics)
    if name == "mixed":
        clock.random_(0, 100, generator=random)
    patience, threshold = PATIENCE[name], 1e-4
    if per_lane:
        rule = Rule(
            torch.full((n,), patience, dtype=torch.int32, device=device),
            torch.full((n,), threshold, dtype=F64, device=device),
        )
    else:
        rule = Rule(patience, threshold)
    best = torch.full((n,), -1.0, dtype=lanes, device=device)
    return rule, Start(best, clock, torch.full((n,), 0.1, dtype=F64, device=device)), metrics


def bytes_a_lane(dtypes: str, name: str, per_lane: bool = False) -> int:
    """Return what a step moves: metric, best (twice if it is written), clock twice, outcome.

    Settings per lane are read too: patience and threshold.
    """
    best, metric = DTYPES[dtypes]
    return (
        metric.itemsize
        + best.itemsize * (1 if name == "quiet" else 2)
        + 4 * 2
        + 1
        + (4 + 8) * per_lane
    )
