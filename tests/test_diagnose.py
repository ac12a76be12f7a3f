"""Findings about histories whose answer is known: made by hand, or recorded in known trainings."""

import csv
import json
import math
import pathlib
import random
import runpy

import pytest

from torch_plateau.histories.diagnose import diagnose

ROOT = pathlib.Path(__file__).parent.parent
SCENES = runpy.run_path(str(ROOT / "examples" / "record_histories.py"))["SCENES"]


def codes(*args, **settings):
    found = diagnose(*args, **settings)
    for each in found:
        assert each.level in ("good", "problem", "question")
        json.dumps(each.numbers, allow_nan=False)
    return {each.code for each in found}


def the(code, found):
    return next(each for each in found if each.code == code)


def noisy(course, noise, seed=0):
    draw = random.Random(seed)
    return [value + noise * draw.gauss(0, 1) for value in course]


def fall(epochs, rate, floor=0.1):
    return [floor + math.exp(-rate * i) for i in range(epochs)]


FALL_AND_STAY = fall(60, 0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_divergence_is_dated(bad):
    found = diagnose([*fall(20, 0.1), bad, bad])
    assert the("diverged", found).numbers == {"epoch": 21, "count": 2}
    assert "diverged" not in codes(fall(20, 0.1))


@pytest.mark.parametrize("epochs", [0, 1, 7])
def test_a_short_history_is_said_to_be_short(epochs):
    assert codes([1.0] * epochs) == {"too-short"}


def test_a_constant_history_does_not_break_anything():
    assert codes([1.0] * 30, [1.0] * 30, [0.1] * 30) == set()


def stairs(drop, cut=20, seed=0):
    """A level with noise 0.01 that falls by ``drop`` after the cut; and its rates."""
    course = [1.0] * cut + [1.0 - drop] * 20
    return noisy(course, 0.01, seed), [0.1] * cut + [0.01] * 20


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_that_helps_is_told_from_one_that_does_not(seed):
    metric, lr = stairs(0.1, seed=seed)
    found = diagnose(metric, lr=lr, patience=4)
    helped = the("cut-helped", found)
    assert helped.numbers["epochs"] == [20]
    assert helped.numbers["gains"][0] == pytest.approx(0.1, abs=0.03)
    assert "converged" not in {each.code for each in found}
    metric, lr = stairs(-0.05, seed=seed)
    found = diagnose(metric, lr=lr, patience=4)
    assert the("converged", found).numbers["epochs"] == [20]
    assert "cut-helped" not in {each.code for each in found}


def test_a_useless_cut_before_one_that_helps_is_asked_about():
    metric = noisy([1.0] * 35 + [0.5] * 15, 0.01)
    lr = [1.0] * 20 + [0.5] * 15 + [0.25] * 15
    found = diagnose(metric, lr=lr, patience=4)
    assert 20 in the("cut-useless", found).numbers["epochs"] or the("cut-helped", found)
    assert 35 in the("cut-helped", found).numbers["epochs"]


def test_without_rates_nothing_is_said_of_what_followed():
    metric, _ = stairs(0.1)
    assert not codes(metric, patience=4) & {"cut-helped", "cut-useless", "converged"}


def test_a_smooth_schedule_is_not_cuts():
    cosine = [0.5 + 0.5 * math.cos(math.pi * i / 40) for i in range(40)]
    decay = [0.85**i for i in range(40)]
    for lr in (cosine, decay):
        assert not codes(stairs(0.1)[0], lr=lr, patience=4) & {"cut-helped", "converged"}


def test_a_lucky_spike_that_brings_a_cut_is_found():
    metric = [1 - 0.02 * i + 0.002 * (-1) ** i for i in range(30)]
    assert "spike-cut" not in codes(metric, patience=4)
    metric[15] -= 0.4  # far better than all that follow for 20 epochs
    spike = the("spike-cut", diagnose(metric, patience=4))
    assert spike.numbers["spikes"] == [16]
    assert spike.numbers["epochs"][0] == 21
    assert "was not trained with these cuts" in spike.text


def test_patience_below_the_noise_is_found_and_enough_patience_is_not():
    metric = noisy([1 - 0.01 * i for i in range(60)], 0.05)
    found = the("patience-below-noise", diagnose(metric, patience=1))
    assert found.numbers["noise"] == pytest.approx(0.05, rel=0.6)
    assert found.numbers["patience"] > 1
    assert "patience-below-noise" not in codes(metric, patience=20)
    quiet = noisy([1 - 0.01 * i for i in range(60)], 0.0005)
    assert "patience-below-noise" not in codes(quiet, patience=1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_on_no_progress_is_no_reason_for_patience(seed):
    assert "patience-below-noise" not in codes(noisy([1.0] * 60, 0.05, seed), patience=2)


def test_a_threshold_that_hides_progress_is_found():
    metric = [1 - 0.001 * i for i in range(40)]
    hidden = the("cut-while-improving", diagnose(metric, patience=5, threshold=0.05))
    assert hidden.numbers["slopes"][0] == pytest.approx(0.001)
    assert "cut-while-improving" not in codes(metric, patience=5)
    assert "cut-while-improving" not in codes(FALL_AND_STAY, patience=5)


def test_overfitting_needs_validation_to_worsen_while_training_improves():
    train = fall(60, 0.1, 0.01)
    worse = noisy([v + 0.01 * max(0, i - 20) for i, v in enumerate(fall(60, 0.2))], 0.005)
    found = diagnose(worse, train, patience=10)
    assert 12 <= the("overfitting", found).numbers["epoch"] <= 26
    assert "overfitting" not in codes(worse, worse, patience=10)  # both got worse
    assert "overfitting" not in codes(noisy(FALL_AND_STAY, 0.005), train, patience=10)


def test_a_validation_that_follows_memorised_training_is_asked_about():
    train = [0.005 + v * math.exp(0.2 * math.sin(i * i)) for i, v in enumerate(fall(60, 0.1, 0))]
    found = the("leakage", diagnose([1.05 * v for v in train], train))
    assert found.level == "question"
    assert found.text.endswith("?")
    assert "leakage" not in codes([v + 0.05 for v in train], train)
    underfit = [0.5 + v for v in train]  # close because nothing was learned by heart
    assert "leakage" not in codes([1.01 * v for v in underfit], underfit)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_a_reversed_mode_is_found_and_a_divergence_is_not_one(mode, sign):
    accuracy = noisy([sign * (0.95 - 0.8 * math.exp(-0.2 * i)) for i in range(50)], 0.003)
    assert codes(accuracy, mode=mode, threshold_mode="abs") == {"mode-reversed"}
    other = {"min": "max", "max": "min"}[mode]
    assert "mode-reversed" not in codes(accuracy, mode=other, threshold_mode="abs")
    grows = [sign * 1.2**i for i in range(50)]
    assert "mode-reversed" not in codes(grows, mode=mode, threshold_mode="abs")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (([1.0] * 9, [1.0] * 8), ValueError, "train_metric: expected 9 values"),
        (([1.0] * 9, None, [1.0] * 10), ValueError, "lr: expected 9 values"),
        (([[1.0] * 9],), ValueError, r"metric: expected one dimension, got shape \(1, 9\)"),
        ((["a"] * 9,), TypeError, "metric: expected a 1-d series of numbers"),
        (([1.0] * 9, None, [math.nan] * 9), ValueError, "lr: expected finite rates"),
    ],
)
def test_what_is_no_history_is_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        diagnose(*arguments)


