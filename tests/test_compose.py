"""compose(): the rates of a schedule alone on a twin, times torch's plateau alone on another."""

import copy
import io
import math
import pickle
import re

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    EPOCH_DEPRECATION_WARNING,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs
from torch.utils._python_dispatch import TorchDispatchMode

from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau, compose


def warm_up_then(schedule):
    def build(o):
        return SequentialLR(o, [LinearLR(o, 0.1, total_iters=20), schedule(o)], milestones=[20])

    return build


SCHEDULES = {
    "LinearLR": lambda o: LinearLR(o, 0.01, total_iters=50),
    "ConstantLR": lambda o: ConstantLR(o, 0.5, total_iters=30),
    "LambdaLR": lambda o: LambdaLR(o, lambda t: 1 / math.sqrt(1 + t)),
    "PolynomialLR": lambda o: PolynomialLR(o, 150, power=2.0),
    "StepLR": lambda o: StepLR(o, 30, gamma=0.7),
    "MultiStepLR": lambda o: MultiStepLR(o, [20, 90], gamma=0.3),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.99),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 60, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 10, T_mult=2),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.5, total_steps=201),
    "CyclicLR": lambda o: CyclicLR(o, 0.01, 0.5, step_size_up=15),
    "SequentialLR to cosine": warm_up_then(lambda o: CosineAnnealingLR(o, 100)),
    "SequentialLR to exponential": warm_up_then(lambda o: ExponentialLR(o, 0.98)),
    "ChainedScheduler": lambda o: ChainedScheduler(
        [LinearLR(o, 0.1, total_iters=40), ExponentialLR(o, 0.99)], optimizer=o
    ),
}
RATES = [0.3, 0.05]
BOTH = (TypeError, ValueError)
FLOORS = [0.02, 0.0]
SETTINGS = {"factor": 0.6, "patience": 2, "cooldown": 1, "threshold": 0.01}

each_schedule = pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES.keys())
each_kind = pytest.mark.parametrize("tensors", [False, True], ids=["floats", "tensors"])
each_cadence = pytest.mark.parametrize("every", [1, 7], ids=["per epoch", "per batch"])
each_plateau = pytest.mark.parametrize("batched", [False, True], ids=["one lane", "lanes"])


def sgd(*rates, tensors=False):
    groups = [
        {
            "params": [torch.nn.Parameter(torch.ones(1))],
            "lr": torch.tensor(rate) if tensors else rate,
        }
        for rate in rates
    ]
    return SGD(groups, lr=1.0, momentum=0.9)


def values(rates):
    return [float(rate) for rate in rates]


def rates_in(*optimizers):
    return values(group["lr"] for each in optimizers for group in each.param_groups)


def noisy(steps):
    return (torch.rand(steps, dtype=torch.float64) * 8).round() / 8


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class ByHand:
    """The definition: a schedule alone, a plateau alone whose rate begins at 1, their product."""

    def __init__(self, optimizer, build, floors=FLOORS, **settings):
        self.optimizer, self.floors = optimizer, floors
        self.schedule = build(optimizer)
        self.unit = SGD([torch.zeros(1)], lr=1.0)
        self.plateau = Torchs(self.unit, **(settings or SETTINGS))

    def step_schedule(self):
        self.optimizer.step()
        self.schedule.step()

    @property
    def rates(self):
        scale = self.unit.param_groups[0]["lr"]
        exact = [
            max(s * scale, min(s, floor))
            for s, floor in zip(rates_in(self.optimizer), self.floors, strict=True)
        ]
        types = {type(group["lr"]) for group in self.optimizer.param_groups}
        if types == {torch.Tensor}:
            return torch.tensor(exact, dtype=torch.float64).float().tolist()
        return exact


def composed(build, tensors, batched, rates=RATES, floors=FLOORS, **settings):
    optimizer = sgd(*rates, tensors=tensors)
    settings = settings or SETTINGS
    schedule = build(optimizer)
    if batched:
        plateau = BatchedReduceLROnPlateau([optimizer], min_lr=floors, **settings)
        return compose(schedule, plateau)
    return compose(schedule, ReduceLROnPlateau(optimizer, min_lr=floors, **settings))


def own(composed):
    """The one optimizer."""
    return composed.schedules[0].optimizer


# -- the product ----------------------------------------------------------------------------------


