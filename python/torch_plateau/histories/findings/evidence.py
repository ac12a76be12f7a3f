"""The statistics behind :func:`diagnose`: textbook definitions that single odd values do not move.

All take vectors of finite float64 numbers, lower being better where it matters. What they take
beside these is a few times as much at most, however long they are.
"""

from __future__ import annotations

import math
from itertools import combinations
from statistics import median

import torch
from torch import Tensor

# A normal distribution's standard deviation over its median absolute deviation (Hampel 1974).
MAD_TO_SIGMA = 1.4826
# The same over that of a median: a median of n varies by this times sigma / sqrt(n).
MEDIAN_ERROR = math.sqrt(math.pi / 2)
PIECE = 1 << 18  # values that are looked at together, where each takes several others along


def median_of(values: Tensor) -> float:
    """Return the median, of an even number of values the mean of the two in the middle."""
    size = len(values)
    middle = [size // 2 + 1] if size % 2 else [size // 2, size // 2 + 1]
    total: float = sum(values.kthvalue(k).values.item() for k in middle)
    return total / len(middle)


def noise_of(values: Tensor) -> float:
    """Estimate the standard deviation of the noise on a smooth course; 0 for fewer than 3 values.

    Each value less the mean of its neighbours has no trend left and 1.5 times the variance (Gasser,
    Sroka and Jennen-Steinmetz 1986); the median of their sizes ignores spikes. A slow drift of
    many epochs counts as course, not as noise.
    """
    if len(values) < 3:
        return 0.0
    residuals = (values[:-2] + values[2:]).div_(2).sub_(values[1:-1]).abs_()
    return MAD_TO_SIGMA * median_of(residuals) / math.sqrt(1.5)


def slope_of(values: Tensor) -> float:
    """Return the median slope over all pairs, a step apart by one (Theil 1950, Sen 1968)."""
    pairs = combinations(enumerate(values.tolist()), 2)
    slopes: list[float] = [(later - early) / (j - i) for (i, early), (j, later) in pairs]
    return median(slopes)


def trend_of(values: Tensor) -> float:
    """Return the Mann-Kendall score: above 0 rising, in standard deviations of no trend at all.

    Counts pairs that rise less pairs that fall (Mann 1945, Kendall 1975), corrected for ties and
    for continuity. Slow drift makes it larger than chance would: ask for the size too.
    """
    n = len(values)
    ordered = values.sort(stable=True)
    falls = _inversions_of(ordered.indices)
    times = ordered.values.unique_consecutive(return_counts=True)[1].unique(return_counts=True)
    ties = list(zip(*(each.tolist() for each in times), strict=True))  # how many, how often
    balance = n * (n - 1) // 2 - sum(k * (t * (t - 1) // 2) for t, k in ties) - 2 * falls
    variance = n * (n - 1) * (2 * n + 5) - sum(k * t * (t - 1) * (2 * t + 5) for t, k in ties)
    if variance == 0 or balance == 0:
        return 0.0
    return math.copysign(abs(balance) - 1, balance) / math.sqrt(variance / 18)


def _inversions_of(order: Tensor) -> int:
    """Count the pairs of a permutation of ``range(n)`` whose larger number comes first.

    Numbers are sorted by one bit after another, from the highest on. Those that share all bits
    above it stand together, as many of each kind; in these rows each one before a zero counts.
    """
    bits = max(len(order) - 1, 1).bit_length()
    whole = torch.arange(1 << bits, dtype=torch.int32)  # more numbers at the end invert nothing
    whole[: len(order)] = order
    count = 0
    for bit in reversed(range(bits)):
        half, rows = 1 << bit, 1 << (bits - 1 - bit)
        ones = (whole & half).bool()
        zeros = (~ones).nonzero().flatten()
        count += int((zeros & (2 * half - 1)).sum()) - rows * (half * (half - 1) // 2)
        whole = torch.stack([whole[zeros].view(rows, half), whole[ones].view(rows, half)], 1)
        whole = whole.flatten()
    return count


def running_median(values: Tensor, half: int) -> Tensor:
    """Return the median of ``half`` neighbours on each side; fewer, but as many, near the ends."""
    size, found = len(values), values.clone()
    for k in range(1, min(half, (size - 1) // 2) + 1):
        found[k] = values[: 2 * k + 1].median()
        found[size - 1 - k] = values[size - 1 - 2 * k :].median()
    for begin in range(half + 1, size - 1 - half, PIECE):
        end = min(begin + PIECE, size - 1 - half)
        windows = values[begin - half : end + half].unfold(0, 2 * half + 1, 1)
        found[begin:end] = windows.median(1).values
    return found


def lows_of(values: Tensor, half: int) -> Tensor:
    """Return the least running median so far at each place."""
    found, low = running_median(values, half), torch.tensor(math.inf)
    for piece in found.split(PIECE):
        piece.copy_(piece.cummin(0).values.clamp(max=low))
        low = piece[-1]
    return found


def lowest_of(values: Tensor, lows: Tensor, end: int, half: int) -> float:
    """Return the least running median of ``values[: end + 1]``.

    ``lows`` are those of all ``values``, of which the medians near ``end`` reach beyond it, and
    are taken again.
    """
    near = running_median(values[max(0, end + 1 - 2 * half) : end + 1], half)[-half:]
    return float(torch.cat([near, lows[max(0, end - half) : max(0, end - half + 1)]]).min())


def outliers_of(values: Tensor, half: int, sigmas: float, noise: float) -> list[int]:
    """Return where values are further than ``sigmas`` noises from their running median (Hampel)."""
    far = (values - running_median(values, half)).abs_() > sigmas * noise
    return places_of(far) if noise > 0 else []


def places_of(there: Tensor) -> list[int]:
    """Return where a mask is set."""
    found: list[int] = there.nonzero().flatten().tolist()
    return found


def correlation_of(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation: 0 where one of them does not vary."""
    p, q = _ranks_of(a), _ranks_of(b)
    together, first, second = (float(one @ other) for one, other in ((p, q), (p, p), (q, q)))
    return together / math.sqrt(first * second) if first * second > 0 else 0.0


def _ranks_of(values: Tensor) -> Tensor:
    """Return how many values are below each one, with half of those equal to it, less the mean."""
    order = values.sort().values
    ranks = torch.searchsorted(order, values) + torch.searchsorted(order, values, right=True)
    return ranks.double() / 2 - len(values) / 2
