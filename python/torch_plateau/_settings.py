"""Hyper-parameters and state: one table of what each may be, for one lane and for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._tensors import check_readable

__all__ = ["check_mode", "gate_of", "setting"]

INT32_MAX = 2**31 - 1


class _Range(NamedTuple):
    dtype: torch.dtype
    holds: Callable[[Tensor], Tensor]  # of float64 values, elementwise; False for NaN
    expected: str


def _whole(v: Tensor) -> Tensor:
    return (v >= 0) & (v < 2**53) & (v == v.floor())


_RATE = _Range(torch.float64, lambda v: v.isfinite() & (v >= 0), "finite and not negative")
# INT32_MAX itself is left out: the clock must be able to go one past the patience
_COUNT = _Range(
    torch.int32, lambda v: _whole(v) & (v < INT32_MAX), f"an integer from 0 to {INT32_MAX - 1}"
)
_RANGES = {
    "lr": _RATE,
    "factor": _Range(torch.float64, lambda v: (v > 0) & (v < 1), "above 0 and below 1"),
    "patience": _COUNT,
    "threshold": _Range(torch.float64, torch.isfinite, "finite"),
    "cooldown": _COUNT,
    "min_lr": _RATE,
    "eps": _RATE,
    # the state, as it may be set or loaded
    "best": _Range(torch.float64, lambda v: v == v, "a number"),
    "num_bad_epochs": _COUNT,
    "cooldown_counter": _COUNT,
    "num_reductions": _COUNT,
    "num_steps": _Range(torch.int64, _whole, "an integer of 0 or more"),
    "last_epoch": _Range(torch.int64, lambda v: _whole(v.abs()), "an integer"),
}
_CHOICES = {"mode": ("min", "max"), "threshold_mode": ("rel", "abs")}


def setting(
    name: str, value: object, *sizes: int, scalar: bool = True, label: str | None = None
) -> Tensor:
    """Check a hyper-parameter or a field of the state and return it as a new CPU tensor.

    ``value`` is a number (result 0-d, unless ``scalar`` is False) or a 1-d array or sequence with
    one of the lengths in ``sizes``. The result has the type of the table above and never aliases
    ``value``. ``label`` is what errors call it, ``name`` unless told. Synchronises if ``value`` is
    on another device.

    Raises TypeError for what is not numeric and ValueError for a wrong shape or range.
    """
    dtype, holds, expected = _RANGES[name]
    label = label or name
    allowed = ["one number"] if scalar else []
    allowed += [f"shape ({size},)" for size in dict.fromkeys(sizes)]
    wanted = f"{label}: expected {' or '.join(allowed)}"
    given = value
    if isinstance(given, Tensor):
        check_readable(given, label)
    try:
        if given is None or isinstance(given, (str, bytes, bool)):
            raise TypeError  # as_tensor would read a bool as 0 or 1
        if not isinstance(given, Tensor):
            given = torch.as_tensor(given, dtype=torch.float64, device="cpu")
        if given.is_complex() or given.dtype == torch.bool:
            raise TypeError
        values = given.detach().to("cpu", torch.float64, copy=True)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{wanted}, got {_shown(value)}") from error
    if (values.ndim == 0 and not scalar) or (
        values.ndim > 0 and tuple(values.shape) not in [(s,) for s in sizes]
    ):
        raise ValueError(f"{wanted}, got shape {tuple(values.shape)}")
    good = holds(values)
    if not good.all():
        where = "" if values.ndim == 0 else f" at index {int((~good).nonzero()[0])}"
        bad = values[~good].tolist()[0] if values.ndim else values.item()
        raise ValueError(f"{label}: expected {expected}, got {bad:g}{where}")
    return values.to(dtype)


def check_mode(name: str, value: object, n: int | None = None) -> str | list[str]:
    """Check ``mode`` or ``threshold_mode``: one word, or one per lane where ``n`` is given."""
    choices = _CHOICES[name]
    words = [value] if isinstance(value, str) or n is None else value
    if not isinstance(words, Sequence) or not all(word in choices for word in words):
        allowed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected {allowed}, got {_shown(value)}")
    if isinstance(value, str):
        return value
    if len(words) != n:
        raise ValueError(f"{name}: expected one word or {n} of them, got {len(words)}")
    return [str(word) for word in words]


def gate_of(
    mode: str | list[str], threshold: Tensor, threshold_mode: str | list[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``(scale, shift, maximize)`` of the value that a metric must beat.

    ::

        gate = best * scale + shift
        min, rel: scale = 1 - threshold, shift = 0      abs: scale = 1, shift = -threshold
        max, rel: scale = 1 + threshold, shift = 0      abs: scale = 1, shift = +threshold

    All three are 0-d when one gate serves every lane, 1-d otherwise; float64, float64, uint8, on
    the device of ``threshold``.
    """
    maximize = _is(mode, "max").to(threshold.device)
    relative = _is(threshold_mode, "rel").to(threshold.device)
    signed = torch.where(maximize, threshold, -threshold)
    scale = torch.where(relative, 1.0 + signed, 1.0)
    shift = torch.where(relative, 0.0, signed)
    shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        scale.shape, shift.shape, maximize.shape
    )
    gate = (scale, shift, maximize.to(torch.uint8))
    scale, shift, maximize = (each.expand(shape).contiguous() for each in gate)
    return scale, shift, maximize


def _is(words: str | list[str], word: str) -> Tensor:
    if isinstance(words, str):
        return torch.tensor(words == word, device="cpu")
    return torch.tensor([each == word for each in words], dtype=torch.bool, device="cpu")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
