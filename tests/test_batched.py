"""BatchedReduceLROnPlateau over real optimizers, beside torch schedulers with float rates."""

import copy
import gc
import io
import math
import pickle

import pytest
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING, LinearLR
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs

from torch_plateau import BatchedReduceLROnPlateau, PlateauLanes

PUBLISH = pytest.mark.parametrize("publish", ["float", "tensor"])


def sgd(*rates, kind=SGD, device="cpu"):
    """An optimizer with a group for each rate; on a GPU it does not wait for rates there."""
    params = [torch.nn.Parameter(torch.ones(1, device=device)) for _ in rates]
    groups = [{"params": [param], "lr": rate} for param, rate in zip(params, rates, strict=True)]
    return kind(groups, lr=1.0, **({"fused": True} if device != "cpu" and kind is SGD else {}))


def rates_of(*optimizers):
    return [float(group["lr"]) for each in optimizers for group in each.param_groups]


def noisy(steps, n, device="cpu"):
    return ((torch.rand(steps, n, dtype=torch.float64) * 8).round() / 8 - 0.25).to(device)


def rounded(rates):
    """As float32 holds them."""
    return torch.tensor(rates, dtype=torch.float64).float().tolist()


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_publishes(scheduler, rates):
    """The lanes hold ``rates``, and the optimizers read them."""
    groups = scheduler._groups()
    assert scheduler.lanes.lr_master.tolist() == rates
    assert scheduler.lanes.lr.tolist() == rounded(rates)
    if scheduler.publish == "float":
        assert [group["lr"] for group in groups] == rates
        assert {type(group["lr"]) for group in groups} <= {float}
        return
    for group, cell in zip(groups, scheduler.lanes.lr.unbind(), strict=True):
        assert group["lr"].data_ptr() == cell.data_ptr()
        assert (group["lr"].shape, group["lr"].dtype) == ((), torch.float32)


# -- the same decisions ---------------------------------------------------------------------------

RATES = [[0.1], [0.2, 0.3], [0.7, 0.5, 0.4], [1.0]]
SETTINGS = [
    {"patience": 0, "mode": "max", "min_lr": [0.01]},
    {"patience": 2, "mode": "min", "min_lr": [0.1, 0.0]},
    {"patience": 1, "mode": "min", "min_lr": [0.0, 0.45, 0.2]},
    {"patience": 4, "mode": "max", "min_lr": [0.001]},
]


@PUBLISH
def test_a_lane_per_optimizer_decides_as_a_torch_scheduler_for_each(publish, device):
    optimizers = [sgd(*rates, device=device) for rates in RATES]
    reference = [sgd(*rates) for rates in RATES]
    oracle = [Torchs(o, cooldown=1, **s) for o, s in zip(reference, SETTINGS, strict=True)]
    keywords = {name: [each[name] for each in SETTINGS] for name in ("patience", "mode")}
    floors = [floor for each in SETTINGS for floor in each["min_lr"]]
    scheduler = BatchedReduceLROnPlateau(
        optimizers, cooldown=1, min_lr=floors, publish=publish, **keywords
    )
    assert isinstance(scheduler, Torchs)
    assert scheduler.optimizer is optimizers
    for step, row in enumerate(noisy(60, 4, device), start=1):
        scheduler.step(row)
        for each, metric in zip(oracle, row.tolist(), strict=True):
            each.step(metric)
        assert_publishes(scheduler, rates_of(*reference))
        assert scheduler.best.tolist() == [each.best for each in oracle]
        assert scheduler.num_bad_epochs.tolist() == [each.num_bad_epochs for each in oracle]
        assert scheduler.cooldown_counter.tolist() == [each.cooldown_counter for each in oracle]
        assert [float(rate) for rate in scheduler.get_last_lr()] == rates_of(*optimizers)
        assert scheduler.last_epoch == step
    assert rates_of(*reference) != [rate for rates in RATES for rate in rates]


