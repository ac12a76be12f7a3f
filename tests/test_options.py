"""The optional parts of lanes: each alone and together as tests/oracle.py says, bit for bit."""

import copy
import io
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import AVERAGES, EXAMPLES, FEATURES, SEEDS, SPECIAL, plain_settings
from oracle import OneLane, TorchLanes, assert_same_state, same_bits
from torch_plateau import PlateauLanes


class Run:
    """A batch of lanes and, beside it, an oracle for each of them."""

    def __init__(self, seed, features, device):
        r = self.random = random.Random(seed)
        self.masked = "mask" in features
        self.capacity = r.randrange(1, 30) if "events" in features else 0
        n = r.randrange(1, 9)
        uniform = r.random() < 0.3
        counts = [r.randrange(4) if self.random.random() < 0.3 else 1 for _ in range(n)]
        if uniform or r.random() < 0.5:
            counts = [1] * n
        self.lanes_settings = []
        for count in counts:
            chosen = plain_settings(r, count)
            for feature in features:
                chosen.update(FEATURES[feature](r))
            self.lanes_settings.append(chosen)
        if uniform:
            self.lanes_settings = [self.lanes_settings[0]] * n
        rates = [[r.choice([0.1, 1.0, 1e-3, 0.0]) for _ in range(count)] for count in counts]
        self.groups = None if set(counts) == {1} else counts
        self.dtype = torch.float64
        if not AVERAGES & set(features) and r.random() < 0.5:
            self.dtype = torch.float32
        self.device = device
        self.uniform = uniform
        self.lanes = self.built([rate for each in rates for rate in each])
        self.oracles = [
            OneLane(rate, **chosen) for rate, chosen in zip(rates, self.lanes_settings, strict=True)
        ]
        self.first_group = [sum(counts[:lane]) for lane in range(n)]
        self.events = []
        some = [*r.sample(SPECIAL, 2), r.uniform(-1, 1), r.uniform(-1, 1)]
        self.alphabet = torch.tensor(some, dtype=self.dtype).tolist()

    def built(self, rates):
        first, counts = self.lanes_settings[0], self.groups or [1] * len(self.lanes_settings)
        if self.uniform:
            keywords = dict(first)
        else:
            keywords = {name: [each[name] for each in self.lanes_settings] for name in first}
            floors = [
                floor if isinstance(floor, list) else [floor] * count
                for floor, count in zip(keywords["min_lr"], counts, strict=True)
            ]
            keywords["min_lr"] = [floor for each in floors for floor in each]
            keywords |= {name: first[name] for name in ("rule",) if name in first}
        if self.uniform and isinstance(first["min_lr"], list):
            keywords["min_lr"] = first["min_lr"] * len(counts)
        return PlateauLanes(
            len(counts),
            rates,
            groups=self.groups,
            dtype=self.dtype,
            device=self.device,
            events=self.capacity,
            **keywords,
        )

    def step(self):
        r, n = self.random, len(self.oracles)
        metrics = [
            r.choice(self.alphabet) if r.random() < 0.7 else r.uniform(-1, 1) for _ in range(n)
        ]
        metrics = torch.tensor(metrics, dtype=self.dtype)
        mask = torch.tensor([r.random() < 0.7 for _ in range(n)]) if self.masked else None
        self.lanes.step(metrics.to(self.device), None if mask is None else mask.to(self.device))
        active = [True] * n if mask is None else mask.tolist()
        for lane, oracle in enumerate(self.oracles):
            seen = len(oracle.events)
            oracle.step(metrics.tolist()[lane], active[lane])
            self.events += [
                (lane, self.first_group[lane] + group, *rest)
                for group, *rest in oracle.events[seen:]
            ]

    def resume(self):
        """The same lanes by way of a file, into lanes that were built with other settings."""
        file = io.BytesIO()
        torch.save(self.lanes.state_dict(), file)
        file.seek(0)
        n = len(self.oracles)
        self.lanes = PlateauLanes(
            n, 0.7, groups=self.groups, dtype=self.dtype, device=self.device, events=self.capacity
        )
        self.lanes.load_state_dict(torch.load(file, weights_only=True))

    def check(self):
        lanes, oracles = self.lanes, self.oracles
        rates = [rate for oracle in oracles for rate in oracle.rates]
        published = [rate for oracle in oracles for rate in oracle.published]
        assert same_bits(lanes.best.double().cpu(), [oracle.best for oracle in oracles])
        assert same_bits(lanes.lr_master.cpu(), rates)
        assert torch.equal(lanes.lr.cpu(), torch.tensor(published, dtype=torch.float64).float())
        for name in (
            "num_bad_epochs",
            "cooldown_counter",
            "improved",
            "reduced",
            "raised",
            "num_reductions",
            "num_increases",
            "finished",
            "at_min_lr",
        ):
            assert getattr(lanes, name).tolist() == [getattr(each, name) for each in oracles], name
        assert lanes.last_reduction.tolist() == [each.last_reduction for each in oracles]
        assert lanes.stop_reasons() == [each.stop_reason for each in oracles]
        if "best_step" in lanes.state_dict()["options"]:
            assert lanes.best_step.tolist() == [each.best_step for each in oracles]
        if self.capacity:
            self.check_events()

    def check_events(self):
        cuts, overwritten = self.lanes.events()
        assert len(cuts) + overwritten == len(self.events)
        assert overwritten == max(len(self.events) - max(self.capacity, len(self.lanes.lr)), 0)
        expected = self.events[overwritten:]
        if self.device != "cpu":  # those of one step come in any order
            cuts, expected = sorted(cuts, key=repr), sorted(map(tuple, expected), key=repr)
        assert [cut[:3] for cut in cuts] == [tuple(cut[:3]) for cut in expected]
        assert same_bits(
            [value for cut in cuts for value in cut[3:]],
            [value for cut in expected for value in cut[3:]],
        )


