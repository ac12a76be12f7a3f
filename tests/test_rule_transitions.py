"""Every branch of the rule: build a state, give one metric, check every field.

Each expected state is worked out by hand from the rule, and checked against torch's class too.
"""

import math
from typing import NamedTuple

import pytest
import torch

from oracle import TorchLanes, same_bits
from torch_plateau import PlateauLanes, ReduceLROnPlateau

NAN, INF = math.nan, math.inf


class State(NamedTuple):
    best: float
    bad: int
    cooling: int
    lr: float


class Case(NamedTuple):
    settings: dict
    before: State
    metric: float
    after: State
    improved: bool = False
    reduced: bool = False


CASES = {
    # the gate
    "first metric becomes best": Case(
        {}, State(INF, 0, 0, 1.0), 0.5, State(0.5, 0, 0, 1.0), improved=True
    ),
    "first metric becomes best in max mode": Case(
        {"mode": "max"}, State(-INF, 0, 0, 1.0), 0.5, State(0.5, 0, 0, 1.0), improved=True
    ),
    "better resets the bad count": Case(
        {}, State(1.0, 2, 0, 1.0), 0.5, State(0.5, 0, 0, 1.0), improved=True
    ),
    "equal to the gate is not better": Case(
        {"threshold": 0.5}, State(1.0, 0, 0, 1.0), 0.5, State(1.0, 1, 0, 1.0)
    ),
    "better by less than the threshold is not better": Case(
        {"threshold": 0.1}, State(1.0, 0, 0, 1.0), 0.95, State(1.0, 1, 0, 1.0)
    ),
    "abs threshold is taken off best": Case(
        {"threshold": 0.25, "threshold_mode": "abs"},
        State(1.0, 0, 0, 1.0),
        0.5,
        State(0.5, 0, 0, 1.0),
        improved=True,
    ),
    "abs threshold in max mode is strict": Case(
        {"mode": "max", "threshold": 0.25, "threshold_mode": "abs"},
        State(1.0, 0, 0, 1.0),
        1.25,
        State(1.0, 1, 0, 1.0),
    ),
    "rel threshold in max mode scales best": Case(
        {"mode": "max", "threshold": 0.5},
        State(1.0, 1, 0, 1.0),
        1.75,
        State(1.75, 0, 0, 1.0),
        improved=True,
    ),
    "rel threshold with a negative best goes the wrong way, as in torch": Case(
        {"threshold": 0.5}, State(-1.0, 0, 0, 1.0), -0.75, State(-0.75, 0, 0, 1.0), improved=True
    ),
    "threshold one makes an infinite best unbeatable": Case(
        {"threshold": 1.0}, State(INF, 0, 0, 1.0), 0.5, State(INF, 1, 0, 1.0)
    ),
    "negative zero is not better than zero": Case(
        {"threshold": 0.0}, State(0.0, 0, 0, 1.0), -0.0, State(0.0, 1, 0, 1.0)
    ),
    # NaN and infinities
    "nan is a bad step": Case({}, State(1.0, 0, 0, 1.0), NAN, State(1.0, 1, 0, 1.0)),
    "nan as first metric leaves best": Case({}, State(INF, 0, 0, 1.0), NAN, State(INF, 1, 0, 1.0)),
    "infinity is a bad step": Case({}, State(INF, 0, 0, 1.0), INF, State(INF, 1, 0, 1.0)),
    "minus infinity is better": Case(
        {}, State(1.0, 0, 0, 1.0), -INF, State(-INF, 0, 0, 1.0), improved=True
    ),
    # the clock
    "patience bad steps are borne": Case({}, State(1.0, 1, 0, 1.0), 2.0, State(1.0, 2, 0, 1.0)),
    "one more cuts": Case({}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 0, 0.5), reduced=True),
    "patience zero cuts on the first bad step": Case(
        {"patience": 0}, State(1.0, 0, 0, 1.0), 2.0, State(1.0, 0, 0, 0.5), reduced=True
    ),
    "a cut starts the cooldown": Case(
        {"cooldown": 3}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 3, 0.5), reduced=True
    ),
    "a bad step in cooldown is ignored": Case(
        {"cooldown": 3}, State(1.0, 0, 3, 1.0), 2.0, State(1.0, 0, 2, 1.0)
    ),
    "a better step in cooldown updates best": Case(
        {"cooldown": 3}, State(1.0, 0, 3, 1.0), 0.5, State(0.5, 0, 2, 1.0), improved=True
    ),
    "the last cooldown step is ignored too": Case(
        {"patience": 0, "cooldown": 3}, State(1.0, 0, 1, 1.0), 2.0, State(1.0, 0, 0, 1.0)
    ),
    # the cut
    "the floor stops a cut": Case(
        {"min_lr": 0.75}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 0, 0.75), reduced=True
    ),
    "a floor above the rate does not raise it": Case(
        {"min_lr": 2.0, "cooldown": 3}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 3, 1.0)
    ),
    "a change of eps is left alone, and cooldown starts": Case(
        {"eps": 0.5, "cooldown": 3}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 3, 1.0)
    ),
    "a change above eps is made": Case(
        {"eps": 0.49}, State(1.0, 2, 0, 1.0), 2.0, State(1.0, 0, 0, 0.5), reduced=True
    ),
    "a rate of zero stays": Case({}, State(1.0, 2, 0, 0.0), 2.0, State(1.0, 0, 0, 0.0)),
}
DEFAULTS = {"factor": 0.5, "patience": 2, "threshold": 1e-4}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


