"""BatchedReduceLROnPlateau whose lanes own any groups, which come and go; and lanes that sit out.

Beside a torch scheduler for each lane, over an optimizer of its own with the lane's groups.
"""

import copy
import io
import pickle
import random

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs

from torch_plateau import BatchedReduceLROnPlateau, compose

PUBLISH = pytest.mark.parametrize("publish", ["float", "tensor"])
SETTINGS = {"patience": 1, "factor": 0.5, "cooldown": 1}


def slot_of(group):
    return group["slot"]


def group_in(slot, rate, device="cpu"):
    return {"params": [torch.ones(1, device=device)], "lr": rate, "slot": slot}


def sgd(*groups, device="cpu"):
    return SGD(list(groups), lr=0.1, **({"fused": True} if device != "cpu" else {}))


def noisy(steps, n):
    return (torch.rand(steps, n, dtype=torch.float64) * 8).round() / 8


def own(group):
    """The same parameters with a rate of their own, a float."""
    return {**group, "lr": float(group["lr"])}


class Apart:
    """A torch scheduler for each lane; groups are known by their parameters."""

    def __init__(self, groups, settings):
        self.settings = settings
        self.schedulers = [None] * len(settings)
        for lane in range(len(settings)):
            self.begin(lane, [group for group in groups if group["slot"] == lane])

    def begin(self, lane, groups):
        self.schedulers[lane] = Torchs(SGD([own(each) for each in groups]), **self.settings[lane])

    def groups_of(self, lane):
        return self.schedulers[lane].optimizer.param_groups

    def add(self, group):
        self.schedulers[group["slot"]].optimizer.add_param_group(own(group))

    def remove(self, group):
        left = self.groups_of(group["slot"])
        left[:] = [each for each in left if each["params"][0] is not group["params"][0]]

    def step(self, metrics, active=None):
        for lane, scheduler in enumerate(self.schedulers):
            if active is None or active[lane]:
                scheduler.step(metrics[lane])

    def assert_same(self, scheduler):
        rates = {
            id(group["params"][0]): group["lr"]
            for lane in range(len(self.schedulers))
            for group in self.groups_of(lane)
        }
        groups = scheduler._groups()
        expected = [rates[id(group["params"][0])] for group in groups]
        if scheduler.publish == "float":
            assert [group["lr"] for group in groups] == expected
        else:
            live = torch.tensor(expected, dtype=torch.float64).float().tolist()
            assert [group["lr"].item() for group in groups] == live
            memory = scheduler.lanes.lr.untyped_storage().data_ptr()
            assert {group["lr"].untyped_storage().data_ptr() for group in groups} == {memory}
        master = scheduler.lanes.lr_master.tolist()
        order = sorted(range(len(groups)), key=scheduler.lane_of.__getitem__)
        assert master == [expected[group] for group in order]
        assert scheduler.best.tolist() == [each.best for each in self.schedulers]
        bad = [each.num_bad_epochs for each in self.schedulers]
        assert scheduler.num_bad_epochs.tolist() == bad
        cooling = [each.cooldown_counter for each in self.schedulers]
        assert scheduler.cooldown_counter.tolist() == cooling


# -- any groups -----------------------------------------------------------------------------------

EACH = [
    {"patience": 0, "factor": 0.5, "mode": "min"},
    {"patience": 2, "factor": 0.1, "mode": "max"},
    {"patience": 1, "factor": 0.9, "mode": "min"},
]
PER_LANE = {name: [each[name] for each in EACH] for name in EACH[0]}
SLOTS = [2, 0, 2, 1, 0, 2]
LANE_OF = {
    "a list": SLOTS,
    "a tuple": tuple(SLOTS),
    "a tensor": torch.tensor(SLOTS),
    "a function": slot_of,
}


def groups_in_slots(device):
    return [group_in(slot, 0.1 + 0.1 * i, device) for i, slot in enumerate(SLOTS)]


