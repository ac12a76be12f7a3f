"""A replay, or a sweep, as one HTML file that needs nothing else: no host is asked for anything."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..histories.files.errors import printable
from ..histories.findings.history import Finding
from ..histories.replay import Replay
from ..lanes.settings import plain
from ..lanes.table import SETTINGS
from ..saving import replacing
from .annotate import Epochs
from .epoch_table import columns, folded, summaries
from .tables import number

__all__ = ["write_report"]

MARKS = {"better": "\u2191", "cut": "\u2702", "due": "\u2013", "finished": "\u25a0"}
LONGEST = 10_000  # epochs up to which each has its line
LEVELS = {"problem": "\u2716 problem", "question": "? question", "good": "\u2714 good"}


def write_report(
    out: Path,
    *,
    title: str,
    metric: Tensor,
    results: Replay | None,
    rows: Epochs | None,
    findings: list[Finding],
    labels: list[str],
    sweep: Any = None,
) -> None:
    """Write a report: a picture to point at, findings, settings, the epochs, and heat maps.

    The file at ``out`` is whole or as it was, whatever happens meanwhile. Its scripts and styles
    are inside it, and it forbids the browser to load any others. What is not
    printable in names, as marks that turn the direction of a text, is shown as escapes. Needs
    plotly.

    Args:
        out: Where to; its directory must exist.
        title: Of the page.
        metric: The history, ``[epochs]`` or ``[epochs, lanes]``.
        results: Its replay with ``record="all"``, or None for the bare metric.
        rows: The epochs of the first lane, for the table, in which those of a long history are
            folded as they are where it is printed; or None.
        findings: What :func:`diagnose` found; may be empty.
        labels: A name for each lane, or for the metric where there is no replay.
        sweep: A :class:`Sweep` to show besides, or None.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    from . import report_figures as figures

    pictures = [figures.replay_figure(metric, results, labels)]
    pictures += [] if sweep is None else figures.sweep_figures(sweep)
    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    names = [printable(label) for label in labels]
    heads, epochs = ([], []) if rows is None else _table(rows)
    text = environment.from_string(template).render(
        title=printable(title),
        library=get_plotlyjs(),
        pictures=[figures.as_html(figure, i) for i, figure in enumerate(pictures)],
        findings=[
            (each.level, LEVELS[each.level], each.code, printable(each.text)) for each in findings
        ],
        settings=[] if results is None else _settings(results),
        lanes=names,
        heads=heads,
        epochs=epochs,
        marks=MARKS,
        lane=names[0] if names else "",
        note=figures.note_of(results),
    )
    with replacing(out) as file:
        file.write(text.encode("utf-8", "replace"))


def _table(rows: Epochs) -> tuple[list[str], list[tuple[str, tuple[str, ...]]]]:
    """Return the heads, and of each line the event and the cells; a folded one has two."""
    size = len(rows)
    stretches = [range(i, i + 1) for i in range(size)] if size <= LONGEST else folded(rows)
    shown = rows.rows_at(torch.tensor([s[0] for s in stretches if len(s) == 1], dtype=torch.int64))
    cells = columns(shown)
    lines = zip((row.event for row in shown), zip(*cells.values(), strict=True), strict=True)
    folds = summaries(rows, [each for each in stretches if len(each) > 1])
    told = [next(lines) if len(each) == 1 else ("", ("...", next(folds))) for each in stretches]
    return list(cells), told


def _settings(result: Replay) -> list[tuple[str, list[str], bool]]:
    """Return name, values (one, or one per lane), and whether it was left as it is unless told."""
    listed = []
    for name, value in result.lanes.settings.items():
        each = value.tolist() if isinstance(value, Tensor) else value
        several = each if isinstance(each, list) else [each]
        first = plain(SETTINGS[name], SETTINGS[name].first)
        listed.append((name, [number(one, 6) for one in several], several == [first]))
    return listed
