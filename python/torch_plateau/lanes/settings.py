"""The settings of lanes: one number each for all lanes, or a tensor with one for each of them.

Words are kept as their codes and None as the number that stands for it, as the core takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .table import SETTINGS, Row
from .values import checked, checked_word, checked_words, shown, words_of

__all__ = [
    "BAND",
    "Settings",
    "check_averages",
    "check_names",
    "check_rule",
    "checked_setting",
    "checked_settings",
    "count_groups",
    "joined",
    "offsets_of",
    "per_group",
    "placed",
    "plain",
    "uses_parts",
]

Settings = dict[str, float | Tensor]

BAND = SETTINGS["rule"].words.index("band")

_OF_PARTS = [row for row in SETTINGS.values() if row.part]

# What makes numbers of metrics that float32 lanes could not keep as best.
_AVERAGES = ("smoothing", "accumulate", "window")


def check_names(who: str, given: Mapping[str, Any], *others: str) -> None:
    """Refuse keywords that are neither settings nor ``others``, as Python refuses them."""
    unknown = sorted(set(given) - {*SETTINGS, *others})
    if unknown:
        known = " or ".join([*others, "settings"])
        raise TypeError(f"{who}: expected {known}, got {unknown}; settings are {list(SETTINGS)}")


def checked_setting(
    row: Row, value: Any, n: int, offsets: Tensor | None = None, label: str | None = None
) -> float | Tensor:
    """Check a setting of ``n`` lanes: a number, or a CPU tensor with one per lane (or group)."""
    if type(value) in (float, int) and not row.words and abs(value) < 2**53 and row.has(value):
        return float(value)  # as nearly all are
    if type(value) is str and value in row.words:
        return float(row.words.index(value))
    if row.of == "batch":
        return float(row.words.index(checked_word(label or row.name, value, row.words)))
    if row.words:
        return checked_words(row, value, n, label)
    if value is None and row.may_be_none:
        return row.first
    if row.of == "group":
        found = per_group(row, value, n, offsets, label)
    else:
        found = checked(row, value, n, label=label)
    return float(found) if found.ndim == 0 else found


def checked_settings(
    n: int, offsets: Tensor | None, given: Mapping[str, Any], dtype: torch.dtype
) -> Settings:
    """Check settings, those that are not given as they are unless told."""
    settings = {
        name: checked_setting(row, given[name], n, offsets) if name in given else row.first
        for name, row in SETTINGS.items()
    }
    check_averages(settings, dtype)
    check_rule(settings)
    return settings


def check_averages(settings: Mapping[str, float | Tensor], dtype: torch.dtype) -> None:
    """Refuse averages in float32 lanes, which hold metrics but not their means."""
    for name in _AVERAGES:
        if dtype == torch.float32 and SETTINGS[name].needs_part(settings[name]):
            raise ValueError(f"{name}: expected dtype=torch.float64 with it, got {dtype}")


def check_rule(settings: Mapping[str, float | Tensor]) -> None:
    """Refuse a band around nothing."""
    target = settings["target"]
    missing = not isinstance(target, Tensor) and target == SETTINGS["target"].first
    if missing and settings["rule"] == BAND:
        raise ValueError("target: expected a number with rule='band', got None")


def uses_parts(settings: Mapping[str, float | Tensor]) -> bool:
    """Return whether any setting takes the lanes out of the plain loop."""
    return any(row.needs_part(settings[row.name]) for row in _OF_PARTS)


def plain(row: Row, value: float | Tensor) -> Any:
    """Return a setting as a user gave it: a number, a word or words, None or a copied tensor."""
    if isinstance(value, Tensor):
        return words_of(row, value) if row.words else value.clone()
    if row.words:
        return row.words[int(value)]
    if row.may_be_none and value == row.first:
        return None
    return value if row.dtype == torch.float64 else int(value)


def placed(row: Row, value: float | Tensor, device: torch.device) -> Tensor:
    """Return a setting as a tensor where the lanes are, without waiting for the device.

    One number is no copy there but filled in, so that a CUDA graph that is being captured holds it.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return torch.full((), value, dtype=row.dtype, device=device)


def joined(
    row: Row, old: float | Tensor, new: float | Tensor, sizes: tuple[int, int], device: torch.device
) -> float | Tensor:
    """Return a setting of two batches of lanes: one number if both have it, else one per lane."""
    if 0 in sizes:
        return old if sizes[1] == 0 else new
    numbers = [value for value in (old, new) if not isinstance(value, Tensor)]
    if len(numbers) == 2 and old == new:
        return old
    if row.of == "batch":
        words = " for some and ".join(str(plain(row, value)) for value in numbers)
        raise ValueError(f"{row.name}: expected one for all lanes, got {words} for others")
    if row.may_be_none and row.first in numbers:
        raise ValueError(f"{row.name}: expected it for all lanes or for none, got None for some")
    both = zip((old, new), sizes, strict=True)
    return torch.cat([placed(row, value, device).expand(size) for value, size in both])


# -- lanes and their groups -----------------------------------------------------------------------


def offsets_of(n: int, groups: object) -> Tensor | None:
    """Return where each lane's groups begin, int64 ``(n + 1,)``; None for one group each."""
    if groups is None:
        return None
    counts: list[Any] = list(groups) if isinstance(groups, Sequence) else [None]
    good = all(type(count) is int and count >= 0 for count in counts)
    if len(counts) != n or not good or sum(counts) >= 2**53:
        raise ValueError(f"groups: expected {n} counts of 0 or more, got {shown(groups)}")
    return torch.tensor([0, *counts], dtype=torch.int64, device="cpu").cumsum(0)


def count_groups(n: int, offsets: Tensor | None) -> int:
    """Return the number of groups of all lanes."""
    return n if offsets is None else int(offsets[-1])


def per_group(
    row: Row, value: object, n: int, offsets: Tensor | None, label: str | None = None
) -> Tensor:
    """Check numbers of groups; one per lane is spread over the lane's groups."""
    total = count_groups(n, offsets)
    values = checked(row, value, total, n, label=label)
    if values.ndim == 1 and len(values) != total and offsets is not None:
        values = values.repeat_interleave(offsets.diff())
    return values