@PUBLISH
@pytest.mark.parametrize("count", [1, 2], ids=["one optimizer", "two optimizers"])
@pytest.mark.parametrize("lane_of", LANE_OF.values(), ids=LANE_OF.keys())
def test_a_lane_owns_the_groups_that_lane_of_says(lane_of, count, publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, EACH)
    optimizers = [sgd(*groups, device=device)]
    if count == 2:
        optimizers = [sgd(*groups[:2], device=device), sgd(*groups[2:], device=device)]
    given = optimizers if count == 2 else optimizers[0]
    scheduler = BatchedReduceLROnPlateau(given, lane_of=lane_of, publish=publish, **PER_LANE)
    for row in noisy(60, 3):
        scheduler.step(row.to(device if publish == "tensor" else "cpu"))
        oracle.step(row.tolist())
        oracle.assert_same(scheduler)
    assert scheduler.lane_of == SLOTS
    assert [float(rate) for rate in scheduler.get_last_lr()] == [
        float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups
    ]


@PUBLISH
def test_floors_of_groups_are_in_the_order_of_the_groups(publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, [SETTINGS] * 3)
    optimizer = sgd(*groups, device=device)
    floors = [0.02, 0.15, 0.25, 0.3, 0.4, 0.05]
    scheduler = BatchedReduceLROnPlateau(
        optimizer, lane_of=slot_of, min_lr=[0.0] * 6, publish=publish, **SETTINGS
    )
    scheduler.min_lr = floors
    assert scheduler.min_lr.tolist() == floors
    other = sgd(*groups_in_slots("cpu"))
    built = BatchedReduceLROnPlateau(other, lane_of=SLOTS, min_lr=floors)
    assert torch.equal(built.lanes.settings["min_lr"], scheduler.lanes.settings["min_lr"].cpu())
    for lane, each in enumerate(oracle.schedulers):
        each.min_lrs = [floor for floor, slot in zip(floors, SLOTS, strict=True) if slot == lane]
    for row in noisy(40, 3):
        scheduler.step(row.to(device if publish == "tensor" else "cpu"))
        oracle.step(row.tolist())
        oracle.assert_same(scheduler)
    assert rates_of(optimizer) == pytest.approx(floors)


def rates_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


@PUBLISH
def test_rates_that_others_set_are_those_of_their_groups(publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, [SETTINGS] * 3)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=SLOTS, publish=publish, **SETTINGS)
    for i, row in enumerate(noisy(12, 3)):
        group = optimizer.param_groups[i % 6]
        group["lr"] = 0.5 + i
        for own in oracle.groups_of(SLOTS[i % 6]):
            if own["params"][0] is group["params"][0]:
                own["lr"] = 0.5 + i
        scheduler.step(row.to(device if publish == "tensor" else "cpu"))
        oracle.step(row.tolist())
        oracle.assert_same(scheduler)


@PUBLISH
def test_a_composed_schedule_scales_each_group_by_its_lane(publish, device):
    groups = groups_in_slots(device)
    optimizer, plain = sgd(*groups, device=device), SGD([own(group) for group in groups])
    floors = [0.01 * (i + 1) for i in range(6)]
    ours = compose(
        LinearLR(optimizer, 0.25, total_iters=20),
        BatchedReduceLROnPlateau(
            optimizer, lane_of=SLOTS, publish=publish, min_lr=floors, **SETTINGS
        ),
    )
    schedule = LinearLR(plain, 0.25, total_iters=20)
    scales = [Torchs(SGD([torch.ones(1)], lr=1.0), **SETTINGS) for _ in range(3)]
    for row in noisy(30, 3):
        for each in (optimizer, plain):
            each.step()
        ours.step(row.to(device if publish == "tensor" else "cpu"))
        ours.step_schedule()
        schedule.step()
        for scale, metric in zip(scales, row.tolist(), strict=True):
            scale.step(metric)
        scale_of = [scales[slot].optimizer.param_groups[0]["lr"] for slot in SLOTS]
        expected = [
            max(rate * scale, min(rate, floor))
            for rate, scale, floor in zip(rates_of(plain), scale_of, floors, strict=True)
        ]
        assert rates_of(optimizer) == pytest.approx(expected, rel=1e-6)
        assert ours.scale.tolist() == scale_of
    state = ours.state_dict()
    before = rates_of(optimizer)
    for row in noisy(5, 3):
        ours.step(row.to(device if publish == "tensor" else "cpu"))
    ours.load_state_dict(state)
    assert rates_of(optimizer) == before


