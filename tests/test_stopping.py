"""Stopping, per lane: as Lightning's EarlyStopping, as pytabkit's rule, and worked by hand."""

import math
import random
import sys
from collections import Counter

import pytest
import torch
from lightning.pytorch.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason

from features import plain_settings
from torch_plateau import STOP_REASONS, PlateauLanes, replay

WORDS = {
    EarlyStoppingReason.NOT_STOPPED: None,
    EarlyStoppingReason.STOPPING_THRESHOLD: "target",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "diverged",
    EarlyStoppingReason.NON_FINITE_METRIC: "diverged",
    EarlyStoppingReason.PATIENCE_EXHAUSTED: "patience",
}
NAN, INF = math.nan, math.inf
GRID = [i / 8 for i in range(-24, 25)]  # sums and differences of these are exact


def lightning_settings(r, guarded, bounded, target):
    """Arguments of an EarlyStopping; ``guarded``: it asks whether metrics are finite."""
    return {
        "mode": r.choice(["min", "max"]),
        "min_delta": r.choice([0.0, 0.125, 0.25, 0.5]),
        "patience": r.choice([0, 1, 2, 3, 5, 8, 60, 60]),
        "check_finite": guarded,
        "stopping_threshold": r.choice([*GRID, -9.0, 9.0]) if target else None,
        "divergence_threshold": r.choice([*GRID, -9.0, 9.0]) if bounded else None,
    }


def lanes_that_stop_so(r, stoppers, device):
    """Lanes with these rules of stopping, beside plateaus with rules of their own.

    With a ``diverge_at`` lanes ask whether metrics are finite too.
    """
    keywords = {
        "stop_patience": [each.patience for each in stoppers],
        "stop_threshold": [abs(each.min_delta) for each in stoppers],
    }
    if stoppers[0].stopping_threshold is not None:
        keywords["stop_at"] = [each.stopping_threshold for each in stoppers]
    if stoppers[0].check_finite or stoppers[0].divergence_threshold is not None:
        most = sys.float_info.max
        keywords["diverge_at"] = [
            (most if each.mode == "min" else -most)
            if each.divergence_threshold is None
            else each.divergence_threshold
            for each in stoppers
        ]
    plateaus = [plain_settings(r, 1) | {"mode": each.mode, "min_lr": 0.0} for each in stoppers]
    keywords |= {name: [each[name] for each in plateaus] for name in plateaus[0]}
    return PlateauLanes(len(stoppers), 0.1, device=device, **keywords)


def test_every_lane_stops_when_and_why_lightnings_early_stopping_does(device):
    heard = Counter()
    for seed in range(24):
        r = random.Random(seed)
        guarded, bounded, target = (bool(seed >> bit & 1) for bit in range(3))
        stoppers = [
            EarlyStopping("metric", **lightning_settings(r, guarded, bounded, target))
            for _ in range(40)
        ]
        lanes = lanes_that_stop_so(r, stoppers, device)
        odd = [] if bounded and not guarded else [NAN, INF, -INF]
        going_on = set(range(len(stoppers)))
        for _ in range(40):
            metrics = [r.choice(odd if odd and r.random() < 0.04 else GRID) for _ in stoppers]
            metrics = torch.tensor(metrics, dtype=torch.float64)
            for lane in sorted(going_on):
                stop, _ = stoppers[lane]._evaluate_stopping_criteria(metrics[lane])
                going_on -= {lane} if stop else set()
            lanes.step(metrics.to(device))
            assert lanes.stop_reasons() == [WORDS[each.stopping_reason] for each in stoppers]
            assert lanes.finished.tolist() == [i not in going_on for i in range(len(stoppers))]
        heard.update(each.stopping_reason for each in stoppers)
    assert all(heard[reason] > 20 for reason in EarlyStoppingReason), heard


def pytabkits_last_epoch(errors, mult, add):
    """The last epoch whose error counts, and the best one.

    ``current_epoch > mult * best_epoch + add`` ends it, before the error of that epoch is read.
    """
    best, best_epoch = INF, 0
    for epoch, error in enumerate([*errors, None], 1):
        if epoch > mult * best_epoch + add:
            return epoch - 1, best_epoch
        if error is not None and error < best:
            best, best_epoch = error, epoch
    return None, best_epoch