def inject(lanes, state):
    """Put every lane into ``state``."""
    n = len(lanes)
    lanes.load_state_dict(
        {
            **lanes.state_dict(),
            "best": torch.full((n,), state.best),
            "num_bad_epochs": torch.full((n,), state.bad),
            "cooldown_counter": torch.full((n,), state.cooling),
            "lr": torch.full((n,), state.lr, dtype=torch.float64),
        }
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("per_lane", [False, True], ids=["uniform", "per_lane"])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_lanes_go_from_state_to_state_by_the_rule(case, n, per_lane, dtype, device):
    settings = {**DEFAULTS, **case.settings}
    if per_lane:
        settings = {name: [value] * n for name, value in settings.items()}
    lanes = PlateauLanes(n, 1.0, dtype=dtype, device=device, **settings)
    inject(lanes, case.before)
    lr = lanes.step(torch.full((n,), case.metric, dtype=torch.float32, device=device))
    after = case.after
    assert same_bits(lanes.best.double(), [after.best] * n)
    assert lanes.num_bad_epochs.tolist() == [after.bad] * n
    assert lanes.cooldown_counter.tolist() == [after.cooling] * n
    assert same_bits(lanes.lr_master, [after.lr] * n)
    assert lr is lanes.lr
    assert same_bits(lanes.lr.double(), [after.lr] * n)
    assert lanes.improved.tolist() == [case.improved] * n
    assert lanes.reduced.tolist() == [case.reduced] * n
    assert lanes.num_reductions.tolist() == [int(case.reduced)] * n
    assert lanes.num_steps == 1


@pytest.mark.parametrize("make", [ReduceLROnPlateau, torch.optim.lr_scheduler.ReduceLROnPlateau])
def test_one_scheduler_goes_from_state_to_state_by_the_rule(case, make):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=case.before.lr)
    scheduler = make(optimizer, **{**DEFAULTS, **case.settings})
    scheduler.best = case.before.best
    scheduler.num_bad_epochs = case.before.bad
    scheduler.cooldown_counter = case.before.cooling
    scheduler.step(case.metric)
    after = case.after
    assert same_bits([scheduler.best], [after.best])
    assert scheduler.num_bad_epochs == after.bad
    assert scheduler.cooldown_counter == after.cooling
    assert scheduler.in_cooldown == (after.cooling > 0)
    assert optimizer.param_groups[0]["lr"] == after.lr
    assert scheduler.get_last_lr() == [after.lr]
    assert scheduler.last_epoch == 1


# 0.43 at step 6 is better; steps 7 to 10 are bad steps 1 to 4, and patience 3 bears three.
EPOCHS = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
BAD = [0, 0, 0, 1, 2, 0, 1, 2, 3, 0]
FIRST_CUT = 10


def test_the_ten_epoch_table_is_first_cut_at_step_ten(device):
    lanes = PlateauLanes(1, 0.1, patience=3, device=device)
    drop_in = ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=0.1), patience=3)
    oracle = TorchLanes([[0.1]], [{"patience": 3}])
    for step, (metric, bad) in enumerate(zip(EPOCHS, BAD, strict=True), start=1):
        lanes.step([metric])
        drop_in.step(metric)
        oracle.step([metric])
        assert lanes.best == drop_in.best == oracle.field("best")[0] == min(EPOCHS[:step])
        assert lanes.num_bad_epochs == drop_in.num_bad_epochs == bad
        assert oracle.field("num_bad_epochs") == [bad]
        rate = 0.1 if step < FIRST_CUT else 0.1 * 0.1
        assert lanes.lr_master == oracle.rates[0] == drop_in.get_last_lr()[0] == rate
        assert lanes.reduced == (step == FIRST_CUT)