# -- lanes that sit out ---------------------------------------------------------------------------

MASKS = {
    "tensor": lambda mask, device: mask.to(device),
    "list": lambda mask, _: mask.tolist(),
}


@PUBLISH
@pytest.mark.parametrize("as_given", MASKS.values(), ids=MASKS.keys())
def test_lanes_without_a_metric_keep_their_state_and_rates(as_given, publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, EACH)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=SLOTS, publish=publish, **PER_LANE)
    for step, row in enumerate(noisy(60, 3), start=1):
        mask = torch.rand(3) < 0.6
        row[~mask] = torch.nan
        scheduler.step(row.to(device), active=as_given(mask, device))  # fetched if rates are floats
        oracle.step(row.tolist(), mask)
        oracle.assert_same(scheduler)
        assert scheduler.last_epoch == step
    assert scheduler.lanes.num_reductions.min() > 0


BAD_MASKS = {
    "short": ([True], ValueError, r"active: expected a bool tensor of shape \(3,\), got"),
    "numbers": ([0, 1, 1], TypeError, "active: expected a bool tensor or 3 bools, got list"),
    "floats": (torch.ones(3), ValueError, r"active: expected a bool tensor of shape \(3,\), got"),
    "meta": (torch.ones(3, dtype=torch.bool, device="meta"), ValueError, "active: expected"),
}


@pytest.mark.parametrize(("bad", "error", "words"), BAD_MASKS.values(), ids=BAD_MASKS.keys())
def test_a_mask_that_is_none_is_refused_and_no_lane_advances(bad, error, words):
    scheduler = BatchedReduceLROnPlateau(sgd(*groups_in_slots("cpu")), lane_of=SLOTS)
    with pytest.raises(error, match=words):
        scheduler.step([1.0] * 3, active=bad)
    assert scheduler.lanes.num_steps == scheduler.last_epoch == 0
    assert scheduler.best.tolist() == [torch.inf] * 3


# -- groups that come and go ----------------------------------------------------------------------


def step_both(scheduler, oracle, rows):
    for row in rows:
        scheduler.step(row.to(scheduler.lanes.device))
        oracle.step(row.tolist())
        oracle.assert_same(scheduler)


@PUBLISH
def test_a_group_added_to_one_optimizer_is_a_new_lane(publish, device):
    groups = [group_in(0, 0.5, device), group_in(1, 0.25, device)]
    oracle = Apart(groups, [SETTINGS] * 2)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, publish=publish, **SETTINGS)
    step_both(scheduler, oracle, noisy(10, 2))
    group = group_in(2, 0.75, device)
    optimizer.add_param_group(group)
    oracle.settings, oracle.schedulers = [SETTINGS] * 3, [*oracle.schedulers, None]
    oracle.begin(2, [group])
    with pytest.raises(ValueError, match=r"metrics: expected shape \(3,\), got \(2,\)"):
        scheduler.step(torch.ones(2, device=scheduler.lanes.device))
    oracle.assert_same(scheduler)
    step_both(scheduler, oracle, noisy(20, 3))
    assert scheduler.lanes.groups is None  # so a step goes on in vectors


@PUBLISH
def test_a_group_added_to_one_of_several_optimizers_is_another_rate_of_its_lane(publish, device):
    groups = [group_in(0, 0.5, device), group_in(1, 0.25, device)]
    oracle = Apart(groups, [SETTINGS] * 2)
    optimizers = [sgd(group, device=device) for group in groups]
    scheduler = BatchedReduceLROnPlateau(optimizers, publish=publish, **SETTINGS)
    step_both(scheduler, oracle, noisy(10, 2))
    group = group_in(0, 0.75, device)
    optimizers[0].add_param_group(group)
    oracle.add(group)
    step_both(scheduler, oracle, noisy(20, 2))
    assert scheduler.lane_of == [0, 0, 1]
    assert scheduler.lanes.groups == [2, 1]


