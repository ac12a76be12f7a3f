"""The statistics behind :func:`diagnose`: textbook definitions that single odd values do not move.

All take plain lists of finite numbers, lower being better where it matters.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import median

Numbers = Sequence[float]

# A normal distribution's standard deviation over its median absolute deviation (Hampel 1974).
MAD_TO_SIGMA = 1.4826
# The same over that of a median: a median of n varies by this times sigma / sqrt(n).
MEDIAN_ERROR = math.sqrt(math.pi / 2)


def noise_of(values: Numbers) -> float:
    """Estimate the standard deviation of the noise on a smooth course; 0 for fewer than 3 values.

    Each value less the mean of its neighbours has no trend left and 1.5 times the variance (Gasser,
    Sroka and Jennen-Steinmetz 1986); the median of their sizes ignores spikes. A slow drift of
    many epochs counts as course, not as noise.
    """
    residuals = [
        abs((before + after) / 2 - value)
        for before, value, after in zip(values, values[1:], values[2:], strict=False)
    ]
    return MAD_TO_SIGMA * median(residuals) / math.sqrt(1.5) if residuals else 0.0


def slope_of(values: Numbers) -> float:
    """Return the median slope over all pairs, a step apart by one (Theil 1950, Sen 1968)."""
    pairs = combinations(enumerate(values), 2)
    return median([(later - early) / (j - i) for (i, early), (j, later) in pairs])


def trend_of(values: Numbers) -> float:
    """Return the Mann-Kendall score: above 0 rising, in standard deviations of no trend at all.

    Counts pairs that rise less pairs that fall (Mann 1945, Kendall 1975), corrected for ties and
    for continuity. Slow drift makes it larger than chance would: ask for the size too.
    """
    n, balance = len(values), _rises_less_falls(values)
    ties = Counter(values).values()
    variance = n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)
    if variance == 0 or balance == 0:
        return 0.0
    return math.copysign(abs(balance) - 1, balance) / math.sqrt(variance / 18)


def _rises_less_falls(values: Numbers) -> int:
    """Count pairs that rise less pairs that fall, in n log n.

    A binary indexed tree (Fenwick 1994) keeps how many values of each rank came before.
    """
    rank = {value: i for i, value in enumerate(sorted(set(values)), 1)}
    tree = [0] * (len(rank) + 1)

    def seen_up_to(i: int) -> int:
        total = 0
        while i:
            total += tree[i]
            i &= i - 1
        return total

    balance = 0
    for before, value in enumerate(values):
        i = rank[value]
        balance += seen_up_to(i - 1) + seen_up_to(i) - before
        while i < len(tree):
            tree[i] += 1
            i += i & -i
    return balance


def running_median(values: Numbers, half: int) -> list[float]:
    """Return the median of ``half`` neighbours on each side; fewer, but as many, near the ends."""
    last = len(values) - 1
    reach = [min(half, i, last - i) for i in range(len(values))]
    return [median(values[i - k : i + k + 1]) for i, k in enumerate(reach)]


def lowest_of(values: Numbers, lows: Numbers, end: int, half: int) -> float:
    """Return the least running median of ``values[: end + 1]``.

    ``lows`` are the least ones so far of the medians of all ``values``: those near ``end`` reach
    beyond it, and are taken again.
    """
    near = running_median(values[max(0, end + 1 - 2 * half) : end + 1], half)[-half:]
    return min([*near, *lows[max(0, end - half) : end - half + 1]])


def outliers_of(values: Numbers, half: int, sigmas: float, noise: float) -> list[int]:
    """Return where values are further than ``sigmas`` noises from their running median (Hampel)."""
    middle = running_median(values, half)
    return [
        i for i, value in enumerate(values) if noise > 0 and abs(value - middle[i]) > sigmas * noise
    ]


def correlation_of(a: Numbers, b: Numbers) -> float:
    """Return Spearman's rank correlation: 0 where one of them does not vary."""
    p, q = _ranks_of(a), _ranks_of(b)
    middle = len(a) / 2
    products = [
        sum((x - middle) * (y - middle) for x, y in zip(*pair, strict=True))
        for pair in ((p, q), (p, p), (q, q))
    ]
    together, first, second = products
    return together / math.sqrt(first * second) if first * second > 0 else 0.0


def _ranks_of(values: Numbers) -> list[float]:
    """Return how many values are below each one, with half of those that are equal to it."""
    order = sorted(values)
    return [(bisect_left(order, x) + bisect_right(order, x)) / 2 for x in values]
