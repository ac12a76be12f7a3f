"""Tensors of a stacked model as users give them: by name, with a row for each lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import check_readable, kind_of
from ..lanes.values import check_keys

__all__ = ["check_like", "check_stacked", "checked_rows", "named_tensors"]


def named_tensors(label: str, given: Any) -> dict[str, Tensor]:
    """Return tensors by name, ``"0"``, ``"1"``, ... for those without.

    Raises TypeError or ValueError for what is not a mapping or an iterable of tensors that can be
    written to.
    """
    if isinstance(given, Tensor) or not isinstance(given, Iterable):
        raise TypeError(f"{label}: expected tensors or a mapping, got {kind_of(given)}")
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        named = {str(i): tensor for i, tensor in enumerate(given)}
    for name, tensor in named.items():
        if not isinstance(name, str):
            raise TypeError(f"{label}: expected names that are strings, got {name!r}")
        where = f"{label}[{name!r}]"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where}: expected a tensor, got {kind_of(tensor)}")
        check_readable(tensor, where)
        axes = zip(tensor.shape, tensor.stride(), strict=True)
        if any(size > 1 and step == 0 for size, step in axes):
            raise ValueError(f"{where}: expected a place for each element, got an expanded tensor")
    return named


def check_stacked(label: str, tensor: Tensor, lanes: PlateauLanes) -> None:
    """Refuse a tensor that has not a row for each lane, on the lanes' device."""
    n = len(lanes)
    if tensor.ndim == 0 or len(tensor) != n:
        raise ValueError(f"{label}: expected shape [{n}, ...], got {tuple(tensor.shape)}")
    if tensor.device != lanes.device:
        raise ValueError(f"{label}: expected device {lanes.device}, got {tensor.device}")


def check_like(label: str, given: Any, kept: Tensor, rows: int | None = None) -> None:
    """Refuse what is not a tensor of the shape and type of ``kept``, or of so many rows of it."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{label}: expected a tensor, got {kind_of(given)}")
    check_readable(given, label)
    shape = kept.shape if rows is None else (rows, *kept.shape[1:])
    if given.shape != shape or given.dtype != kept.dtype:
        raise ValueError(
            f"{label}: expected {kept.dtype} of shape {tuple(shape)}, got {given.dtype} "
            f"{tuple(given.shape)}"
        )


def checked_rows(
    label: str, given: Any, stacked: Mapping[str, Tensor], rows: int
) -> dict[str, Tensor]:
    """Return ``rows`` new rows for each of the stacked tensors, by their names, on their device.

    Raises KeyError, TypeError or ValueError for other names, shapes, types or devices.
    """
    found = named_tensors(label, given)
    check_keys(label, found, stacked)
    for name, tensor in stacked.items():
        where = f"{label}[{name!r}]"
        check_like(where, found[name], tensor, rows)
        if found[name].device != tensor.device:
            raise ValueError(f"{where}: expected device {tensor.device}, got {found[name].device}")
    return {name: found[name].detach() for name in stacked}