@PUBLISH
def test_a_lane_whose_groups_are_replaced_begins_anew_with_its_settings(publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, EACH)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=slot_of, publish=publish, **PER_LANE)
    step_both(scheduler, oracle, noisy(10, 3))
    kept = [group for group in optimizer.param_groups if group["slot"] != 2]
    optimizer.param_groups[:] = kept
    new = [group_in(2, 0.5, device), group_in(2, 0.25, device)]
    for group in new:
        optimizer.add_param_group(group)
    oracle.begin(2, new)
    step_both(scheduler, oracle, noisy(20, 3))
    scheduler.lanes.reset([2])
    scheduler.step(torch.zeros(3).to(scheduler.lanes.device))
    assert rates_of(optimizer)[-2:] == [0.5, 0.25]  # to which it was reset


def test_a_group_that_has_the_very_rate_of_that_which_it_replaces_is_seen():
    optimizer = SGD([torch.ones(1)], lr=0.1)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=lambda _: 0, patience=9)
    scheduler.step([1.0])
    rate = optimizer.param_groups[0]["lr"]
    del optimizer.param_groups[0]
    optimizer.add_param_group({"params": [torch.ones(1)]})
    assert optimizer.param_groups[0]["lr"] is rate
    scheduler.step([5.0])
    assert scheduler.best.tolist() == [5.0]


@PUBLISH
@pytest.mark.parametrize("seed", range(4))
def test_groups_that_come_and_go_at_random(seed, publish, device):
    choose = random.Random(seed)
    groups = groups_in_slots(device)
    oracle = Apart(groups, [{**each, "cooldown": 1} for each in EACH])
    optimizers = [sgd(*groups[:2], device=device), sgd(*groups[2:], device=device)]
    scheduler = BatchedReduceLROnPlateau(
        optimizers, lane_of=slot_of, publish=publish, **PER_LANE, cooldown=1
    )
    seen = set()
    for _ in range(60):
        before = {slot: {id(p) for p in params_in(optimizers, slot)} for slot in range(9)}
        for _ in range(choose.randrange(3)):
            optimizer = choose.choice(optimizers)
            if choose.random() < 0.5 and len(optimizer.param_groups) > 1:
                gone = choose.choice(optimizer.param_groups)
                optimizer.param_groups[:] = [g for g in optimizer.param_groups if g is not gone]
            else:
                slots = len(oracle.schedulers) + (len(oracle.schedulers) < 8)
                new = group_in(choose.randrange(slots), choose.random(), device)
                optimizer.add_param_group(new)
                if new["slot"] == len(oracle.schedulers):
                    oracle.schedulers.append(None)
                    oracle.settings.append(oracle.settings[-1])
        for slot in range(len(oracle.schedulers)):
            follow(oracle, optimizers, slot, before[slot], seen)
        metrics = noisy(1, len(oracle.schedulers))[0]
        mask = torch.rand(len(metrics)) < 0.8
        scheduler.step(metrics.to(scheduler.lanes.device), active=mask.to(scheduler.lanes.device))
        oracle.step(metrics.tolist(), mask)
        oracle.assert_same(scheduler)
    assert seen == {"another rate", "a rate gone", "replaced", "emptied", "new lane"}


def params_in(optimizers, slot):
    groups = [group for each in optimizers for group in each.param_groups]
    return [group["params"][0] for group in groups if group["slot"] == slot]