@PUBLISH
def test_a_lane_per_group_of_one_optimizer_decides_as_a_torch_scheduler_for_each(publish, device):
    rates, factors = [0.1, 0.5, 0.3], [0.5, 0.1, 0.9]
    optimizer, reference = sgd(*rates, device=device), [sgd(rate) for rate in rates]
    oracle = [Torchs(o, factor=f, patience=1) for o, f in zip(reference, factors, strict=True)]
    scheduler = BatchedReduceLROnPlateau(optimizer, factor=factors, patience=1, publish=publish)
    assert scheduler.optimizer is optimizer
    for row in noisy(60, 3, device):
        scheduler.step(row)
        for each, metric in zip(oracle, row.tolist(), strict=True):
            each.step(metric)
        assert_publishes(scheduler, rates_of(*reference))


def test_rates_are_published_as_they_were_given_unless_told(device):
    for other, publish in ((0.2, "float"), (torch.tensor(0.2, device=device), "tensor")):
        optimizers = [sgd(0.1, device=device), sgd(other, device=device)]
        scheduler = BatchedReduceLROnPlateau(optimizers)
        assert scheduler.publish == publish
        assert scheduler.lanes.device.type == (device if publish == "tensor" else "cpu")
    held = 0.1 + 0.2
    optimizer = sgd(held, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer)
    scheduler.step([1.0])
    assert optimizer.param_groups[0]["lr"] is held


def test_the_last_rates_are_copies(device):
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25, device=device), publish="tensor")
    scheduler.get_last_lr()[0].fill_(9.0)
    assert scheduler.lanes.lr.tolist() == rates_of(scheduler.optimizer) == [0.5, 0.25]


def test_an_epoch_warns_as_torch_does_and_is_adopted():
    scheduler = BatchedReduceLROnPlateau(sgd(0.5))
    with pytest.warns(UserWarning, match="epoch parameter") as caught:
        scheduler.step([1.0], 7)
    assert str(caught[0].message) == EPOCH_DEPRECATION_WARNING
    assert caught[0].filename == __file__
    scheduler.step([1.0])
    assert scheduler.last_epoch == 8


@pytest.mark.parametrize("bad", ["x", 1.5, -(2**60), [1]])
def test_an_epoch_that_is_none_is_refused_and_no_lane_advances(bad):
    scheduler = BatchedReduceLROnPlateau(sgd(0.5))
    with pytest.raises((TypeError, ValueError), match=r"^epoch: expected"):
        scheduler.step([1.0], bad)
    assert scheduler.lanes.num_steps == scheduler.last_epoch == 0


@PUBLISH
def test_optional_parts_are_those_of_the_lanes(publish, device):
    optimizer = sgd(0.5, 0.25, device=device)
    options = {"nan": ["skip", "cut"], "window": 2, "max_reductions": 2, "events": 8}
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish=publish, **options)
    lanes = PlateauLanes(2, [0.5, 0.25], patience=0, **options)
    for row in ([1.0, 1.0], [math.nan, math.nan], [3.0, 0.5], [5.0, 5.0], [9.0, 9.0]):
        scheduler.step(row)
        lanes.step(row)
        assert_publishes(scheduler, lanes.lr_master.tolist())
    assert scheduler.lanes.finished.tolist() == lanes.finished.tolist() == [True, True]
    assert scheduler.nan == ["skip", "cut"]
    with pytest.raises(TypeError, match=r"options: expected some of .*got \['warmup_steps'\]"):
        BatchedReduceLROnPlateau(optimizer, warmup_steps=3)


@PUBLISH
def test_rates_that_are_set_on_the_lanes_reach_the_optimizers(publish, device):
    optimizer = sgd(0.5, 0.25, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=5, publish=publish)
    scheduler.step([1.0, 1.0])
    for change, rates in (
        (lambda lanes: lanes.set_lanes([1], lr=0.125), [0.5, 0.125]),
        (lambda lanes: lanes.lr.fill_(0.75), [0.75, 0.75]),
        (lambda lanes: lanes.reset([0, 1]), [0.5, 0.25]),
        (lambda lanes: lanes.copy_lanes([0], [1]), [0.5, 0.5]),
    ):
        change(scheduler.lanes)
        scheduler.step([0.5, 0.5])
        assert_publishes(scheduler, rates)


