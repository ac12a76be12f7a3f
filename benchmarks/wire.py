"""What ranks do together in a call: samples of its time, its collectives, bytes and packets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from torch_plateau.bench.timing import seconds

__all__ = ["COUNTERS", "Call", "collectives", "counters", "others", "sampler", "wire"]

COUNTERS = Path("/proc/net/dev")
Call = Callable[[], object]


def sampler(call: Call, burst: float, most: float) -> tuple[int, Callable[[], float], int]:
    """Return rounds, what takes a sample in microseconds a call, and calls; alike on all ranks."""
    call()
    spent = torch.tensor(seconds(call), dtype=torch.float64)
    dist.all_reduce(spent, dist.ReduceOp.MAX)
    calls = max(1, int(burst / float(spent)))

    def sample() -> float:
        call()
        dist.barrier()
        return seconds(lambda: [call() for _ in range(calls)]) / calls * 1e6

    return max(5, min(41, int(most / (float(spent) * (calls + 1))))), sample, calls


def collectives(call: Call) -> int:
    """Return how many collectives the profiler sees in a call."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    return sum(each.name.startswith("gloo:") for each in seen.events())


def counters() -> tuple[int, int]:
    """Return bytes and packets that the loopback interface has received."""
    lines = COUNTERS.read_text(encoding="utf-8").splitlines()
    found = next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()
    return int(found[0]), int(found[1])


def others() -> int:
    """Return the bytes that went over the interface in a second in which we sent nothing."""
    before = counters()[0]
    time.sleep(1)
    return counters()[0] - before


def wire(call: Call, times: int, pause: float) -> tuple[float, ...]:
    """Return bytes and packets of one call, of all ranks together; barriers are taken off.

    What is acknowledged late comes within 40 ms: a shorter ``pause`` may miss some.
    """
    seen = []
    for count in (0, 0, 0, times):
        for _ in range(count):
            call()
        dist.barrier()
        time.sleep(pause)
        seen.append(counters())
        time.sleep(pause)  # so that no rank is on before another has read
    none, some = ([b - a for a, b in zip(*pair, strict=True)] for pair in (seen[:2], seen[2:]))
    return tuple(round(max(b - a, 0) / times, 1) for a, b in zip(none, some, strict=True))