@each_schedule
@each_kind
@each_cadence
@each_plateau
def test_the_rate_is_the_schedule_alone_times_the_plateau_alone(build, tensors, every, batched):
    ours = composed(build, tensors, batched)
    hand = ByHand(sgd(*RATES, tensors=tensors), build)
    held = [group["lr"] for group in own(ours).param_groups]
    for i, metric in enumerate(noisy(200).tolist()):
        assert rates_in(own(ours)) == values(ours.get_last_lr()) == hand.rates
        own(ours).step()
        ours.step_schedule()
        hand.step_schedule()
        assert rates_in(own(ours)) == hand.rates
        if i % every == 0:
            ours.step(metric)
            hand.plateau.step(metric)
    assert hand.unit.param_groups[0]["lr"] < 0.1
    now = [group["lr"] for group in own(ours).param_groups]
    if tensors:
        assert all(a is b for a, b in zip(now, held, strict=True))
    else:
        assert {type(rate) for rate in now} == {float}


def test_the_cycle_of_the_momentum_is_that_of_the_schedule_alone():
    ours = composed(SCHEDULES["OneCycleLR"], False, False)
    hand = ByHand(sgd(*RATES), SCHEDULES["OneCycleLR"])
    momenta = []
    for metric in noisy(200).tolist():
        own(ours).step()
        ours.step_schedule()
        hand.step_schedule()
        ours.step(metric)
        momenta.append(own(ours).param_groups[0]["momentum"])
        assert momenta[-1] == hand.optimizer.param_groups[0]["momentum"]
    assert len(set(momenta)) > 100


@each_kind
@each_cadence
def test_many_optimizers_have_a_schedule_and_a_scale_each(tensors, every):
    builds = [SCHEDULES[name] for name in ("LinearLR", "OneCycleLR", "ChainedScheduler")]
    rates, factors, floors = [[0.3], [0.05, 0.2], [1.0]], [0.5, 0.1, 0.9], [0.01, 0.0, 0.02, 0.5]
    optimizers = [sgd(*each, tensors=tensors) for each in rates]
    schedules = [build(each) for build, each in zip(builds, optimizers, strict=True)]
    plateau = BatchedReduceLROnPlateau(optimizers, factor=factors, patience=1, min_lr=floors)
    ours = compose(schedules, plateau)
    assert ours.optimizer is optimizers
    assert ours.min_lr == floors
    hands = [
        ByHand(sgd(*each, tensors=tensors), build, floors=own, factor=factor, patience=1)
        for each, build, own, factor in zip(
            rates, builds, [floors[:1], floors[1:3], floors[3:]], factors, strict=True
        )
    ]
    for i, row in enumerate(noisy(600).view(200, 3)):
        for each in optimizers:
            each.step()
        ours.step_schedule()
        for hand in hands:
            hand.step_schedule()
        if i % every == 0:
            ours.step(row)
            for hand, metric in zip(hands, row.tolist(), strict=True):
                hand.plateau.step(metric)
        assert rates_in(*optimizers) == [rate for hand in hands for rate in hand.rates]
    scales = [hand.unit.param_groups[0]["lr"] for hand in hands]
    assert ours.scale.tolist() == [scales[0], scales[1], scales[1], scales[2]]


PER_LANE = {"patience": [0, 2, 1], "factor": [0.5, 0.1, 0.9]}
MASKS = {"tensors": lambda mask: mask, "lists": lambda mask: mask.tolist()}


@each_kind
@pytest.mark.parametrize("as_given", MASKS.values(), ids=MASKS.keys())
def test_lanes_without_a_metric_keep_their_scale_while_the_schedule_goes_on(as_given, tensors):
    build, rates, floors = SCHEDULES["CosineAnnealingLR"], [0.3, 0.05, 1.0], [0.01, 0.0, 0.02]
    optimizer = sgd(*rates, tensors=tensors)
    ours = compose(build(optimizer), BatchedReduceLROnPlateau(optimizer, min_lr=floors, **PER_LANE))
    hands = [
        ByHand(sgd(rate, tensors=tensors), build, floors=[floor], factor=factor, patience=patience)
        for rate, floor, patience, factor in zip(rates, floors, *PER_LANE.values(), strict=True)
    ]
    for step, row in enumerate(noisy(180).view(60, 3), start=1):
        optimizer.step()
        ours.step_schedule()
        mask = torch.rand(3) < 0.6
        row[~mask] = torch.nan
        ours.step(row, active=as_given(mask))
        for hand, metric, has_one in zip(hands, row.tolist(), mask.tolist(), strict=True):
            hand.step_schedule()
            if has_one:
                hand.plateau.step(metric)
        assert rates_in(optimizer) == [rate for hand in hands for rate in hand.rates]
        assert ours.scale.tolist() == [hand.unit.param_groups[0]["lr"] for hand in hands]
        assert ours.best.tolist() == [hand.plateau.best for hand in hands]
        assert ours.num_bad_epochs.tolist() == [hand.plateau.num_bad_epochs for hand in hands]
        assert ours.last_epoch == step
    assert ours.lanes.num_reductions.min() > 0


