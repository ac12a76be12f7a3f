"""The pictures of the pages: ``python docs/pictures.py`` draws what their code computed.

A picture is a function here. What it draws are the names that a page's python blocks leave behind,
so picture and page show the same run. Files go to docs/pictures, or where the first argument says.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from torch_plateau import replay
from torch_plateau.cli.pictures import LOOKS

DOCS = Path(__file__).parent
BLUE, ORANGE, BLACK, GREEN = (look["color"] for look in LOOKS[:4])
GREY = "0.6"


@cache
def names_of(page: str) -> dict[str, Any]:
    """Run the python blocks of a page; return what they define."""
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            exec(compile(block, f"<{page}>", "exec"), names)
    return names


def panels(rows: int = 1, ratios: tuple[float, ...] = (1,), height: float = 3.2) -> list[Axes]:
    """Return axes of a new figure, one below the other."""
    figure = Figure(figsize=(7.2, height), dpi=100, layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0])
    for axis in axes:
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return axes


def epochs(values: Any) -> range:
    """Return the numbers of some epochs, from 1."""
    return range(1, len(values) + 1)


def rule() -> Figure:
    """Ten steps: metric, best and gate, bad steps, a cooldown; the rate below."""
    page = names_of("rule.md")
    losses, steps = page["losses"], page["steps"]
    above, below = panels(2, (3, 1.2), 4.2)
    x = epochs(losses)
    best, gate = steps.best[:, 0].tolist(), steps.gate[:, 0].tolist()
    above.plot(x, best, drawstyle="steps-mid", color=BLUE, linewidth=1.4)
    above.plot(x, gate, drawstyle="steps-mid", color=BLUE, linestyle=(0, (4, 2)), linewidth=1)
    above.plot(x, losses, "o", color=BLACK, markersize=5)
    above.plot([5], [0.735], "x", color=BLACK, clip_on=False)
    for step, text in enumerate(("", "", "bad 1", "bad 2", "NaN: bad 3, cut"), 1):
        height = 0.735 if step == 5 else losses[step - 1]
        above.annotate(text, (step, height), (0, 9), textcoords="offset points", ha="center")
    for step, text in ((8, "bad 1"), (9, "bad 2"), (10, "bad 3,\ncut due")):
        above.annotate(text, (step, 0.79), (0, 9), textcoords="offset points", ha="center")
    above.text(1, 0.965, "loss", ha="center")
    above.text(1.56, 0.9, "best", color=BLUE)
    above.text(2.55, 0.75, "gate", color=BLUE)
    above.set(ylabel="loss", ylim=(0.72, 1.04))
    for axis in (above, below):
        axis.axvspan(5.5, 7.5, color="0.9", zorder=0)
    above.text(6.5, 0.965, "cooldown:\nnothing is bad", ha="center")
    below.plot([0.5, 5.5, 5.5, 10.5], [0.1, 0.1, 0.02, 0.02], color=ORANGE)
    below.axhline(0.02, color=GREY, linestyle=":", linewidth=1)
    below.text(1, 0.026, "floor, min_lr = 0.02", color="0.35")
    below.set(xlabel="step", ylabel="rate", xticks=x, ylim=(0, 0.115), xlim=(0.5, 10.7))
    return above.figure


def imbalanced() -> Figure:
    """Accuracy and recall of two runs, with what always saying no would have."""
    page = names_of("metrics.md")
    [axis] = panels()
    for name, run, color in (("plain", "plain", BLUE), ("weighted", "weighted", ORANGE)):
        for score, style in (("accuracy", "-"), ("recall", (0, (6, 2)))):
            values = page[run][score]
            axis.plot(epochs(values), values, color=color, linestyle=style)
        axis.text(101, page[run]["recall"][-1], f"recall, {name}", color=color, va="center")
    axis.text(101, 1.0, "accuracy, plain", color=BLUE, va="center")
    axis.text(101, 0.93, "accuracy, weighted", color=ORANGE, va="center")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set(xlabel="training step", xlim=(1, 128), xticks=range(0, 101, 20), ylim=(0, 1.03))
    return axis.figure


def overfitting() -> Figure:
    """Training and validation loss without and with a plateau, and its cuts."""
    page = names_of("metrics.md")
    [axis] = panels(height=3.4)
    train, val, best = page["train_losses"], page["val_losses"], page["best"]
    braked_train, braked_val, rates = page["braked"]
    axis.plot(epochs(val), val, color=ORANGE)
    axis.plot(epochs(train), train, color=BLUE)
    axis.plot(epochs(val), braked_val, color=ORANGE, linestyle=(0, (6, 2)))
    axis.plot(epochs(val), braked_train, color=BLUE, linestyle=(0, (6, 2)))
    cuts = [epoch for epoch in range(1, 200) if rates[epoch] < rates[epoch - 1]]
    axis.plot(cuts, [0.05] * len(cuts), "v", color=BLACK, markersize=6)
    axis.text(cuts[-1] + 4, 0.045, "cuts of the plateau", va="center")
    axis.plot([best + 1], [val[best]], "o", color=ORANGE)
    axis.annotate(f"best, epoch {best + 1}", (best + 1, val[best]), (34, 0.9), color=ORANGE)
    for text, y, color in (
        ("validation", val[-1], ORANGE),
        ("validation, plateau", braked_val[-1], ORANGE),
        ("training, plateau", braked_train[-1] + 0.03, BLUE),
        ("training", train[-1], BLUE),
    ):
        axis.text(202, y, text, color=color, va="center")
    axis.set(xlabel="epoch", ylabel="mean squared error", xlim=(1, 262), ylim=(0, 1.5))
    axis.set_xticks(range(0, 201, 25))
    return axis.figure


def patience() -> Figure:
    """The final loss of 64 runs for each patience, and their median."""
    page = names_of("metrics.md")
    [axis] = panels()
    runs = page["losses"].view(-1, 64)
    places = range(len(runs))
    for place, row in zip(places, runs.tolist(), strict=True):
        axis.plot([place] * 64, row, "o", color=GREY, markersize=3, alpha=0.35)
    axis.plot(places, page["final"], color=BLUE, marker="o")
    axis.annotate("median of 64 runs", (1, page["final"][1]), (1.15, 0.3), color=BLUE)
    axis.text(0.6, 0.003, "too small: noise cuts", ha="center", color="0.3")
    axis.text(7.2, 0.08, "too large: no cut in time", ha="right", color="0.3")
    axis.set_yscale("log")
    axis.set_xticks(places, [str(each) for each in page["patiences"]])
    axis.set(xlabel="patience (steps)", ylabel="loss after 100 steps")
    return axis.figure


def noise() -> Figure:
    """One noisy history of those on the page and its average, and the cuts of three settings."""
    page = names_of("metrics.md")
    history = page["histories"][:, 76]  # one of those that are cut when most are
    above, below = panels(2, (3, 1), 3.8)
    average = replay(history, patience=5, smoothing=0.8, record=["value"]).value[:, 0].tolist()
    above.plot(epochs(history), history.tolist(), ".-", color=GREY, linewidth=0.8, markersize=4)
    above.plot(epochs(history), average, color=ORANGE)
    above.plot(epochs(history), page["curve"].tolist(), color=BLACK, linestyle=":")
    above.text(8, 0.98, "metric as it comes", color="0.4")
    above.annotate("smoothing=0.8", (15, average[14]), (24, 0.8), color=ORANGE)
    above.annotate("without noise", (50, 0.4), (42, 0.24))
    ways = (("patience=5", {}, BLUE, "v"), ("with smoothing=0.8", {"smoothing": 0.8}, ORANGE, "o"))
    for row, (_, setting, color, marker) in enumerate(ways):
        reduced = replay(history, patience=5, record=["reduced"], **setting).reduced[:, 0]
        cuts = (reduced.nonzero().flatten() + 1).tolist()
        below.plot(cuts, [row] * len(cuts), marker, color=color, markersize=6)
    below.set_yticks(range(len(ways)), [name for name, *_ in ways])
    below.set(ylim=(1.6, -0.6), xlabel="epoch")
    below.set_title("cuts", loc="left", fontsize=10)
    above.set(ylabel="validation loss", xlim=(0.5, 100.5))
    return above.figure


def negative() -> Figure:
    """A negative loss, the gates of rel and rel_safe, and the cuts of each."""
    page = names_of("metrics.md")
    losses = page["elbo"]
    [axis] = panels(height=3.4)
    axis.plot(epochs(losses), losses, ".-", color=BLACK, linewidth=0.8, markersize=4)
    for mode, color, style in (("rel", ORANGE, (0, (6, 2))), ("rel_safe", BLUE, "-")):
        seen = replay(
            losses, patience=5, threshold=5e-2, threshold_mode=mode, record=["gate", "reduced"]
        )
        gate = seen.gate[:, 0].tolist()
        axis.plot(epochs(losses), gate, color=color, linestyle=style, linewidth=1.3)
        cuts = (seen.reduced[:, 0].nonzero().flatten() + 1).tolist()
        axis.plot(cuts, [-1.06] * len(cuts), "v", color=color, markersize=6)
    axis.text(32, -0.84, "gate of rel: above the loss, so all is better", color=ORANGE)
    axis.text(9, -0.63, "loss", ha="right")
    axis.text(22, -1.03, "gate of rel_safe, and its cuts", color=BLUE)
    axis.set(xlabel="epoch", ylabel="loss", ylim=(-1.1, -0.5), xlim=(0.5, 100.5))
    return axis.figure


PICTURES = (rule, imbalanced, overfitting, patience, noise, negative)


def main(folder: Path = DOCS / "pictures") -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(exist_ok=True)
    for draw in PICTURES:
        draw().savefig(folder / f"{draw.__name__}.png", metadata={"Software": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
