"""Plateaus in Keras' fit, on torch, against its own callback.

Run as a script this file is a training that is killed with SIGKILL.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported

import math
import random
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

from torch_plateau.integrations.keras import ReduceLROnPlateau

# Keras' own reading of a rate on torch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STOCK, OURS = keras.callbacks.ReduceLROnPlateau, ReduceLROnPlateau
SETTINGS = {"factor": 0.5, "patience": 3, "min_delta": 0.5}
EPOCHS, KILLED_AFTER = 14, 5


def data():
    r = np.random.default_rng(0)
    x = r.normal(size=(64, 4)).astype("float32")
    return x, x.sum(1, keepdims=True) + r.normal(size=(64, 1)).astype("float32")


def model_of(optimizer=None):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((4,)), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"])
    return model


def fit(*callbacks, model=None, epochs=EPOCHS, **kwargs):
    """Train; return the model, with the rates and the logs."""
    model = model or model_of()
    x, y = data()
    history = model.fit(
        x,
        y,
        validation_split=0.25,
        epochs=epochs,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **kwargs,
    )
    rates = history.history["learning_rate"] + [float(model.optimizer.learning_rate)]
    return SimpleNamespace(model=model, rates=rates, logs=history.history)


def assert_same(one, other):
    assert one.rates == other.rates
    assert len(set(one.rates)) > 2  # there were cuts
    for mine, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        {"monitor": "val_mae", "mode": "auto", "patience": 1, "factor": 0.3, "min_delta": 0.1},
        {"monitor": "loss", "mode": "min", "patience": 0, "factor": 0.7, "cooldown": 2},
        {"monitor": "mae", "mode": "max", "patience": 2, "factor": 0.5, "min_lr": 0.003},
        {"patience": 1, "factor": 0.5, "cooldown": 1, "min_delta": 0.3, "min_lr": 0.001},
    ],
    ids=["min_delta", "auto", "cooldown", "max", "min_lr"],
)
def test_a_fit_is_that_with_keras_own_callback(settings):
    assert_same(fit(OURS(**settings)), fit(STOCK(**settings)))


def driven(kind, **settings):
    """A callback with a model that has nothing but a rate, in float32 as in Keras."""
    callback = kind(monitor="loss", **settings)
    rate = keras.Variable(0.1, trainable=False)

    class Optimizer:
        learning_rate = property(lambda _: rate, lambda _, value: rate.assign(value))

    callback.set_model(SimpleNamespace(optimizer=Optimizer()))
    callback.on_train_begin()
    return callback


@pytest.mark.parametrize("size", [1.0, 1000.0, 1e6])
@pytest.mark.parametrize("seed", range(4))
def test_each_epoch_is_that_of_keras_whatever_float32_rounds(seed, size):
    r = random.Random(seed)
    settings = {
        "mode": r.choice(["min", "max"]),
        "factor": r.choice([0.1, 0.5, 0.9]),
        "patience": r.randrange(5),
        "cooldown": r.randrange(4),
        "min_delta": r.choice([0.0, 1e-4, 0.1]),
        "min_lr": r.choice([0.0, 1e-3, 0.03]),
    }
    stock, ours = driven(STOCK, **settings), driven(OURS, **settings)
    loss, cuts = size, 0
    for epoch in range(150):
        # steps of a few units in the last place, which min_delta is a fraction of
        loss = float(np.float32(loss + r.randrange(-3, 4) * 6.1e-8 * size))
        loss = r.choice([loss, loss, loss, math.inf, -math.inf, math.nan]) if epoch > 140 else loss
        for each in (stock, ours):
            each.on_epoch_begin(epoch)
            each.on_epoch_end(epoch, {"loss": loss})
        rates = [float(each.model.optimizer.learning_rate) for each in (stock, ours)]
        assert rates[0] == rates[1]
        assert (ours.wait, ours.cooldown_counter) == (stock.wait, stock.cooldown_counter)
        assert ours.best == stock.best
        cuts += bool(ours.lanes.reduced)
    assert cuts > 0


def test_several_optimizers_are_cut_together():
    def model():
        pair = [keras.optimizers.SGD(0.05, name="one"), keras.optimizers.SGD(0.01, name="two")]
        optimizer = SimpleNamespace(optimizers=pair)
        return SimpleNamespace(optimizer=optimizer)

    seen = []
    for kind in (STOCK, OURS):
        callback = kind(monitor="loss", mode="min", patience=1, factor=0.5, min_lr=0.008)
        callback.set_model(model())
        callback.on_train_begin()
        for epoch in range(6):
            logs = {"loss": 1.0}
            callback.on_epoch_begin(epoch)
            callback.on_epoch_end(epoch, logs)
            seen.append(logs)
    assert seen[:6] == seen[6:]
    assert seen[5]["learning_rate_two"] == float(np.float32(0.008))


def heads(*names):
    """A model with a head for each name, trained by an optimizer of that name."""
    keras.utils.set_random_seed(0)
    into = keras.layers.Input((4,))
    start = keras.initializers.Ones()
    layers = {name: keras.layers.Dense(1, kernel_initializer=start, name=name) for name in names}
    model = keras.Model(into, {name: layer(into) for name, layer in layers.items()})
    each = {name: keras.optimizers.SGD({"a": 0.3, "b": 0.1}[name], name=name) for name in names}
    first, *others = names
    mapped = keras.optimizers.OptimizerMap(each[first], {f"{o}/.*": each[o] for o in others})
    model.compile(keras.optimizers.MultiOptimizer(mapped), dict.fromkeys(names, "mse"))
    return model


def fit_heads(*names, optimizers=None):
    """Train with a callback for each head; return the rates and weights of each."""
    model, (x, y) = heads(*names), data()
    monitor = "val_{}_loss" if len(names) > 1 else "val_loss"
    settings = {"factor": 0.5, "patience": 0, "min_delta": 0.05, "mode": "min"}
    history = model.fit(
        x,
        dict.fromkeys(names, y),
        validation_split=0.25,
        epochs=EPOCHS,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[
            OURS(monitor.format(name), **settings, optimizer=name) for name in optimizers or names
        ],
    )
    rates = {name: history.history[f"learning_rate_{name}"] for name in names}
    return rates, {name: model.get_layer(name).get_weights() for name in names}


def test_optimizers_with_a_callback_each_are_cut_by_a_metric_each_as_in_separate_fits(device):
    rtol = 0.0 if device == "cpu" else 1e-5
    with keras.device("cpu" if device == "cpu" else "cuda:0"):
        rates, weights = fit_heads("a", "b")
        for name in ("a", "b"):
            alone, weights_alone = fit_heads(name)
            assert rates[name] == alone[name]
            assert len(set(rates[name])) > 2
            for mine, theirs in zip(weights[name], weights_alone[name], strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=rtol)
    assert rates["a"] != [3 * rate for rate in rates["b"]]


def test_an_optimizer_that_the_model_has_not_is_refused_when_training_begins():
    with pytest.raises(ValueError, match=r"optimizer: expected one of \['b', 'a'\], got 'c'"):
        fit_heads("a", "b", optimizers=["c"])


# -- killed and resumed ---------------------------------------------------------------------------


def backed_up(kind, folder, first="plateau"):
    own = {"state_path": folder / "plateau.pt"} if kind is OURS else {}
    plateau = kind(**SETTINGS, **own)
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    return [plateau, backup] if first == "plateau" else [backup, plateau]


class StoppedError(Exception):
    pass


def stop_at(at):
    def stop(epoch, *_):
        if epoch == at:
            raise StoppedError

    return keras.callbacks.LambdaCallback(on_epoch_begin=stop)


@pytest.mark.parametrize("first", ["plateau", "backup"])
def test_keras_backup_loses_the_counts_of_its_callback_and_ours_keeps_them(first, tmp_path):
    for kind in (STOCK, OURS):
        whole = fit(kind(**SETTINGS))
        differ = []
        for at in (3, 6, 8, 10):
            folder = tmp_path / f"{kind.__module__}{at}"
            folder.mkdir()
            with pytest.raises(StoppedError):
                fit(*backed_up(kind, folder, first), stop_at(at))
            resumed = fit(*backed_up(kind, folder, first))
            differ.append(resumed.rates != whole.rates[at:])
            if kind is OURS:
                assert resumed.rates == whole.rates[at:]
                assert np.array_equal(resumed.model.get_weights()[0], whole.model.get_weights()[0])
        assert any(differ) == (kind is STOCK)


def test_a_fit_that_is_killed_and_resumed_is_the_uninterrupted_one(tmp_path):
    killed = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole = fit(OURS(**SETTINGS))
    resumed = fit(*backed_up(OURS, tmp_path))
    assert len(resumed.logs["loss"]) == EPOCHS - KILLED_AFTER
    assert resumed.rates == whole.rates[KILLED_AFTER:]
    assert len(set(resumed.rates)) > 1
    for mine, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_training_that_goes_on_without_a_state_is_warned_of(tmp_path):
    callback = OURS(**SETTINGS, state_path=tmp_path / "plateau.pt")
    with pytest.warns(UserWarning, match=r"state after 3 epochs .* got those after \[\]"):
        fit(callback, initial_epoch=3, epochs=4)


def test_another_fit_begins_anew():
    callback = OURS(**SETTINGS)
    assert fit(callback).rates == fit(callback).rates


# -- what Keras' own has not ----------------------------------------------------------------------


def test_with_torchs_counting_the_rates_are_those_of_torchs_class():
    run = fit(OURS(**{**SETTINGS, "patience": 1}, counting="torch"))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    settings = {"threshold": 0.5, "threshold_mode": "abs", "factor": 0.5, "patience": 1, "eps": 0.0}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    rates = [0.05]
    for loss in run.logs["val_loss"]:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert run.rates == [float(np.float32(rate)) for rate in rates]  # halves are exact
    assert len(set(rates)) > 2


def test_the_first_cut_may_wait_longer_and_the_training_may_end():
    first = {"mode": "min", "patience": 1, "factor": 0.5, "min_delta": 100.0, "monitor": "loss"}
    run = fit(OURS(**first, initial_patience=4, max_reductions=3))
    halved = [0.05 * 0.5**cuts for cuts in (0, 0, 0, 0, 0, 1, 2, 3)]
    assert run.rates == [float(np.float32(rate)) for rate in halved]
    callback = OURS(**first, stop_patience=2)
    assert len(fit(callback).logs["loss"]) < EPOCHS
    assert callback.lanes.stop_reasons() == ["patience"]


def test_rates_that_other_code_sets_are_cut_from():
    def lower(_, rate):
        return rate * 0.9

    other = keras.callbacks.LearningRateScheduler(lower)
    assert_same(*(fit(other, kind(**SETTINGS)) for kind in (OURS, STOCK)))


def test_a_metric_that_is_not_there_is_warned_of():
    with pytest.warns(UserWarning, match=r"monitor: expected one of \['learning_rate', 'loss'"):
        run = fit(OURS(monitor="accuracy", mode="max"), epochs=1)
    assert len(set(run.rates)) == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"factor": 0.0}, "factor"),
        ({"patience": -1}, "patience"),
        ({"min_lr": math.nan}, "min_lr"),
        ({"mode": "best"}, "mode: expected 'auto'"),
        ({"counting": "mine"}, "counting"),
        ({"patience_of": 3}, "patience_of"),
    ],
)
def test_bad_settings_are_refused(bad, says):
    with pytest.raises((TypeError, ValueError), match=says):
        OURS(**bad)


def test_cuts_are_printed_if_asked(capsys):
    run = fit(OURS(**SETTINGS, verbose=1))
    printed = [line for line in capsys.readouterr().out.splitlines() if "rates" in line]
    assert len(printed) == len(set(run.rates)) - 1


def test_the_example_ends_when_cuts_do_not_help(capsys):
    example = Path(__file__).parent.parent / "examples" / "keras_plateau.py"
    runpy.run_path(str(example), run_name="__main__")
    *epochs, last = capsys.readouterr().out.splitlines()
    rates = [float(line.split()[-1]) for line in epochs]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) > 2
    assert last == f"ended after {len(epochs)} epochs: floor"


if __name__ == "__main__":

    def kill(batch, **_):
        if batch == 1 and model.optimizer.iterations >= 3 * KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    model = model_of()
    killer = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
    fit(*backed_up(OURS, Path(sys.argv[1])), killer, model=model)