@each_plateau
def test_an_epoch_that_is_given_becomes_the_last_one_with_torchs_warning(batched):
    ours = composed(SCHEDULES["ConstantLR"], False, batched)
    hand = ByHand(sgd(*RATES), SCHEDULES["ConstantLR"])
    words = re.escape(EPOCH_DEPRECATION_WARNING)
    for metric, epoch in zip(noisy(40).tolist(), range(10, 90, 2), strict=True):
        with pytest.warns(UserWarning, match=words) as caught:
            ours.step(metric, epoch)
        assert [each.filename for each in caught] == [__file__]
        with pytest.warns(UserWarning, match=words):
            hand.plateau.step(metric, epoch)
        assert rates_in(own(ours)) == hand.rates
        assert ours.last_epoch == hand.plateau.last_epoch == epoch
    assert hand.unit.param_groups[0]["lr"] < 1


def test_each_group_of_one_optimizer_may_have_a_plateau():
    optimizer = sgd(0.5, 0.25)
    schedule = LambdaLR(optimizer, lambda t: 1 / (1 + t))
    ours = compose(schedule, BatchedReduceLROnPlateau(optimizer, patience=0, factor=0.5))
    ours.step([1.0, 1.0])
    ours.step([2.0, 0.5])
    assert rates_in(optimizer) == [0.25, 0.25]
    optimizer.step()
    ours.step_schedule()
    assert rates_in(optimizer) == [0.125, 0.125]
    assert ours.optimizer is optimizer


def test_tensors_in_lanes_are_the_optimizers_own_and_not_the_scales():
    optimizer = sgd(0.5)
    plateau = BatchedReduceLROnPlateau(optimizer, patience=0, factor=0.5, publish="tensor")
    ours = compose(ConstantLR(optimizer, 0.5, total_iters=1), plateau)
    (rate,) = (group["lr"] for group in optimizer.param_groups)
    for metric in (1.0, 2.0):
        ours.step([metric])
    assert (rate.item(), plateau.lanes.lr.tolist()) == (0.125, [0.5])
    optimizer.step()
    ours.step_schedule()
    assert rate.item() == 0.25
    assert optimizer.param_groups[0]["lr"] is rate


@each_plateau
def test_a_schedule_that_is_part_way_goes_on_from_there(batched):
    def build(optimizer):
        schedule = ExponentialLR(optimizer, 0.9)
        optimizer.step()
        schedule.step()
        return schedule

    ours = composed(build, False, batched)
    hand = ByHand(sgd(*RATES), build)
    for metric in noisy(20).tolist():
        ours.step(metric)
        hand.plateau.step(metric)
        own(ours).step()
        ours.step_schedule()
        hand.step_schedule()
        assert rates_in(own(ours)) == hand.rates


def test_a_fractional_epoch_reaches_the_schedule():
    ours = composed(lambda o: CosineAnnealingWarmRestarts(o, 10), False, False)
    alone = CosineAnnealingWarmRestarts(sgd(*RATES), 10)
    for each in (own(ours), alone.optimizer):
        each.step()
    ours.step_schedule(3.25)
    alone.step(3.25)
    assert rates_in(own(ours)) == rates_in(alone.optimizer)


# -- what users asked for -------------------------------------------------------------------------


def test_a_lambda_schedule_does_not_undo_a_cut():  # pytorch 82859
    optimizer = sgd(0.5)
    ours = compose(LambdaLR(optimizer, lambda _: 1.0), ReduceLROnPlateau(optimizer, patience=0))
    for metric in (1.0, 2.0):
        ours.step(metric)
    for _ in range(3):
        optimizer.step()
        ours.step_schedule()
        assert rates_in(optimizer) == [0.5 * 0.1]


def test_after_a_warm_up_the_rates_are_those_of_the_plateau_alone():  # pytorch 68978
    settings = {"patience": 1, "factor": 0.5, "min_lr": 0.03}
    optimizer, alone = sgd(0.5), sgd(0.5)
    ours = compose(
        LinearLR(optimizer, 0.01, total_iters=30), ReduceLROnPlateau(optimizer, **settings)
    )
    plateau = Torchs(alone, **settings)
    seen = []
    for epoch, metric in enumerate([1.0] * 12):
        for _ in range(10):
            optimizer.step()
            ours.step_schedule()
        ours.step(metric)
        plateau.step(metric)
        seen.append(rates_in(optimizer)[0])
        if epoch >= 2:
            assert seen[-1] == pytest.approx(rates_in(alone)[0], rel=1e-12)
    assert seen[0] < seen[1]
    assert seen[-1] == 0.03


