"""Host and device time of calls on a GPU, apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch

from .timing import Key, compared, in_turn, summary

__all__ = ["Timed", "host_and_device", "wait"]

QUEUED = 40  # calls in a host burst: of at most 17 launches each, far fewer than fill the queue


@dataclass(frozen=True)
class Timed:
    """What is timed on the host, and what on the device: one call of that takes ``steps`` steps."""

    host: Callable[[], object]
    device: Callable[[], object]
    steps: int = 1


def host_and_device(
    calls: Mapping[Key, Timed],
    device: torch.device,
    rounds: int,
    burst: float,
    most: float,
    against: Key | None = None,
) -> dict[Key, dict[str, Any]]:
    """Time calls on a GPU: the host's part and the device's, apart.

    A turn is one sample of each: the host's, the mean time to return of a burst of calls that
    begins with an idle device and is too short to fill its queue; and the device's, by CUDA events
    around many calls, divided by the steps in them. Nothing is subtracted from either. Where the
    host is slower than the device, events around single calls show the host's pace.

    Args:
        calls: The competitors.
        device: Where they run. On the CPU device times are wall times.
        rounds: Samples of each; fewer, but at least 5, for those that would take longer than
            ``most``.
        burst: Seconds that a burst should last.
        most: Seconds for one competitor.
        against: A competitor to compare the device times with: see ``compared``.

    Returns:
        ``{"host": figures, "device": figures}``: median and quartiles in microseconds a step.
    """
    lengths, samplers = {}, {}
    for key, timed in calls.items():
        host, whole = (
            min(_until_done(call, device) for _ in range(3)) for call in (timed.host, timed.device)
        )
        length = max(5, min(QUEUED, int(burst / host))), max(1, min(500, int(burst / whole)))
        turn = host * (length[0] + 1) + whole * (length[1] + 1)
        lengths[key] = length
        samplers[key] = (
            max(5, min(rounds, int(most / turn))),
            partial(_both, timed, device, *length),
        )
    taken = {
        key: tuple(list(side) for side in zip(*pairs, strict=True))
        for key, pairs in in_turn(samplers).items()
    }
    times = {}
    for key, (host_us, device_us) in taken.items():
        steps = {"steps_a_call": calls[key].steps}
        times[key] = {
            "host": summary(host_us, lengths[key][0]),
            "device": {**summary(device_us, lengths[key][1]), **steps},
        }
        if against is not None:
            times[key]["device"] |= compared(device_us, taken[against][1])
    return times


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _both(
    timed: Timed, device: torch.device, host_calls: int, device_calls: int
) -> tuple[float, float]:
    host_us = _to_return(timed.host, device, host_calls)
    return host_us, _on_device(timed.device, device, device_calls) / timed.steps


def _until_done(call: Callable[[], object], device: torch.device) -> float:
    wait(device)
    begin = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - begin


def _to_return(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return microseconds a call until it returns, the device idle at first."""
    call()
    wait(device)
    turns = repeat(None, calls)
    begin = time.perf_counter_ns()
    for _ in turns:
        call()
    spent = time.perf_counter_ns() - begin
    wait(device)
    return spent / calls * 1e-3


def _on_device(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return microseconds a call on the device; wall time on the CPU."""
    call()  # also keeps the device busy while the next calls are queued
    if device.type != "cuda":
        begin = time.perf_counter_ns()
        for _ in repeat(None, calls):
            call()
        return (time.perf_counter_ns() - begin) / calls * 1e-3
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in repeat(None, calls):
        call()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) * 1e3 / calls
