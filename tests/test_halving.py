"""Halving: the worst lanes are finished, as sorted() in plain Python ranks them."""

import math
import random

import pytest
import torch

from test_bad_input import contents
from torch_plateau import PlateauLanes

NAN = float("nan")
NUMBERS = [0.0, -0.0, 0.25, 0.5, 0.5, 1.0, -1.0, math.inf, -math.inf, NAN]


def left_of(metrics, live, mode, keep):
    """The lanes that stay, by Python's own sorting."""

    def rank(lane):
        metric = metrics[lane]
        return (math.isnan(metric), 0 if math.isnan(metric) else metric * (-1) ** (mode == "max"))

    ranking = sorted(live, key=rank)  # which is stable: ties by number
    return sorted(ranking[: max(1, round(len(live) * keep))])


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("settings", [{}, {"max_reductions": 2}, {"nan": "freeze"}])
def test_the_lanes_that_sorted_ranks_last_are_finished(mode, settings, device):
    chance, halved = random.Random(1), 0
    for _ in range(60):
        n = chance.randint(0, 30)
        lanes = PlateauLanes(n, 0.1, mode=mode, patience=0, device=device, **settings)
        while True:
            row = [chance.choice(NUMBERS) for _ in range(n)]
            metrics = torch.tensor(row, dtype=torch.float64, device=device)
            lanes.step(metrics)
            before = lanes.finished.tolist()
            live = [lane for lane in range(n) if not before[lane]]
            keep = chance.choice([1 / 3, 0.5, 0.25, 0.9, 1.0])
            found = lanes.halve(metrics, keep)
            stay = left_of(row, live, mode, keep)
            assert [lane for lane in range(n) if not lanes.finished[lane]] == stay
            gone = found.nonzero().flatten().tolist()
            assert gone == [lane for lane in live if lane not in stay]
            halved += len(gone)
            if len(stay) <= 1:
                break
    assert halved > 200


def test_rungs_of_successive_halving_leave_the_best(device):
    lanes = PlateauLanes(27, 0.1, device=device)
    order = torch.randperm(27).to(device)
    left = []
    for _ in range(4):
        lanes.step(order.double())
        lanes.halve(order.double(), keep=1 / 3)
        left.append((~lanes.finished).sum().item())
    assert left == [9, 3, 1, 1]
    assert order[~lanes.finished].tolist() == [0]


def test_steps_pass_halved_lanes_by_until_they_are_reset_or_copied_over(device):
    lanes = PlateauLanes(4, 0.1, patience=0, device=device)  # no optional parts: no flags so far
    row = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, device=device)
    twin = PlateauLanes(4, 0.1, patience=0, device=device)
    for each in (lanes, twin):
        each.step(row)
    assert lanes.halve(row).tolist() == [False, False, True, True]
    for _ in range(2):
        lanes.step(row)
        twin.step(row)
    assert lanes.lr_master.tolist() == [*twin.lr_master.tolist()[:2], 0.1, 0.1]
    assert lanes.num_reductions.tolist() == [2, 2, 0, 0]
    lanes.reset([2])
    lanes.copy_lanes([0], [3])
    assert not lanes.finished.any()
    assert lanes.settings["nan"] == ["bad"] * 4


def test_halved_lanes_are_saved_and_joined_by_others(device):
    lanes = PlateauLanes(3, 0.1, device=device)
    lanes.halve(torch.tensor([3.0, 1.0, 2.0], device=device), keep=0.3)
    other = PlateauLanes(3, 0.2, device=device)
    other.load_state_dict(lanes.state_dict())
    other.append(2, 0.5)
    assert other.finished.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("settings", "arguments", "error", "words"),
    [
        ({"mode": ["min", "max"]}, ([1.0, 2.0],), ValueError, "mode: expected one for all lanes"),
        ({}, ([1.0, 2.0], 0.0), ValueError, "keep: expected above 0 and at most 1, got 0"),
        ({}, ([1.0, 2.0], 1.5), ValueError, "keep: expected above 0 and at most 1, got 1.5"),
        ({}, ([1.0, 2.0], NAN), ValueError, "keep: .*got nan"),
        ({}, ([1.0, 2.0], "half"), TypeError, "keep: expected one number"),
        ({}, ([1.0, 2.0], torch.ones(2)), ValueError, r"keep: .*got shape \(2,\)"),
        ({}, ([1.0],), ValueError, r"metrics: expected shape \(2,\)"),
        ({}, (["a", "b"],), TypeError, "metrics: expected"),
    ],
)
def test_what_cannot_be_ranked_is_refused_and_changes_nothing(settings, arguments, error, words):
    lanes = PlateauLanes(2, 0.1, **settings)
    before = contents(lanes)
    with pytest.raises(error, match=words):
        lanes.halve(*arguments)
    assert contents(lanes) == before
