"""Numbers and rows, as the pages show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

OURS = "torch-plateau"
SCENARIOS = {
    "quiet": "nothing improves, no lane is cut",
    "mixed": "1% of the lanes improve and 1% are cut",
    "cut": "every lane is cut",
    "all improve": "every lane improves, no lane is cut",
}
CLOSE = 1.3  # times within which a comparison is called close

Row = dict[str, Any]


def us(value: float) -> str:
    """Return a time for people."""
    return f"{value / 1000:.3g} ms" if value >= 1000 else f"{value:.3g} us"


def times(ratio: float) -> str:
    """Return a ratio for people; below 1 the rival is faster."""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x" if ratio >= 2 else f"{ratio:.2f}x"


def table(head: list[str], body: Iterable[list[str]]) -> str:
    """Return a Markdown table; columns after the first are set to the right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def find(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def fastest(rows: list[Row], **wanted: Any) -> Row | None:
    """Return the fastest variant of a competitor, None if it did not run."""
    return min(find(rows, **wanted), key=lambda row: row["median_us"], default=None)


def cell(row: Row | None) -> str:
    """Return time and ratio of a rival."""
    return f"{us(row['median_us'])} ({times(row['ratio'])})" if row else "-"


def values(rows: list[Row], key: str) -> list[Any]:
    """Return what occurs under a key, in the order of the run."""
    return list(dict.fromkeys(row[key] for row in rows))
