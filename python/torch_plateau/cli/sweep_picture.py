"""A sweep as a picture: how often the settings cut, and when first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .tables import number

__all__ = ["Grid", "draw_sweep", "grid_of"]

PREFERRED = ("patience", "threshold")
WIDTH = 18  # of a history's name
BARS = 400  # that are drawn: of more settings the highest of each stretch
FEW = 12  # cells along an axis up to which each has its number in it


class Grid(NamedTuple):
    """Two axes of a sweep, medians over the histories, ``[y, x]``; a first cut of inf is none."""

    x: str
    y: str
    across: list[Any]
    up: list[Any]
    cuts: np.ndarray
    first: np.ndarray
    note: str


def grid_of(sweep: Any) -> Grid:
    """Return what a picture of a sweep shows.

    Its axes are patience and threshold, as far as they were swept, and else those with the most
    values; of the other axes the first value. Where nothing or one axis was swept, ``y`` is
    ``""`` and the histories are told apart along it, at most twelve of them.
    """
    axes: dict[str, list[Any]] = dict(sweep.axes)
    by_size = sorted(axes, key=lambda name: -len(axes[name]))
    chosen = [*[name for name in PREFERRED if name in axes], *by_size]
    x, y = [*dict.fromkeys(chosen), "", ""][:2]
    first_of = tuple(slice(None) if name in (x, y) else 0 for name in axes)
    part = (slice(None), *first_of)
    cuts = np.asarray(sweep.num_reductions)[part].astype(float)
    first = np.asarray(sweep.first_cut)[part].astype(float)
    first = np.where(first == 0, np.inf, first)
    rest = [f"{name} {number(values[0], 3)}" for name, values in axes.items() if name not in (x, y)]
    if y:
        if list(axes).index(x) < list(axes).index(y):
            cuts, first = cuts.swapaxes(1, 2), first.swapaxes(1, 2)
        if len(sweep.names) > 1:
            rest.insert(0, f"median of {len(sweep.names)} histories")
        cuts, first = np.median(cuts, axis=0), np.median(first, axis=0)
        return Grid(x, y, axes[x], axes[y], cuts, first, ", ".join(rest))
    shown = list(sweep.names)[:FEW]
    if len(sweep.names) > FEW:
        rest.insert(0, f"{FEW} of {len(sweep.names)} histories")
    cuts, first = cuts.reshape(len(sweep.names), -1), first.reshape(len(sweep.names), -1)
    across = axes[x] if x else [""]
    return Grid(x, "", across, shown, cuts[:FEW], first[:FEW], ", ".join(rest))


def draw_sweep(sweep: Any, out: Path | BinaryIO) -> None:
    """Draw two heat maps as a PNG of 1080 by 600 pixels; bars for one axis and one history.

    Args:
        sweep: A :class:`Sweep`.
        out: Where to.
    """
    grid = grid_of(sweep)
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    shown = ((left, grid.cuts, "number of cuts"), (right, grid.first, "first cut (epoch)"))
    for panel, values, title in shown:
        if grid.y or len(grid.up) > 1:
            _draw_map(figure, panel, values, grid)
        else:
            _draw_bars(panel, values[0] if len(values) else np.empty(0), grid)
        panel.set_title(title, loc="left")
    if np.isinf(grid.first).any():
        never = Patch(facecolor="0.85", edgecolor="0.4", hatch="///", label="never cut")
        figure.legend(handles=[never], loc="outside lower right", frameon=False)
    if grid.note:
        figure.suptitle(grid.note.replace("$", r"\$"), fontsize=10, x=0.01, ha="left")
    figure.savefig(out, format="png")


def _draw_map(figure: Figure, panel: Axes, values: np.ndarray, grid: Grid) -> None:
    finite = np.where(np.isinf(values), np.nan, values)
    known = finite[~np.isnan(finite)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    panel.set_facecolor("0.85")
    panel.patch.set(hatch="///", edgecolor="0.4")
    image = panel.imshow(
        finite, cmap="cividis", origin="lower", aspect="auto", vmin=low, vmax=max(high, low + 1)
    )
    if known.size:
        figure.colorbar(image, ax=panel, aspect=40, pad=0.02)
    _ticks(panel, "x", grid.across)
    _ticks(panel, "y", [_clipped(each) for each in grid.up])
    panel.set(xlabel=grid.x, ylabel=grid.y)
    if max(values.shape) > FEW:
        return
    shade = colormaps["cividis"]
    for (row, column), value in np.ndenumerate(finite):
        if not np.isnan(value):
            red, green, blue, _ = shade(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            color = "white" if dark else "black"
            panel.text(column, row, f"{value:g}", ha="center", va="center", color=color, fontsize=8)


def _draw_bars(panel: Axes, heights: np.ndarray, grid: Grid) -> None:
    width = -(-len(heights) // BARS) or 1
    places = np.arange(0, len(heights), width)
    never = np.isinf(heights)
    if len(heights):  # a stretch of which some were never cut has the others' bar
        never = np.logical_and.reduceat(never, places)
        heights = np.maximum.reduceat(np.where(np.isinf(heights), -np.inf, heights), places)
    known = heights[~never]
    top = max(known.max(), 1.0) * 1.05 if known.size else 1.0
    wide = 0.8 * width
    middle = places + (width - 1) / 2
    panel.bar(middle[~never], known, wide, color=colormaps["cividis"](0.2))
    panel.bar(middle[never], top, wide, color="0.85", edgecolor="0.4", hatch="///")
    _ticks(panel, "x", grid.across)
    panel.set(xlabel=grid.x, ylim=(0, top))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y", color="0.92")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _clipped(value: Any) -> Any:
    """Return a history's name with its end, which tells it from others; other values as they are.

    matplotlib would take what stands between dollars for a formula.
    """
    if not isinstance(value, str):
        return value
    return (value if len(value) <= WIDTH else f"...{value[3 - WIDTH :]}").replace("$", r"\$")


def _ticks(panel: Axes, axis: str, values: list[Any]) -> None:
    """Name cells by their values, all or as many as there is room for."""
    every = -(-len(values) // FEW)
    places = list(range(0, len(values), every))
    texts = [number(values[i], 3) for i in places]
    turned = axis == "x" and sum(map(len, texts)) > 30
    set_ticks = panel.set_xticks if axis == "x" else panel.set_yticks
    set_ticks(places, texts, fontsize=8, rotation=45 if turned else 0)