def follow(oracle, optimizers, slot, before, seen):
    """Do to the schedulers of torch what was done to the optimizers."""
    groups = [
        own(group) for each in optimizers for group in each.param_groups if group["slot"] == slot
    ]
    now = {id(group["params"][0]) for group in groups}
    scheduler = oracle.schedulers[slot]
    if scheduler is None or (now and not now & before):
        seen.add("new lane" if scheduler is None else "replaced")
        if groups:
            oracle.begin(slot, groups)
        else:
            oracle.begin(slot, [group_in(slot, 1.0)])
            oracle.groups_of(slot).clear()
        return
    for group in list(oracle.groups_of(slot)):
        if id(group["params"][0]) not in now:
            oracle.remove(group)
            seen.add("a rate gone" if now else "emptied")
    for group in groups:
        if id(group["params"][0]) not in before:
            oracle.add(group)
            seen.add("another rate")


def test_optional_parts_and_settings_come_along(device):
    optimizer = sgd(group_in(0, 0.5, device), group_in(1, 0.25, device), device=device)
    scheduler = BatchedReduceLROnPlateau(
        optimizer, publish="tensor", window=[2, 3], max_reductions=[1, 2], patience=[0, 1], events=4
    )
    for metric in (1.0, 2.0, 3.0):
        scheduler.step(torch.full((2,), metric, device=device))
    assert scheduler.lanes.finished.tolist() == [True, False]
    optimizer.add_param_group(group_in(2, 0.75, device))
    scheduler.step(torch.full((3,), 4.0, device=device))
    assert scheduler.lanes.finished.tolist() == [True, False, False]
    assert scheduler.patience.tolist() == [0, 1, 1]  # those of the last lane
    assert scheduler.max_reductions.tolist() == [1, 2, 2]
    assert scheduler.lanes.num_reductions.tolist() == [1, 1, 0]
    scheduler.lanes.set_lanes([2], patience=0)
    del optimizer.param_groups[0]
    scheduler.step(torch.full((2,), 5.0, device=device))
    assert scheduler.patience.tolist() == [1, 0]
    assert scheduler.lanes.num_reductions.tolist() == [2, 1]  # by 1 2 3 4 5, and by 4 5


REFUSED = {
    "a list": (SLOTS, 0.5, 0, ValueError, r"lane_of: expected a function, .* param_groups\[6\]"),
    "negative": (slot_of, 0.5, -1, TypeError, r"lane_of\(param_groups\[6\]\): expected .*got -1"),
    "a word": (slot_of, 0.5, "x", TypeError, r"lane_of\(param_groups\[6\]\): expected .*got 'x'"),
    "rate": (slot_of, torch.nan, 0, ValueError, r"param_groups\[6\]\['lr'\]: expected .*got nan"),
}


@PUBLISH
@pytest.mark.parametrize(
    ("lane_of", "rate", "slot", "error", "words"), REFUSED.values(), ids=REFUSED.keys()
)
def test_a_group_that_cannot_be_taken_over_is_refused_and_no_lane_advances(
    lane_of, rate, slot, error, words, publish, device
):
    groups = groups_in_slots(device)
    oracle = Apart(groups, EACH)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=lane_of, publish=publish, **PER_LANE)
    step_both(scheduler, oracle, noisy(5, 3))
    optimizer.add_param_group(group_in(slot, rate, device))
    for _ in range(2):
        with pytest.raises(error, match=words):
            scheduler.step(torch.ones(3, device=scheduler.lanes.device))
    assert scheduler.lanes.num_steps == scheduler.last_epoch == 5
    del optimizer.param_groups[6]
    step_both(scheduler, oracle, noisy(5, 3))


def test_an_optimizer_without_groups_is_refused():
    optimizer = sgd(group_in(0, 0.5))
    scheduler = BatchedReduceLROnPlateau(optimizer)
    del optimizer.param_groups[0]
    with pytest.raises(ValueError, match="optimizers: expected at least one param group, got none"):
        scheduler.step([1.0])
    assert scheduler.lanes.num_steps == 0


BAD_LANE_OF = {
    "short": ([0, 1], ValueError, "lane_of: expected 6 lane numbers, .*got 2"),
    "a word": ("lanes", TypeError, "lane_of: expected a function or a list, got str"),
    "a number": (3, TypeError, "lane_of: expected a function or a list, got int"),
    "negative": ([0, 1, -1, 0, 0, 0], TypeError, r"lane_of\[2\]: expected a lane number, .*got -1"),
    "bools": ([True] * 6, TypeError, r"lane_of\[0\]: expected a lane number, .*got True"),
    "by a function": (lambda _: 0.5, TypeError, r"lane_of\(param_groups\[0\]\): .*got 0.5"),
}


