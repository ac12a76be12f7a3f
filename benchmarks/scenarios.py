"""What the lanes are put through, and the check that all competitors decide alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cases import Case, Rule, Schedulers, Start

F32, F64 = torch.float32, torch.float64
# name: dtype of the lanes (of `best`), dtype of the metrics
DTYPES = {"f32": (F32, F32), "f64": (F64, F64), "f64, f32 metrics": (F64, F32)}
NEVER = 10**9
PATIENCE = {"quiet": NEVER, "improving": NEVER, "all improve": NEVER, "mixed": 99, "cut": 0}
IMPROVING = {"improving": 0.01, "mixed": 0.01, "all improve": 1.0}  # share of the lanes


def scenario(
    name: str, n: int, dtypes: str, per_lane: bool = False, device: torch.device | str = "cpu"
) -> tuple[Rule, Start, Tensor]:
    """Return a rule, a beginning and the metrics that are fed again and again.

    - quiet: nothing improves and no lane is cut;
    - improving: 1% of the lanes improve each step;
    - all improve: every lane improves each step, so that all of ``best`` is written;
    - mixed: 1% improve and, because their clocks are spread evenly, about 1% are cut each step;
    - cut: every lane is cut each step.

    ``best`` is -1 to begin with: by torch's relative threshold a metric of -1 or less then
    improves for ever (-1 < -1 + 1e-4) and one of 10 or more never does, so all steps are alike.
    """
    lanes, metric = DTYPES[dtypes]
    random = torch.Generator(device).manual_seed(n)
    noise = torch.rand(n, generator=random, dtype=metric, device=device)
    metrics = noise + 10.0
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


def bytes_a_lane(dtypes: str, name: str) -> int:
    """Return what a step moves: metric, best (twice if it is written), clock twice, outcome."""
    best, metric = DTYPES[dtypes]
    return metric.itemsize + best.itemsize * (1 if name == "quiet" else 2) + 4 * 2 + 1


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
