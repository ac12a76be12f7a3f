"""``counting="optax"`` and ``"keras"`` against optax and Keras themselves, on random traces."""

import math
import os
import random
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "torch"  # before keras is imported, and nothing else imports it

import jax
import jax.numpy as jnp
import keras
import optax.contrib
import pytest
import torch

from torch_plateau import PlateauLanes

LANES, STEPS = 64, 120


def noisy(seed):
    """A row of metrics for each step: slow progress, noise, and stretches without either."""
    r = random.Random(seed)
    rows, still = [], [1.0] * LANES
    for step in range(STEPS):
        for lane in range(LANES):
            if r.random() < 0.5:
                still[lane] = r.uniform(0.5, 1.5) - 0.002 * step
        rows.append(list(still))
    return rows


def random_settings(r):
    """A list of LANES values for each setting that the ports share."""
    return {
        "factor": [r.choice([0.5, 0.1, 0.9]) for _ in range(LANES)],
        "patience": [r.randrange(1, 6) for _ in range(LANES)],
        "cooldown": [r.randrange(4) for _ in range(LANES)],
    }


# -- optax ----------------------------------------------------------------------------------------


def optax_trace(rows, kept, factor, rtol, atol, floor):
    """States of optax's transformation after each step, vmapped over the lanes.

    Factor and tolerances are checked in Python there, so they cannot differ between lanes.
    """

    def one(patience, cooldown, accumulate):
        return optax.contrib.reduce_on_plateau(
            factor, patience, rtol, atol, cooldown, accumulate, min_scale=floor
        )

    def update(state, value, *settings):
        return one(*settings).update(jnp.zeros(()), state, value=value)[1]

    settings = [jnp.asarray(kept[name]) for name in ("patience", "cooldown", "accumulate")]
    start = one(1, 0, 1).init(jnp.zeros((), jnp.float64))
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (LANES,)), start)
    step, states = jax.jit(jax.vmap(update)), []
    for row in rows:
        state = step(state, jnp.asarray(row, jnp.float64), *settings)
        states.append(state)
    return states


@pytest.fixture
def float64():
    """JAX computes in float64 as long as the test runs."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("seed", range(6))
def test_lanes_that_count_as_optax_do_what_optax_does(seed, device):
    r = random.Random(seed)
    factor, rtol, atol = r.choice([0.5, 0.1]), *r.choice([(1e-4, 0.0), (0.1, 0.0), (0.07, 0.0137)])
    floor = r.choice([0.0, 0.03])
    kept = random_settings(r) | {"accumulate": [r.choice([1, 1, 2, 3]) for _ in range(LANES)]}
    rows = noisy(seed)
    lanes = PlateauLanes(
        LANES,
        1.0,
        counting="optax",
        factor=factor,
        patience=kept["patience"],
        cooldown=kept["cooldown"],
        accumulate=kept["accumulate"],
        threshold=rtol,
        atol=atol,
        min_lr=floor,
        eps=0.0,
        device=device,
    )
    cut = 0
    states = optax_trace(rows, kept, factor, rtol, atol, floor)
    for row, state in zip(rows, states, strict=True):
        lanes.step(torch.tensor(row, dtype=torch.float64, device=device))
        cut += int(lanes.reduced.sum())
        assert lanes.num_bad_epochs.tolist() == state.plateau_count.tolist()
        assert lanes.cooldown_counter.tolist() == state.cooldown_count.tolist()
        assert lanes.lr_master.tolist() == pytest.approx(state.scale.tolist(), rel=1e-12)
        assert lanes.best.tolist() == pytest.approx(state.best_value.tolist(), rel=1e-12)
    assert cut > LANES


@pytest.mark.usefixtures("float64")
def test_a_patience_of_0_cuts_on_improving_steps_in_optax_and_on_bad_ones_here(device):
    rows = [[metric] * LANES for metric in (3.0, 2.0, 2.0, 1.0)]
    kept = {
        name: [value] * LANES
        for name, value in (("patience", 0), ("cooldown", 0), ("accumulate", 1))
    }
    theirs = [state.scale[0].item() for state in optax_trace(rows, kept, 0.5, 1e-4, 0.0, 0.0)]
    lanes = PlateauLanes(1, 1.0, counting="optax", patience=0, factor=0.5, eps=0.0, device=device)
    ours = [lanes.step(torch.tensor(row[:1], device=device)).item() for row in rows]
    assert theirs == [0.5, 0.25, 0.25, 0.125]
    assert ours == [1.0, 1.0, 0.5, 0.5]


# -- Keras ----------------------------------------------------------------------------------------


def keras_callback(rate, **settings):
    """Keras' callback, with a model that has nothing but a rate."""
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", **settings)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=rate)))
    callback.on_train_begin()
    return callback


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(3))
def test_lanes_that_count_as_keras_do_what_its_callback_does(seed, mode, device):
    r = random.Random(seed)
    kept = random_settings(r)
    kept["patience"] = [r.randrange(6) for _ in range(LANES)]
    # Keras compares rate and floor in float32: no rates that underflow or tie with the floor there
    kept["factor"] = [r.choice([0.5, 0.7, 0.9]) for _ in range(LANES)]
    kept["min_lr"] = [r.choice([0.0, 3e-3, 0.2, 2.0]) for _ in range(LANES)]
    delta = [r.choice([0.0, 1e-4, 0.0713]) for _ in range(LANES)]
    rows = noisy(seed)
    callbacks = [
        keras_callback(
            1.0,
            mode=mode,
            min_delta=delta[lane],
            **{name: values[lane] for name, values in kept.items()},
        )
        for lane in range(LANES)
    ]
    lanes = PlateauLanes(
        LANES,
        1.0,
        counting="keras",
        mode=mode,
        threshold=delta,
        threshold_mode="abs",
        eps=0.0,
        device=device,
        **kept,
    )
    for epoch, row in enumerate(rows):
        lanes.step(torch.tensor(row, dtype=torch.float64, device=device))
        for callback, metric in zip(callbacks, row, strict=True):
            callback.on_epoch_end(epoch, {"loss": metric})
        assert lanes.lr_master.tolist() == [c.model.optimizer.learning_rate for c in callbacks]
        assert lanes.num_bad_epochs.tolist() == [c.wait for c in callbacks]
        assert lanes.cooldown_counter.tolist() == [c.cooldown_counter for c in callbacks]
        assert lanes.best.tolist() == [c.best for c in callbacks]
    assert int(lanes.num_reductions.sum()) > LANES


def test_a_first_metric_that_is_nan_is_the_best_for_keras_for_ever_and_a_bad_one_here(device):
    callback = keras_callback(1.0, mode="min", factor=0.5, patience=2)
    lanes = PlateauLanes(1, 1.0, counting="keras", patience=2, factor=0.5, eps=0.0, device=device)
    for epoch, metric in enumerate([math.nan, 3.0, 2.0, 1.0]):
        callback.on_epoch_end(epoch, {"loss": metric})
        lanes.step(torch.tensor([metric], device=device))
    assert math.isnan(callback.best)
    assert callback.model.optimizer.learning_rate == 0.5
    assert (lanes.best.item(), lanes.lr.item()) == (1.0, 1.0)