@pytest.mark.parametrize(("bad", "error", "words"), BAD_LANE_OF.values(), ids=BAD_LANE_OF.keys())
def test_a_lane_of_that_is_none_is_refused(bad, error, words):
    optimizer = sgd(*groups_in_slots("cpu"))
    before = rates_of(optimizer)
    with pytest.raises(error, match=words):
        BatchedReduceLROnPlateau(optimizer, lane_of=bad)
    assert rates_of(optimizer) == before


# -- saving ---------------------------------------------------------------------------------------


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@PUBLISH
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])
def test_a_resumed_run_goes_on_with_the_groups_that_came_later(order, publish, device):
    groups = groups_in_slots(device)
    oracle = Apart(groups, EACH)
    optimizer = sgd(*groups, device=device)
    scheduler = BatchedReduceLROnPlateau(optimizer, lane_of=slot_of, publish=publish, **PER_LANE)
    step_both(scheduler, oracle, noisy(10, 3))
    group = group_in(1, 0.75, device)
    optimizer.add_param_group(group)
    oracle.add(group)
    step_both(scheduler, oracle, noisy(10, 3))
    states = through_a_file([scheduler.state_dict(), optimizer.state_dict()])
    assert states[0]["lane_of"] == [*SLOTS, 1]

    fresh = [{**group, "lr": 0.9} for group in optimizer.param_groups]
    other = sgd(*fresh[:6], device=device)
    resumed = BatchedReduceLROnPlateau(other, lane_of=slot_of, publish=publish)
    other.add_param_group(fresh[6])
    pairs = [(resumed, states[0]), (other, states[1])]
    for thing, state in pairs if order == "scheduler first" else reversed(pairs):
        thing.load_state_dict(state)
    oracle.assert_same(resumed)
    step_both(resumed, oracle, noisy(20, 3))


def test_a_state_of_other_groups_is_refused():
    scheduler, other = (
        BatchedReduceLROnPlateau(sgd(*groups_in_slots("cpu")[:2]), lane_of=lane_of)
        for lane_of in ([0, 1], [1, 0])
    )
    before = rates_of(scheduler.optimizer)
    with pytest.raises(ValueError, match=r"state_dict\['lane_of'\]: expected \[0, 1\], got \[1, 0"):
        scheduler.load_state_dict(other.state_dict())
    plain = BatchedReduceLROnPlateau(sgd(*groups_in_slots("cpu")[:2]))
    for one, state in ((scheduler, plain.state_dict()), (plain, other.state_dict())):
        with pytest.raises(KeyError, match=r"state_dict: .*lane_of"):
            one.load_state_dict(state)
    assert rates_of(scheduler.optimizer) == before


@PUBLISH
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("lane_of", [SLOTS, slot_of], ids=["list", "function"])
def test_a_copy_owns_the_groups_of_its_own_optimizer(lane_of, twin, publish, device):
    groups = groups_in_slots(device)
    scheduler = BatchedReduceLROnPlateau(
        sgd(*groups, device=device), lane_of=lane_of, publish=publish, **PER_LANE
    )
    scheduler.step(torch.ones(3, device=scheduler.lanes.device))
    other = twin(scheduler)
    oracle = Apart(
        [{**group, "lr": 0.1 + 0.1 * i} for i, group in enumerate(other.optimizer.param_groups)],
        EACH,
    )
    oracle.step([1.0] * 3)
    step_both(other, oracle, noisy(10, 3))
    if lane_of is slot_of:
        group = group_in(0, 0.75, device)
        other.optimizer.add_param_group(group)
        oracle.add(group)
        step_both(other, oracle, noisy(10, 3))
    assert scheduler.last_epoch == 1
    assert len(scheduler.lanes.lr) == 6
