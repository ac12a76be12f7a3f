"""What a step is timed in and how: scenarios, samples in turn, host and device, the machine."""

from __future__ import annotations

import datetime
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import torch_plateau
from rivals import DTYPES, F64, FAR, Rule, Start

Key = TypeVar("Key")
Value = TypeVar("Value")
Call = tuple[Callable[[Any], object], Any]  # what is called, and its argument

RESULTS = Path(__file__).parent / "results"
NEVER = 10**9
PATIENCE = {"quiet": NEVER, "improving": NEVER, "all improve": NEVER, "mixed": 99, "cut": 0}
IMPROVING = {"improving": 0.01, "mixed": 0.01, "all improve": 1.0}  # share of the lanes
QUEUED = 40  # calls in a host burst: of at most 17 launches each, far fewer than fill the queue


# -- what the lanes are put through ---------------------------------------------------------------


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


def bytes_a_lane(dtypes: str, name: str) -> int:
    """Return what a step moves: metric, best (twice if it is written), clock twice, outcome."""
    best, metric = DTYPES[dtypes]
    return metric.itemsize + best.itemsize * (1 if name == "quiet" else 2) + 4 * 2 + 1


# -- samples --------------------------------------------------------------------------------------


def in_turn(samplers: dict[Key, tuple[int, Callable[[], Value]]]) -> dict[Key, list[Value]]:
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


def on_host(
    calls: dict[Key, Call], rounds: int, burst: float, most: float = 0.4
) -> dict[Key, dict[str, float]]:
    """Time calls on the CPU.

    Args:
        calls: The competitors.
        rounds: Samples of each; fewer, but at least 5, for calls that would take longer than
            ``most`` in all.
        burst: Seconds that a sample should last.
        most: Seconds for one competitor.

    Returns:
        Median and quartiles in microseconds a call, ``n`` samples of ``calls`` calls each.
    """
    lengths, samplers = {}, {}
    for key, call in calls.items():
        sample, lengths[key], seconds = sampler(call, burst)
        samplers[key] = max(5, min(rounds, int(most / seconds))), sample
    return {key: summary(us, lengths[key]) for key, us in in_turn(samplers).items()}


def sampler(call: Call, burst: float) -> tuple[Callable[[], float], int, float]:
    """Return what takes a sample of a call, the calls in it, and the seconds that it takes.

    A sample is one untimed call, which brings the competitor's memory back into the caches, and a
    burst of timed ones that lasts about ``burst`` seconds: their mean, in microseconds.
    """
    step, argument = call
    step(argument)
    seconds = min(_burst(step, argument, 1) for _ in range(3)) * 1e-6
    if seconds < burst / 10:
        seconds = _burst(step, argument, int(burst / 3 / seconds)) * 1e-6
    calls = max(1, int(burst / seconds))
    return partial(_warm_burst, step, argument, calls), calls, seconds * (calls + 1)


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


@dataclass(frozen=True)
class Timed:
    """What is timed on the host, and what on the device: one call of that takes ``steps`` steps."""

    host: Callable[[], object]
    device: Callable[[], object]
    steps: int = 1


def host_and_device(
    calls: dict[Key, Timed], device: torch.device, rounds: int, burst: float, most: float
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
    times = {}
    for key, pairs in in_turn(samplers).items():
        host_us, device_us = (list(side) for side in zip(*pairs, strict=True))
        steps = {"steps_a_call": calls[key].steps}
        times[key] = {
            "host": summary(host_us, lengths[key][0]),
            "device": {**summary(device_us, lengths[key][1]), **steps},
        }
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


# -- the record -----------------------------------------------------------------------------------


def write(report: dict[str, Any], out: Path) -> None:
    """Write a report as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Return what the numbers belong to, with a GPU if one is told; no host name and no path."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    on = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "l3": _l3(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "os": " ".join([platform.system(), platform.release().split("-")[0]]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "torch_plateau": torch_plateau.__version__,
        "compiler": torch_plateau.build_info()["compiler"],
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": None if changed is None else bool(changed),
    }
    return on if device is None or device.type != "cuda" else {**on, **_gpu(device)}


def _gpu(device: torch.device) -> dict[str, Any]:
    built, properties = torch_plateau.build_info(), torch.cuda.get_device_properties(device)
    said = nvidia_smi(device, "driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
    return {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpu_multiprocessors": properties.multi_processor_count,
        "gpu_l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
        **{f"gpu_{name.replace('.', '_')}": value for name, value in said.items()},
        "cuda_of_torch": torch.version.cuda,
        "cuda_of_torch_plateau": built["cuda"],
        "cuda_architectures": ", ".join(built["cuda_architectures"]),
        "triton": _version("triton"),
    }


def nvidia_smi(device: torch.device, *fields: str) -> dict[str, str | None]:
    """Return what nvidia-smi says of a device; None where it does not."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = str(device.index or 0) if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"
    command = ["nvidia-smi", "-i", which, "--format=csv,noheader", "--query-gpu"]
    command[-1] += "=" + ",".join(fields)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(fields)
    values: list[str | None] = [value.strip() for value in done.stdout.strip().split(",")]
    values = values if len(values) == len(fields) else [None] * len(fields)
    return dict(zip(fields, values, strict=True))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _l3() -> str | None:
    return next(iter(_lines("/sys/devices/system/cpu/cpu0/cache/index3/size")), None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
