"""Steps as Python calls them, for callgrind to count; see count.py."""

import ctypes
import gc
import json
import platform
import sys
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch

import torch_plateau as tp

CALLS = 1000  # counted together, and made once before that


def calls(step: Callable[[Any], object], metrics: Any) -> None:
    """Call without an interpreted loop, which would count and be specialised for the first case."""
    deque(map(step, repeat(metrics, CALLS)), maxlen=0)


def drop_in(patience: int) -> tp.ReduceLROnPlateau:
    """Return a drop-in whose rate can be cut some hundred thousand times."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    return tp.ReduceLROnPlateau(optimizer, factor=0.999, patience=patience, eps=0.0)


def main(marks_file: str) -> None:
    """Count all cases; print what they ran on."""
    torch.set_num_threads(1)
    gc.disable()
    marks = ctypes.CDLL(marks_file)
    lanes = tp.PlateauLanes(16, 1.0, dtype=torch.float32, patience=10**6)
    some, active = torch.ones(16), torch.ones(16, dtype=torch.bool)
    cases: dict[str, tuple[Callable[[Any], object], Any]] = {
        "PlateauLanes.step of 16 lanes": (lanes.step, some),
        "PlateauLanes.step of 16 lanes, mask": (lambda some: lanes.step(some, active), some),
        "ReduceLROnPlateau.step of a float": (drop_in(10**6).step, 1.0),
        "ReduceLROnPlateau.step of a tensor": (drop_in(10**6).step, torch.ones(())),
        "ReduceLROnPlateau.step, a cut": (drop_in(0).step, 1.0),
    }
    for name, (step, metrics) in cases.items():
        calls(step, metrics)
        marks.begin_count()
        calls(step, metrics)
        marks.end_count(f"{name}/{CALLS}".encode())
    print(
        json.dumps(
            {
                "core": tp.build_info()["compiler"],
                "python": f"{platform.python_version()} by {platform.python_compiler()}",
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