# -- rates that other code sets -------------------------------------------------------------------


def replace(group, rate):
    group["lr"] = rate


NEW_RATES = {
    "float": lambda group: replace(group, 0.3),
    "int": lambda group: replace(group, 1),
    "0-d tensor": lambda group: replace(group, torch.tensor(0.3, dtype=torch.float64)),
    "one-element tensor": lambda group: replace(group, torch.tensor([0.25])),
    "the same number again": lambda group: replace(group, float(group["lr"])),
}


@PUBLISH
@pytest.mark.parametrize("write", NEW_RATES.values(), ids=NEW_RATES.keys())
def test_a_rate_that_was_replaced_is_adopted(write, publish, device):
    optimizer, reference = sgd(0.5, 0.125, device=device), [sgd(0.5), sgd(0.125)]
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish=publish)
    oracle = [Torchs(each, patience=0) for each in reference]
    for i, row in enumerate([[1.0, 1.0], [0.5, 0.5], [2.0, 0.25], [2.0, 2.0]]):
        if i == 1:
            write(optimizer.param_groups[0])
            reference[0].param_groups[0]["lr"] = float(optimizer.param_groups[0]["lr"])
        scheduler.step(row)
        for each, metric in zip(oracle, row, strict=True):
            each.step(metric)
        assert_publishes(scheduler, rates_of(*reference))


def test_a_rate_that_was_written_in_place_is_adopted(device):
    optimizer = sgd(0.5, 0.125, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish="tensor")
    scheduler.step([1.0, 1.0])
    optimizer.param_groups[1]["lr"].fill_(0.25)
    assert_publishes(scheduler, [0.5, 0.25])
    scheduler.step([0.5, 2.0])
    assert_publishes(scheduler, [0.5, 0.25 * 0.1])


BAD_RATES = {
    "nan": (math.nan, ValueError, r"param_groups\[1\]\['lr'\]: .*got nan"),
    "negative": (torch.tensor(-1.0), ValueError, r"param_groups\[1\]\['lr'\]: .*got -1"),
    "vector": (torch.ones(2), ValueError, r"param_groups\[1\]\['lr'\]: .*shape \(2,\)"),
    "None": (None, TypeError, r"param_groups\[1\]\['lr'\]: .*got None"),
}


@PUBLISH
@pytest.mark.parametrize(("bad", "error", "words"), BAD_RATES.values(), ids=BAD_RATES.keys())
def test_a_rate_that_is_none_is_refused_and_no_lane_advances(bad, error, words, publish, device):
    optimizer = sgd(0.5, 0.125, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish=publish)
    scheduler.step([1.0, 1.0])
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.3, bad
    for _ in range(2):
        with pytest.raises(error, match=words):
            scheduler.step([2.0, 2.0])
        assert optimizer.param_groups[0]["lr"] == 0.3
        assert optimizer.param_groups[1]["lr"] is bad
        assert scheduler.lanes.lr_master.tolist() == [0.5, 0.125]
        assert scheduler.lanes.num_steps == scheduler.last_epoch == 1
    optimizer.param_groups[1]["lr"] = 0.25
    scheduler.step([2.0, 2.0])
    assert_publishes(scheduler, [0.3 * 0.1, 0.25 * 0.1])


@PUBLISH
def test_a_warm_up_may_write_the_rates_first(publish, device):
    rates, settings = [0.5, 0.25], {"patience": 0, "factor": 0.5}
    optimizer, reference = sgd(*rates, device=device), [sgd(rate) for rate in rates]
    scheduler = BatchedReduceLROnPlateau(optimizer, publish=publish, **settings)
    oracle = [Torchs(each, **settings) for each in reference]
    warm_up = [LinearLR(each, start_factor=0.5, total_iters=4) for each in (optimizer, *reference)]
    for row in noisy(20, 2, device):
        for each in (optimizer, *reference):
            each.step()
        if warm_up[0].last_epoch < 4:
            for each in warm_up:
                each.step()
        scheduler.step(row)
        for each, metric in zip(oracle, row.tolist(), strict=True):
            each.step(metric)
        assert rates_of(optimizer) == pytest.approx(rates_of(*reference), rel=1e-6)
    assert rates_of(*reference)[0] < 0.1


