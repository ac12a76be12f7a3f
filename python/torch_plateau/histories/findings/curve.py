"""Findings about the course of a metric, whatever was cut; oriented values: lower is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from .evidence import correlation_of, noise_of, running_median, trend_of
from .history import CLEAR, PROGRESS, SMOOTH, SUSTAINED, Finding, History

SPOILT = 0.03  # share of the progress that overfitting must have lost again
EARLY = 0.1  # share of the history in which the best value of a reversed mode lies
MEMORISED = 10.0  # how far a training loss must fall before validation must lag behind it
CLOSE = (0.67, 1.25)  # validation over training loss, where the two may share samples
TRACKING = 0.75  # rank correlation of their changes that goes with it


def overfitting(history: History) -> Iterator[Finding]:
    """A long worsening after the best epoch while training goes on improving."""
    if history.train is None:
        return
    z = history.oriented
    smooth = running_median(z, SMOOTH)
    best = smooth.index(min(smooth))
    tail, train = z[best:], history.train[best:]
    if len(tail) < SUSTAINED:
        return
    noise, progress = noise_of(tail), median(z[:3]) - smooth[best]
    loss = min(median(tail), median(tail[-5:])) - smooth[best]
    if trend_of(train) < -CLEAR and loss > max(CLEAR * noise, SPOILT * progress):
        yield Finding(
            "overfitting",
            "problem",
            f"Since epoch {best + 1} of {len(z)} validation has been worse by {loss:.3g}, its "
            f"noise being {noise:.3g}, while training improved: this is overfitting, which a "
            "lower rate alone does not mend.",
            {"epoch": best + 1, "worse_by": loss, "noise": noise},
        )


def leakage(history: History) -> Iterator[Finding]:
    """Validation that stays with a training loss which has fallen to a fraction of itself."""
    train = history.train
    if train is None or history.settings["mode"] == "max" or min(history.oriented + train) <= 0:
        return
    ratios = [v / t for v, t in zip(history.oriented, train, strict=True)]
    ratio = median(ratios[-(len(ratios) // 3) :])
    fall = median(train[:1]) / median(train[-5:])
    changes = [
        [math.log(after / before) for before, after in pairwise(series)]
        for series in (history.oriented, train)
    ]
    together = correlation_of(*changes)
    if fall >= MEMORISED and CLOSE[0] <= ratio <= CLOSE[1] and together >= TRACKING:
        yield Finding(
            "leakage",
            "question",
            f"The training loss fell to 1/{fall:.3g} of its start and validation stayed with it, "
            f"at {ratio:.2f} times its value, their changes correlated by {together:.2f}. Do "
            "training and validation share samples?",
            {"fall": fall, "ratio": ratio, "correlation": together},
        )


def mode_reversed(history: History) -> Iterator[Finding]:
    """Best at the start, worse ever after, and shaped like a learning curve upside down."""
    z, train = history.oriented, history.train
    n, start = len(z), median(z[:3])
    best, end = z.index(min(z)), median(z[-5:])
    rise = end - min(z[:3])
    late = z[max(3, int(EARLY * n)) :]
    third = median(z[n // 3 - 1 : n // 3 + 2]) - min(z[:3])
    worse = sum(value > start for value in late) / len(late)
    falls = train is not None and trend_of(train) < -CLEAR  # then it is overfitting from the start
    if (
        best < max(2, EARLY * n)
        and worse >= 1 - EARLY
        and rise > PROGRESS * noise_of(z)
        and third > rise / 2  # a learning curve is steep first; a divergence is steep last
        and trend_of(z) > CLEAR
        and not falls
    ):
        mode = history.settings["mode"]
        other = "max" if mode == "min" else "min"
        yield Finding(
            "mode-reversed",
            "problem",
            f'Under mode="{mode}" epoch {best + 1} was the best of {n}, and the metric went from '
            f"{history.values[best]:.3g} to {median(history.values[-5:]):.3g} the way that "
            f'learning curves go under mode="{other}".',
            {"epoch": best + 1, "first": history.values[best], "last": median(history.values[-5:])},
        )
