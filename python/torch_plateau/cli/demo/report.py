"""The demo's tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from ..tables import new_table
from .training import RARE, Data, Run, score

WORD = {"f1": "F1", "recall": "recall", "accuracy": "accuracy", "loss": "loss"}
GOOD = 0.98  # the accuracy of never finding a rare digit
HALVES = (("#0072b2", "o"), ("#d55e00", "^"))  # colours that colour-blind people tell apart


def show(console: Console, run: Run, data: Data) -> None:
    """Print the best and worst lanes, and the ensembles against the best lane."""
    y, word, ranking = data.test[1], WORD[run.watched[0]], run.ranking(run.watched[0])
    right, cuts = score("accuracy", run.logits, y, data.weight), run.cuts.sum(0)
    table = new_table(
        f"Lanes by {word} on {len(data.validation[1])} validation images",
        ["", "lane", "first rate", "final rate", "cuts", word, "held-out accuracy"],
        texts=[""],
    )
    few = min(3, (len(ranking) + 1) // 2)
    for lane in dict.fromkeys([*ranking[:few], *ranking[-few:]]):
        table.add_row(
            {ranking[-1]: "worst", ranking[0]: "best"}.get(lane, ""),
            str(lane),
            f"{run.first[lane]:.1e}",
            f"{run.last[lane]:.1e}",
            str(int(cuts[lane])),
            f"{run.metric[-1, lane]:.3f}",
            f"{right[lane]:.1%}",
            end_section=lane == ranking[few - 1],
        )
    console.print(table)
    console.print(
        f"Cuts: {int(cuts.sum())} in all, {int(cuts.min())} to {int(cuts.max())} a lane. "
        f"Final rates: {run.last.min():.1e} to {run.last.max():.1e}.\n"
    )
    quarter, chances = ranking[: max(1, len(ranking) // 4)], run.logits.softmax(-1)
    teams = {
        f"best lane ({ranking[0]})": chances[ranking[0]],
        f"best quarter ({len(quarter)}), averaged": chances[quarter].mean(0),
        f"all lanes ({len(ranking)}), averaged": chances.mean(0),
    }
    shares = score("accuracy", torch.stack(list(teams.values())), y, data.weight)
    wrong = ((1 - shares) * len(y)).round().int().tolist()
    table = new_table(f"On {len(y)} held-out images", ["", "accuracy", "wrong"], texts=[""])
    for name, share, count in zip(teams, shares.tolist(), wrong, strict=True):
        table.add_row(name, f"{share:.1%}", str(count))
    console.print(table)
    console.print(
        f"Of {len(y)}, the best quarter gets {_against(wrong[0] - wrong[1])} the best lane alone,\n"
        f"all lanes {_against(wrong[0] - wrong[2])} it. Lanes are ranked on validation\n"
        "images; a difference of a few held-out ones can be chance.\n"
    )


def _against(gain: int) -> str:
    if gain == 0:
        return "as many right as"
    return f"{abs(gain)} {'more' if gain > 0 else 'fewer'} right than"


def _rare_scores(run: Run, data: Data) -> dict[str, Tensor]:
    """Judge the lanes, and last the answer that is always no, on held-out images."""
    y = data.test[1]
    never = torch.tensor([1.0, 0.0]).expand(1, len(y), 2)
    answers = torch.cat([run.logits, never])
    names = ("accuracy", "recall", "precision", "f1")
    scores = {name: score(name, answers, y, data.weight) for name in names}
    said = answers.argmax(-1) == 1
    return {**scores, "found": said[:, y == 1].sum(1), "alarms": said[:, y == 0].sum(1)}


def _blind(scores: dict[str, Tensor], data: Data) -> list[int]:
    """List the lanes that look good, by accuracy, and miss most positives; least recall first."""
    missed = 2 * scores["found"] < data.test[1].sum()
    lanes = ((scores["accuracy"] >= GOOD) & missed)[:-1].nonzero()[:, 0].tolist()
    return sorted(lanes, key=lambda lane: int(scores["found"][lane]))


def show_rare(console: Console, run: Run, data: Data) -> None:
    """Print what each half's metric picks, beside answers that only look good."""
    y, half, other = data.test[1], len(run.first) // 2, run.watched[-1]
    scores = _rare_scores(run, data)
    blind = _blind(scores, data)
    rare, others = int(y.sum()), int((1 - y).sum()) // data.times
    trained = int(data.train[1].sum())
    console.print(
        f"Is it an {RARE}? Only 2% are. Trained on {trained} positives and "
        f"{len(data.train[1]) - trained} others, each class\nabout half of the loss. Validated on "
        f"{rare} positives and {others} others, and tested on\nas many: there each other counts "
        f"{data.times} times, so that {rare / len(y):.1%} are positive.\n"
    )
    rows = {"accuracy": run.ranking("accuracy")[0], WORD[other]: run.ranking(other)[0]}
    if blind and blind[0] not in rows.values():
        rows["98%, worst"] = blind[0]
    rows["always no"] = -1
    heads = ["picked by", "lane", "accuracy", "recall", "F1", "verdict"]
    table = new_table("On held-out images", heads, texts=["picked by", "verdict"])
    for name, lane in rows.items():
        found, alarms = int(scores["found"][lane]), int(scores["alarms"][lane]) // data.times
        verdict = f"finds {found} of {rare}, errs on {alarms} of {others}"
        if 2 * alarms > others:
            verdict = f"not good: alarm at {alarms} of {others} others"
        if 2 * found < rare:
            verdict = f"not good: misses {rare - found} of {rare} positives"
        numbers = [f"{scores[each][lane]:.2f}" for each in ("recall", "f1")]
        place = str(lane) if lane >= 0 else ""
        table.add_row(name, place, f"{scores['accuracy'][lane]:.1%}", *numbers, verdict)
    console.print(table)
    console.print(
        f"{len(blind)} of {2 * half} lanes reach 98% accuracy and miss more than half of the "
        "positives.\n"
    )
    heads = ["watching", "accuracy", "recall", "precision", "F1", "cuts"]
    table = new_table(f"Means of each half ({half}), held out", heads, texts=["watching"])
    for name, part in (("accuracy", slice(0, half)), (other, slice(half, 2 * half))):
        share = [f"{scores[each][part].mean():.2f}" for each in ("recall", "precision", "f1")]
        cuts = f"{run.cuts.sum(0)[part].double().mean():.1f}"
        table.add_row(WORD[name], f"{scores['accuracy'][part].mean():.1%}", *share, cuts)
    console.print(table)
    gain = scores["f1"][half:-1] - scores["f1"][:half]
    more, less = int((gain > 0.02).sum()), int((gain < -0.02).sum())
    console.print(
        f"Twins start alike and differ in what they watch. In {more} of {half} pairs the one that\n"
        f"watches {WORD[other]} has the better held-out F1, in {less} the worse, else within 0.02."
        "\n"
    )