# -- loading --------------------------------------------------------------------------------------


def test_views_are_repaired_after_the_optimizer_loads_and_no_digit_is_lost(device):
    optimizers = [sgd(0.1, device=device), sgd(0.3, 0.7, device=device)]
    scheduler = BatchedReduceLROnPlateau(optimizers, patience=0, publish="tensor")
    for metric in (1.0, 2.0):
        scheduler.step([metric, metric])
    rates = [0.1 * 0.1, 0.3 * 0.1, 0.7 * 0.1]
    for optimizer in optimizers:
        optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_publishes(scheduler, rates)
    saved = copy.deepcopy(optimizers[1].state_dict())
    saved["param_groups"][1]["lr"] = 0.25
    optimizers[1].load_state_dict(saved)
    assert_publishes(scheduler, [*rates[:2], 0.25])
    scheduler.step([3.0, 3.0])
    assert_publishes(scheduler, [rates[0] * 0.1, rates[1] * 0.1, 0.025])


@PUBLISH
@pytest.mark.parametrize("order", ["optimizers first", "scheduler first"])
def test_a_resumed_run_goes_on_as_if_never_stopped(order, publish, device):
    settings = {"patience": 1, "factor": 0.7, "cooldown": 1, "min_lr": 1e-3}
    rows = noisy(60, 3, device)
    optimizers = [sgd(*rates, device=device) for rates in RATES[:3]]
    straight = BatchedReduceLROnPlateau(optimizers, publish=publish, **settings)
    for row in rows[:30]:
        straight.step(row)
    saved = through_a_file(
        [straight.state_dict(), *(each.state_dict() for each in straight.optimizer)]
    )
    optimizers = [sgd(*[0.9] * groups, device=device) for groups in (1, 2, 3)]
    resumed = BatchedReduceLROnPlateau(optimizers, publish=publish, mode="max")
    pairs = list(zip(optimizers, saved[1:], strict=True))
    if order == "scheduler first":
        resumed.load_state_dict(saved[0])
    for optimizer, state in pairs:
        optimizer.load_state_dict(state)
    if order == "optimizers first":
        resumed.load_state_dict(saved[0])
    for row in rows[30:]:
        assert_publishes(resumed, straight.lanes.lr_master.tolist())
        assert resumed.last_epoch == straight.last_epoch
        straight.step(row)
        resumed.step(row)
    assert resumed.best.tolist() == straight.best.tolist()
    assert straight.lanes.num_reductions.min() > 2


def test_a_state_is_a_snapshot_of_tensors_and_primitives():
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25), patience=0)
    scheduler.step([1.0, 1.0])
    state = scheduler.state_dict()
    scheduler.step([2.0, 2.0])
    assert state["lanes"]["lr"].tolist() == [0.5, 0.25]
    scheduler.load_state_dict(through_a_file(state))
    assert_publishes(scheduler, [0.5, 0.25])
    assert scheduler.last_epoch == 1


def test_a_tensor_rate_stays_the_same_tensor_whatever_is_loaded():
    optimizer = sgd(0.5, 0.25)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish="tensor")
    held = [group["lr"] for group in optimizer.param_groups]
    states = scheduler.state_dict(), through_a_file(optimizer.state_dict())
    for metric in (1.0, 2.0):
        scheduler.step([metric, metric])
    for thing, state in zip((scheduler, optimizer), states, strict=True):
        thing.load_state_dict(state)
        now = [group["lr"] for group in optimizer.param_groups]
        assert all(a is b for a, b in zip(now, held, strict=True))
        assert rates_of(optimizer) == [0.5, 0.25]


