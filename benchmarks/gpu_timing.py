"""Host time and device time of calls, apart; steps captured in CUDA graphs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeVar

import torch
from torch import Tensor

from cases import Case, State
from measure import summary

Key = TypeVar("Key")
QUEUED = 40  # calls in a host burst: of at most 17 launches each, far fewer than fill the queue


class Captured:
    """A competitor whose steps are captured when it is first stepped, and replayed from then on.

    ``one`` is a graph of one step, ``many`` one of ``steps`` steps that read the same metrics.
    """

    def __init__(self, case: Case, steps: int) -> None:
        self.case, self.steps = case, steps
        self.rival, self.variant = case.rival, f"{case.variant}, graph".removeprefix(", ")
        self.metrics: Tensor | None = None
        self.one: Any = None
        self.many: Any = None

    def feed(self, metrics: Tensor) -> Tensor:
        """Copy into the tensor that the graphs read; not timed."""
        if self.metrics is None:
            self.metrics = metrics.clone()
        return self.metrics.copy_(metrics)

    def step(self, metrics: Tensor) -> None:
        """Replay; the first time step uncaptured, which compiles and loads, and then capture."""
        if self.one is not None:
            self.one.replay()
            return
        beside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            self.case.step(metrics)
        now.wait_stream(beside)
        self.one, self.many = self._capture(metrics, 1), self._capture(metrics, self.steps)

    def _capture(self, metrics: Tensor, steps: int) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                self.case.step(metrics)
        return graph

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        return self.case.state()


class Empty:
    """A kernel that does nothing: what a launch costs by itself."""

    rival, variant = "empty kernel", ""

    def feed(self, metrics: Tensor) -> Tensor:
        """Return the tensor itself."""
        return metrics

    def step(self, _: Tensor) -> None:
        """Launch it."""
        torch.cuda._sleep(0)

    def state(self) -> State:
        """Refuse: there is none."""
        raise TypeError("an empty kernel has no state")


@dataclass(frozen=True)
class Timed:
    """What is timed on the host, and what on the device: one call of that takes ``steps`` steps."""

    host: Callable[[], object]
    device: Callable[[], object]
    steps: int = 1


def interleave(
    calls: dict[Key, Timed], device: torch.device, rounds: int, burst: float, most: float
) -> dict[Key, dict[str, Any]]:
    """Time competitors in turn, round after round, so that drift of the machine hits all alike.

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

    Returns:
        ``{"host": figures, "device": figures}``: median and quartiles in microseconds a step.
    """
    host_calls, device_calls, turns = {}, {}, {}
    for key, timed in calls.items():
        host, whole = (
            min(_until_done(call, device) for _ in range(3)) for call in (timed.host, timed.device)
        )
        host_calls[key] = max(5, min(QUEUED, int(burst / host)))
        device_calls[key] = max(1, min(500, int(burst / whole)))
        turn = host * (host_calls[key] + 1) + whole * (device_calls[key] + 1)
        turns[key] = max(5, min(rounds, int(most / turn)))
    samples: dict[Key, tuple[list[float], list[float]]] = {key: ([], []) for key in calls}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for key, timed in calls.items():
                if turn < turns[key]:
                    host_us, device_us = samples[key]
                    host_us.append(_to_return(timed.host, device, host_calls[key]))
                    by_device = _on_device(timed.device, device, device_calls[key])
                    device_us.append(by_device / timed.steps)
    finally:
        gc.enable()
    return {
        key: {
            "host": summary(host_us, host_calls[key]),
            "device": {**summary(device_us, device_calls[key]), "steps_a_call": calls[key].steps},
        }
        for key, (host_us, device_us) in samples.items()
    }


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
