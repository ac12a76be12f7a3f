"""ReduceLROnPlateau for one model or for a million: torch's decisions, in one fused pass."""

from typing import Any

from ._core import build_info as _core_build_info
from .batched import BatchedReduceLROnPlateau
from .lane_lr import LaneLR
from .lanes import PlateauLanes
from .plateau import ReduceLROnPlateau

__all__ = [
    "BatchedReduceLROnPlateau",
    "LaneLR",
    "PlateauLanes",
    "ReduceLROnPlateau",
    "build_info",
]
__version__ = "0.1.0"


def build_info() -> dict[str, Any]:
    """Return how this package was built.

    ``version``, ``compiler``, ``cuda`` (whether the wheel holds CUDA kernels: not yet),
    ``cuda_option`` (TORCH_PLATEAU_CUDA at build) and ``nvcc`` (the version found at build, or "").
    """
    return {"version": __version__, **_core_build_info()}