@PUBLISH
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_optimizers_of_its_own_and_repairs_them(twin, publish, device):
    optimizers = [sgd(rate, device=device) for rate in (0.5, 0.25)]
    scheduler = BatchedReduceLROnPlateau(optimizers, patience=0, publish=publish)
    scheduler.step([1.0, 1.0])
    other = twin(scheduler)
    other.step([2.0, 0.5])
    assert_publishes(scheduler, [0.5, 0.25])
    assert_publishes(other, [0.5 * 0.1, 0.25])
    for optimizer in other.optimizer:
        optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_publishes(other, [0.5 * 0.1, 0.25])
    other.step([2.0, 2.0])
    assert_publishes(other, [0.5 * 0.1 * 0.1, 0.25 * 0.1])
    assert_publishes(scheduler, [0.5, 0.25])


def test_a_dropped_scheduler_leaves_the_optimizer_alone(device):
    optimizer = sgd(0.5, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, publish="tensor")
    live, state = scheduler.lanes.lr, through_a_file(optimizer.state_dict())
    del scheduler
    gc.collect()
    state["param_groups"][0]["lr"] = 0.125
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert isinstance(optimizer.param_groups[0]["lr"], float)
    assert live.tolist() == [0.5]


# -- the optimizers -------------------------------------------------------------------------------

