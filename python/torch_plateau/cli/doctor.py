"""``torch-plateau doctor``: what was built, what there is to run on, and what is missing."""

from __future__ import annotations

import platform
import shutil
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from .. import build_info
from .tables import console
from .terminal import extra

__all__ = ["NEEDS", "doctor"]


class Need(NamedTuple):
    """What something imports, and the extra that brings it; None where there is none."""

    what: str
    modules: tuple[str, ...]
    extra: str | None


NEEDS = (
    Need("replay, sweep, inspect, bench", ("matplotlib", "rich", "typer"), "cli"),
    Need("demo", ("matplotlib", "rich", "sklearn", "torchmetrics", "typer"), "demo"),
    Need("bench beside JAX", ("jax", "optax"), None),
    Need("--html", ("jinja2", "plotly"), "report"),
    Need("Parquet files", ("pyarrow",), "parquet"),
    Need("TensorBoard", ("tensorboard",), "tensorboard"),
    Need("integrations.accelerate", ("accelerate",), "integrations"),
    Need("integrations.ignite", ("ignite",), "integrations"),
    Need("integrations.keras", ("keras",), "integrations"),
    Need("integrations.lightning", ("lightning",), "integrations"),
    Need("integrations.lightning_cli", ("lightning", "jsonargparse"), "integrations"),
    Need("integrations.optuna", ("optuna",), "integrations"),
    Need("integrations.skorch", ("skorch",), "integrations"),
    Need("integrations.transformers", ("transformers", "accelerate"), "integrations"),
)


def doctor() -> None:
    """Print how this was built, which torch and GPU it sees, and what is missing for what.

    Packages are looked for, not imported: one that is there and broken is
    not found out.
    """
    with extra("the command line needs its extra: pip install 'torch-plateau[cli]'"):
        screen = console()
    info = build_info()
    screen.print(f"torch-plateau {info['version']}, compiled by {info['compiler']}", markup=False)
    screen.print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        markup=False,
    )
    screen.print(f"GPU: {gpu(info)}", markup=False, soft_wrap=True)
    screen.print("What can be used:")
    for need in NEEDS:
        missing = [module for module in need.modules if find_spec(module) is None]
        what = f"no   {need.what}: {cure(need, missing)}" if missing else f"yes  {need.what}"
        screen.print(f"  {what}", markup=False, soft_wrap=True)  # a cure is a line to be pasted
    if not any(shutil.which(each) for each in ("c++", "g++", "clang++", "cl")):
        screen.print("No C++ compiler: torch.compile cannot build code for the CPU.", markup=False)


def gpu(info: dict[str, Any]) -> str:
    """Say whether lanes can be on a GPU here, and if not, what stands in the way."""
    built = f"kernels of CUDA {info['cuda']} for {', '.join(info['cuda_architectures'])}"
    if not info["cuda"]:
        why = f"TORCH_PLATEAU_CUDA was {info['cuda_option']}"
        return f"no: no kernels were built ({why}); build again where nvcc is found"
    if torch.version.cuda is None:
        return f"no: {built}, but this torch was built without CUDA"
    if not torch.cuda.device_count():
        return f"no: {built}, but torch {torch.__version__} sees no device"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; {built}"


def cure(need: Need, missing: list[str]) -> str:
    """Say what is missing, and what to install."""
    wanted = " ".join(missing) if need.extra is None else f"'torch-plateau[{need.extra}]'"
    return f"no {', '.join(missing)}; pip install {wanted}"
