"""Random settings of lanes, for tests that compare lanes with an oracle."""

import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# What each feature sets, as a function of a source of random numbers.
FEATURES = {
    "rel_safe": lambda _: {"threshold_mode": "rel_safe"},
    "atol": lambda r: {"atol": r.choice([0.0, 0.05, 0.3]), "threshold_mode": r.choice(MODES)},
    "nan": lambda r: {"nan": r.choice(["bad", "skip", "cut", "freeze"])},
    "counting": lambda r: {"counting": r.choice(["torch", "keras", "optax"])},
    "initial_patience": lambda r: {"initial_patience": r.randrange(5)},
    "min_steps": lambda r: {"min_steps": r.randrange(40)},
    "smoothing": lambda r: {"smoothing": r.choice([0.0, 0.5, 0.9, r.random()])},
    "accumulate": lambda r: {"accumulate": r.randrange(1, 5)},
    "window": lambda r: {"window": r.randrange(1, 6)},
    "max_reductions": lambda r: {"max_reductions": r.randrange(1, 4)},
    "patience_at_min": lambda r: {"patience_at_min": r.randrange(1, 5)},
    "stop_patience": lambda r: {
        "stop_patience": r.randrange(8),
        "stop_threshold": r.choice([0.0, 0.01, 0.3]),
        "stop_threshold_mode": r.choice(MODES),
        "stop_mult": r.choice([1.0, 1.5, 2.0, 1.0 + r.random()]),
    },
    "max_steps": lambda r: {"max_steps": r.randrange(1, 60)},
    "stop_at": lambda r: {"stop_at": r.choice([-2.0, 2.0, r.uniform(-1, 1)])},
    "diverge_at": lambda r: {"diverge_at": r.choice([-2.0, 2.0, r.uniform(-1, 1)])},
    "warmup": lambda r: {
        "warmup_steps": r.choice([0, 1, 3, 10]),
        "warmup_start_factor": r.choice([0.0, 0.1, 1.0, r.random()]),
    },
    "band": lambda r: {
        "rule": "band",
        "target": r.choice([0.2, 0.5, r.random() + 0.01]),
        "width": r.choice([1.0, 1.5, 3.0]),
        "growth": r.choice([1.5, 2.0]),
        "max_lr": r.choice([0.05, 2.0]),
    },
    "greedy": lambda r: {
        "rule": "greedy",
        "max_lr": r.choice([0.05, 2.0]),
        "raise_cooldown": r.randrange(3),
        "reset_at_min": r.choice([1, 2, 99]),
    },
    "noise": lambda r: {
        "noise_from": r.randrange(20),
        "noise_until": r.choice([10, 25, 99]),
        "noise_pct": r.choice([0.67, 0.1]),
        "noise_type": r.choice(["normal", "uniform"]),
        "noise_seed": r.choice([42, r.randrange(2**31 - 1)]),
    },
    "mask": lambda _: {},
    "events": lambda _: {},
}
MODES = ["rel", "abs", "rel_safe"]
AVERAGES = {"smoothing", "accumulate", "window"}
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e308, -1.0]
EXAMPLES = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32)


def plain_settings(r, groups):
    """Settings of torch's own."""
    floors = [0.0, 0.0, 1e-3, 0.05, 2.0]
    return {
        "mode": r.choice(["min", "max"]),
        "factor": r.choice([0.1, 0.5, 0.9]),
        "patience": r.randrange(4),
        "threshold": r.choice([0.0, 1e-4, 0.1, 1.0]),
        "threshold_mode": r.choice(["rel", "abs"]),
        "cooldown": r.choice([0, 0, 1, 3]),
        "min_lr": r.choice([r.choice(floors), [r.choice(floors) for _ in range(groups)]]),
        "eps": r.choice([0.0, 1e-8, 1e-3]),
    }