TAKES_TENSORS = {
    "SGD": (SGD, {}),
    "SGD momentum foreach": (SGD, {"momentum": 0.9, "foreach": True}),
    "SGD fused": (SGD, {"fused": True}),
    "Adam": (Adam, {}),
    "Adam fused": (Adam, {"fused": True}),
    "AdamW": (AdamW, {}),
    "AdamW single": (AdamW, {"foreach": False}),
    "NAdam": (torch.optim.NAdam, {}),
    "RAdam": (torch.optim.RAdam, {}),
    "Adamax": (torch.optim.Adamax, {}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "Muon": (torch.optim.Muon, {}),
    "SparseAdam": (torch.optim.SparseAdam, {}),
}


def train(kind, keywords, schedule, device):
    """Four steps of one 2-d parameter, with a cut from 0.5 to 0.25 after the second."""
    param = torch.nn.Parameter(torch.linspace(1, 2, 6, device=device).view(3, 2))
    optimizer = kind([param], lr=0.5, **keywords)
    scheduler = schedule(optimizer)
    places = []
    for i, metric in enumerate([1.0, 2.0, 0.5, 0.25]):
        gradient = torch.full((3, 2), 0.5 + i, device=device)
        param.grad = gradient.to_sparse(1) if kind is torch.optim.SparseAdam else gradient
        optimizer.step()
        scheduler.step(metric)
        places.append(param.detach().clone())
    return torch.stack(places)


@PUBLISH
@pytest.mark.filterwarnings("ignore:.* waits for its rate at every step:UserWarning")
@pytest.mark.parametrize(("kind", "keywords"), TAKES_TENSORS.values(), ids=TAKES_TENSORS.keys())
def test_an_optimizer_steps_with_the_cut_rate(kind, keywords, publish, device):
    class OneLane(BatchedReduceLROnPlateau):
        def step(self, metric):
            super().step([metric])

    def ours(optimizer):
        return OneLane(optimizer, factor=0.5, patience=0, publish=publish)

    places = train(kind, keywords, ours, device)
    expected = train(kind, keywords, lambda o: Torchs(o, factor=0.5, patience=0), device)
    uncut = train(kind, keywords, lambda o: Torchs(o, factor=0.5, patience=9), device)
    assert torch.allclose(places, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(places[3], uncut[3], rtol=1e-3, atol=1e-3)


def test_rprop_runs_too_though_it_reads_its_rate_only_once(device):
    optimizer = sgd(0.5, kind=torch.optim.Rprop, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish="tensor")
    for metric in (1.0, 2.0):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(1, device=device)
        optimizer.step()
        scheduler.step([metric])
    assert_publishes(scheduler, [0.5 * 0.1])


def test_the_step_size_of_sgd_is_the_cut_rate(device):
    optimizers = [sgd(0.5, device=device), sgd(0.25, device=device)]
    scheduler = BatchedReduceLROnPlateau(optimizers, factor=0.5, patience=0, publish="tensor")
    for row in ([1.0, 1.0], [2.0, 0.5]):
        scheduler.step(row)
    moved = []
    for optimizer in optimizers:
        param = optimizer.param_groups[0]["params"][0]
        param.grad = torch.ones_like(param)
        optimizer.step()
        moved.append(1.0 - param.item())
    assert moved == [0.25, 0.25]


REFUSED = {
    "LBFGS": (torch.optim.LBFGS, {}, "LBFGS, got 'tensor': it keeps"),
    "Adam foreach": (Adam, {"foreach": True}, "Adam with foreach=True and capturable=False"),
    "AdamW foreach": (AdamW, {"foreach": True}, "AdamW with foreach=True and capturable=False"),
}


@pytest.mark.parametrize(("kind", "keywords", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_an_optimizer_that_cannot_take_a_tensor_is_refused_as_such(kind, keywords, words):
    optimizer = kind([torch.nn.Parameter(torch.ones(1))], lr=0.5, **keywords)
    with pytest.raises(ValueError, match=f"^publish: expected 'float' for {words}"):
        BatchedReduceLROnPlateau([sgd(0.1), optimizer], publish="tensor")
    assert rates_of(optimizer) == [0.5]
    assert isinstance(optimizer.param_groups[0]["lr"], float)
    assert_publishes(BatchedReduceLROnPlateau(optimizer, patience=0), [0.5])


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another, as accelerate's: one by isinstance, with no hooks of its own."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups


def test_a_wrapped_optimizer_is_repaired_by_the_one_inside():
    inner = sgd(0.5, 0.25)
    scheduler = BatchedReduceLROnPlateau(Wrapper(inner), patience=0, publish="tensor")
    inner.load_state_dict(through_a_file(inner.state_dict()))
    assert_publishes(scheduler, [0.5, 0.25])
    scheduler.step([1.0, 1.0])
    scheduler.step([2.0, 0.5])
    assert_publishes(scheduler, [0.5 * 0.1, 0.25])
    assert rates_of(inner) == rounded([0.5 * 0.1, 0.25])


NEW_SETTINGS = {
    "mode": "max",
    "factor": 0.75,
    "patience": 3,
    "threshold": 0.5,
    "threshold_mode": "abs",
    "cooldown": 3,
    "min_lr": 0.2,
    "eps": 0.05,
}
NEW_OPTIONS = {
    "atol": 0.25,
    "nan": "cut",
    "counting": "keras",
    "initial_patience": 4,
    "smoothing": 0.75,
    "accumulate": 2,
    "window": 3,
    "max_reductions": 3,
    "patience_at_min": 1,
}


@PUBLISH
@pytest.mark.parametrize("name", NEW_SETTINGS)
def test_a_setting_that_is_set_in_mid_run_reaches_the_lanes(name, publish, device):
    rates, settings = [0.5, 0.25], {"patience": 1, "factor": 0.5, "threshold": 0.1}
    optimizer, reference = sgd(*rates, device=device), [sgd(rate) for rate in rates]
    scheduler = BatchedReduceLROnPlateau(optimizer, publish=publish, **settings)
    oracle = [Torchs(each, **settings) for each in reference]
    unchanged = [Torchs(sgd(rate), **settings) for rate in rates]
    falling = torch.linspace(3, 1, 40, dtype=torch.float64)
    for step, row in enumerate(falling[:, None] + 0.5 * noisy(40, 2)):
        if step == 5:
            setattr(scheduler, name, NEW_SETTINGS[name])
            for each in oracle:
                torchs_name = "min_lrs" if name == "min_lr" else name
                value = [0.2] if name == "min_lr" else NEW_SETTINGS[name]
                setattr(each, torchs_name, value)
        scheduler.step(row.to(device))
        for each, metric in zip((*oracle, *unchanged), row.tolist() * 2, strict=True):
            each.step(metric)
        assert_publishes(scheduler, rates_of(*reference))
        assert scheduler.best.tolist() == [each.best for each in oracle]
    assert getattr(scheduler, name) == NEW_SETTINGS[name]
    assert rates_of(*reference) != rates_of(*(each.optimizer for each in unchanged))


@pytest.mark.parametrize("name", NEW_OPTIONS)
def test_an_option_that_is_set_reaches_the_lanes(name):
    settings = {"patience": 1, "factor": 0.5, "cooldown": 1, "eps": 1e-3}
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25), **settings)
    setattr(scheduler, name, NEW_OPTIONS[name])
    lanes = PlateauLanes(2, [0.5, 0.25], **settings, **{name: NEW_OPTIONS[name]})
    rows = noisy(40, 2)
    rows[20] = math.nan
    for row in rows:
        scheduler.step(row)
        lanes.step(row)
        assert_publishes(scheduler, lanes.lr_master.tolist())
    assert scheduler.lanes.settings[name] == getattr(scheduler, name) == NEW_OPTIONS[name]


def test_a_setting_may_be_set_to_one_for_each_lane():
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25, 0.125), factor=0.5)
    scheduler.patience = [0, 1, 2]
    for metric in (1.0, 2.0, 2.0):
        scheduler.step([metric] * 3)
    assert_publishes(scheduler, [0.125, 0.125, 0.125])
    scheduler.last_epoch = 7
    scheduler.step([2.0] * 3)
    assert scheduler.last_epoch == 8


