"""The statistics behind diagnose, against their definitions in plain Python."""

import math
from itertools import combinations
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import EXAMPLES
from torch_plateau.histories.findings import evidence

SERIES = st.lists(st.integers(-20, 20).map(lambda i: i / 7), min_size=1, max_size=40)


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "PIECE", 3)
        yield


def sign(x):
    return (x > 0) - (x < 0)


def medians(values, half):
    last = len(values) - 1
    reach = [min(half, i, last - i) for i in range(len(values))]
    return [median(values[i - k : i + k + 1]) for i, k in enumerate(reach)]


def ranks(values):
    return [sum(y < x for y in values) + sum(y == x for y in values) / 2 for x in values]


@given(SERIES, st.integers(1, 3))
@settings(EXAMPLES, max_examples=40)
def test_medians_are_those_of_python(values, half):
    z = torch.tensor(values, dtype=torch.float64)
    middle = medians(values, half)
    assert evidence.median_of(z) == median(values)
    assert evidence.running_median(z, half).tolist() == middle
    lows = evidence.lows_of(z, half)
    assert lows.tolist() == [min(middle[: i + 1]) for i in range(len(middle))]
    for end in range(half, len(values)):
        lowest = evidence.lowest_of(z, lows, end, half)
        assert lowest == min(medians(values[: end + 1], half))
    noise = [abs((a + c) / 2 - b) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    wanted = 1.4826 * median(noise) / math.sqrt(1.5) if noise else 0.0
    assert evidence.noise_of(z) == wanted
    far = [i for i, x in enumerate(values) if abs(x - middle[i]) > 0.5]
    assert evidence.outliers_of(z, half, 5.0, 0.1) == far


@given(SERIES)
@settings(EXAMPLES, max_examples=40)
def test_a_trend_counts_all_pairs(values):
    n = len(values)
    balance = sum(sign(b - a) for a, b in combinations(values, 2))
    ties = [values.count(x) for x in set(values)]
    variance = n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)
    wanted = (balance - sign(balance)) / math.sqrt(variance / 18) if variance else 0.0
    assert evidence.trend_of(torch.tensor(values, dtype=torch.float64)) == wanted


@given(SERIES, st.randoms(use_true_random=False))
@settings(EXAMPLES, max_examples=40)
def test_a_correlation_is_that_of_ranks(values, random):
    others = random.sample(values, len(values))
    p, q = ([x - len(values) / 2 for x in ranks(each)] for each in (values, others))
    size = math.sqrt(sum(x * x for x in p) * sum(x * x for x in q))
    wanted = sum(x * y for x, y in zip(p, q, strict=True)) / size if size else 0.0
    given_ones = (torch.tensor(each, dtype=torch.float64) for each in (values, others))
    assert evidence.correlation_of(*given_ones) == pytest.approx(wanted)