def check_run(seed, features, device, steps):
    run = Run(seed, features, device)
    run.check()
    resume_at, copy_at = (run.random.randrange(steps) for _ in range(2))
    for step in range(steps):
        if step == resume_at:
            run.resume()
            run.check()
        if step == copy_at:
            run.lanes = copy.deepcopy(run.lanes)
        run.step()
        run.check()
    assert run.lanes.num_steps == steps


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_alone_is_as_the_oracle_says(feature, device):
    EXAMPLES(given(SEEDS)(lambda seed: check_run(seed, [feature], device, 30)))()


def test_any_features_together_are_as_the_oracle_says(device, request):
    asked = request.config.getoption("--lane-steps") // 5000

    def check(seed, features):
        check_run(seed, sorted(features), device, 60)

    features = st.sets(st.sampled_from(list(FEATURES)), min_size=2)
    settings(EXAMPLES, max_examples=max(asked, 10))(given(SEEDS, features)(check))()


# -- worked by hand -------------------------------------------------------------------------------


def trace(metrics, device="cpu", read=lambda lanes: lanes.lr_master.item(), **keywords):
    """What one lane reads after each metric: its rate, unless told."""
    keywords = {"factor": 0.5, "patience": 0, "threshold": 0.0, "eps": 0.0, **keywords}
    lanes = PlateauLanes(1, 1.0, device=device, **keywords)
    return [
        (lanes.step(torch.tensor([metric], device=device).double()), read(lanes))[1]
        for metric in metrics
    ]


def best(lanes):
    return lanes.best.item()


@pytest.mark.parametrize(("mode", "metric"), [("min", -1.0), ("max", -1.0), ("min", 1.0)])
def test_rel_safe_cuts_a_constant_metric_of_either_sign(mode, metric, device):
    rates = trace([metric] * 4, device, mode=mode, threshold=0.1, threshold_mode="rel_safe")
    assert rates == [1.0, 0.5, 0.25, 0.125]


def test_rel_never_cuts_a_constant_negative_metric(device):
    assert trace([-1.0] * 4, device, threshold=0.1) == [1.0] * 4


def test_a_nan_is_bad_skipped_cut_or_frozen(device):
    metrics = [3.0, math.nan, 3.0, 3.0]
    rates = {
        nan: trace(metrics, device, patience=1, nan=nan) for nan in ("bad", "skip", "cut", "freeze")
    }
    assert rates == {
        "bad": [1.0, 1.0, 0.5, 0.5],
        "skip": [1.0, 1.0, 1.0, 0.5],
        "cut": [1.0, 0.5, 0.5, 0.25],
        "freeze": [1.0, 1.0, 1.0, 1.0],
    }


def test_a_lane_that_is_nan_at_its_floor_finishes(device):
    kept = {"nan": "cut", "min_lr": 0.5, "patience_at_min": 2}
    done = trace([math.nan] * 4, device, lambda lanes: lanes.finished.item(), **kept)
    assert done == [False, False, True, True]


def test_keras_counts_the_step_on_which_a_cooldown_ends(device):
    bad = [1.0] + [2.0] * 8
    ways = {
        way: trace(bad, device, patience=2, cooldown=2, counting=way)
        for way in ("torch", "optax", "keras")
    }
    assert ways == {
        "torch": [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25],
        "optax": [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25],
        "keras": [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125],
    }


