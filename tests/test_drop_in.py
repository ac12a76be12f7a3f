"""The drop-in beside torch's own class, which is the oracle throughout."""

import copy
import inspect
import io
import math
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import EPOCH_DEPRECATION_WARNING
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs

from torch_plateau import ReduceLROnPlateau

KINDS = (ReduceLROnPlateau, Torchs)


def sgd(*rates):
    return SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in rates or (0.1,)], lr=1.0)


def pair(*rates, **settings):
    """Ours and torch's, each over an optimizer of its own; tensor rates are copied."""
    return [kind(sgd(*copy.deepcopy(rates)), **settings) for kind in KINDS]


def rates_in(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def assert_same(ours, theirs):
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == reference.keys()
    for name, value in reference.items():
        assert getattr(ours, name) == mine[name] == value
        assert type(mine[name]) is type(value)
    assert ours.in_cooldown is theirs.in_cooldown
    assert ours.get_last_lr() == theirs.get_last_lr()
    assert rates_in(ours) == rates_in(theirs)


def step_both(ours, theirs, metrics):
    for metric in metrics:
        ours.step(metric)
        theirs.step(metric)
        assert_same(ours, theirs)


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


SETTINGS = {
    "defaults": {},
    "max": {"mode": "max", "patience": 1, "cooldown": 2, "threshold_mode": "abs", "threshold": 0.1},
    "floors": {"factor": 0.5, "patience": 0, "min_lr": [0.03, 0.2], "eps": 0.01},
}
METRICS = [
    1.0,
    0.9,
    0.95,
    1.1,
    math.nan,
    0.9,
    0.9,
    0.9,
    0.5,
    0.6,
    0.6,
    math.inf,
    0.7,
    -1.0,
    -0.9,
    0.0,
]
each_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


# -- the same face --------------------------------------------------------------------------------


def shape_of(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_it_is_torchs_class_with_torchs_signature_and_one_keyword_more():
    assert isinstance(ReduceLROnPlateau(sgd()), Torchs)
    *shape, own = shape_of(ReduceLROnPlateau)
    assert shape == shape_of(Torchs)
    assert own == ("process_group", inspect.Parameter.KEYWORD_ONLY, None)
    public = {name for name in vars(Torchs) if callable(getattr(Torchs, name))} - {"__init__"}
    for name in ("step", "get_last_lr", "state_dict", "load_state_dict", *public):
        assert shape_of(getattr(ReduceLROnPlateau, name)) == shape_of(getattr(Torchs, name)), name


@each_setting
def test_it_has_torchs_attributes_before_and_after_every_step(settings):
    ours, theirs = pair(0.1, 0.3, **settings)
    assert vars(theirs).keys() <= set(dir(ours))
    assert_same(ours, theirs)
    step_both(ours, theirs, METRICS * 3)


NEW_VALUES = {
    "best": 0.65,
    "num_bad_epochs": 3,
    "cooldown_counter": 2,
    "last_epoch": 40,
    "patience": 0,
    "cooldown": 3,
    "mode": "max",
    "threshold": 0.5,
    "threshold_mode": "abs",
    "factor": 0.75,
    "eps": 0.05,
    "min_lrs": [0.09],
}


@pytest.mark.parametrize("name", NEW_VALUES)
def test_an_attribute_that_is_set_in_mid_run_has_torchs_effect(name):
    ours, theirs = pair(patience=3)
    step_both(ours, theirs, METRICS)
    for scheduler in (ours, theirs):
        setattr(scheduler, name, copy.copy(NEW_VALUES[name]))
    assert_same(ours, theirs)
    step_both(ours, theirs, METRICS * 3)


def test_a_reset_has_torchs_effect():
    ours, theirs = pair(patience=1, cooldown=3, mode="max")
    step_both(ours, theirs, METRICS[:6])
    for scheduler in (ours, theirs):
        scheduler._reset()
    step_both(ours, theirs, METRICS)


# -- upstream's scenarios -------------------------------------------------------------------------

FLAT_THEN_BETTER = [1.0] * 7 + [0.6] + [0.5] * 12
SCENARIOS = {  # settings, metrics, at which steps (from 0) the rate of 0.5 is cut
    "a fall above the threshold never cuts": (
        {"mode": "min", "threshold_mode": "abs", "threshold": 0.01, "patience": 5, "cooldown": 5},
        [10 - 0.0167 * i for i in range(20)],
        [],
    ),
    "a fall below the threshold cuts again and again": (
        {"mode": "min", "threshold_mode": "abs", "threshold": 0.1, "patience": 5, "cooldown": 0},
        [10 - 0.0165 * i for i in range(22)],
        [6, 13, 20],
    ),
    "negative metrics to be made larger": (
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "patience": 5, "cooldown": 5},
        [-0.8] * 2 + [-0.234] * 20,
        [8, 19],
    ),
    "fast growth never cuts": (
        {"mode": "max", "threshold_mode": "rel", "threshold": 0.1, "patience": 3},
        [1.5 * 1.025**i for i in range(20)],
        [],
    ),
    "slow growth cuts, and again after the cooldown": (
        {"mode": "max", "threshold_mode": "rel", "threshold": 0.1, "patience": 5, "cooldown": 5},
        [1.5 * 1.005**i for i in range(20)],
        [6, 17],
    ),
    "a fall by a factor never cuts": (
        {"mode": "min", "threshold_mode": "rel", "threshold": 0.1, "patience": 5, "cooldown": 5},
        [1.5 * 0.85**i for i in range(20)],
        [],
    ),
    "a metric that gets better in the cooldown becomes best": (
        {"mode": "min", "threshold_mode": "rel", "threshold": 0.1, "patience": 5, "cooldown": 5},
        FLAT_THEN_BETTER,
        [6, 17],
    ),
    "each group has its floor": (
        {"mode": "max", "threshold": 0.1, "patience": 5, "cooldown": 5, "min_lr": [0.4, 0.3]},
        [1.5 * 1.005**i for i in range(20)],
        [6],
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
@pytest.mark.parametrize("tensors", [False, True], ids=["float rates", "one tensor rate"])
def test_upstreams_scenarios_cut_at_the_same_steps(scenario, tensors, device):
    settings, metrics, expected = scenario
    second = torch.tensor(0.5, dtype=torch.float64, device=device) if tensors else 0.5
    ours, theirs = pair(0.5, second, **settings)
    cuts = []
    for i, metric in enumerate(torch.tensor(metrics, dtype=torch.float64, device=device)):
        before = rates_in(ours)
        step_both(ours, theirs, [metric])
        cuts += [i] if rates_in(ours) != before else []
    assert cuts == expected
    if settings.get("min_lr"):
        assert rates_in(ours) == settings["min_lr"]


# -- saving ---------------------------------------------------------------------------------------


@each_setting
@pytest.mark.parametrize("saver", KINDS)
@pytest.mark.parametrize("loader", KINDS)
def test_either_class_loads_the_state_of_the_other_and_goes_on(loader, saver, settings):
    straight, first = Torchs(sgd(0.1, 0.3), **settings), saver(sgd(0.1, 0.3), **settings)
    for metric in METRICS:
        straight.step(metric)
        first.step(metric)
    second = loader(
        sgd(*rates_in(first)), mode="min", factor=0.9, patience=7, cooldown=9, min_lr=1.0
    )
    second.load_state_dict(through_a_file(first.state_dict()))
    for metric in METRICS * 3:
        assert second.state_dict() == straight.state_dict()
        assert rates_in(second) == rates_in(straight)
        second.step(metric)
        straight.step(metric)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_like_the_original_and_with_their_own_optimizer(twin, device):
    settings = {"patience": 1, "cooldown": 1, "min_lr": [0.0, 0.01]}
    ours, theirs = pair(0.1, torch.tensor(0.3, device=device), **settings)
    step_both(ours, theirs, METRICS[:4])
    ours.note = "kept"
    optimizer, copied = twin((ours.optimizer, ours))
    assert copied.optimizer is optimizer is not ours.optimizer
    assert copied.note == "kept"
    del ours.note
    before = rates_in(ours)
    for metric in METRICS:
        copied.step(metric)
    assert rates_in(ours) == before
    step_both(ours, theirs, METRICS)
    assert rates_in(copied) == rates_in(ours)
    assert copied.best == ours.best


def test_a_state_of_a_few_keys_changes_those():
    ours, theirs = pair(patience=1)
    for scheduler in (ours, theirs):
        scheduler.load_state_dict({"best": 0.2, "patience": 3})
    step_both(ours, theirs, METRICS)


def test_a_state_that_an_older_torch_saved_loads():
    ours, theirs = pair(patience=1)
    old = {name: each for name, each in theirs.state_dict().items() if name != "_last_lr"}
    ours.load_state_dict({**old, "patience": 0, "verbose": False})
    theirs.load_state_dict({**old, "patience": 0})
    step_both(ours, theirs, METRICS)


UNKNOWN = {
    "a word": "extra",
    "a number": 3,
    "a method": "step",
    "a hidden attribute": "optimizer",
    "another": "_lane",
}


@pytest.mark.parametrize("key", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_key_that_neither_class_writes_is_refused(key):
    ours, theirs = pair(patience=1)
    step_both(ours, theirs, METRICS[:4])
    with pytest.raises(KeyError, match=f"unknown keys .*{key}"):
        ours.load_state_dict({"best": 0.2, "patience": 3, key: None})
    step_both(ours, theirs, METRICS)


def test_attributes_that_an_object_or_its_subclass_has_load_with_the_state():
    class Counting(ReduceLROnPlateau):
        cuts = 0

    first, second = Counting(sgd()), Counting(sgd())
    first.cuts, first.note, second.note = 3, "of the first", None
    second.load_state_dict(through_a_file(first.state_dict()))
    assert (second.cuts, second.note) == (3, "of the first")
    with pytest.raises(KeyError, match=r"unknown keys \['note'\]"):
        Counting(sgd()).load_state_dict(first.state_dict())


BAD_FIELDS = {
    "no rates": ("_last_lr", 0.1, TypeError, "expected a list, got float"),
    "a rate of a word": ("_last_lr", ["x"], TypeError, "expected one number, got 'x'"),
    "a NaN rate": ("_last_lr", [math.nan], ValueError, "got nan"),
    "floors of other groups": ("min_lrs", [0.1, 0.2], ValueError, "expected 1, .*got 2"),
    "a negative floor": ("min_lrs", [-0.1], ValueError, "got -0.1 at index 0"),
    "a floor for later": ("default_min_lr", math.nan, ValueError, "got nan"),
    "what worse is": ("mode_worse", "x", ValueError, "expected inf or -inf, got str"),
}


@pytest.mark.parametrize(
    ("name", "bad", "error", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys()
)
def test_a_bad_value_is_refused_whatever_comes_with_it(name, bad, error, words):
    ours, theirs = pair(patience=1, min_lr=[0.0])
    step_both(ours, theirs, METRICS[:4])
    state = {**Torchs(sgd(), mode="max", factor=0.5).state_dict(), "default_min_lr": None}
    with pytest.raises(error, match=rf"^state_dict\['{name}'\].*{words}"):
        ours.load_state_dict({**state, name: bad})
    step_both(ours, theirs, METRICS)


# -- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [[], [np.float64(0.25), 1]], ids=["floats", "mixed"])
def test_a_float_rate_stays_a_float_and_the_same_one_until_it_is_cut(others):
    rates = [0.1 + 0.2, 1e-9, 0.5 + 0.25, *others]
    floors = [0.0, 0.0, 2.0, 0.25, 0.5]
    ours, theirs = pair(*rates, patience=0, min_lr=floors[: len(rates)])
    groups = ours.optimizer.param_groups
    held = [group["lr"] for group in groups]
    step_both(ours, theirs, [1.0])
    assert all(group["lr"] is rate for group, rate in zip(groups, held, strict=True))
    step_both(ours, theirs, [2.0])
    kinds = [float, float, float, np.float64, float]
    assert [type(group["lr"]) for group in groups] == kinds[: len(rates)]
    assert all(groups[i]["lr"] is held[i] for i in (1, 2, 3) if i < len(rates))
    assert rates_in(ours) == [(0.1 + 0.2) * 0.1, 1e-9, 0.75, 0.25, 0.5][: len(rates)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_tensor_rate_stays_the_same_tensor(shape, dtype, device):
    rate = torch.full(shape, 0.1, dtype=dtype, device=device)
    ours, theirs = pair(rate, factor=0.7, patience=0)
    held = ours.optimizer.param_groups[0]["lr"]
    for i in range(30):
        step_both(ours, theirs, [float(i)])
        assert ours.optimizer.param_groups[0]["lr"] is held
        assert torch.equal(held, theirs.optimizer.param_groups[0]["lr"])
    assert (held.dtype, held.shape) == (dtype, shape)
    assert float(held) < 1e-4


def test_a_tensor_rate_that_groups_share_is_cut_once(device):
    shared = torch.tensor(1.0, device=device)
    optimizer = SGD([{"params": [torch.zeros(1)]} for _ in range(3)], lr=shared)
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    scheduler.step(1.0)
    scheduler.step(2.0)
    assert float(shared) == pytest.approx(0.1)
    assert scheduler.get_last_lr() == [shared] * 3


def test_the_last_rates_are_a_snapshot_that_nothing_aliases(device):
    tensors = [torch.tensor(0.5, device=device), torch.tensor([0.25], device=device)]
    ours, theirs = pair(0.3, *tensors, patience=0)
    for scheduler in (ours, theirs):
        groups = scheduler.optimizer.param_groups
        for metric in (1.0, 2.0, 0.5):
            scheduler.step(metric)
            for rate, group in zip(scheduler.get_last_lr()[1:], groups[1:], strict=True):
                assert rate is not group["lr"]
                assert rate.data_ptr() != group["lr"].data_ptr()
                assert torch.equal(rate, group["lr"])
        groups[0]["lr"] = 7.0
        groups[1]["lr"].fill_(8.0)
        groups[2]["lr"] = torch.tensor([9.0], device=device)
    assert ours.get_last_lr() == theirs.get_last_lr() == [0.3 * 0.1, torch.tensor(0.05), 0.025]
    step_both(ours, theirs, [0.25])
    assert ours.get_last_lr() == [7.0, 8.0, 9.0]
    ours.get_last_lr()[1].fill_(0.0)
    ours.state_dict()["_last_lr"][1].fill_(0.0)
    ours.get_last_lr().clear()
    assert ours.get_last_lr() == [7.0, 8.0, 9.0]


def test_a_group_added_later_gets_the_floor_of_all():
    ours, theirs = pair(patience=0, min_lr=0.02)
    for scheduler in (ours, theirs):
        scheduler.optimizer.add_param_group({"params": [torch.ones(1)], "lr": 0.05})
    step_both(ours, theirs, [1.0, 2.0, 3.0])
    assert rates_in(ours) == [0.02, 0.02]
    assert ours.min_lrs == [0.02, 0.02]


def test_a_group_without_a_floor_of_its_own_is_an_error_at_the_cut_until_it_has_one():
    ours, theirs = pair(patience=1, cooldown=1, min_lr=[0.05])
    for scheduler in (ours, theirs):
        scheduler.optimizer.add_param_group({"params": [torch.ones(1)], "lr": 0.5})
    step_both(ours, theirs, [1.0, 2.0])
    for scheduler in (ours, theirs):
        with pytest.raises(RuntimeError, match=r"param groups .*\(2\) differs .*\(1\).*`min_lrs`"):
            scheduler.step(2.0)
    assert_same(ours, theirs)
    for scheduler in (ours, theirs):
        scheduler.min_lrs = [0.05, 0.2]
    step_both(ours, theirs, [2.0])
    assert rates_in(ours) == [0.05, 0.2]
    step_both(ours, theirs, METRICS)


@pytest.mark.parametrize("spelling", [list, tuple, np.array, torch.tensor])
def test_floors_may_come_in_any_sequence(spelling):
    scheduler = ReduceLROnPlateau(sgd(0.5, 0.5), patience=0, min_lr=spelling([0.25, 0.125]))
    scheduler.step(1.0)
    scheduler.step(2.0)
    assert rates_in(scheduler) == [0.25, 0.125]
    assert through_a_file(scheduler.state_dict())["min_lrs"] == [0.25, 0.125]


# -- metrics --------------------------------------------------------------------------------------

NUMBERS = [3, True, 2**70, Decimal("0.1"), Fraction(1, 3), np.float32(0.1), np.int16(-4)]
NUMBERS += [np.float64(0.1), np.bool_(True), np.array(0.3), torch.tensor(0.1)]
TYPES = [torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16]
TYPES += [torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_whatever_is_a_number_is_a_metric(number):
    step_both(*pair(mode="max"), [number, number])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", TYPES)
def test_one_element_of_any_dtype_and_rank_is_a_metric(dtype, shape, device):
    largest = torch.iinfo(dtype).max if dtype in TYPES[1:9] else 0.1
    for value in (largest, 1, 0):
        metric = torch.full(shape, value, dtype=dtype).to(device)
        step_both(*pair(mode="max"), [metric])
        inside = torch.tensor([[0, 0, 0], [0, 0, value]], dtype=dtype).to(device)
        step_both(*pair(mode="max"), [inside[1, 2], inside[1:, 2:]])


def test_a_metric_that_requires_grad_is_read_without_a_warning(device):
    scheduler = ReduceLROnPlateau(sgd())
    loss = (torch.tensor(3.0, device=device, requires_grad=True) * 2).square()
    scheduler.step(loss)
    assert scheduler.best == 36.0
    loss.backward()


def test_an_epoch_warns_as_torch_does_and_is_adopted():
    ours, theirs = pair(patience=0)
    for epoch, metric in ((7, 1.0), (3, 2.0), (0, 2.0)):
        for scheduler in (ours, theirs):
            with pytest.warns(UserWarning, match="epoch parameter") as caught:
                scheduler.step(metric, epoch)
            assert str(caught[0].message) == EPOCH_DEPRECATION_WARNING
            assert caught[0].filename == __file__
        assert_same(ours, theirs)
    step_both(ours, theirs, [3.0])
    assert ours.last_epoch == 1


@pytest.mark.parametrize("bad", ["x", 1.5, -(2**60), [1]])
def test_an_epoch_that_is_none_is_refused_and_changes_nothing(bad):
    ours, theirs = pair(patience=0)
    step_both(ours, theirs, [1.0, 2.0])
    with pytest.raises((TypeError, ValueError), match=r"^epoch: expected"):
        ours.step(0.5, bad)
    assert_same(ours, theirs)


# -- in use ---------------------------------------------------------------------------------------


def test_a_subclass_that_cuts_in_its_own_way_is_asked():
    calls = []

    def subclass(kind):
        class Own(kind):
            def _reduce_lr(self, epoch):
                calls.append((kind, epoch, self.num_bad_epochs))
                super()._reduce_lr(epoch)
                self.cuts = getattr(self, "cuts", 0) + 1

        return Own(sgd(), patience=1, cooldown=1)

    ours, theirs = subclass(ReduceLROnPlateau), subclass(Torchs)
    for metric in METRICS:
        ours.step(metric)
        theirs.step(metric)
    assert calls[::2] == [(ReduceLROnPlateau, *call[1:]) for call in calls[1::2]]
    assert ours.cuts == theirs.cuts == ours.state_dict()["cuts"] == len(calls) // 2 > 2


@pytest.mark.parametrize("tensor_rate", [False, True], ids=["float rate", "tensor rate"])
def test_a_model_trains_as_with_torchs_class(tensor_rate, device):
    x = torch.randn(64, 5)
    y = x @ torch.randn(5, 1) + 0.1 * torch.randn(64, 1)
    x, y, weights, histories = x.to(device), y.to(device), [], []
    for kind in KINDS:
        torch.manual_seed(1)
        model = torch.nn.Linear(5, 1).to(device)
        rate = torch.tensor(0.5, device=device) if tensor_rate else 0.5
        optimizer = SGD(model.parameters(), lr=rate, momentum=0.9)
        scheduler = kind(optimizer, patience=2, factor=0.5, cooldown=1)
        history = []
        for _ in range(80):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            scheduler.step(loss.detach())
            history.append(float(optimizer.param_groups[0]["lr"]))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        histories.append(history)
    assert histories[0] == histories[1]
    assert len(set(histories[0])) > 3
    assert torch.equal(*weights)
