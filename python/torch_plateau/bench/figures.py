"""Rows of figures: finding them, and their times and ratios for people."""

from __future__ import annotations

from typing import Any

__all__ = ["Row", "fastest", "find", "name", "reason", "times", "us", "values"]

Row = dict[str, Any]


def us(value: float) -> str:
    """Return a time in microseconds for people."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} s"
    return f"{value / 1000:.3g} ms" if value >= 1000 else f"{value:.3g} us"


def times(ratio: float) -> str:
    """Return a ratio for people; below 1 the rival is faster."""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x" if ratio >= 2 else f"{ratio:.2f}x"


def find(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def fastest(rows: list[Row], side: str = "", **wanted: Any) -> Row | None:
    """Return the fastest variant of a competitor (by "host" or "device" time), None if none ran."""

    def median_us(row: Row) -> float:
        return float((row[side] if side else row)["median_us"])

    return min(find(rows, **wanted), key=median_us, default=None)


def values(rows: list[Row], key: str) -> list[Any]:
    """Return what occurs under a key, in the order of the run."""
    return list(dict.fromkeys(row[key] for row in rows))


def name(row: Row) -> str:
    """Return a competitor and its variant."""
    return f"{row['rival']} {row['variant']}".strip()


def reason(error: Exception) -> str:
    """Return why something failed, in a line."""
    told = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {told[0][:200]}"
