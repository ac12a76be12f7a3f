"""The findings of :func:`diagnose`, one function each; oriented values: lower is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from ._evidence import (
    MEDIAN_ERROR,
    correlation_of,
    noise_of,
    outliers_of,
    running_median,
    slope_of,
    trend_of,
)
from .lanes import PlateauLanes

SIGMAS = 2.0  # a difference of so many standard errors is an improvement (2% by chance)
STEADY = 2.5  # Mann-Kendall's score of a descent: of six epochs, all but one pair in fifteen
CLEAR = 3.0  # what must hold over a long stretch, where there are many to choose from
NEAR = 12  # epochs before a cut that tell the noise there: more would mix in another phase
SMOOTH = 2  # neighbours on each side in running medians: bears two odd epochs in five
SPIKE_HALF, SPIKE = 3, 5.0  # Hampel's filter, strict: the noise is told from few epochs
SMOOTHINGS = (0.6, 0.7, 0.8, 0.9)  # what is tried against spikes, gentlest first
PACE = 0.02  # share of the whole progress in an epoch: 50 epochs for all of it, worth waiting for
HORIZON, TRIALS = 30, 200  # imagined epochs and histories to see what noise alone does
OFTEN, SELDOM = 0.75, 0.1  # share of them that is cut: a problem; borne
PATIENCES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)  # what is tried for a patience that bears noise
MATERIAL = 0.01  # share of the progress that a descent must bring: a tail goes on for ever
PROGRESS = 5.0  # noises that a history must have improved by to have a course at all
SUSTAINED = 8  # epochs of a worsening that is no excursion
SPOILT = 0.03  # share of the progress that overfitting must have lost again
EARLY = 0.1  # share of the history in which the best value of a reversed mode lies
MEMORISED = 10.0  # how far a training loss must fall before validation must lag behind it
CLOSE = (0.67, 1.25)  # validation over training loss, where the two may share samples
TRACKING = 0.75  # rank correlation of their changes that goes with it


@dataclass(frozen=True)
class Finding:
    """One thing to know about a history.

    Attributes:
        code: Stable, in kebab-case.
        level: ``"good"``, ``"problem"`` or ``"question"``.
        text: One or two sentences with the numbers in them.
        numbers: The same numbers for scripts; finite, and ready for JSON. Epochs count from 1.
    """

    code: str
    level: str
    text: str
    numbers: dict[str, float | int | list[int] | list[float]]


@dataclass(frozen=True)
class History:
    """Finite values; ``recorded`` are the cuts (epochs from 0), None where no rates were given."""

    values: list[float]
    oriented: list[float]
    train: list[float] | None
    recorded: list[int] | None
    start_rate: float
    settings: dict[str, Any]

    @property
    def patience(self) -> int:
        """Bad steps that are borne."""
        return int(self.settings["patience"])

    def noise_at(self, cut: int) -> float:
        """Return the noise in the epochs up to ``cut``."""
        return noise_of(self.oriented[max(0, cut + 1 - NEAR) : cut + 1])


@dataclass(frozen=True)
class Course:
    """What the settings do on a history, epoch by epoch."""

    reduced: list[bool]
    improved: list[bool]
    bad: list[int]


def replayed(values: list[float], rate: float, settings: dict[str, Any]) -> Course:
    """Step one lane through ``values``."""
    lane = PlateauLanes(1, rate, **settings)
    course = Course([], [], [])
    for value in values:
        lane.step([value])
        course.reduced.append(bool(lane.reduced))
        course.improved.append(bool(lane.improved))
        course.bad.append(int(lane.num_bad_epochs))
    return course


def findings_of(history: History) -> list[Finding]:
    """Return all findings about a finite history, problems first."""
    found = list(_overfitting(history)) + list(_leakage(history))
    reversed_mode = [] if found else list(_mode_reversed(history))
    if not reversed_mode:
        course = replayed(history.values, history.start_rate, history.settings)
        would = [i for i, reduced in enumerate(course.reduced) if reduced]
        cuts = would if history.recorded is None else history.recorded
        found += [
            *_spike_cut(history, course, cuts),
            *_patience_below_noise(history, course, cuts),
            *_cut_while_improving(history, cuts),
            *_outcomes(history),
        ]
    order = ("problem", "question", "good")
    return sorted(reversed_mode + found, key=lambda each: order.index(each.level))


def _would(history: History) -> tuple[str, str]:
    """How to speak of cuts, and what must be added where they are imagined."""
    if history.recorded is not None:
        return "came", ""
    return "would have come", " The history was not trained with these cuts."


def _epochs(cuts: list[int]) -> str:
    """Show epochs from 0 as epochs from 1."""
    names = [str(cut + 1) for cut in cuts]
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{'epoch' if len(names) == 1 else 'epochs'} {joined}"


def _numbered(cuts: list[int]) -> list[int]:
    return [cut + 1 for cut in cuts]


def _outcomes(history: History) -> Iterator[Finding]:
    """What followed each recorded cut: medians before and after, against the noise of medians."""
    cuts, z, wait = history.recorded or [], history.oriented, history.patience + 1
    helped, useless = [], []
    for k, cut in enumerate(cuts):
        begin = max(cuts[k - 1] + 1 if k else 0, cut + 1 - wait)
        end = min([*cuts[k + 1 : k + 2], cut + 2 * wait, len(z) - 1]) + 1
        before, after = z[begin : cut + 1], z[cut + 1 : end]
        if len(after) < 3:
            continue
        gain = median(before) - median(after)
        noise = noise_of(z[max(0, cut + 1 - NEAR) : end])
        error = MEDIAN_ERROR * noise * math.sqrt(1 / len(before) + 1 / len(after))
        if gain > SIGMAS * error:
            helped.append((cut, gain))
        elif gain < error:  # in between nothing is said
            useless.append(cut)
    if helped:
        gains = [gain for _, gain in helped]
        best = [cut for cut, _ in helped]
        yield Finding(
            "cut-helped",
            "good",
            f"After the cuts after {_epochs(best)} the metric improved, by {median(gains):.3g} in "
            "the median, which is more than its noise.",
            {"epochs": _numbered(best), "gains": gains},
        )
    last = max([cut for cut, _ in helped], default=-1)
    wasted, ending = [c for c in useless if c < last], [c for c in useless if c > last]
    if wasted:
        yield Finding(
            "cut-useless",
            "question",
            f"No improvement beyond the noise followed the cuts after {_epochs(wasted)}, and one "
            f"did follow a later cut: is factor={history.settings['factor']:g} too mild?",
            {"epochs": _numbered(wasted)},
        )
    if ending:
        yield Finding(
            "converged",
            "question",
            f"Nothing improved beyond the noise after the cuts after {_epochs(ending)}, to the "
            f"last epoch, {len(z)}. Had training converged, or were the rates too low to go on?",
            {"epochs": _numbered(ending), "last_epoch": len(z)},
        )


def _spike_cut(history: History, course: Course, cuts: list[int]) -> Iterator[Finding]:
    """Cuts that are not made once outliers since the last best value are put on their median."""
    found: list[int] = []
    spikes: set[int] = set()
    needed = 0.0
    for k, cut in enumerate(cuts):
        if not course.reduced[cut]:  # by other settings than those given
            continue
        run = max((i for i in range(cut + 1) if course.improved[i]), default=0)
        begin = max(run, cuts[k - 1] + 1 if k else 0)  # a cut changes the noise
        noise = noise_of(history.oriented[max(0, begin - NEAR // 2) : cut + 1])
        odd = outliers_of(history.oriented[: cut + 1], SPIKE_HALF, SPIKE, noise)
        odd = [i for i in odd if i >= begin]
        if not odd:
            continue
        middle, values = running_median(history.values[: cut + 1], SPIKE_HALF), history.values[:]
        for i in odd:
            values[i] = middle[i]
        if not _is_far_from_cut(values[: cut + 1], history, history.settings):
            continue
        for smoothing in SMOOTHINGS:
            smoothed = {**history.settings, "smoothing": smoothing}
            if smoothing > history.settings["smoothing"] and _is_far_from_cut(
                history.values[: cut + 1], history, smoothed
            ):
                found.append(cut)
                spikes.update(odd)
                needed = max(needed, smoothing)
                break
    if found:
        came, besides = _would(history)
        yield Finding(
            "spike-cut",
            "problem",
            f"Cuts {came} after {_epochs(found)} because of odd values in {_epochs(sorted(spikes))}"
            f", more than {SPIKE:g} noises from their neighbours: with smoothing={needed:g} there "
            f"would have been none then.{besides}",
            {"epochs": _numbered(found), "spikes": _numbered(sorted(spikes)), "smoothing": needed},
        )


def _is_far_from_cut(values: list[float], history: History, settings: dict[str, Any]) -> bool:
    """Whether at the end of ``values`` at least half of the patience is left."""
    course = replayed(values, history.start_rate, settings)
    return not course.reduced[-1] and course.bad[-1] <= history.patience // 2


def _patience_below_noise(history: History, course: Course, cuts: list[int]) -> Iterator[Finding]:
    """Cuts that noise alone brings while a metric improves at a pace worth waiting for."""
    z = history.oriented
    found, noises, paces = [], [], []
    for cut in cuts:
        noise = history.noise_at(cut)
        smooth = running_median(z[: cut + 1], SMOOTH)
        progress = median(z[:3]) - min(smooth)
        worse = median(z[max(0, cut - history.patience) : cut + 1]) - min(smooth)
        if progress < PROGRESS * noise or worse > CLEAR * noise or cut + 1 < SUSTAINED:
            continue
        found.append(cut)
        noises.append(noise)
        paces.append(PACE * progress)
    if not found:
        return
    noise, pace = median(noises), median(paces)
    share = _cut_by_noise(history, noise, pace, [history.patience])[0]
    if noise == 0 or share < OFTEN:
        return
    tried = [p for p in PATIENCES if p > history.patience]
    shares = _cut_by_noise(history, noise, pace, tried)
    bears = next((p for p, each in zip(tried, shares, strict=True) if each <= SELDOM), 0)
    better = [i for i, improved in enumerate(course.improved) if improved]
    dry = max((b - a - 1 for a, b in pairwise(better)), default=0)
    came, besides = _would(history)
    cure = f"patience={bears} bears it" if bears else "no patience up to 20 bears it: smooth it"
    yield Finding(
        "patience-below-noise",
        "problem",
        f"Cuts {came} after {_epochs(found)}, where the metric has a noise of {noise:.3g}: with "
        f"patience={history.patience} such noise alone cuts {share:.0%} of runs within {HORIZON} "
        f"epochs though they improve by {pace:.3g} an epoch; {cure}. The longest run here without "
        f"a new best that ended in one was {dry} epochs.{besides}",
        {
            "epochs": _numbered(found),
            "noise": noise,
            "pace": pace,
            "share": share,
            "longest_dry_run": dry,
            "patience": bears,
        },
    )


def _cut_by_noise(history: History, noise: float, pace: float, patiences: list[int]) -> list[float]:
    """Return which share of imagined histories, a line and normal noise, is cut by each patience.

    They begin at the level where this history ended, so that a relative threshold has its size.
    """
    if not patiences:
        return []
    sign = -1.0 if history.settings["mode"] == "max" else 1.0
    level = median(history.oriented[-5:])
    chance = torch.Generator().manual_seed(0)
    lanes = PlateauLanes(
        len(patiences) * TRIALS,
        1.0,
        **{
            **history.settings,
            "patience": torch.tensor(patiences).repeat_interleave(TRIALS),
            "min_lr": 0.0,
        },
    )
    for epoch in range(HORIZON):
        draw = torch.randn(TRIALS, generator=chance, dtype=torch.float64).repeat(len(patiences))
        lanes.step(sign * (level + pace * (HORIZON - epoch) + noise * draw))
    cut = (lanes.num_reductions > 0).double().view(len(patiences), TRIALS).mean(1)
    shares: list[float] = cut.tolist()
    return shares


def _cut_while_improving(history: History, cuts: list[int]) -> Iterator[Finding]:
    """Cuts whose own run of bad steps, with the epoch before it, is a clear descent."""
    found, slopes = [], []
    for cut in cuts:
        run = history.oriented[max(0, cut + 1 - max(6, history.patience + 2)) : cut + 1]
        if len(run) < 6:
            continue
        slope = slope_of(run)
        start, smooth = median(history.oriented[:3]), running_median(run, SMOOTH)
        size = max(CLEAR * noise_of(run), MATERIAL * (start - min(smooth)))
        if trend_of(run) < -STEADY and -slope * len(run) > size:
            found.append(cut)
            slopes.append(-slope)
    if found:
        came, besides = _would(history)
        threshold = history.settings["threshold"]
        yield Finding(
            "cut-while-improving",
            "problem",
            f"Cuts {came} after {_epochs(found)} while the metric still improved, by "
            f"{median(slopes):.3g} an epoch: threshold={threshold:g} is too large or "
            f"patience={history.patience} too short to see it.{besides}",
            {"epochs": _numbered(found), "slopes": slopes},
        )


def _overfitting(history: History) -> Iterator[Finding]:
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


def _leakage(history: History) -> Iterator[Finding]:
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


def _mode_reversed(history: History) -> Iterator[Finding]:
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
