"""What PlateauLanes checks before it writes, and how it shows values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _core
from ._settings import check_mode, setting
from ._tensors import check_readable, kind_of


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
        raise ValueError(f"dtype: expected torch.float64 or torch.float32, got {dtype}")


def check_held(best: Tensor, dtype: torch.dtype) -> None:
    """Refuse a ``best`` that ``dtype`` would round."""
    exact = best.to(dtype).double() == best
    if not (exact | best.isnan()).all():
        raise ValueError(f"best: {dtype} lanes cannot hold these values exactly; use float64")


def offsets_of(n: int, groups: Sequence[int] | None) -> Tensor | None:
    """Return where each lane's groups begin, int64 ``(n + 1,)``; None for one group each."""
    if groups is None:
        return None
    counts = list(groups) if isinstance(groups, Sequence) else [None]
    if len(counts) != n or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"groups: expected {n} counts of 0 or more, got {brief(groups)}")
    return torch.tensor([0, *counts], dtype=torch.int64, device="cpu").cumsum(0)


def count_groups(n: int, offsets: Tensor | None) -> int:
    """Return the number of groups of all lanes."""
    return n if offsets is None else int(offsets[-1])


def per_group(name: str, value: object, n: int, offsets: Tensor | None) -> Tensor:
    """Check a setting of groups; one per lane is spread over the lane's groups."""
    total = count_groups(n, offsets)
    values = setting(name, value, total, n)
    if values.ndim == 1 and len(values) != total and offsets is not None:
        values = values.repeat_interleave(offsets.diff())
    return values


def checked_settings(n: int, offsets: Tensor | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check all hyper-parameters: words, and tensors that are 0-d where one serves all lanes."""
    return {
        "mode": check_mode("mode", given["mode"], n),
        "factor": setting("factor", given["factor"], n),
        "patience": setting("patience", given["patience"], n),
        "threshold": setting("threshold", given["threshold"], n),
        "threshold_mode": check_mode("threshold_mode", given["threshold_mode"], n),
        "cooldown": setting("cooldown", given["cooldown"], n),
        "min_lr": per_group("min_lr", given["min_lr"], n, offsets),
        "eps": setting("eps", given["eps"], n),
    }


def check_keys(label: str, given: Any, expected: Collection[str]) -> None:
    """Refuse a mapping that has not exactly the keys ``expected``."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{label}: expected a mapping, got {kind_of(given)}")
    if set(given) != set(expected):
        odd = sorted(set(expected).symmetric_difference(given))
        raise KeyError(
            f"{label}: missing or unknown keys {odd}; expected the keys {sorted(expected)}"
        )


def loaded_field(state_dict: Mapping[str, Any], name: str, size: int) -> Tensor:
    """Check a numeric tensor of a loaded state."""
    value, label = state_dict[name], f"state_dict[{name!r}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: expected a tensor of shape ({size},), got {kind_of(value)}")
    return setting(name, value, size, scalar=False, label=label)


def loaded_flags(state_dict: Mapping[str, Any], name: str, size: int) -> Tensor:
    """Check a bool tensor of a loaded state; returned as 0 and 1."""
    value, label = state_dict[name], f"state_dict[{name!r}]"
    if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != (size,):
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else kind_of(value)
        raise ValueError(f"{label}: expected a bool tensor of shape ({size},), got {got}")
    check_readable(value, label)
    return value.to("cpu", torch.uint8)


def plain(value: Any) -> Any:
    """Return a setting as a user gave it: a number, a word, a list or a copied tensor."""
    if not isinstance(value, Tensor):
        return value
    return value.item() if value.ndim == 0 else value.clone()


def brief(value: Any) -> str:
    """Show a value in one short piece of text."""
    if isinstance(value, Tensor):
        return f"[{value.min():g} .. {value.max():g}]" if value.numel() else "[]"
    if isinstance(value, list):
        return repr(value) if len(value) <= 6 else f"[{len(value)} values]"
    return repr(value)
