"""What PlateauLanes checks before it writes, and how it shows values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _core
from ._settings import check_word, setting, words_of
from .readable import check_readable, kind_of


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


_WORDS = ("mode", "threshold_mode", "nan", "counting")
_NUMBERS = (
    "factor",
    "patience",
    "threshold",
    "cooldown",
    "min_lr",
    "eps",
    "atol",
    "initial_patience",
    "smoothing",
    "accumulate",
    "window",
    "max_reductions",
    "patience_at_min",
    "warmup_steps",
    "warmup_start_factor",
)
_MAY_BE_NONE = ("initial_patience", "max_reductions", "patience_at_min")
SETTINGS = _WORDS + _NUMBERS


def checked_setting(name: str, value: Any, n: int, offsets: Tensor | None) -> Any:
    """Check a hyper-parameter: a word or codes, None, or a CPU tensor, 0-d where one serves all."""
    if name in _WORDS:
        return check_word(name, value, n)
    if value is None and name in _MAY_BE_NONE:
        return None
    return per_group(name, value, n, offsets) if name == "min_lr" else setting(name, value, n)


def checked_settings(
    n: int, offsets: Tensor | None, given: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, Any]:
    """Check all hyper-parameters, and that ``dtype`` can hold what they make of metrics."""
    settings = {name: checked_setting(name, given[name], n, offsets) for name in SETTINGS}
    check_filters(settings, dtype)
    return settings


def check_filters(settings: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Refuse averages in float32 lanes, which hold metrics but not their means."""
    off = {"smoothing": 0.0, "accumulate": 1, "window": 1}
    for name, value in off.items():
        if dtype == torch.float32 and (settings[name].ndim or settings[name] != value):
            raise ValueError(f"{name}: expected dtype=torch.float64 with it, got {dtype}")


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


def loaded_part(given: Mapping[str, Any], name: str, like: Tensor) -> Tensor:
    """Check a tensor of a loaded state of optional parts: as ``like`` in type and shape."""
    value, label = given[name], f"state_dict['options'][{name!r}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: expected a tensor, got {kind_of(value)}")
    check_readable(value, label)
    if value.dtype != like.dtype or value.shape != like.shape:
        raise ValueError(
            f"{label}: expected {like.dtype} of shape {tuple(like.shape)}, got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    value = value.detach().to("cpu", copy=True)
    if not value.is_floating_point() and (value < 0).any():
        raise ValueError(f"{label}: expected no negative values, got {value.min():d}")
    return value


def plain(name: str, value: Any) -> Any:
    """Return a setting as a user gave it: a number, a word or words, None or a copied tensor."""
    if not isinstance(value, Tensor):
        return value
    if name in _WORDS:
        return words_of(name, value)
    return value.item() if value.ndim == 0 else value.clone()


def brief(value: Any) -> str:
    """Show a value in one short piece of text."""
    if isinstance(value, Tensor):
        return f"[{value.min():g} .. {value.max():g}]" if value.numel() else "[]"
    if isinstance(value, list):
        return repr(value) if len(value) <= 6 else f"[{len(value)} values]"
    return repr(value)