def test_every_lane_stops_by_a_multiple_of_its_best_epoch_as_pytabkit_does(device):
    stopped = 0
    for seed in range(20):
        r = random.Random(seed)
        rules = [
            (r.choice([1, 1.3, 1.5, 2, 3, 1 + r.random()]), r.randrange(1, 12)) for _ in "x" * 50
        ]
        histories = [
            [r.random() / (1 + epoch / r.choice([5, 50, 500])) for epoch in range(60)]
            for _ in rules
        ]
        mults, adds = zip(*rules, strict=True)
        lanes = PlateauLanes(
            50, 0.1, device=device, threshold=0.0, stop_mult=mults, stop_patience=adds
        )
        last = [None] * 50
        for epoch, errors in enumerate(zip(*histories, strict=True), 1):
            lanes.step(errors)
            for lane, done in enumerate(lanes.finished.tolist()):
                last[lane] = last[lane] or (epoch if done else None)
        expected = [
            pytabkits_last_epoch(h, *rule) for h, rule in zip(histories, rules, strict=True)
        ]
        assert list(zip(last, lanes.best_step.tolist(), strict=True)) == expected
        stopped += sum(epoch is not None for epoch in last)
    assert 200 < stopped < 1000


# -- worked by hand -------------------------------------------------------------------------------


def stop_of(metrics, device="cpu", **keywords):
    """The step at which one lane is finished, and why."""
    lanes = PlateauLanes(1, 1.0, device=device, **keywords)
    for step, metric in enumerate(metrics, 1):
        lanes.step([metric])
        if lanes.all_finished():
            return step, lanes.stop_reasons()[0]
    return None


def test_a_lane_stops_after_its_patience_though_the_plateau_is_cooling(device):
    flat = [1.0] * 9
    assert stop_of(flat, device, stop_patience=3) == (4, "patience")
    assert stop_of(flat, device, stop_patience=3, patience=0, cooldown=9) == (4, "patience")
    assert stop_of(flat, device, stop_patience=0) == (2, "patience")
    assert stop_of([NAN] * 9, device, stop_patience=3) == (3, "patience")


def test_no_lane_stops_by_patience_before_its_minimum_of_steps(device):
    assert stop_of([1.0] * 9, device, stop_patience=2, min_steps=6) == (6, "patience")
    late = [1.0] * 5 + [0.5] + [1.0] * 9
    assert stop_of(late, device, stop_patience=2, min_steps=6) == (8, "patience")
    assert stop_of([0.1], device, stop_at=0.5, min_steps=6) == (1, "target")


def test_a_warm_up_is_not_borne_but_may_hold_the_best_and_diverge(device):
    kept = {"warmup_steps": 4, "stop_patience": 2}
    assert stop_of([1.0] * 9, device, **kept) == (6, "patience")
    assert stop_of([0.5] + [1.0] * 9, device, **kept) == (6, "patience")
    assert stop_of([0.5] + [1.0] * 4 + [0.25] + [1.0] * 9, device, **kept) == (8, "patience")
    assert stop_of([1.0, 9.0], device, diverge_at=2.0, **kept) == (2, "diverged")


def test_patience_counts_decisions_where_metrics_are_averaged(device):
    assert stop_of([1.0] * 20, device, stop_patience=2, accumulate=3) == (9, "patience")
    mean_passes = [1.0, 3.0, 1.0, 4.0]
    assert stop_of(mean_passes, device, diverge_at=2.0, accumulate=2) == (4, "diverged")


def test_a_lane_takes_no_more_than_its_steps_and_masked_ones_are_none(device):
    assert stop_of([1.0, 0.5, 0.25], device, max_steps=2) == (2, "max_steps")
    lanes = PlateauLanes(2, 1.0, device=device, max_steps=[1, 2])
    lanes.step([1.0, 1.0], active=[False, True])
    assert not lanes.finished.any()
    lanes.step([0.5, 0.5])
    assert lanes.all_finished()
    assert lanes.best_step.tolist() == [1, 2]


def test_every_limit_has_its_reason(device):
    flat = {"metrics": [1.0] * 9, "device": device, "patience": 0}
    assert stop_of(**flat, max_reductions=2) == (3, "max_reductions")
    assert stop_of(**flat, min_lr=1.0, patience_at_min=2) == (3, "floor")
    assert stop_of([1.0, NAN], device, nan="freeze") == (2, "nan")