def test_a_floor_stops_cuts_and_never_raises_a_rate_above_the_schedules():
    optimizer = sgd(1.0)
    schedule = LambdaLR(optimizer, lambda t: [1.0, 1.0, 0.05, 0.0, 1.0][t])
    ours = compose(schedule, ReduceLROnPlateau(optimizer, patience=0, factor=0.25, min_lr=0.125))
    ours.step(1.0)
    seen = []
    for _ in range(4):
        ours.step(2.0)
        seen.append(rates_in(optimizer)[0])
        optimizer.step()
        ours.step_schedule()
    assert seen == [0.25, 0.125, 0.05, 0.0]
    assert rates_in(optimizer) == [0.125]


def test_eps_is_in_units_of_the_scale():
    optimizer = sgd(1e-3)
    ours = compose(
        ConstantLR(optimizer, 1.0), ReduceLROnPlateau(optimizer, patience=0, factor=0.5, eps=0.2)
    )
    for _ in range(6):
        ours.step(1.0)
    assert ours.scale == 0.25
    assert rates_in(optimizer) == [1e-3 * 0.25]


# -- saving ---------------------------------------------------------------------------------------


@each_schedule
@each_kind
@each_plateau
@pytest.mark.parametrize("order", ["optimizer first", "composed first"])
def test_a_resumed_run_goes_on_bit_for_bit(build, tensors, batched, order):
    def make():
        ours = composed(build, tensors, batched)
        parts = [own(ours), ours]
        return ours, parts if order == "optimizer first" else parts[::-1]

    def advance(ours, metric):
        own(ours).param_groups[0]["params"][0].grad = torch.full((1,), metric)
        own(ours).step()
        ours.step_schedule()
        ours.step(metric)

    straight, saved_parts = make()
    metrics = noisy(200).tolist()
    for metric in metrics[:100]:
        advance(straight, metric)
    saved = through_a_file([part.state_dict() for part in saved_parts])
    resumed, parts = make()
    held = [group["lr"] for group in own(resumed).param_groups]
    for part, state in zip(parts, saved, strict=True):
        part.load_state_dict(state)
    weight, straight_weight = (
        own(each).param_groups[0]["params"][0] for each in (resumed, straight)
    )
    weight.data.copy_(straight_weight)
    for metric in metrics[100:]:
        assert rates_in(own(resumed)) == rates_in(own(straight))
        advance(straight, metric)
        advance(resumed, metric)
    theirs, ours = own(straight).param_groups, own(resumed).param_groups
    assert [group["momentum"] for group in ours] == [group["momentum"] for group in theirs]
    assert torch.equal(weight, straight_weight)
    if tensors:
        assert all(group["lr"] is rate for group, rate in zip(ours, held, strict=True))


@each_kind
@each_plateau
def test_a_state_is_a_snapshot(tensors, batched):
    ours = composed(SCHEDULES["ChainedScheduler"], tensors, batched)
    states, rates = [], []
    for metric in noisy(60).tolist():
        states.append(ours.state_dict())
        rates.append(rates_in(own(ours)))
        own(ours).step()
        ours.step_schedule()
        ours.step(metric)
    for i in (50, 0, 25):
        ours.load_state_dict(states[i])
        assert rates_in(own(ours)) == rates[i]


@each_kind
@each_plateau
def test_loading_into_the_optimizer_alone_leaves_the_product(tensors, batched):
    ours = composed(SCHEDULES["StepLR"], tensors, batched)
    saved = through_a_file(own(ours).state_dict())
    for _ in range(4):
        ours.step(1.0)
    before = rates_in(own(ours))
    assert before != RATES
    own(ours).load_state_dict(saved)
    assert rates_in(own(ours)) == before


@each_kind
@each_plateau
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_by_itself(twin, tensors, batched):
    ours = composed(SCHEDULES["CosineAnnealingLR"], tensors, batched)
    for metric in noisy(40).tolist():
        own(ours).step()
        ours.step_schedule()
        ours.step(metric)
    other, before = twin(ours), rates_in(own(ours))
    assert rates_in(own(other)) == before
    seen = []
    for each in (other, ours):
        assert rates_in(own(each)) == before
        for _ in range(10):
            own(each).step()
            each.step_schedule()
            each.step(1.0)
        own(each).load_state_dict(through_a_file(own(each).state_dict()))
        seen.append(rates_in(own(each)))
    assert seen[0] == seen[1] != before


