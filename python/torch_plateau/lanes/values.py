"""Values that users give, and states that are loaded: checked by the tables, and shown again."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .inputs import FITS_FLOAT64
from .readable import check_readable, is_out_of_memory, kind_of
from .table import Row

__all__ = [
    "brief",
    "check_keys",
    "check_numbers",
    "checked",
    "checked_word",
    "checked_words",
    "codes_of",
    "copied",
    "shown",
    "words_of",
]


def checked(
    row: Row, value: object, *sizes: int, scalar: bool = True, label: str | None = None
) -> Tensor:
    """Check numbers of a setting or a field of the state; return them as a new CPU tensor.

    ``value`` is a number (result 0-d, unless ``scalar`` is False) or a 1-d array or sequence with
    one of the lengths in ``sizes``. The result has the row's type (float64 if it has none) and
    never aliases ``value``. ``label`` is what errors call it, the row's name unless told.
    Synchronises if ``value`` is on another device.

    Raises TypeError for what is not numeric and ValueError for a wrong shape or range.
    """
    label = label or row.name
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
        values = copied(given)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise TypeError(f"{_wanted(label, sizes, scalar)}, got {shown(value)}") from error
    fits = scalar if values.ndim == 0 else values.ndim == 1 and values.numel() in sizes
    if not fits:
        raise ValueError(f"{_wanted(label, sizes, scalar)}, got shape {tuple(values.shape)}")
    check_numbers(row, values, label)
    return values.to(row.dtype or torch.float64)


def _wanted(label: str, sizes: Sequence[int], scalar: bool) -> str:
    allowed = ["one number"] if scalar else []
    allowed += [f"shape ({size},)" for size in dict.fromkeys(sizes)]
    return f"{label}: expected {' or '.join(allowed)}"


def check_numbers(row: Row, values: Tensor, label: str) -> None:
    """Refuse numbers, 0-d or a vector on the CPU, that a setting or a field may not have."""
    at = row.first_outside(values)
    if at >= 0:
        where = f" at index {at}" if values.ndim else ""
        bad = values.flatten()[at].item()
        raise ValueError(f"{label}: expected {row.expected}, got {bad:g}{where}")


def copied(numbers: Tensor) -> Tensor:
    """Return a copy of real numbers that the core can read."""
    numbers = numbers.detach()
    if type(numbers) is Tensor and numbers.is_cpu and numbers.dtype in FITS_FLOAT64:
        return numbers.clone(memory_format=torch.contiguous_format).resolve_neg()
    dtype = numbers.dtype if numbers.dtype in FITS_FLOAT64 else torch.float64
    return numbers.to("cpu", dtype, copy=True).as_subclass(Tensor).resolve_neg().contiguous()


def checked_word(label: str, value: object, words: Sequence[str]) -> str:
    """Return a value that is one of these words; raises ValueError, which calls it ``label``."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{label}: expected {_or(words)}, got {shown(value)}")
    return value


def checked_words(row: Row, value: object, n: int, label: str | None = None) -> float | Tensor:
    """Check a setting that is a word, or one word for each of ``n`` lanes.

    One word becomes its code, a number; several become codes, positions in ``row.words``: uint8 on
    the CPU, shape ``(n,)``. Such a tensor, as states hold, is taken too (synchronises if it is on
    another device). Raises ValueError.
    """
    label = label or row.name
    if isinstance(value, Tensor):
        check_readable(value, label)
        if value.dtype != torch.uint8 or value.shape != (n,):
            raise ValueError(f"{label}: expected uint8 codes of shape ({n},), got {shown(value)}")
        codes = value.detach().to("cpu", copy=True)
        if (codes >= len(row.words)).any():
            raise ValueError(f"{label}: expected codes below {len(row.words)}, got {codes.max():d}")
        return codes
    words = [value] if isinstance(value, str) else value
    good = isinstance(words, Sequence) and all(
        isinstance(word, str) and word in row.words for word in words
    )
    if not isinstance(words, Sequence) or not good:
        raise ValueError(f"{label}: expected {_or(row.words)}, got {shown(value)}")
    if isinstance(value, str):
        return float(row.words.index(value))
    if len(words) != n:
        raise ValueError(f"{label}: expected one word or {n} of them, got {len(words)}")
    return codes_of(row, words)


def codes_of(row: Row, words: Sequence[str]) -> Tensor:
    """Return the codes of words, uint8 on the CPU."""
    code = {word: i for i, word in enumerate(row.words)}
    return torch.tensor([code[word] for word in words], dtype=torch.uint8, device="cpu")


def words_of(row: Row, codes: Tensor) -> list[str]:
    """Return the words of codes; synchronises with the codes' device."""
    return [row.words[code] for code in codes.tolist()]


def check_keys(
    label: str, given: Any, expected: Collection[str], optional: Collection[str] = ()
) -> None:
    """Refuse a mapping that has not exactly the keys ``expected``, of which some may be missing."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{label}: expected a mapping, got {kind_of(given)}")
    odd = set(given) - set(expected) | set(expected) - set(given) - set(optional)
    if odd:
        names, known = sorted(map(str, odd)), sorted(expected)
        raise KeyError(f"{label}: missing or unknown keys {names}; expected the keys {known}")


def brief(value: Any) -> str:
    """Show a value of the lanes' own in one short piece of text."""
    if isinstance(value, Tensor):
        return f"[{value.min():g} .. {value.max():g}]" if value.numel() else "[]"
    if isinstance(value, list):
        return repr(value) if len(value) <= 6 else f"[{len(value)} values]"
    return shown(value)


def shown(value: Any) -> str:
    """Show whatever was given in one short piece of text; no tensor in it is read."""
    text = _SHOWN.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Shown(reprlib.Repr):
    def repr1(self, value: Any, level: int) -> str:
        if not isinstance(value, Tensor):
            return super().repr1(value, level)
        size = "nested" if value.is_nested else f"size={tuple(value.shape)}"
        return f"tensor(..., {size}, dtype={value.dtype})"


_SHOWN = _Shown()
_SHOWN.maxstring = _SHOWN.maxother = 60


def _or(choices: Sequence[str]) -> str:
    return " or ".join(repr(choice) for choice in choices)
