"""The options that ``torch-plateau``'s commands share."""

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


def setting(help: str) -> Any:  # noqa: A002
    """Describe an option that is a setting of the lanes."""
    return option(help, panel="Settings of the plateau")


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
Mode = Annotated[str, setting("Whether lower is better (min) or higher (max).")]
Text = str | None
Patience = Annotated[Text, setting("Bad epochs that are borne; the next one cuts; 10 unless told.")]
Threshold = Annotated[Text, setting("How much better is better; 1e-4 unless told.")]
ThresholdMode = Annotated[Text, setting("rel, abs or rel_safe; rel unless told.")]
Factor = Annotated[Text, setting("What a cut multiplies the rate by; 0.1 unless told.")]
Cooldown = Annotated[Text, setting("Epochs after a cut that do not count; 0 unless told.")]
MinLr = Annotated[Text, setting("Floor of the rate; 0 unless told.")]
Eps = Annotated[Text, setting("The least change of a rate; 1e-8 unless told.")]
Smoothing = Annotated[Text, setting("Decide by an average that keeps this share of itself.")]
Window = Annotated[Text, setting("Decide by the mean of so many epochs.")]
Nan = Annotated[Text, setting("What NaN does: bad, skip, cut or freeze; bad unless told.")]
Counting = Annotated[Text, setting("torch, keras or optax; torch unless told.")]
