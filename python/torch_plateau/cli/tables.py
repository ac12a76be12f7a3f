"""How the commands print: the terminal, tables on it, and numbers in them.

Rich is imported where something is printed: reports and pictures do without it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..histories.files.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["aligned", "console", "new_table", "number", "written"]

DIGITS = 6  # significant: a gain below the usual threshold of 1e-4 shows


def console() -> Console:
    """Return the terminal to print to. An OSError is the caller's, that of a closed pipe too."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich calls this in its except clause, and would exit with 1

    return Screen(highlight=False)


def written(screen: Console, what: str, path: Path) -> None:
    """Say where a file is."""
    screen.print(f"{what}: {printable(str(path))}", soft_wrap=True, markup=False)


def new_table(
    title: str, columns: Iterable[str], texts: Collection[str] = (), roomy: bool = False
) -> Table:
    """Return a table without rows.

    Args:
        title: Printed above, as it is.
        columns: Their names.
        texts: Those of them that are no numbers: aligned on the left.
        roomy: Two more spaces between columns, and numbers that may go on in a second line.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD)
    if not roomy:
        table.padding, table.pad_edge = (0, 1, 0, 0), False
    for name in columns:
        text = name in texts
        table.add_column(name, justify="left" if text else "right", no_wrap=not (text or roomy))
    return table


def number(value: object, digits: int = 4) -> str:
    """Show a float in so many significant digits, and anything else as it is."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def aligned(columns: Mapping[str, list[float]]) -> dict[str, list[str]]:
    """Format columns of numbers that are compared, those of one with equally many decimals."""
    style = _style_of([x for column in columns.values() for x in column])
    return {name: _without_zeros(column, style) for name, column in columns.items()}


def _style_of(values: list[float]) -> str:
    sizes = sorted(abs(x) for x in values if math.isfinite(x) and x)
    middle = sizes[len(sizes) // 2] if sizes else 1.0
    if middle < 1e-4 or (sizes and sizes[-1] >= 1e7):
        return f".{DIGITS - 1}e"
    return f".{max(DIGITS - 1 - math.floor(math.log10(middle)), 0)}f"


def _without_zeros(column: list[float], style: str) -> list[str]:
    """Format a column without the zeros that all its numbers end in."""
    texts = [format(x, style) for x in column]
    if style.endswith("e"):
        return texts
    decimals = max((len(text.partition(".")[2].rstrip("0")) for text in texts), default=0)
    return [f"{x:.{decimals}f}" for x in column]
