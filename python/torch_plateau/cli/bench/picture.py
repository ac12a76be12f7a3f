"""The picture of ``torch-plateau bench``: time against lanes, and against networks."""

from __future__ import annotations

from typing import Any, BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ...bench.cases import SCENARIOS
from ...bench.figures import Row, fastest, find, values
from ..pictures import LOOKS

__all__ = ["draw"]

ROOF = {"color": "0.45", "linestyle": ":", "linewidth": 1.5}


def draw(steps: list[Row], bandwidth: list[Row], epochs: list[Row], on: Row, out: BinaryIO) -> None:
    """Draw both on log axes, quartiles as bars, as a PNG of 1320 by 660 pixels.

    Of the scenarios "mixed"; below the roof no step can be that moves its bytes at the copy's pace.
    """
    figure = Figure(figsize=(11, 5.5), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    some = find(steps, scenario="mixed")
    handles = []
    for look, rival in zip(LOOKS, values(some, "rival"), strict=False):
        each = [fastest(some, rival=rival, lanes=n) for n in values(some, "lanes")]
        rows = [row for row in each if row is not None]
        handles.append(_draw_line(left, "lanes", rows, "us", 1e-6, label=rival, **look))
    roof = find(bandwidth, scenario="mixed")
    lanes, least = ([row[key] for row in roof] for key in ("lanes", "least_us"))
    seconds = [us * 1e-6 for us in least]
    handles += left.plot(lanes, seconds, label="its bytes at a copy's speed", marker=".", **ROOF)
    left.fill_between(lanes, seconds, min(seconds), color="0.93")
    left.legend(handles=handles, fontsize=8, frameon=False)
    left.set(xlabel="lanes", ylabel="seconds a step")
    left.set_title(f"A step in which\n{SCENARIOS['mixed']}", loc="left", fontsize=11)
    for look, way in zip((LOOKS[1], LOOKS[5], LOOKS[0]), values(epochs, "way"), strict=True):
        _draw_line(right, "networks", find(epochs, way=way), "s", 1.0, label=way, **look)
    right.legend(fontsize=8, frameon=False)
    right.set(xlabel="networks", ylabel="seconds an epoch")
    right.set_title("An epoch of small networks,\ntraining included", loc="left", fontsize=11)
    for panel in (left, right):
        panel.set(xscale="log", yscale="log")
        panel.grid(color="0.92")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    # far below a step's time the roof says nothing
    left.set_ylim(bottom=min(row["p25_us"] for row in some) * 1e-6 / 30)
    counts = values(epochs, "networks")
    right.set_xticks(counts, [f"{n:,}" for n in counts])
    right.xaxis.set_minor_locator(NullLocator())
    where = on.get("gpu") or on["cpu"]
    figure.supxlabel(f"{where}, torch {on['torch']}, {on['date']}", fontsize=9, x=0.01, ha="left")
    figure.savefig(out, format="png")


def _draw_line(
    panel: Axes, across: str, rows: list[Row], unit: str, scale: float, **look: Any
) -> Any:
    """Draw rows, and return what the legend shows."""
    middle, low, high = (
        [row[f"{name}_{unit}"] * scale for row in rows] for name in ("median", "p25", "p75")
    )
    bars = [
        [mid - small for mid, small in zip(middle, low, strict=True)],
        [big - mid for mid, big in zip(middle, high, strict=True)],
    ]
    return panel.errorbar(
        [row[across] for row in rows], middle, bars, capsize=2, markersize=5, **look
    )