def changed(state, *path, to):
    """Replace the value at the end of a path into a state."""
    for key in path[:-1]:
        state = state[key]
    state[path[-1]] = to


BAD_STATES = {
    "a rate of NaN": (lambda s: changed(s, "rates", 0, to=math.nan), ValueError, r"rates'\]\[0\]"),
    "a scale below zero": (lambda s: s.update(scale=-1.0), BOTH, r"\['scale'\]"),
    "no state of the plateau": (lambda s: s.update(plateau=None), TypeError, "expected a mapping"),
    "no schedule's state": (
        *(lambda s: s["schedules"].__setitem__(0, 3), TypeError),
        r"\['schedules'\]\[0\]: expected a mapping, got int",
    ),
    "a schedule's unknown key": (
        *(lambda s: changed(s, "schedules", 0, "optimizer", to=None), KeyError),
        r"\['schedules'\]\[0\]: missing or unknown keys \['optimizer'\]",
    ),
    "a schedule's word": (
        *(lambda s: changed(s, "schedules", 0, "step_size", to="x"), TypeError),
        r"\['schedules'\]\[0\]\['step_size'\]: expected int, got str",
    ),
    "a schedule's infinite number": (
        *(lambda s: changed(s, "schedules", 0, "gamma", to=math.inf), ValueError),
        r"\['gamma'\]: expected a finite number, got inf",
    ),
    "a schedule's number with a gradient": (
        lambda s: changed(s, "schedules", 0, "gamma", to=torch.ones((), requires_grad=True)),
        *(TypeError, r"\['gamma'\]: expected a tensor that requires no grad"),
    ),
    "a schedule's rate with a gradient": (
        lambda s: changed(
            s, "schedules", 0, "base_lrs", to=[torch.ones((), requires_grad=True)] * 2
        ),
        *(TypeError, r"\['base_lrs'\]\[0\]: expected a tensor that requires no grad"),
    ),
    "a schedule that could not go on": (
        *(lambda s: changed(s, "schedules", 0, "step_size", to=0), ValueError),
        "this StepLR could not go on from it .ZeroDivisionError",
    ),
    "a key too few": (lambda s: s.pop("rates"), KeyError, "missing or unknown keys"),
    "other schedules": (lambda s: s["schedules"].clear(), ValueError, "expected 1 items, got 0"),
    "other groups": (lambda s: s["rates"].append(0.1), ValueError, r"\['rates'\].*2 items, got 3"),
    "a bad floor": (lambda s: s.update(min_lr=[-1.0] * 2), ValueError, r"\['min_lr'\].*got -1"),
}


@pytest.mark.parametrize(("spoil", "error", "words"), BAD_STATES.values(), ids=BAD_STATES.keys())
@each_plateau
def test_a_bad_state_is_refused_and_changes_nothing(spoil, error, words, batched):
    ours = composed(SCHEDULES["StepLR"], False, batched)
    fresh = ours.state_dict()
    for _ in range(4):
        ours.step(1.0)
    before = str(ours.state_dict()), rates_in(own(ours))
    spoil(fresh)
    with pytest.raises(error, match=words):
        ours.load_state_dict(fresh)
    assert (str(ours.state_dict()), rates_in(own(ours))) == before


@each_plateau
def test_a_schedule_with_an_angle_that_has_no_cosine_could_not_go_on(batched):
    ours = composed(SCHEDULES["CosineAnnealingLR"], False, batched)
    state = ours.state_dict()
    before = str(state), rates_in(own(ours))
    spoilt = copy.deepcopy(state)
    changed(spoilt, "schedules", 0, "T_max", to=1e-309)
    with pytest.raises(ValueError, match="this CosineAnnealingLR could not go on from it"):
        ours.load_state_dict(spoilt)
    assert (str(ours.state_dict()), rates_in(own(ours))) == before


@each_plateau
def test_a_schedule_at_its_end_is_loaded(batched):
    def build(optimizer):
        return OneCycleLR(optimizer, 0.5, total_steps=5)

    ours, other = composed(build, False, batched), composed(build, False, batched)
    for _ in range(4):
        own(ours).step()
        ours.step_schedule()
    other.load_state_dict(ours.state_dict())
    assert rates_in(own(other)) == rates_in(own(ours))


class Stubborn(ExponentialLR):
    """Loads half of a state, and raises."""

    def load_state_dict(self, state_dict):
        self.__dict__.update(state_dict)
        if state_dict["last_epoch"] == 0:
            raise RuntimeError("stubborn")


