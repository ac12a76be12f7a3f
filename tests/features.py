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
    "warmup": lambda r: {
        "warmup_steps": r.choice([0, 1, 3, 10]),
        "warmup_start_factor": r.choice([0.0, 0.1, 1.0, r.random()]),
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
