"""A table as a DataFrame, where pandas is installed."""

from __future__ import annotations

from typing import Any

__all__ = ["frame_of"]


def frame_of(columns: dict[str, list[Any]]) -> Any:
    """Return columns as a ``pandas.DataFrame``; raises ImportError with the cure without pandas."""
    try:
        import pandas
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"to_pandas: needs pandas ({missing}): pip install pandas; table() has the same columns"
        ) from None
    return pandas.DataFrame(columns)
