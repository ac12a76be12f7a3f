"""A replay as a picture: metric, best, gate and cuts of some lanes, and their rates below."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..histories.replay import Replay
from .annotate import Column, Epochs, annotate
from .sweep_picture import draw_sweep

__all__ = ["LOOKS", "MOST", "POINTS", "curve", "draw_replay", "draw_sweep", "some"]

Curve = tuple[np.ndarray, np.ndarray]

# Okabe and Ito's colours but yellow, from dark to light in pairs; lines and markers differ too.
LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "-", "marker": "v"},
    {"color": "#d55e00", "linestyle": (0, (6, 2)), "marker": "o"},
    {"color": "#000000", "linestyle": (0, (2, 1.5)), "marker": "s"},
    {"color": "#009e73", "linestyle": (0, (6, 1.5, 1.5, 1.5)), "marker": "D"},
    {"color": "#cc79a7", "linestyle": (0, (10, 3)), "marker": "^"},
    {"color": "#56b4e9", "linestyle": (0, (1, 1)), "marker": "P"},
)
MOST = len(LOOKS)  # lanes in one picture
STEEP = 30.0  # largest metric by the smallest, both above zero, from which on its axis is a log one
POINTS = 2000  # stretches of which a curve is drawn: more than there are pixels
PIECE = 20  # of these that are looked at together
HUGE = 1e150  # beyond this matplotlib's own arithmetic overflows


def draw_replay(
    metric: Tensor, result: Replay, labels: list[str], out: Path | BinaryIO, title: str = ""
) -> None:
    """Draw a history with what lanes made of it, as a PNG of 1080 by 720 pixels.

    Above: the metric; of each lane its best and, dashed, its gate, unless they are those of a lane
    before it; NaN and infinite metrics as crosses on the axis. Cuts are vertical lines where there
    is one lane, and otherwise marks in a row per lane between the panels. Below: the rates.

    Args:
        metric: What was replayed.
        result: Of a replay with ``record="all"``, or with nothing recorded: as annotate() has it.
        labels: A name for each lane. The first six lanes are drawn; a note counts the others.
        out: Where to.
        title: Above the picture, as it is.
    """
    if len(labels) != len(result):
        raise ValueError(f"labels: expected {len(result)}, one per lane, got {len(labels)}")
    lanes = [annotate(metric, result, lane) for lane in range(min(len(result), MOST))]
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained", facecolor="white")
    marks = 0.16 * len(lanes) if len(lanes) > 1 else 0.0
    heights = [3, marks, 1.6] if marks else [3, 1.6]
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    shared = metric.ndim == 1 or metric.shape[1] == 1
    _draw_metric(panels[0], lanes, labels, shared)
    for panel in panels:
        panel.grid(color="0.92")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    if marks:
        _draw_marks(panels[1], lanes, labels)
    else:
        _draw_cuts(panels, lanes)
    _draw_rates(panels[-1], lanes, labels)
    panels[-1].set(xlabel="epoch", ylabel="learning rate", xlim=(0.5, max(result.epochs, 1) + 0.5))
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[0].set_title(_plain(title), loc="left", wrap=True)
    if len(result) > MOST:
        figure.supxlabel(f"{MOST} of {len(result)} lanes are shown", fontsize=9)
    figure.savefig(out, format="png")


def _draw_metric(panel: Axes, lanes: list[Epochs], labels: list[str], shared: bool) -> None:
    drawn: list[tuple[Curve, Curve]] = []
    values: list[float] = []
    for i, (rows, label, look) in enumerate(zip(lanes, labels, LOOKS, strict=False)):
        name = f" ({_plain(label)})" if len(lanes) > 1 else ""
        line = {"color": look["color"], "linewidth": 1.4}
        came = curve(rows.column("metric"))
        if i == 0 or not shared:
            dot = "." if len(rows) <= 150 else None
            color = "0.55" if shared else look["color"]
            panel.plot(
                *came,
                label=f"metric{'' if shared else name}",
                color=color,
                alpha=1 if shared else 0.5,
                linewidth=1.1,
                marker=dot,
                markersize=5,
            )
            pieces = rows.column("metric").split(POINTS * PIECE)
            odd = torch.cat([~each.isfinite() for each in pieces]).nonzero().flatten()
            if len(odd):
                crosses = 1 + some(odd).numpy()
                panel.plot(
                    crosses,
                    np.zeros(len(crosses)),
                    "kx",
                    transform=panel.get_xaxis_transform(),
                    clip_on=False,
                    label=f"NaN or infinite: {len(odd)}",
                )
        decided = curve(rows.column("value"))
        if not _same(decided, came):
            panel.plot(*decided, linestyle=":", label=f"average{name}", **line)
        best, gate = curve(rows.column("best")), curve(rows.column("gate"))
        both = np.concatenate([came[1], best[1]])
        values += [float(each(both)) for each in (np.nanmin, np.nanmax) if not np.isnan(both).all()]
        if any(_same(best, b) and _same(gate, g) for b, g in drawn):
            continue
        drawn.append((best, gate))
        panel.plot(*best, drawstyle="steps-post", label=f"best{name}", **line)
        panel.plot(
            *gate,
            linestyle=(0, (4, 2)),
            drawstyle="steps-mid",
            label=f"gate{name}",
            **{**line, "linewidth": 0.9},
        )
    if values and min(values) > 0 and max(values) / min(values) > STEEP:
        panel.set_yscale("log")
    panel.set_ylabel("metric")
    if lanes:
        panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_cuts(panels: list[Axes], lanes: list[Epochs]) -> None:
    """Mark the cuts of the only lane through all panels."""
    for rows in lanes:
        cut = rows.at("cut")
        cuts = (1 + some(cut)).tolist()
        for panel in panels if cuts else []:
            across = panel.get_xaxis_transform()
            label = f"cuts: {len(cut)}"
            lines = panel.vlines(
                cuts, 0, 1, colors="black", linestyles=":", label=label, transform=across
            )
            lines.set_linewidth(0.9)
        if cuts:
            panels[0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_marks(panel: Axes, lanes: list[Epochs], labels: list[str]) -> None:
    """Mark the cuts of several lanes, each in a row of its own."""
    names = []
    for i, (rows, label, look) in enumerate(zip(lanes, labels, LOOKS, strict=False)):
        cuts = (1 + some(rows.at("cut"))).tolist()
        panel.plot(
            cuts, [i] * len(cuts), linestyle="", marker=look["marker"], color=look["color"], ms=6
        )
        names.append(f"{_plain(label)}: {len(rows.at('cut'))}")
    panel.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    panel.set_yticklabels(names, fontsize=8)
    panel.set_title("cuts", loc="left", fontsize=9, pad=2)
    panel.tick_params(bottom=False)
    panel.spines["bottom"].set_visible(False)


def _draw_rates(panel: Axes, lanes: list[Epochs], labels: list[str]) -> None:
    positive = False
    for i, (rows, label, look) in enumerate(zip(lanes, labels, LOOKS, strict=False)):
        rates = curve(rows.column("lr"))
        positive |= bool((rates[1] > 0).any())
        style = {"color": look["color"], "linestyle": look["linestyle"]}
        # where lanes have the same rate, the ones below show as a border
        style["linewidth"] = 1.5 + 0.6 * (len(lanes) - 1 - i)
        marker = "." if len(rows) == 1 else None
        panel.plot(*rates, drawstyle="steps-post", label=_plain(label), marker=marker, **style)
    if positive:
        panel.set_yscale("log")
    if len(lanes) > 1:
        panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def curve(column: Tensor | Column) -> Curve:
    """Return epochs and values to draw: of many only the lowest and highest of each stretch.

    What cannot be drawn is NaN. A column of any length is gone through in pieces.
    """
    width = len(column) // POINTS
    if width < 2:
        pieces = [_finite(values) for values in column.split(PIECE * POINTS)]
        return np.arange(1, len(column) + 1), np.concatenate([np.zeros(0), *pieces])
    places, heights = [], []
    for begin, piece in zip(count(0, width * PIECE), column.split(width * PIECE), strict=False):
        values = _finite(piece)
        stretches = values[: len(values) // width * width].reshape(-1, width)
        odd, first = np.isnan(stretches), np.arange(len(stretches)) * width
        low = first + np.where(odd, np.inf, stretches).argmin(1)
        high = first + np.where(odd, -np.inf, stretches).argmax(1)
        rest = np.arange(len(stretches) * width, len(values))[-1:]
        kept = np.unique(np.concatenate([low, high, rest]))
        places.append(begin + kept + 1)
        heights.append(values[kept])
    return np.concatenate(places), np.concatenate(heights)


def some(places: Tensor) -> Tensor:
    """Return as many of these as can be told apart."""
    return places[:: 1 + len(places) // POINTS]


def _finite(values: Tensor) -> np.ndarray:
    """Return values that can be drawn, and NaN for the others."""
    numbers = values.double().numpy()
    return np.where(np.isfinite(numbers), np.clip(numbers, -HUGE, HUGE), np.nan)


def _same(a: Curve, b: Curve) -> bool:
    return all(np.array_equal(one, other, equal_nan=True) for one, other in zip(a, b, strict=True))


def _plain(text: str) -> str:
    """Return a text as it is shown: no mathematics between dollars, not too long."""
    shown = text if len(text) <= 90 else f"{text[:87]}..."
    return shown.replace("$", r"\$")
