"""Samples taken in turn, and their figures."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

__all__ = ["Call", "Key", "compared", "in_turn", "on_host", "sampler", "seconds", "summary"]

Key = TypeVar("Key")
Value = TypeVar("Value")
Call = tuple[Callable[[Any], object], Any]  # what is called, and its argument


def in_turn(samplers: Mapping[Key, tuple[int, Callable[[], Value]]]) -> dict[Key, list[Value]]:
    """Take samples in turn, round after round, so that drift of the machine hits all alike.

    ``samplers`` holds for each how many rounds it takes part in, and what returns one sample.
    """
    samples: dict[Key, list[Value]] = {key: [] for key in samplers}
    gc.collect()
    gc.disable()
    try:
        for turn in range(max(rounds for rounds, _ in samplers.values())):
            for key, (rounds, sample) in samplers.items():
                if turn < rounds:
                    samples[key].append(sample())
    finally:
        gc.enable()
    return samples


def summary(values: list[float], calls: int) -> dict[str, float]:
    """Return median and quartiles of ``values``, in microseconds, with four digits."""
    p25, median, p75 = statistics.quantiles(values, n=4, method="inclusive")
    figures = {"median_us": median, "p25_us": p25, "p75_us": p75}
    return {**{name: float(f"{us:.4g}") for name, us in figures.items()}, "n": len(values),
            "calls": calls}  # fmt: skip


def compared(values: list[float], base: list[float]) -> dict[str, float]:
    """Return median and quartiles of the ratios of values to those of the same round."""
    ratios = [value / other for value, other in zip(values, base, strict=False)]
    p25, median, p75 = statistics.quantiles(ratios, n=4, method="inclusive")
    figures = {"ratio": median, "ratio_p25": p25, "ratio_p75": p75}
    return {name: float(f"{ratio:.3g}") for name, ratio in figures.items()}


def on_host(
    calls: Mapping[Key, Call],
    rounds: int,
    burst: float,
    most: float = 0.4,
    against: Key | None = None,
) -> dict[Key, dict[str, float]]:
    """Time calls on the CPU.

    Args:
        calls: The competitors.
        rounds: Samples of each; fewer, but at least 5, for calls that would take longer than
            ``most`` in all.
        burst: Seconds that a sample should last.
        most: Seconds for one competitor.
        against: A competitor to compare all with: see ``compared``.

    Returns:
        Median and quartiles in microseconds a call, ``n`` samples of ``calls`` calls each.
    """
    lengths, samplers = {}, {}
    for key, call in calls.items():
        sample, lengths[key], spent = sampler(call, burst)
        samplers[key] = max(5, min(rounds, int(most / spent))), sample
    taken = in_turn(samplers)
    figures = {key: summary(us, lengths[key]) for key, us in taken.items()}
    if against is not None:
        for key, us in taken.items():
            figures[key] |= compared(us, taken[against])
    return figures


def sampler(call: Call, burst: float) -> tuple[Callable[[], float], int, float]:
    """Return what takes a sample of a call, the calls in it, and the seconds that it takes.

    A sample is one untimed call, which brings the competitor's memory back into the caches, and a
    burst of timed ones that lasts about ``burst`` seconds: their mean, in microseconds.
    """
    step, argument = call
    step(argument)
    spent = min(_burst(step, argument, 1) for _ in range(3)) * 1e-6
    if spent < burst / 10:
        spent = _burst(step, argument, int(burst / 3 / spent)) * 1e-6
    calls = max(1, int(burst / spent))
    return partial(_warm_burst, step, argument, calls), calls, spent * (calls + 1)


def seconds(call: Callable[[], object]) -> float:
    """Call once and return how long that took."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _warm_burst(step: Callable[[Any], object], argument: Any, calls: int) -> float:
    step(argument)
    return _burst(step, argument, calls)


def _burst(step: Callable[[Any], object], argument: Any, calls: int) -> float:
    """Return microseconds a call."""
    arguments = repeat(argument, calls)
    begin = time.perf_counter_ns()
    for each in arguments:
        step(each)
    return (time.perf_counter_ns() - begin) / calls * 1e-3