@each_kind
def test_schedules_are_as_they_were_if_one_of_them_raises_in_its_load(tensors):
    optimizers = [sgd(0.5, tensors=tensors), sgd(0.25, tensors=tensors)]
    schedules = [ExponentialLR(optimizers[0], 0.9), Stubborn(optimizers[1], 0.9)]
    ours = compose(schedules, BatchedReduceLROnPlateau(optimizers, patience=0, factor=0.5))
    fresh = copy.deepcopy(ours.state_dict())
    for metric in (1.0, 2.0):
        for each in optimizers:
            each.step()
        ours.step_schedule()
        ours.step([metric] * 2)
    before, rates = str(ours.state_dict()), rates_in(*optimizers)
    with pytest.raises(RuntimeError, match="stubborn"):
        ours.load_state_dict(fresh)
    assert (str(ours.state_dict()), rates_in(*optimizers)) == (before, rates)
    ours.step_schedule()
    assert rates_in(*optimizers) == pytest.approx([rate * 0.9 for rate in rates])


# -- the face -------------------------------------------------------------------------------------


def test_it_is_a_plateau_of_torch_for_trainers_and_reads_as_ours():
    ours = composed(SCHEDULES["StepLR"], False, False)
    ours.step(0.5)
    assert isinstance(ours, Torchs)
    assert isinstance(own(ours), SGD)
    assert (ours.best, ours.patience, ours.last_epoch, ours.scale) == (0.5, 2, 1, 1.0)
    with pytest.raises(AttributeError, match="patients"):
        _ = ours.patients


NEW_SETTINGS = {
    "mode": "max",
    "factor": 0.9,
    "patience": 5,
    "threshold": 0.5,
    "threshold_mode": "abs",
    "cooldown": 4,
    "eps": 0.1,
}
NEW_COUNTS = {"best": 0.65, "num_bad_epochs": 2, "cooldown_counter": 3, "last_epoch": 40}


@each_plateau
@pytest.mark.parametrize("name", NEW_SETTINGS)
def test_a_setting_that_is_set_in_mid_run_has_torchs_effect(name, batched):
    settings = {**SETTINGS, "threshold": 0.1}
    ours = composed(SCHEDULES["StepLR"], False, batched, **settings)
    hand, unchanged = (ByHand(sgd(*RATES), SCHEDULES["StepLR"], **settings) for _ in range(2))
    falling = torch.linspace(3, 1, 60, dtype=torch.float64)
    for step, metric in enumerate((falling + 0.5 * noisy(60)).tolist()):
        if step == 5:
            setattr(ours, name, NEW_SETTINGS[name])
            setattr(hand.plateau, name, NEW_SETTINGS[name])
        own(ours).step()
        ours.step_schedule()
        ours.step(metric)
        for each in (hand, unchanged):
            each.step_schedule()
            each.plateau.step(metric)
        assert rates_in(own(ours)) == hand.rates
    assert getattr(ours, name) == NEW_SETTINGS[name]
    assert hand.rates != unchanged.rates


@each_plateau
def test_floors_that_are_set_count_from_the_next_step_on(batched):
    ours = composed(SCHEDULES["ConstantLR"], False, batched)
    hand = ByHand(sgd(*RATES), SCHEDULES["ConstantLR"], floors=[0.01, 0.01])
    ours.min_lr = 0.01
    assert ours.min_lr == [0.01, 0.01]
    for _ in range(40):
        ours.step(1.0)
        hand.plateau.step(1.0)
    assert rates_in(own(ours)) == hand.rates == [0.01, 0.01]


@pytest.mark.parametrize("name", NEW_COUNTS)
def test_a_count_that_is_set_has_torchs_effect_for_one_plateau(name):
    ours = composed(SCHEDULES["ConstantLR"], False, False)
    hand = ByHand(sgd(*RATES), SCHEDULES["ConstantLR"])
    for step, metric in enumerate(noisy(40).tolist()):
        if step == 2:
            setattr(ours, name, NEW_COUNTS[name])
            setattr(hand.plateau, name, NEW_COUNTS[name])
        ours.step(metric)
        hand.plateau.step(metric)
        assert rates_in(own(ours)) == hand.rates
        for each in NEW_COUNTS:
            assert getattr(ours, each) == getattr(hand.plateau, each)


REFUSED_ATTRIBUTES = {
    "patiance": "expected min_lr or a setting of the plateau",
    "min_lrs": "expected min_lr or a setting of the plateau",
    "default_min_lr": "expected min_lr or a setting of the plateau",
    "schedules": "cannot be set; compose again",
    "plateau": "cannot be set; compose again",
    "optimizer": "cannot be set; compose again",
    "scale": "scale",
}


