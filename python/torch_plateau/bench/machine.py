"""What figures belong to: the machine and the versions; no host name and no path."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import torch_plateau

__all__ = ["machine", "nvidia_smi"]


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Return what the numbers belong to, with a GPU if one is told; no host name and no path."""
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