REFUSED_ATTRIBUTES = {
    "best": "use the methods of lanes: reset, set_lanes",
    "num_bad_epochs": "use the methods of lanes: reset, set_lanes",
    "cooldown_counter": "use the methods of lanes: reset, set_lanes",
    "patiance": r"expected one of the settings, \['mode', .*'patience'",
    "min_lrs": "expected one of the settings, .*'min_lr'",
    "warmup_steps": "expected one of the settings",
    "events": "expected one of the settings",
    "lanes": "cannot be set; build a new scheduler",
    "optimizer": "cannot be set; build a new scheduler",
    "publish": "cannot be set; build a new scheduler",
}


@pytest.mark.parametrize(("name", "words"), REFUSED_ATTRIBUTES.items())
def test_an_attribute_that_could_do_nothing_is_refused(name, words):
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25), patience=0)
    before = vars(scheduler).copy()
    with pytest.raises(AttributeError, match=f"^{name}: .*{words}"):
        setattr(scheduler, name, 3)
    assert vars(scheduler) == before


@pytest.mark.parametrize(("name", "bad"), [("patience", -1), ("mode", "low"), ("last_epoch", "x")])
def test_a_bad_value_of_a_setting_is_refused_as_in_the_constructor(name, bad):
    scheduler = BatchedReduceLROnPlateau(sgd(0.5, 0.25), patience=0)
    before = copy.deepcopy(scheduler.lanes.settings), scheduler.last_epoch
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        setattr(scheduler, name, bad)
    assert (scheduler.lanes.settings, scheduler.last_epoch) == before


def test_a_subclass_may_have_attributes_of_its_own():
    class Named(BatchedReduceLROnPlateau):
        pass

    scheduler = Named(sgd(0.5))
    scheduler.monitor, scheduler.patience = "loss", 0
    other = copy.deepcopy(scheduler)
    assert (other.monitor, other.lanes.settings["patience"]) == ("loss", 0)


def test_settings_are_read_by_the_names_that_torch_gives_them():
    scheduler = BatchedReduceLROnPlateau([sgd(0.1), sgd(0.2)], patience=[3, 4], mode="max")
    assert scheduler.patience.tolist() == [3, 4]
    assert (scheduler.mode, scheduler.factor, scheduler.cooldown) == ("max", 0.1, 0)
    with pytest.raises(AttributeError, match="no attribute 'patients'"):
        _ = scheduler.patients
