"""Where lanes can live, and what their best can be kept in."""

from __future__ import annotations

import torch

from .. import _core
from .values import shown

__all__ = ["check_device", "check_dtype"]


def check_device(device: torch.device | str) -> torch.device:
    """Return ``device`` with its index, or refuse one on which lanes cannot be stepped."""
    try:
        found = torch.device(device)
    except RuntimeError:  # torch's message lists every backend it was ever built for
        raise RuntimeError(f"device: expected 'cpu' or 'cuda', got {str(device)!r}") from None
    if found.type == "cpu":
        return found
    if found.type != "cuda" or torch.version.hip:
        rocm = " of ROCm" if found.type == "cuda" else ""
        raise RuntimeError(f"device: expected 'cpu' or 'cuda', got {str(device)!r}{rocm}")
    if not _core.build_info()["cuda"]:
        raise RuntimeError(
            f"device: got {str(device)!r}, but this torch-plateau was built without CUDA kernels; "
            "put nvcc on PATH and install it again, or use device='cpu'"
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device: got {str(device)!r}, but torch {torch.__version__} finds no CUDA device "
            "(torch.cuda.is_available() is False)"
        )
    index = torch.cuda.current_device() if found.index is None else found.index
    if index >= torch.cuda.device_count():
        raise RuntimeError(
            f"device: got {str(device)!r}, but there are {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device("cuda", index)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse what ``best`` cannot be kept in."""
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype: expected torch.float64 or torch.float32, got {shown(dtype)}")
