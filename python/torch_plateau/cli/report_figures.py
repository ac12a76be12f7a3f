"""The figures of a report, for plotly."""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from ..histories.files.errors import printable
from ..histories.replay import Replay
from .annotate import Epochs, Row, annotate
from .pictures import LOOKS, MOST, POINTS, curve, some
from .sweep_picture import grid_of
from .tables import number

__all__ = ["as_html", "note_of", "replay_figure", "sweep_figures"]

FEW = 4 * POINTS  # epochs up to which all are drawn
# plotly 7 has a button that sends the numbers to a host of its maker
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "plotlyServerURL": "",
    "showSendToCloud": False,
}
WIDTH = 40  # characters of a name in a picture: longer ones would leave no room for it
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("triangle-down", "circle", "square", "diamond", "triangle-up", "cross")
HOVER = (
    "epoch %{x}<br>metric %{customdata[0]}<br>best %{customdata[1]}<br>gate %{customdata[2]}"
    "<br>rate %{customdata[3]}<br>%{customdata[4]}"
)


def as_html(figure: Any, index: int) -> str:
    """Return a figure as a part of a page that has plotly's library already."""
    text: str = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        div_id=f"picture-{index}",
        config=CONFIG,
    )
    return text


def note_of(result: Replay | None) -> str:
    """Say how many lanes are in the picture, where not all are."""
    if result is None:
        return ""
    parts = []
    if len(result) > MOST:
        parts.append(f"The picture shows the first {MOST} of {len(result)} lanes.")
    if result.epochs > FEW:
        parts.append(
            f"Of {result.epochs:,} epochs it shows the lowest and highest of each of {POINTS:,} "
            "stretches, and cuts."
        )
    return " ".join(parts)


def drawn(lane: Epochs) -> list[Row]:
    """Return the epochs that are drawn: all, or of many those at which a curve has its ends."""
    if len(lane) <= FEW:
        return list(lane)
    ends = [curve(lane.column(name))[0] - 1 for name in ("metric", "best", "gate", "lr")]
    return lane.rows_at(torch.from_numpy(np.unique(np.concatenate([*ends, some(lane.at("cut"))]))))


def replay_figure(metric: Tensor, result: Replay | None, labels: list[str]) -> Any:
    """Return metric, best, gate and cuts of the first lanes, and their rates below."""
    if result is None:
        figure = make_subplots(rows=1, cols=1)
        flat = metric if metric.ndim == 2 else metric[:, None]
        for i in range(min(flat.shape[1], MOST)):
            name = _plain(labels[i]) if i < len(labels) else "metric"
            x, y = curve(flat[:, i])
            figure.add_scatter(
                x=x.tolist(), y=_finite(y.tolist()), mode=_mode(len(x)), name=name, line=_line(i)
            )
        return _laid_out(figure, 380)
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.65, 0.35]
    )
    shared = metric.ndim == 1 or metric.shape[1] == 1
    positive = False
    for i in range(min(len(result), MOST)):
        lane = annotate(metric, result, i)
        rows = drawn(lane)
        positive |= any(row.lr > 0 for row in rows)
        _add_lane(figure, rows, len(lane.at("cut")), _plain(labels[i]), i, shared and i > 0)
    figure.update_yaxes(title_text="metric", row=1, col=1)
    figure.update_yaxes(title_text="learning rate", row=2, col=1)
    if positive:
        figure.update_yaxes(type="log", exponentformat="power", dtick=1, row=2, col=1)
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    return _laid_out(figure, 560)


