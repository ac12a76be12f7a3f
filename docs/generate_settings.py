"""Write what is generated from the table of settings: the keywords' types and docs/settings.md.

::

    python docs/generate_settings.py            # nox -s stubs calls it
    python docs/generate_settings.py --check    # only compares, and fails where a file differs
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from torch_plateau.lanes.settings import plain
from torch_plateau.lanes.table import SETTINGS, Row

ROOT = Path(__file__).parent.parent
KEYWORDS = ROOT / "python" / "torch_plateau" / "lanes" / "keywords.py"
PAGE = ROOT / "docs" / "settings.md"
HEAD = '''\
"""The settings of lanes as keywords: generated from csrc/plateau/settings.hpp by nox -s stubs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

__all__ = ["LaneSettings"]

Numbers = float | Sequence[float] | Tensor
Counts = int | Sequence[int] | Tensor
Words = str | Sequence[str] | Tensor


class LaneSettings(TypedDict, total=False):
    """What ``PlateauLanes`` and everything built on it take: one value each, or one per lane.

    Of ``rule`` there is one for all lanes.
    """
'''
INTRODUCTION = """\
# Settings

Generated from `csrc/plateau/settings.hpp` by `nox -s stubs`. Each is one value for all lanes or has
one per lane (`min_lr` and `max_lr`: one per lane or per group, per group where these are as many;
`rule`: one for all). "Parts" says
with which values a step needs more passes over the lanes than the plain one has.

| name | unless told | may be | parts | what it does |
|---|---|---|---|---|
"""


def first_of(row: Row) -> str:
    """Return the value that a setting has unless told, as one writes it."""
    value = plain(row, row.first)
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if value else repr(value)


def parts_of(row: Row) -> str:
    """Say which values take lanes out of the plain loop."""
    words = [word for code, word in enumerate(row.words) if row.part >> code & 1]
    if row.part == 0:
        return "none"
    each = "" if row.of == "batch" else ", or per lane"
    return ", ".join(f'"{word}"' for word in words) + each if words else "any other"


def keywords() -> str:
    """Return the text of the module of keywords."""
    lines = [HEAD]
    for name, row in SETTINGS.items():
        whole = row.dtype is not None and not row.dtype.is_floating_point
        words = "str" if row.of == "batch" else "Words"
        kind = words if row.words else "Counts" if whole else "Numbers"
        lines.append(f"    {name}: {kind}{' | None' if row.may_be_none else ''}")
        text = f'"""{row.help} {told(row)}"""'
        lines += textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines) + "\n"


def told(row: Row) -> str:
    """Say what a setting may be, and what it is unless told."""
    allowed = " or ".join(f"``{word}``" for word in row.words) if row.words else row.expected
    return f"{allowed[0].upper()}{allowed[1:]}; {first_of(row)} unless told."


def page() -> str:
    """Return the text of the page of settings."""
    lines = []
    for name, row in SETTINGS.items():
        allowed = " or ".join(f'"{word}"' for word in row.words) if row.words else row.expected
        cells = (f"`{name}`", first_of(row), allowed, parts_of(row), row.help)
        lines.append("| " + " | ".join(cells) + " |")
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    from generated import write_or_check

    sys.exit(write_or_check({KEYWORDS: keywords(), PAGE: page()}))
