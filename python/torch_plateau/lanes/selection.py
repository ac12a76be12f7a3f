"""Which lanes a caller means: a mask, or lane numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from .inputs import mask_of
from .readable import check_readable, kind_of
from .table import whole_number

__all__ = ["Chosen", "Which", "alike", "chosen", "last_of", "numbers_of"]

Which = Tensor | Sequence[bool] | Sequence[int] | int


class Chosen(NamedTuple):
    """Lanes that a caller named."""

    mask: Tensor  # bool, (n,)
    size: int  # of values that may be given for them
    place: Tensor | None  # for each lane, the last place in the caller's numbers that names it

    def spread(self, values: Tensor) -> Tensor:
        """From values for the lanes as they were named to one for each lane there is."""
        if self.place is None or values.ndim == 0:
            return values
        if self.size == 0:
            return values.new_zeros(len(self.mask), *values.shape[1:])
        return values[self.place.clamp(min=0)]


def chosen(name: str, lanes: Any, n: int, device: torch.device) -> Chosen:
    """Return what a mask or lane numbers choose of ``n`` lanes on ``device``; never synchronises.

    Raises TypeError, ValueError or IndexError, naming the argument as ``name``.
    """
    is_mask = isinstance(lanes, Tensor) and lanes.dtype == torch.bool
    if isinstance(lanes, (list, tuple)) and lanes:
        is_mask = all(isinstance(each, bool) for each in lanes)
    if is_mask:
        return Chosen(mask_of(name, lanes, n, device), n, None)
    return last_of(numbers_of(name, lanes, n, device), n)


def alike(numbers: Tensor, values: Tensor, n: int) -> Tensor:
    """Return values for lane numbers, where of a number that comes twice the last place counts."""
    few = numbers.is_cpu and len(numbers) < 64
    if few and len(set(numbers.tolist())) == len(numbers):
        return values
    return values.index_select(0, _last_places(numbers, n).index_select(0, numbers))


def last_of(numbers: Tensor, n: int) -> Chosen:
    """Return what lane numbers choose; of a number that comes twice the last place counts."""
    last = _last_places(numbers, n)
    return Chosen(last >= 0, len(numbers), last)


def _last_places(numbers: Tensor, n: int) -> Tensor:
    """Return where each of ``n`` lanes is named last, -1 for nowhere."""
    order = torch.arange(len(numbers), device=numbers.device)
    last = torch.full((n,), -1, dtype=torch.int64, device=numbers.device)
    return last.scatter_reduce_(0, numbers, order, "amax")


def numbers_of(name: str, lanes: Any, n: int, device: torch.device) -> Tensor:
    """Return lane numbers as an int64 tensor on ``device``; one on a GPU is not checked."""
    given = [lanes] if whole_number(lanes, -(2**63)) else lanes
    if isinstance(given, (list, tuple, range)):
        if not all(whole_number(each, -(2**63)) for each in given):
            raise TypeError(f"{name}: expected lane numbers, got {kind_of(lanes)} of others")
        _check_numbers(name, given, n)
        here = torch.tensor(given, dtype=torch.int64, device="cpu")
        return here.to(device, non_blocking=True)
    if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
        got = given.dtype if isinstance(given, Tensor) else kind_of(given)
        raise TypeError(f"{name}: expected lane numbers, got {got}")
    if given.dtype == torch.bool or given.ndim > 1:
        raise ValueError(
            f"{name}: expected lane numbers, shape (k,), got {given.dtype} {tuple(given.shape)}"
        )
    check_readable(given, name)
    if given.device != device:
        raise ValueError(f"{name}: expected device {device}, got {given.device}")
    numbers = given.detach().as_subclass(Tensor).reshape(-1).long()
    if given.is_cpu:
        numbers = numbers.contiguous()
        at = _core.first_outside(numbers, 0, n, False, True, False)
        _check_numbers(name, numbers[at : at + 1].tolist() if at >= 0 else (), n)
    return numbers


def _check_numbers(name: str, numbers: Sequence[int], n: int) -> None:
    for number in numbers:
        if not 0 <= number < n:
            lanes = f"lanes from 0 to {n - 1}" if n else "none, there are no lanes"
            raise IndexError(f"{name}: expected {lanes}, got {number}")
