"""Findings about cuts, recorded or imagined; oriented values: lower is better."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from ...lanes.lanes import PlateauLanes
from ..replay import Replay, in_pieces, replay
from .evidence import (
    MEDIAN_ERROR,
    PIECE,
    lowest_of,
    lows_of,
    median_of,
    noise_of,
    outliers_of,
    running_median,
    slope_of,
    trend_of,
)
from .history import CLEAR, NEAR, PROGRESS, SMOOTH, SUSTAINED, Course, Finding, History

SIGMAS = 2.0  # a difference of so many standard errors is an improvement (2% by chance)
STEADY = 2.5  # Mann-Kendall's score of a descent: of six epochs, all but one pair in fifteen
SPIKE_HALF, SPIKE = 3, 5.0  # Hampel's filter, strict: the noise is told from few epochs
SMOOTHINGS = (0.6, 0.7, 0.8, 0.9)  # what is tried against spikes, gentlest first
PACE = 0.02  # share of the whole progress in an epoch: 50 epochs for all of it, worth waiting for
HORIZON, TRIALS = 30, 200  # imagined epochs and histories to see what noise alone does
OFTEN, SELDOM = 0.75, 0.1  # share of them that is cut: a problem; borne
PATIENCES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)  # what is tried for a patience that bears noise
MATERIAL = 0.01  # share of the progress that a descent must bring: a tail goes on for ever


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


def _cuts(cuts: list[int], came: str = "") -> str:
    """Name cuts, as the subject of a sentence where ``came`` is told."""
    noun = "cut" if len(cuts) == 1 else "cuts"
    if came:
        return f"{'A cut' if len(cuts) == 1 else 'Cuts'} {came} after {_epochs(cuts)}"
    return f"the {noun} after {_epochs(cuts)}"


def _numbered(cuts: list[int]) -> list[int]:
    return [cut + 1 for cut in cuts]


def outcomes(history: History) -> Iterator[Finding]:
    """What followed each recorded cut: medians before and after, against the noise of medians."""
    cuts, z, wait = history.recorded or [], history.oriented, history.patience + 1
    helped, useless = [], []
    for k, cut in enumerate(cuts):
        begin = max(cuts[k - 1] + 1 if k else 0, cut + 1 - wait)
        end = min([*cuts[k + 1 : k + 2], cut + 2 * wait, len(z) - 1]) + 1
        before, after = z[begin : cut + 1], z[cut + 1 : end]
        if len(after) < 3:
            continue
        gain = median_of(before) - median_of(after)
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
            f"After {_cuts(best)} the metric improved, by {median(gains):.3g} in "
            "the median, which is more than its noise.",
            {"epochs": _numbered(best), "gains": gains},
        )
    last = max([cut for cut, _ in helped], default=-1)
    wasted, ending = [c for c in useless if c < last], [c for c in useless if c > last]
    if wasted:
        yield Finding(
            "cut-useless",
            "question",
            f"No improvement beyond the noise followed {_cuts(wasted)}, and one "
            f"did follow a later cut: is factor={history.settings['factor']:g} too mild?",
            {"epochs": _numbered(wasted)},
        )
    if ending:
        yield Finding(
            "converged",
            "question",
            f"Nothing improved beyond the noise after {_cuts(ending)}, to the "
            f"last epoch, {len(z)}. Had training converged, or were the rates too low to go on?",
            {"epochs": _numbered(ending), "last_epoch": len(z)},
        )


def spike_cut(history: History, course: Course, cuts: list[int]) -> Iterator[Finding]:
    """Cuts that are not made once outliers since the last best value are put on their median."""
    tried = [each for each in SMOOTHINGS if each > history.settings["smoothing"]]
    spiked = _spiked(history, course, cuts)
    if not spiked or not tried:
        return
    far = _far_with(history, tried, _far_without_spikes(history, spiked))
    found: list[int] = []
    spikes: set[int] = set()
    needed = 0.0
    for cut, goods in far.items():
        enough = [each for each, good in zip(tried, goods, strict=True) if good]
        if enough:
            found.append(cut)
            spikes.update(spiked[cut].medians)
            needed = max(needed, enough[0])
    if found:
        came, besides = _would(history)
        yield Finding(
            "spike-cut",
            "problem",
            f"{_cuts(found, came)} because of odd values in {_epochs(sorted(spikes))}"
            f", more than {SPIKE:g} noises from their neighbours: with smoothing={needed:g} there "
            f"would have been none then.{besides}",
            {"epochs": _numbered(found), "spikes": _numbered(sorted(spikes)), "smoothing": needed},
        )


class _Spikes(NamedTuple):
    """Odd values in the epochs that led to a cut."""

    begin: int  # of these epochs
    medians: dict[int, float]  # what to put in place of them, by epoch


def _spiked(history: History, course: Course, cuts: list[int]) -> dict[int, _Spikes]:
    """Return the cuts that odd values led to. No two have an epoch in common."""
    better, reduced = course.improved.tolist(), set(course.reduced)
    found = {}
    for k, cut in enumerate(cuts):
        if cut not in reduced:  # by other settings than those given
            continue
        last = bisect_right(better, cut)
        best = better[last - 1] if last else 0
        begin = max(best, cuts[k - 1] + 1 if k else 0)  # a cut changes the noise
        noise = noise_of(history.oriented[max(0, begin - NEAR // 2) : cut + 1])
        first = max(0, begin - SPIKE_HALF)
        near = slice(first, cut + 1)
        odd = outliers_of(history.oriented[near], SPIKE_HALF, SPIKE, noise)
        middle = running_median(history.values[near], SPIKE_HALF).tolist()
        medians = {first + i: middle[i] for i in odd if first + i >= begin}
        if medians:
            found[cut] = _Spikes(begin, medians)
    return found


def _far_without_spikes(history: History, spiked: dict[int, _Spikes]) -> list[int]:
    """Return the cuts at which half of the patience would be left without their odd values.

    One lane goes through the history as it was. Another leaves it where the epochs of a cut begin,
    and takes the medians.
    """
    lanes = PlateauLanes(2, history.start_rate, **history.settings)
    begins = {each.begin for each in spiked.values()}
    ends = {cut + 1 for cut in spiked}
    without = history.values[: max(ends)].clone()
    for each in spiked.values():
        without[list(each.medians)] = torch.tensor(list(each.medians.values()), dtype=torch.float64)
    edges = sorted({*range(0, max(ends), PIECE), *begins, *ends})
    found = []
    for begin, end in pairwise(edges):
        if begin in begins:
            lanes.copy_lanes([0], [1])
        rows = torch.stack([history.values[begin:end], without[begin:end]], 1)
        last = Replay(lanes, rows, ("reduced", "num_bad_epochs"), threads=1)
        if end in ends and _is_far(last, history.patience)[-1, 1]:
            found.append(end - 1)
    return found


def _far_with(history: History, smoothings: list[float], cuts: list[int]) -> dict[int, list[bool]]:
    """Return for each cut with which of these smoothings half of the patience would be left."""
    settings = {**history.settings, "smoothing": smoothings}
    lanes = PlateauLanes(len(smoothings), history.start_rate, **settings)
    found: dict[int, list[bool]] = {}
    record = ("reduced", "num_bad_epochs")
    for begin, part in in_pieces(lanes, history.values, record, PIECE):
        far = _is_far(part, history.patience)
        found |= {cut: far[cut - begin].tolist() for cut in cuts if 0 <= cut - begin < part.epochs}
    return found


def _is_far(part: Replay, patience: int) -> Tensor:
    """Return whether an epoch cut nothing and left half of the patience, ``[epochs, lanes]``."""
    return ~part.reduced & (part.num_bad_epochs <= patience // 2)


def patience_below_noise(history: History, course: Course, cuts: list[int]) -> Iterator[Finding]:
    """Cuts that noise alone brings while a metric improves at a pace worth waiting for."""
    if not cuts:
        return
    z = history.oriented
    start, lows = median_of(z[:3]), lows_of(z, SMOOTH)
    found, noises, paces = [], [], []
    for cut in cuts:
        noise, low = history.noise_at(cut), lowest_of(z, lows, cut, SMOOTH)
        progress = start - low
        worse = median_of(z[max(0, cut - history.patience) : cut + 1]) - low
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
    dry = int(course.improved.diff().max()) - 1 if len(course.improved) > 1 else 0
    came, besides = _would(history)
    cure = f"patience={bears} bears it" if bears else "no patience up to 20 bears it: smooth it"
    yield Finding(
        "patience-below-noise",
        "problem",
        f"{_cuts(found, came)}, where the metric has a noise of {noise:.3g}: with "
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
    level = median_of(history.oriented[-5:])
    chance = torch.Generator().manual_seed(0)
    draw = torch.randn(HORIZON, TRIALS, generator=chance, dtype=torch.float64)
    line = level + pace * torch.arange(HORIZON, 0, -1)
    imagined = replay(
        sign * (line[:, None] + noise * draw.repeat(1, len(patiences))),
        **{
            **history.settings,
            "patience": torch.tensor(patiences).repeat_interleave(TRIALS),
            "min_lr": 0.0,
        },
    )
    cut = (imagined.num_reductions > 0).double().view(len(patiences), TRIALS).mean(1)
    shares: list[float] = cut.tolist()
    return shares


def cut_while_improving(history: History, cuts: list[int]) -> Iterator[Finding]:
    """Cuts whose own run of bad steps, with the epoch before it, is a clear descent."""
    found, slopes, start = [], [], median_of(history.oriented[:3])
    for cut in cuts:
        run = history.oriented[max(0, cut + 1 - max(6, history.patience + 2)) : cut + 1]
        if len(run) < 6:
            continue
        slope = slope_of(run)
        lowest = float(running_median(run, SMOOTH).min())
        size = max(CLEAR * noise_of(run), MATERIAL * (start - lowest))
        if trend_of(run) < -STEADY and -slope * len(run) > size:
            found.append(cut)
            slopes.append(-slope)
    if found:
        came, besides = _would(history)
        threshold = history.settings["threshold"]
        yield Finding(
            "cut-while-improving",
            "problem",
            f"{_cuts(found, came)} while the metric still improved, by "
            f"{median(slopes):.3g} an epoch: threshold={threshold:g} is too large or "
            f"patience={history.patience} too short to see it.{besides}",
            {"epochs": _numbered(found), "slopes": slopes},
        )