def draw(run: Run, _: Data, out: Path | BinaryIO) -> None:
    """Draw metric and rate of every lane over the epochs, cuts marked, the best lane in black."""
    name = run.watched[0]
    best = run.ranking(name)[0]
    figure = Figure(figsize=(10, 7), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = np.arange(1, len(run.cuts) + 1)
    look: dict[str, Any] = {
        "cmap": ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256))),  # no pale yellow
        "norm": LogNorm(1e-4, 1),
    }
    when, lane = run.cuts.numpy().nonzero()
    cut = run.cuts[:, best].numpy()
    for axes, values, style in (
        (above, run.metric.numpy(), "default"),
        (below, run.rates.numpy(), "steps-post"),  # a rate holds for its epoch
    ):
        x = epochs if axes is above else np.repeat(epochs, 2)[1:]
        shown = values if axes is above else np.repeat(values, 2, axis=0)[:-1]
        curves = [np.column_stack([x, column]) for column in shown.T]
        lines = LineCollection(curves, array=run.first.numpy(), linewidths=0.8, **look)
        axes.add_collection(lines)
        axes.scatter(
            epochs[when], values[when, lane], s=8, c=run.first[lane].numpy(), marker="v", **look
        )
        axes.plot(epochs, values[:, best], "k.-", linewidth=2, markersize=3, drawstyle=style)
        axes.plot(epochs[cut], values[cut, best], "kv", markersize=7)
        _plain(axes)
    figure.colorbar(lines, ax=[above, below], label="starting learning rate", pad=0.02, aspect=40)
    above.set_ylabel(f"validation {WORD[name]}")
    if name == "loss":
        above.set_yscale("log")
    below.set_yscale("log")
    below.set(ylabel="learning rate", xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
    above.set_title(f"A rate for each network, cut when its own {WORD[name]} stalls", loc="left")
    above.plot([], [], "kv-", linewidth=2, label=f"best: lane {best}, from {run.first[best]:.1e}")
    above.plot([], [], "v", color="0.5", markersize=4, label=f"cuts: {len(when)}")
    above.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(out, format="png")


def draw_rare(run: Run, data: Data, out: Path | BinaryIO) -> None:
    """Draw held-out accuracy against recall, and both over the epochs for the picked lanes."""
    scores, half, watch = _rare_scores(run, data), len(run.first) // 2, run.watched[-1]
    x, y, positives = scores["recall"], scores["accuracy"], int(data.test[1].sum())
    figure = Figure(figsize=(10, 7), dpi=130, layout="constrained")
    axes = figure.subplot_mosaic([["all", "accuracy"], ["all", "recall"]], width_ratios=[3, 2])
    plane, epochs = axes["all"], np.arange(1, len(run.cuts) + 1)
    for i, (name, (color, marker)) in enumerate(zip(("accuracy", watch), HALVES, strict=True)):
        pick, part, big = run.ranking(name)[0], slice(i * half, (i + 1) * half), 2 - i
        look: dict[str, Any] = {"marker": marker, "label": f"watches {WORD[name]}"}
        plane.scatter(x[part], y[part], 30 * big, edgecolors=color, facecolors="none", **look)
        look["label"] = f"picked by {WORD[name]}: lane {pick}"
        plane.scatter(x[pick], y[pick], 90 * big, color, edgecolors="black", zorder=3, **look)
        cut = run.cuts[:, pick].numpy()
        for each in ("accuracy", "recall"):
            curve = run.scores[each][:, pick].numpy()
            axes[each].plot(epochs, curve, color=color, linewidth=1.2 * big)
            axes[each].plot(epochs[cut], curve[cut], "v", color=color)
            axes[each].set(ylabel=f"validation {each}", xlabel="epoch")
    axes["accuracy"].set_title("The picked lanes; triangles are cuts", loc="left")
    others = (len(data.test[1]) - positives) // data.times
    plane.set_title(f"On {positives} positives and {others} others, held out", loc="left")
    plane.set(xlabel="recall", ylabel="accuracy", xlim=(-0.04, 1.04))
    plane.scatter(x[-1], y[-1], 30, "black", marker="x", zorder=3, label="always no")
    blind = _blind(scores, data)
    worst = blind[0] if blind else -1
    plane.annotate(
        f"not good: {f'lane {worst}' if blind else 'always no'}\n{y[worst]:.1%} accuracy, misses\n"
        f"{positives - int(scores['found'][worst])} of {positives} positives\n"
        f"({len(blind)} lanes at 98%\nmiss more than half)",
        (float(x[worst]), float(y[worst])),
        (0.03, 0.03),
        textcoords="axes fraction",
        arrowprops={"arrowstyle": "->"},
        fontsize=11,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )
    for panel in axes.values():
        _plain(panel)
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower left", ncols=5)
    figure.savefig(out, format="png")


def _plain(axes: Axes) -> None:
    axes.autoscale_view()
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
