"""All competitors decide alike, bit for bit, or nothing is timed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .cases import DTYPES, F64, Case, Rule, Start
from .rivals import Schedulers

__all__ = ["DifferenceError", "check_lanes", "same", "settled"]


class DifferenceError(AssertionError):
    """A competitor decided otherwise than another."""


def same(case: Case, truth: Case) -> None:
    """Raise DifferenceError, which says where, unless both are in the same state, bit for bit."""
    for name, got, expected in zip(
        ("best", "clock", "rate"), case.state(), truth.state(), strict=True
    ):
        got, expected = got.double(), expected.to(got.device).double()
        if not torch.equal(got, expected):
            lane = int((got != expected).nonzero()[0, 0])
            mine, theirs = (f"{each.rival} {each.variant}".strip() for each in (case, truth))
            raise DifferenceError(
                f"{mine} decides otherwise than {theirs}: {name} of lane {lane} is "
                f"{float(got[lane])!r}, not {float(expected[lane])!r}"
            )


def settled(case: Case, metrics: Tensor, truth: Case | None) -> None:
    """Take the first three steps, which compile, and raise DifferenceError if ``truth`` differs."""
    for _ in range(3):
        case.step(case.feed(metrics))
    if truth is not None:
        same(case, truth)


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
