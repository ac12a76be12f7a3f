"""ReduceLROnPlateau for one model or for a million: torch's decisions, in one fused pass."""

from .interpreter import check_lock as _check_lock  # refuses before torch is imported

# isort: split
from typing import Any

import torch

from ._core import build_info as _core_build_info
from .histories.diagnose import Finding, diagnose
from .histories.replay import Replay, replay
from .histories.sweep import Sweep, sweep
from .lanes.lanes import PlateauLanes
from .lanes.table import STOP_REASONS
from .optim.batched import BatchedReduceLROnPlateau
from .optim.best import LaneBest
from .optim.clip import clip_lane_grad_norm_
from .optim.compose import compose
from .optim.lane_adam import LaneAdam, LaneAdamW
from .optim.lane_lr import LaneLR
from .optim.lane_sgd import LaneSGD
from .optim.plateau import ReduceLROnPlateau
from .optim.stack import LaneStack
from .saving import save_atomically

__all__ = [
    "STOP_REASONS",
    "BatchedReduceLROnPlateau",
    "Finding",
    "LaneAdam",
    "LaneAdamW",
    "LaneBest",
    "LaneLR",
    "LaneSGD",
    "LaneStack",
    "PlateauLanes",
    "ReduceLROnPlateau",
    "Replay",
    "Sweep",
    "build_info",
    "clip_lane_grad_norm_",
    "compose",
    "diagnose",
    "replay",
    "save_atomically",
    "sweep",
]
_check_lock()
__version__ = "0.1.0"


def build_info() -> dict[str, Any]:
    """Return how this package was built, and whether it can use a GPU here.

    - ``version``, ``compiler``
    - ``cuda``: version of the CUDA toolkit that built the kernels, ``""`` if there are none
    - ``cuda_architectures``: compute capabilities with machine code; newer ones are compiled from
      the last by the driver
    - ``cuda_option``: TORCH_PLATEAU_CUDA at build
    - ``cuda_usable``: whether there are kernels, a driver, a device, and a torch that sees it

    Devices are counted without initialising CUDA, so a process may still fork afterwards.
    """
    core = _core_build_info()
    architectures = [int(each) / 100 for each in core["cuda_architectures"].split(",") if each]
    return {
        "version": __version__,
        "compiler": core["compiler"],
        "cuda": core["cuda"],
        "cuda_architectures": [f"{each:.1f}" for each in architectures],
        "cuda_option": core["cuda_option"],
        "cuda_usable": core["cuda"] != "" and torch.cuda.device_count() > 0,
    }