def _add_lane(figure: Any, rows: list[Row], count: int, name: str, i: int, again: bool) -> None:
    """Add one lane, cut ``count`` times.

    Its metric stays hidden where it was drawn for a lane before (``again``).
    """
    x = [row.epoch for row in rows]
    told = [
        [number(row.metric, 6), _or_dash(row.best), _or_dash(row.gate), number(row.lr), row.words]
        for row in rows
    ]
    hover = {"customdata": told, "hovertemplate": f"<b>{name}</b><br>{HOVER}<extra></extra>"}
    curves = {
        "metric": ([row.metric for row in rows], {"color": "#888888", "width": 1.2}, "linear"),
        "best": ([row.best for row in rows], {**_line(i), "dash": "solid"}, "hv"),
        "gate": ([row.gate for row in rows], {**_line(i), "dash": "dash", "width": 1}, "hvh"),
    }
    for kind, (y, line, shape) in curves.items():
        figure.add_scatter(
            x=x,
            y=_finite(y),
            mode=_mode(len(rows)) if kind == "metric" else "lines",
            marker={"size": 4},
            line={**line, "shape": shape},
            name=f"{kind}: {name}",
            legendgroup=f"{kind} {i}",
            visible="legendonly" if again and kind == "metric" else True,
            row=1,
            col=1,
            **(hover if kind == "metric" else {"hoverinfo": "skip"}),
        )
    cuts = [k for k, row in enumerate(rows) if row.event == "cut"]
    figure.add_scatter(
        x=[x[k] for k in cuts],
        # a NaN that cuts is marked at the best
        y=_finite(
            [r.metric if math.isfinite(r.metric) else r.best for r in (rows[k] for k in cuts)]
        ),
        mode="markers",
        marker={"symbol": SYMBOLS[i], "size": 10, "color": LOOKS[i]["color"]},
        name=f"cuts: {name} ({count})",
        row=1,
        col=1,
        customdata=[told[k] for k in cuts],
        hovertemplate=hover["hovertemplate"],
    )
    figure.add_scatter(
        x=x,
        y=[row.lr for row in rows],
        mode="lines" if len(rows) > 1 else "markers",
        line={**_line(i), "shape": "hv"},
        name=f"rate: {name}",
        row=2,
        col=1,
        **hover,
    )


def sweep_figures(sweep: Any) -> list[Any]:
    """Return heat maps of how often the settings cut and when first; ``never`` is blank."""
    grid = grid_of(sweep)
    across, up = ([_plain(str(value)) for value in values] for values in (grid.across, grid.up))
    x, y = grid.x or "all settings", grid.y or "history"
    figures = []
    for title, values in (("number of cuts", grid.cuts), ("first cut (epoch)", grid.first)):
        finite = np.where(np.isinf(values), np.nan, values)
        shown = [["never" if math.isnan(v) else f"{v:g}" for v in row] for row in finite.tolist()]
        figure = go.Figure(
            go.Heatmap(
                x=list(range(len(across))),
                y=list(range(len(up))),
                z=[_finite(row) for row in finite.tolist()],
                text=shown,
                texttemplate="%{text}" if max(values.shape) <= 20 else None,
                customdata=[[[a, b] for a in across] for b in up],
                hovertemplate=f"{x} %{{customdata[0]}}<br>{y} %{{customdata[1]}}"
                f"<br>{title}: %{{text}}<extra></extra>",
                hoverongaps=True,
                colorscale="Cividis",
            )
        )
        note = f" ({_plain(grid.note)})" if grid.note else ""
        figure.update_layout(title={"text": f"{title}{note}", "font": {"size": 15}})
        figure.update_xaxes(title_text=x, **_ticks(across))
        figure.update_yaxes(title_text=y, **_ticks(up))
        figures.append(_laid_out(figure, 420))
    return figures


def _ticks(texts: list[str]) -> dict[str, Any]:
    places = list(range(0, len(texts), -(-len(texts) // 16)))
    return {"tickmode": "array", "tickvals": places, "ticktext": [texts[i] for i in places]}


def _laid_out(figure: Any, height: int) -> Any:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        hovermode="closest",
        legend={"font": {"size": 11}},
    )
    return figure


def _mode(points: int) -> str:
    return "lines+markers" if points <= 200 else "lines"


def _line(i: int) -> dict[str, Any]:
    return {"color": LOOKS[i]["color"], "dash": DASHES[i], "width": 1.8}


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _or_dash(value: float) -> str:
    return number(value, 6) if math.isfinite(value) else "-"


def _plain(text: str) -> str:
    """Return a text that plotly, which reads some tags and %{...}, shows as it is; its ends."""
    shown = printable(text)
    if len(shown) > WIDTH:
        shown = f"{shown[: WIDTH // 2 - 2]}...{shown[1 - WIDTH // 2 :]}"
    return html.escape(shown, quote=False).replace("%{", "%\u200b{")