def test_a_warm_up_rises_in_a_line_and_counts_nothing_bad(device):
    kept = {"warmup_steps": 4, "warmup_start_factor": 0.2, "patience": 1}
    rates = trace([1.0] * 8, device, lambda lanes: round(lanes.lr.item(), 6), **kept)
    assert rates == [0.4, 0.6, 0.8, 1.0, 1.0, 0.5, 0.5, 0.25]
    begin = PlateauLanes(1, 1.0, device=device, warmup_steps=4, warmup_start_factor=0.25)
    assert begin.lr.item() == 0.25


def test_a_warm_up_is_resumed_to_the_last_bit(device):
    kept = {"warmup_steps": [20] * 50, "warmup_start_factor": 0.1}
    lanes = PlateauLanes(50, torch.linspace(0.1, 1, 50).double(), device=device, **kept)
    for _ in range(21):
        lanes.step(torch.zeros(50, device=device))
        other = PlateauLanes(50, 0.7, device=device)
        other.load_state_dict(lanes.state_dict())
        assert torch.equal(other.lr, lanes.lr)


def test_averages_are_what_they_are_called(device):
    metrics = [4.0, 2.0, 3.0, 0.0]
    assert trace(metrics, device, best, accumulate=2) == [math.inf, 3.0, 3.0, 1.5]
    assert trace(metrics, device, best, window=2) == [4.0, 3.0, 2.5, 1.5]
    # 2 / (1/2), (1 + 1) / (3/4), (1 + 3/2) / (7/8) is no better, (5/4) / (15/16)
    smooth = trace(metrics, device, best, smoothing=0.5)
    assert smooth == [4.0, 2.0 / 0.75, 2.0 / 0.75, 1.25 / 0.9375]


def test_an_infinite_metric_does_not_stay_in_a_smooth_average(device):
    rates = trace([4.0, math.inf, 2.0, 1.0], device, best, smoothing=0.5)
    assert rates == [4.0, 4.0, 2.0 / 0.75, 1.5 / 0.875]


def test_a_lane_is_finished_after_its_last_cut_or_at_its_floor(device):
    def finished(lanes):
        return lanes.finished.item()

    assert trace([1.0] * 4, device, finished, max_reductions=2) == [False, False, True, True]
    floored = trace([1.0] * 5, device, finished, min_lr=0.5, patience_at_min=2)
    assert floored == [False, False, False, True, True]


def test_a_mask_of_all_true_is_no_mask(device):
    r = random.Random(5)
    chosen = [plain_settings(r, 1) | {"min_lr": 0.01} for _ in range(20)]
    keywords = {name: [each[name] for each in chosen] for name in chosen[0]}
    plain, masked = (PlateauLanes(20, 0.1, device=device, **keywords) for _ in range(2))
    oracle = TorchLanes([[0.1]] * 20, chosen)
    for _ in range(60):
        row = [r.choice([math.nan, 0.5, -0.5, r.uniform(-1, 1)]) for _ in range(20)]
        metrics = torch.tensor(row, dtype=torch.float64, device=device)
        assert torch.equal(plain.step(metrics), masked.step(metrics, [True] * 20))
        oracle.step(row)
        assert_same_state(plain, oracle)
        assert_same_state(masked, oracle)


def test_plain_lanes_know_their_last_reduction(device):
    lanes = PlateauLanes(3, 0.1, device=device, patience=0)
    assert lanes.last_reduction.tolist() == [0, 0, 0]
    for metrics in ([1.0, 1.0, 1.0], [2.0, 0.5, 2.0], [2.0, 0.25, 1.0], [0.5, 0.5, 0.5]):
        lanes.step(metrics)
    assert lanes.last_reduction.tolist() == [3, 4, 3]


def test_a_lane_is_not_cut_before_its_minimum_of_steps_and_then_at_once_if_it_is_due():
    assert trace([1.0] * 7, min_steps=5) == [1.0] * 4 + [0.5, 0.25, 0.125]
    late = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert trace(late, patience=1, min_steps=4) == [1.0] * 5 + [0.5]
    nan = [1.0, math.nan, math.nan, math.nan]
    assert trace(nan, nan="cut", patience=9, min_steps=4) == [1.0] * 3 + [0.5]


def test_a_shorter_window_than_the_longest_so_far_is_saved(device):
    lanes = PlateauLanes(2, 0.1, device=device, window=3)
    lanes.step([1.0, 2.0])
    lanes.set_lanes([0, 1], window=2)
    other = PlateauLanes(2, 0.1, device=device)
    other.load_state_dict(lanes.state_dict())
    for each in (lanes, other):
        each.step([3.0, 1.0])
        each.step([0.0, 0.0])
    assert other.best.tolist() == lanes.best.tolist() == [1.0, 0.5]
