"""What a step costs, as docs/choose.md says it: six rows of all that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shown import report_of, table
from torch_plateau.bench.figures import Row, fastest, us
from torch_plateau.bench.rivals import OURS

CHOOSE_PAGE = Path(__file__).parent.parent / "docs" / "choose.md"


def costs(report: Row) -> str:
    """Return the block between the page's markers."""
    steps, optimizers = report["rows"], report_of("optimizers")
    plain = {"table": "lanes", "dtypes": "f32", "settings": "uniform", "scenario": "quiet"}
    stacks = {"case": "256 networks of 5,000", "threads": 1}
    updates = optimizers["rows"] if optimizers else []

    def time(rows: list[Row], rival: str, **wanted: Any) -> str:
        row = fastest(rows, rival=rival, **wanted)
        return us(row["median_us"]) if row else "-"

    def line(what: str, theirs: str, rival: str, **wanted: Any) -> list[str]:
        return [what, time(steps, OURS, **wanted), f"{theirs}: {time(steps, rival, **wanted)}"]

    def update(optimizer: str, theirs: str, rival: str) -> list[str]:
        wanted = {**stacks, "optimizer": optimizer}
        beside = f"torch's {theirs}: {time(updates, rival, **wanted)}"
        return [f"`Lane{optimizer}`, {stacks['case']}", time(updates, "ours", **wanted), beside]

    many = "N torch schedulers"
    one = {"table": "drop-in", "metric": "float", "groups": 1, "scenario": "quiet"}
    body = [
        line("`ReduceLROnPlateau`, a float", "torch's", "torch", **one),
        line("`PlateauLanes`, 16 lanes", "16 of torch's", many, lanes=16, **plain),
        line("`PlateauLanes`, 4,096 lanes", "4,096 of torch's", many, lanes=4096, **plain),
        line("`PlateauLanes`, a million", "`torch.compile`", "torch.compile", lanes=10**6, **plain),
        update("AdamW", "fused AdamW, one rate for all", "torch fused"),
        update("SGD", "foreach SGD, one rate for all", "torch foreach"),
    ]
    return table(["step", "time", "beside it"], body)