def test_settings_are_checked_as_the_lanes_do():
    with pytest.raises(ValueError, match="patience: expected an integer"):
        diagnose([1.0] * 9, patience=-1)
    with pytest.raises(TypeError, match="paciencia"):
        diagnose([1.0] * 9, paciencia=3)
    with pytest.raises(TypeError, match="events: expected a setting of one plateau"):
        diagnose([1.0] * 9, events=3)


def recorded(scene):
    """Findings about each seed of a recorded scene."""
    with (ROOT / "tests" / "data" / "histories" / f"{scene}.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = []
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        watch = SCENES[scene].watch
        metric, train, lr = (
            [float(row[name]) for row in mine] for name in (watch, "train_loss", "lr")
        )
        train = train if watch == "val_loss" else None
        said.append(diagnose(metric, train, lr, **SCENES[scene].settings))
    assert len(said) == 5
    return said


def test_recorded_clean_trainings_have_no_problem():
    for found in recorded("clean"):
        assert [each for each in found if each.level == "problem" or each.code == "leakage"] == []


@pytest.mark.parametrize(
    ("scene", "expected", "least"),
    [
        ("noisy", {"spike-cut", "patience-below-noise"}, 5),
        ("overfitting", {"overfitting"}, 5),
        ("wrong_mode", {"mode-reversed", "cut-while-improving"}, 5),
        ("leak", {"leakage"}, 3),
    ],
)
def test_recorded_faulty_trainings_are_seen_through(scene, expected, least):
    said = [{each.code for each in found} for found in recorded(scene)]
    assert sum(bool(each & expected) for each in said) >= least
    for each in said:
        assert not each & ({"overfitting", "leakage", "mode-reversed"} - expected)
