"""Timing in one run, and what it ran on."""

from __future__ import annotations

import datetime
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import torch

import torch_plateau

Key = TypeVar("Key")
Call = tuple[Callable[[Any], object], Any]  # what is called, and its argument


def interleave(
    calls: dict[Key, Call], rounds: int, burst: float, most: float = 0.4
) -> dict[Key, dict[str, float]]:
    """Time calls in turn, round after round, so that drift of the machine hits all alike.

    A turn is one untimed call, which brings the competitor's memory back into the caches, and a
    burst of timed ones; its mean is one sample.

    Args:
        calls: The competitors.
        rounds: Samples of each; fewer, but at least 5, for calls that would take longer than
            ``most`` in all.
        burst: Seconds that a burst should last.
        most: Seconds for one competitor.

    Returns:
        Median and quartiles in microseconds a call, ``n`` samples of ``calls`` calls each.
    """
    length, turns = {}, {}
    for key, (step, argument) in calls.items():
        step(argument)
        seconds = min(_burst(step, argument, 1) for _ in range(3))
        if seconds < burst / 10:
            seconds = _burst(step, argument, int(burst / 3 / seconds))
        length[key] = max(1, int(burst / seconds))
        turns[key] = max(5, min(rounds, int(most / (seconds * (length[key] + 1)))))
    samples: dict[Key, list[float]] = {key: [] for key in calls}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for key, (step, argument) in calls.items():
                if turn < turns[key]:
                    step(argument)
                    samples[key].append(_burst(step, argument, length[key]) * 1e6)
    finally:
        gc.enable()
    return {key: summary(values, length[key]) for key, values in samples.items()}


def _burst(step: Callable[[Any], object], argument: Any, calls: int) -> float:
    arguments = repeat(argument, calls)
    begin = time.perf_counter_ns()
    for each in arguments:
        step(each)
    return (time.perf_counter_ns() - begin) / calls * 1e-9


def summary(values: list[float], calls: int) -> dict[str, float]:
    """Return median and quartiles of ``values``, in microseconds, with four digits."""
    p25, median, p75 = statistics.quantiles(values, n=4, method="inclusive")
    figures = {"median_us": median, "p25_us": p25, "p75_us": p75}
    return {**{name: float(f"{us:.4g}") for name, us in figures.items()}, "n": len(values),
            "calls": calls}  # fmt: skip


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
