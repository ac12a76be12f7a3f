"""The settings of a plateau on the command line: an option for each, with one value or several."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import torch

from ..lanes.settings import plain
from ..lanes.table import SETTINGS, Row
from ..lanes.values import checked_word
from .options import option
from .tables import number

__all__ = ["flag_of", "given_settings", "product_of", "with_settings"]

MOST = 1_000_000  # values of one setting
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_Command = TypeVar("_Command", bound=Callable[..., None])


def with_settings(**defaults: str) -> Callable[[_Command], _Command]:
    """Give a command, in place of its ``**settings``, an option for each setting of the table.

    Args:
        defaults: Texts of those that are given even where the user does not: all others are then
            None, and as the table has them.
    """

    def give(command: _Command) -> _Command:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name),
                annotation=Annotated[str | None, _described(row, name in defaults)],
            )
            for name, row in SETTINGS.items()
        ]
        # typer asks for the signature, and calls by keywords
        command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return command

    return give


def _described(row: Row, given: bool) -> Any:
    """Describe the option of a setting: what it does, and what it is unless told."""
    told = [f"one of {', '.join(row.words)}"] if row.words else []
    if not given:
        told.append(f"{number(plain(row, row.first))} unless told")
    more = "; ".join(told)
    text = f"{row.help} {more[0].upper()}{more[1:]}." if more else row.help
    return option(text, panel="Settings of the plateau")


def flag_of(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def given_settings(texts: Mapping[str, str | None]) -> dict[str, list[Any]]:
    """Return the values of the settings that were given.

    Values are ``2,5,10``, ``0..20`` (both ends) or ``min``. Of numbers only the text is checked
    here: whether the setting may have them is for the lanes to say. Raises ValueError.
    """
    return {name: _values(SETTINGS[name], text) for name, text in texts.items() if text is not None}


def _values(row: Row, text: str) -> list[Any]:
    flag, whole = flag_of(row.name), row.dtype != torch.float64
    values: list[Any] = []
    for part in (part.strip() for part in text.split(",")):
        span = _RANGE.fullmatch(part)
        if row.words:
            values.append(checked_word(row.name, part, row.words))
        elif whole and span:
            first, last = int(span[1]), int(span[2])
            if last < first or last - first >= MOST:
                raise ValueError(f"{flag}: expected a range like 0..20, got {part!r}")
            values += range(first, last + 1)
        else:
            values.append(_number(flag, part, whole))
    return values


def _number(flag: str, part: str, whole: bool) -> float | int:
    wanted = "integers like 2,5,10 or 0..20" if whole else "numbers like 0.1,0.5"
    try:
        return int(part) if whole else float(part)
    except ValueError:
        raise ValueError(f"{flag}: expected {wanted}, got {part!r}") from None


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
