"""The options that ``torch-plateau``'s commands share, but those that are settings."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Missing(str, Enum):
    """What to do with rows that have no value."""

    error = "error"
    drop = "drop"
    nan = "nan"


def option(help: str, *names: str, panel: str = "Options", **more: Any) -> Any:  # noqa: A002
    """Describe an option; ``names`` where it is not called as its parameter is."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Files = Annotated[
    list[Path],
    typer.Argument(help="CSV, TSV, JSON lines, Parquet, or TensorBoard event files or folders."),
]
MetricColumn = Annotated[str, option("Column, key or tag of the metric.", "--metric")]
By = Annotated[str | None, option("Column that tells runs apart, e.g. seed.")]
Only = Annotated[str | None, option("The run to take, a value of --by.", "--run")]
OnMissing = Annotated[Missing, option("Rows without a value: an error, left out, or NaN.")]
Html = Annotated[Path | None, option("Write a report too, one file.", "--html")]
Rate = Annotated[float, option("Starting rate.", "--lr")]
