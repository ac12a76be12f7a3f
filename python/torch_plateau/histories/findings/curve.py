"""Findings about the course of a metric, whatever was cut; oriented values: lower is better."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import correlation_of, median_of, noise_of, running_median, trend_of
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
    best = int(smooth.argmin())
    lowest = float(smooth[best])
    del smooth
    tail, train = z[best:], history.train[best:]
    if len(tail) < SUSTAINED:
        return
    noise, progress = noise_of(tail), median_of(z[:3]) - lowest
    loss = min(median_of(tail), median_of(tail[-5:])) - lowest
    if loss > max(CLEAR * noise, SPOILT * progress) and trend_of(train) < -CLEAR:
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
    if train is None or history.settings["mode"] == "max":
        return
    z = history.oriented
    if min(float(z.min()), float(train.min())) <= 0:
        return
    last = slice(-(len(z) // 3), None)
    ratio = median_of(z[last] / train[last])
    fall = median_of(train[:1]) / median_of(train[-5:])
    if fall < MEMORISED or not CLOSE[0] <= ratio <= CLOSE[1]:
        return
    together = correlation_of(*(series[1:] / series[:-1] for series in (z, train)))
    if together >= TRACKING:
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
    n, start = len(z), median_of(z[:3])
    best, end = int(z.argmin()), median_of(z[-5:])
    rise = end - float(z[:3].min())
    late = z[max(3, int(EARLY * n)) :]
    third = median_of(z[n // 3 - 1 : n // 3 + 2]) - float(z[:3].min())
    worse = int((late > start).count_nonzero()) / len(late)
    if (
        best < max(2, EARLY * n)
        and worse >= 1 - EARLY
        and third > rise / 2  # a learning curve is steep first; a divergence is steep last
        and rise > PROGRESS * noise_of(z)
        and trend_of(z) > CLEAR
        # else it is overfitting from the start
        and not (train is not None and trend_of(train) < -CLEAR)
    ):
        first, last = float(history.values[best]), median_of(history.values[-5:])
        mode = history.settings["mode"]
        other = "max" if mode == "min" else "min"
        yield Finding(
            "mode-reversed",
            "problem",
            f'Under mode="{mode}" epoch {best + 1} was the best of {n}, and the metric went from '
            f"{first:.3g} to {last:.3g} the way that "
            f'learning curves go under mode="{other}".',
            {"epoch": best + 1, "first": first, "last": last},
        )
