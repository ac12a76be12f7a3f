"""Settings of a plateau as text on the command line, one value or several."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["parse_setting", "product_of"]

_WORDS = ("mode", "threshold_mode", "nan", "counting")
_COUNTS = (
    "patience",
    "cooldown",
    "initial_patience",
    "window",
    "accumulate",
    "max_reductions",
)
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST = 1_000_000  # values of one setting


def parse_setting(name: str, text: str) -> list[Any]:
    """Return the values in ``text``: ``2,5,10``, ``0..20`` (both ends) or ``min``.

    Only what a text says is checked here; whether the setting may have such a value is for the
    lanes to say. Raises ValueError, naming the option.
    """
    option = f"--{name.replace('_', '-')}"
    values: list[Any] = []
    for part in (part.strip() for part in text.split(",")):
        span = _RANGE.fullmatch(part)
        if name in _WORDS:
            values.append(part)
        elif name in _COUNTS and span:
            first, last = int(span[1]), int(span[2])
            if last < first or last - first >= MOST:
                raise ValueError(f"{option}: expected a range like 0..20, got {part!r}")
            values += range(first, last + 1)
        else:
            values.append(_number(option, part, name in _COUNTS))
    return values


def _number(option: str, part: str, whole: bool) -> float | int:
    wanted = "integers like 2,5,10 or 0..20" if whole else "numbers like 0.1,0.5"
    try:
        return int(part) if whole else float(part)
    except ValueError:
        raise ValueError(f"{option}: expected {wanted}, got {part!r}") from None


def product_of(settings: Mapping[str, list[Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return every combination, as values per lane, and a label for each lane.

    Settings with one value stay one; labels name the others, or patience where all are one.
    """
    several = [name for name, values in settings.items() if len(values) > 1]
    combinations = list(itertools.product(*(settings[name] for name in several)))
    keywords: dict[str, Any] = {
        name: values[0] for name, values in settings.items() if len(values) == 1
    }
    for i, name in enumerate(several):
        keywords[name] = [each[i] for each in combinations]
    shown = several or [name for name in ("patience",) if name in settings]
    labels = [
        ", ".join(
            f"{name} {keywords[name][lane] if name in several else keywords[name]}"
            for name in shown
        )
        for lane in range(len(combinations))
    ]
    return keywords, labels
