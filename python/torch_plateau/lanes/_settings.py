"""Hyper-parameters and state: one table of what each may be, for one lane and for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .readable import check_readable

__all__ = ["CHOICES", "INT32_MAX", "check_mode", "check_word", "codes_of", "setting", "words_of"]

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
_SOME = _Range(
    torch.int32,
    lambda v: _whole(v) & (v >= 1) & (v < INT32_MAX),
    f"an integer from 1 to {INT32_MAX - 1}",
)
_RANGES = {
    "lr": _RATE,
    "factor": _Range(torch.float64, lambda v: (v > 0) & (v < 1), "above 0 and below 1"),
    "patience": _COUNT,
    "threshold": _Range(torch.float64, torch.isfinite, "finite"),
    "cooldown": _COUNT,
    "min_lr": _RATE,
    "eps": _RATE,
    # optional parts
    "atol": _RATE,
    "initial_patience": _COUNT,
    "smoothing": _Range(torch.float64, lambda v: (v >= 0) & (v < 1), "at least 0 and below 1"),
    "accumulate": _SOME,
    "window": _SOME,
    "max_reductions": _SOME,
    "patience_at_min": _SOME,
    "warmup_steps": _COUNT,
    "warmup_start_factor": _Range(torch.float64, lambda v: (v >= 0) & (v <= 1), "from 0 to 1"),
    # the state, as it may be set or loaded
    "start_lr": _RATE,
    "best": _Range(torch.float64, lambda v: v == v, "a number"),
    "num_bad_epochs": _COUNT,
    "cooldown_counter": _COUNT,
    "num_reductions": _COUNT,
    "num_steps": _Range(torch.int64, _whole, "an integer of 0 or more"),
    "age": _Range(torch.int64, _whole, "an integer of 0 or more"),
    "last_reduction": _Range(torch.int64, _whole, "an integer of 0 or more"),
    "at_min_steps": _COUNT,
    "taken": _COUNT,
    "pushed": _Range(torch.int64, _whole, "an integer of 0 or more"),
    "smooth_rest": _Range(torch.float64, lambda v: (v >= 0) & (v <= 1), "from 0 to 1"),
    "last_epoch": _Range(torch.int64, lambda v: _whole(v.abs()), "an integer"),
}
CHOICES = {
    "mode": ("min", "max"),
    "threshold_mode": ("rel", "abs", "rel_safe"),
    "nan": ("bad", "skip", "cut", "freeze"),
    "counting": ("torch", "keras", "optax"),
}


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


def check_mode(name: str, value: object) -> str:
    """Check one word for ``mode`` or ``threshold_mode`` of torch's own class."""
    choices = CHOICES[name][:2]
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected {_or(choices)}, got {_shown(value)}")
    return value


def check_word(name: str, value: object, n: int) -> str | Tensor:
    """Check a setting that is a word, or one word per lane.

    Words per lane become codes, positions in ``CHOICES[name]``: uint8 on the CPU, shape ``(n,)``;
    such a tensor, as states hold, is taken too (synchronises if it is on another device).
    """
    choices = CHOICES[name]
    if isinstance(value, Tensor):
        check_readable(value, name)
        if value.dtype != torch.uint8 or value.shape != (n,):
            raise ValueError(f"{name}: expected uint8 codes of shape ({n},), got {_shown(value)}")
        codes = value.detach().to("cpu", copy=True)
        if (codes >= len(choices)).any():
            raise ValueError(f"{name}: expected codes below {len(choices)}, got {codes.max():d}")
        return codes
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(word in choices for word in words):
        raise ValueError(f"{name}: expected {_or(choices)}, got {_shown(value)}")
    if isinstance(value, str):
        return value
    if len(words) != n:
        raise ValueError(f"{name}: expected one word or {n} of them, got {len(words)}")
    return codes_of(name, words)


def codes_of(name: str, words: Sequence[str]) -> Tensor:
    """Return the codes of words, uint8 on the CPU."""
    code = {word: i for i, word in enumerate(CHOICES[name])}
    return torch.tensor([code[word] for word in words], dtype=torch.uint8, device="cpu")


def words_of(name: str, codes: Tensor) -> list[str]:
    """Return the words of codes; synchronises with the codes' device."""
    return [CHOICES[name][code] for code in codes.tolist()]


def _or(choices: Sequence[str]) -> str:
    return " or ".join(repr(choice) for choice in choices)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