@each_plateau
@pytest.mark.parametrize(("name", "words"), REFUSED_ATTRIBUTES.items())
def test_an_attribute_that_could_do_nothing_is_refused(name, words, batched):
    ours = composed(SCHEDULES["StepLR"], False, batched)
    before = vars(ours).copy(), vars(ours.plateau).copy()
    with pytest.raises(AttributeError, match=words):
        setattr(ours, name, 0.5)
    assert (vars(ours), vars(ours.plateau)) == before


@pytest.mark.parametrize("name", ["best", "num_bad_epochs", "lanes", "publish"])
def test_what_lanes_refuse_is_refused_through_the_composed_too(name):
    ours = composed(SCHEDULES["StepLR"], False, True)
    with pytest.raises(AttributeError, match=f"^{name}: cannot be set"):
        setattr(ours, name, 0.5)


@each_plateau
@pytest.mark.parametrize(("name", "bad"), [("patience", -1), ("mode", "low"), ("min_lr", [1.0])])
def test_a_bad_value_of_a_setting_is_refused(name, bad, batched):
    ours = composed(SCHEDULES["StepLR"], False, batched)
    before = str(ours.state_dict())
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        setattr(ours, name, bad)
    assert str(ours.state_dict()) == before


def test_other_optimizers_train_with_it():
    model = torch.nn.Linear(3, 1)
    optimizer = AdamW(model.parameters(), lr=torch.tensor(0.1))
    ours = compose(
        OneCycleLR(optimizer, 0.1, total_steps=50), ReduceLROnPlateau(optimizer, patience=3)
    )
    x = torch.randn(64, 3)
    losses = []
    for _ in range(49):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        ours.step_schedule()
        ours.step(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_with_tensor_rates_no_step_reads_a_tensor():
    optimizers = [sgd(0.5, 0.1, tensors=True), sgd(0.2, tensors=True)]
    schedules = [LinearLR(each, 0.1, total_iters=9) for each in optimizers]
    plateau = BatchedReduceLROnPlateau(optimizers, patience=0, min_lr=[0.1, 0.0, 0.0])
    ours = compose(schedules, plateau)
    before = rates_in(*optimizers)
    for each in optimizers:
        each.step()
    metrics = torch.ones(2)
    with Reads() as reads:
        for _ in range(3):
            ours.step(metrics)
            ours.step_schedule()
            ours.get_last_lr()
    assert reads.count == 0
    assert rates_in(*optimizers) != before
    with Reads() as reads:
        metrics[0].item()
    assert reads.count == 1


# -- misuse ---------------------------------------------------------------------------------------


def test_a_schedule_that_is_stepped_by_itself_is_refused_at_the_next_step():
    for use in (lambda s: s.step(), lambda s: s.load_state_dict(through_a_file(s.state_dict()))):
        ours = composed(SCHEDULES["ExponentialLR"], False, False)
        good = ours.state_dict()
        own(ours).step()
        use(ours.schedules[0])
        steps = ours.step_schedule, lambda ours=ours: ours.step(1.0)
        for call in (*steps, lambda ours=ours: copy.deepcopy(ours)):
            with pytest.raises(RuntimeError, match=r"^schedules\[0\]: this ExponentialLR was .*"):
                call()
        assert ours.last_epoch == 0
        ours.load_state_dict(good)
        assert rates_in(own(ours)) == RATES
        ours.step_schedule()


@each_plateau
def test_a_plateau_that_is_stepped_by_itself_cuts_and_rates_follow(batched):
    ours = composed(SCHEDULES["ConstantLR"], False, batched)
    before = rates_in(own(ours))
    for _ in range(4):
        ours.plateau.step(1.0)
    assert rates_in(own(ours)) == before
    own(ours).step()
    ours.step_schedule()
    assert rates_in(own(ours)) == [rate * 0.6 for rate in before]


def test_the_end_of_a_schedule_leaves_the_rates_as_they_are():
    ours = composed(lambda o: OneCycleLR(o, 0.5, total_steps=5), False, False)
    own(ours).step()
    for _ in range(5):
        ours.step_schedule()
        ours.step(1.0)
    before = rates_in(own(ours))
    assert ours.scale < 1.0
    with pytest.raises(ValueError, match="Tried to step 6 times"):
        ours.step_schedule()
    assert rates_in(own(ours)) == before
    ours.step(0.0)
    assert rates_in(own(ours)) == before


def test_a_group_that_is_added_later_is_refused():
    ours = composed(SCHEDULES["StepLR"], False, False)
    own(ours).add_param_group({"params": [torch.ones(1)]})
    for step in (ours.step_schedule, lambda: ours.step(1.0)):
        with pytest.raises(ValueError, match=r"expected 2 param groups, .*got 3"):
            step()


BAD_STEPS = {
    "a mask for one plateau": (
        *(False, {"active": [True]}, TypeError),
        "^active: expected none, for the plateau is a ReduceLROnPlateau and has no lanes, got list",
    ),
    "a mask of another length": (
        *(True, {"active": [True] * 2}, ValueError),
        r"^active: expected a bool tensor of shape \(1,\), got",
    ),
    "a mask of numbers": (True, {"active": [1]}, TypeError, "^active: expected a bool tensor or 1"),
    "an epoch that is none": (True, {"epoch": "x"}, TypeError, "^epoch: expected"),
}


@pytest.mark.parametrize(
    ("batched", "arguments", "error", "words"), BAD_STEPS.values(), ids=BAD_STEPS.keys()
)
def test_a_bad_step_is_refused_and_changes_nothing(batched, arguments, error, words):
    ours = composed(SCHEDULES["StepLR"], False, batched)
    for _ in range(4):
        ours.step(1.0)
    before = str(ours.state_dict()), rates_in(own(ours))
    with pytest.raises(error, match=words):
        ours.step(1.0, **arguments)
    assert (str(ours.state_dict()), rates_in(own(ours))) == before


def stepped(plateau):
    plateau.step(1.0)
    return plateau


ONE, TWO = sgd(0.1), sgd(0.1)
MISUSES = {
    "no schedule": (lambda: (0.1, ReduceLROnPlateau(ONE)), TypeError, "schedule: .*LRScheduler"),
    "a plateau for a schedule": (
        lambda: (Torchs(ONE), ReduceLROnPlateau(ONE)),
        TypeError,
        "schedule: expected a schedule, got a plateau, ReduceLROnPlateau",
    ),
    "torch's plateau": (
        lambda: (StepLR(ONE, 1), Torchs(ONE)),
        TypeError,
        "plateau: expected a torch_plateau.*got .*torch's own",
    ),
    "no plateau": (lambda: (StepLR(ONE, 1), StepLR(ONE, 1)), TypeError, "plateau: expected a"),
    "another optimizer": (
        lambda: (StepLR(TWO, 1), ReduceLROnPlateau(ONE)),
        ValueError,
        "schedule: expected one of the plateau's optimizer, got a StepLR of another",
    ),
    "the optimizers in another order": (
        lambda: ([StepLR(TWO, 1), StepLR(ONE, 1)], BatchedReduceLROnPlateau([ONE, TWO])),
        ValueError,
        r"schedule\[0\]: expected one of the plateau's optimizer",
    ),
    "one schedule for two": (
        lambda: (StepLR(ONE, 1), BatchedReduceLROnPlateau([ONE, TWO])),
        ValueError,
        "schedule: expected 2, one for each optimizer of the plateau, got 1",
    ),
    "a plateau that was stepped": (
        lambda: (StepLR(ONE, 1), stepped(ReduceLROnPlateau(ONE))),
        ValueError,
        "plateau: .*last_epoch=1; compose first",
    ),
    "a composed one": (
        lambda: (StepLR(ONE, 1), compose(StepLR(ONE, 1), ReduceLROnPlateau(ONE))),
        TypeError,
        "plateau: .*composed",
    ),
    "the plateau of a composed one": (
        lambda: (StepLR(ONE, 1), compose(StepLR(ONE, 1), ReduceLROnPlateau(ONE)).plateau),
        ValueError,
        "plateau: expected one that is not composed yet",
    ),
    "lanes of a composed one": (
        lambda: (StepLR(ONE, 1), compose(StepLR(ONE, 1), BatchedReduceLROnPlateau(ONE)).plateau),
        ValueError,
        "plateau: expected one that is not composed yet",
    ),
}


@pytest.mark.parametrize(("make", "error", "words"), MISUSES.values(), ids=MISUSES.keys())
def test_a_misuse_is_refused_with_the_reason(make, error, words):
    schedule, plateau = make()
    with pytest.raises(error, match=words):
        compose(schedule, plateau)


def test_schedules_of_ones_own_work_if_they_are_torchs_kind():
    class Square(LRScheduler):
        def get_lr(self):
            return [base / (1 + self.last_epoch) ** 2 for base in self.base_lrs]

    ours, hand = composed(Square, False, False), ByHand(sgd(*RATES), Square)
    for metric in noisy(30).tolist():
        own(ours).step()
        ours.step_schedule()
        hand.step_schedule()
        ours.step(metric)
        hand.plateau.step(metric)
        assert rates_in(own(ours)) == hand.rates