def test_the_gate_of_stopping_may_be_relative_as_that_of_the_plateau(device):
    metrics = [-8.0, -8.5, -9.0, -9.5, -10.0]  # each a sixteenth better, or less
    kept = {"stop_patience": 2, "stop_threshold": 0.25, "threshold": 0.0}
    assert stop_of(metrics, device, stop_threshold_mode="rel_safe", **kept) == (3, "patience")
    assert stop_of(metrics, device, **kept) is None  # all of them by a quarter


def test_a_reason_is_a_code_on_the_device_and_a_word_on_the_host(device):
    lanes = PlateauLanes(3, 1.0, device=device, stop_at=[0.5, 2.0, 0.5], max_steps=[9, 9, 1])
    lanes.step([1.0] * 3)
    assert lanes.stop_reason.dtype == torch.uint8
    assert [STOP_REASONS[code] for code in lanes.stop_reason] == ["none", "target", "max_steps"]
    assert lanes.stop_reasons() == [None, "target", "max_steps"]
    assert not lanes.all_finished()


def test_plain_lanes_go_on_for_ever_and_do_not_count_the_step_of_their_best(device):
    lanes = PlateauLanes(2, 1.0, device=device)
    lanes.step([1.0] * 2)
    assert lanes.stop_reason.tolist() == [0, 0]
    assert not lanes.all_finished()
    with pytest.raises(RuntimeError, match=r"best_step: expected lanes with an optional part"):
        lanes.best_step  # noqa: B018
    assert PlateauLanes(0, 1.0, device=device).all_finished()


def test_what_stops_lanes_goes_with_copies_and_files_and_begins_anew(device):
    kept = {"stop_patience": [1, 2, 3], "threshold": 0.0}
    lanes = PlateauLanes(3, 1.0, device=device, **kept)
    for metric in (1.0, 0.5, 0.5):
        lanes.step([metric] * 3)
    assert lanes.stop_reasons() == ["patience", None, None]
    other = PlateauLanes(3, 1.0, device=device)
    other.load_state_dict(lanes.state_dict())
    for each in (lanes, other):
        each.copy_lanes([1], [2])  # one bad step of two
        each.reset([0])
        each.append(1, 1.0, stop_patience=1)
        each.step([0.5] * 4)
        assert each.stop_reasons() == [None, "patience", "patience", None]
        assert each.best_step.tolist() == [1, 2, 2, 1]
        each.set_lanes([3], stop_patience=4)
        each.step([0.5] * 4)
        assert each.stop_reasons() == ["patience", "patience", "patience", None]
        each.remove([0, 1])
        assert each.stop_reasons() == ["patience", None]


def test_a_state_whose_reasons_and_finished_lanes_disagree_is_refused(device):
    lanes = PlateauLanes(2, 1.0, device=device, max_steps=1)
    lanes.step([1.0, 1.0])
    for code, wanted in ((0, r"\['stop_reason'\]: expected one for"), (9, "a code from 0 to 8")):
        state = lanes.state_dict()
        state["options"]["stop_reason"][1] = code
        with pytest.raises(ValueError, match=wanted):
            PlateauLanes(2, 1.0, device=device).load_state_dict(state)


def test_a_replay_stops_lanes_as_steps_do(device):
    history = torch.tensor([3.0, 2.0, 2.0, 2.5, 1.0, 0.5], dtype=torch.float64, device=device)
    result = replay(history, stop_patience=[1, 2, 3], stop_at=[0.0, 0.0, 0.75], max_steps=6)
    assert result.lanes.stop_reasons() == ["patience", "patience", "target"]
    assert result.lanes.best.tolist() == [2.0, 2.0, 0.5]
    assert result.lanes.best_step.tolist() == [2, 2, 6]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"stop_patience": -1}, "stop_patience: expected an integer from 0"),
        ({"stop_mult": 0.5}, "stop_mult: expected finite and at least 1, got 0.5"),
        ({"max_steps": 0}, "max_steps: expected an integer from 1"),
        ({"stop_at": INF}, "stop_at: expected finite, got inf"),
        ({"diverge_at": NAN}, "diverge_at: expected finite, got nan"),
        ({"stop_threshold_mode": "mult"}, "stop_threshold_mode: expected 'rel' or 'abs'"),
    ],
)
def test_rules_that_can_only_be_mistakes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        PlateauLanes(2, 1.0, **keywords)
