"""The life of lanes: what is documented at its edges, and every refusal, with nothing changed."""

import math

import pytest
import torch

from oracle import same_bits
from test_bad_input import BOTH, assert_refused, table
from torch_plateau import PlateauLanes

RATES = [0.1, 0.2, 0.3, 0.4]


def four(device, **settings):
    """Four lanes that have stepped and were cut."""
    lanes = PlateauLanes(4, RATES, device=device, **{"patience": [0, 1, 0, 1], **settings})
    for metric in (0.5, 0.75, 0.75):
        lanes.step([metric, metric / 2, metric * 2, -metric])
    return lanes


def on(device, values, dtype=None):
    return torch.tensor(values, dtype=dtype, device=device)


# -- order and aliasing ---------------------------------------------------------------------------


def test_copies_read_everything_before_they_write(device):
    swapped, rotated = four(device), four(device)
    before = swapped.lr_master.tolist()
    swapped.copy_lanes([0, 3], [3, 0])
    assert swapped.lr_master.tolist() == [before[i] for i in (3, 1, 2, 0)]
    assert swapped.settings["patience"].tolist() == [1, 1, 0, 0]
    rotated.copy_lanes(range(4), on(device, [1, 2, 3, 0]))
    assert rotated.lr_master.tolist() == [before[i] for i in (3, 0, 1, 2)]


def test_of_a_destination_that_comes_twice_the_last_counts(device):
    lanes, before = four(device), four(device).lr_master.tolist()
    lanes.copy_lanes([0, 1, 2], [3, 3, 3])
    assert lanes.lr_master.tolist() == [*before[:3], before[2]]
    lanes.set_lanes(on(device, [1, 0, 1]), lr=[0.5, 0.25, 0.125], patience=[7, 8, 9])
    assert lanes.lr_master.tolist()[:2] == [0.25, 0.125]
    assert lanes.settings["patience"].tolist() == [8, 9, 0, 0]


def test_one_source_is_copied_to_all_destinations(device):
    lanes = four(device)
    first = lanes.lr_master.tolist()[0]
    lanes.copy_lanes(0, [1, 3])
    assert lanes.lr_master.tolist() == [first, first, four(device).lr_master.tolist()[2], first]
    assert lanes.best.tolist()[1] == lanes.best.tolist()[0]


def test_the_same_tensor_as_source_and_destination_changes_nothing(device):
    lanes, same = four(device), four(device)
    numbers = on(device, [2, 0, 2, 3])
    lanes.copy_lanes(numbers, numbers)
    pairs = zip(lanes.state_dict().items(), same.state_dict().items(), strict=True)
    for (name, ours), (_, theirs) in pairs:
        assert repr(ours) == repr(theirs), name


def test_arguments_may_be_views_of_one_another_and_of_the_lanes(device):
    lanes = four(device)
    rates = lanes.lr_master.tolist()
    numbers = on(device, [3, 0, 1, 2, 0])
    lanes.copy_lanes(numbers[:-1], numbers[1:])
    assert lanes.lr_master.tolist() == [rates[2], rates[0], rates[1], rates[3]]
    lanes = four(device)
    lanes.set_lanes([3, 2, 1, 0], lr=lanes.lr, patience=lanes.num_reductions)
    assert same_bits(lanes.lr_master, four(device).lr.flip(0).double())
    assert lanes.settings["patience"].tolist() == four(device).num_reductions.tolist()[::-1]
    lanes.reset(lanes.num_steps.clamp(max=3))
    assert lanes.num_reductions.tolist()[3] == 0


NONE_OF_THEM = {
    "empty list": lambda _: [],
    "empty tuple": lambda _: (),
    "empty range": lambda _: range(0),
    "empty numbers": lambda device: on(device, [], torch.int64),
    "mask": lambda device: torch.zeros(4, dtype=torch.bool, device=device),
    "list of False": lambda _: [False] * 4,
}


@pytest.mark.parametrize("none", NONE_OF_THEM.values(), ids=NONE_OF_THEM.keys())
def test_no_lanes_at_all_may_be_chosen(none, device):
    lanes, chosen = four(device), none(device)
    count = 4 if len(chosen) else 0
    lanes.reset(chosen)
    lanes.set_lanes(chosen, lr=9.0, patience=[5] * count)
    lanes.remove(chosen)
    if not count:
        lanes.copy_lanes(chosen, chosen)
    same = four(device)
    assert same_bits(lanes.lr_master, same.lr_master)
    assert lanes.settings["patience"].tolist() == [0, 1, 0, 1]
    assert lanes.num_reductions.tolist() == same.num_reductions.tolist()


ONE_OF_THEM = {
    "number": lambda _: 2,
    "list": lambda _: [2],
    "range": lambda _: range(2, 3),
    "0-d tensor": lambda device: on(device, 2),
    "uint8": lambda device: on(device, [2], torch.uint8),
    "uint64": lambda device: on(device, [2], torch.uint64),
    "strided mask": lambda device: on(device, [[False, True]] * 4)[:, 0] | on(device, [0, 0, 1, 0]),
    "flags": lambda _: [False, False, True, False],
}


@pytest.mark.parametrize("one", ONE_OF_THEM.values(), ids=ONE_OF_THEM.keys())
def test_a_lane_may_be_named_in_every_way(one, device):
    lanes, chosen = four(device), one(device)
    if isinstance(chosen, torch.Tensor) and chosen.ndim and len(chosen) == 4:
        chosen = chosen.bool()
    lanes.set_lanes(chosen, lr=0.5)
    assert lanes.lr.tolist()[2] == 0.5
    lanes.reset(chosen)
    assert lanes.lr_master.tolist()[2] == 0.3
    assert lanes.best.tolist()[2] == math.inf
    lanes.remove(chosen)
    assert len(lanes) == 3


# -- identity, groups, settings -------------------------------------------------------------------


def test_lr_and_best_stay_the_same_tensors_until_lanes_are_added_or_removed(device):
    lanes = four(device, events=1)
    live = [lanes.lr, lanes.best]
    lanes.reset([0])
    lanes.copy_lanes([1], [2])
    lanes.set_lanes([3], lr=0.5, factor=0.3, patience=4)
    now = [lanes.lr, lanes.best]
    assert all(a is b for a, b in zip(live, now, strict=True))
    lanes.append(1, 0.1, patience=2)
    lanes.remove(0)
    assert lanes.lr is not live[0]
    assert len(lanes.lr) == 4


def test_rates_and_floors_are_set_for_all_groups_of_a_lane(device):
    lanes = PlateauLanes(3, 0.4, groups=[2, 0, 1], patience=0, factor=0.5, device=device)
    lanes.set_lanes([2, 0], lr=[0.8, 0.2], min_lr=[0.5, 0.15])
    assert lanes.lr_master.tolist() == [0.2, 0.2, 0.8]
    for _ in range(2):
        lanes.step([1.0] * 3)
    assert lanes.lr_master.tolist() == [0.15, 0.15, 0.5]
    assert lanes.at_min_lr.tolist() == [True, True, True]


def test_a_setting_that_was_one_for_all_becomes_one_per_lane(device):
    lanes = PlateauLanes(3, 0.1, device=device)
    lanes.set_lanes([1], mode="max", patience=0, threshold_mode="abs", nan="skip")
    assert lanes.settings["mode"] == ["min", "max", "min"]
    assert lanes.settings["patience"].tolist() == [10, 0, 10]
    assert lanes.settings["threshold_mode"] == ["rel", "abs", "rel"]
    assert lanes.settings["nan"] == ["bad", "skip", "bad"]
    assert lanes.settings["factor"] == 0.1


def test_a_state_whose_longest_window_became_shorter_loads(device):
    lanes = PlateauLanes(2, 0.1, window=[3, 2], device=device)
    lanes.step([1.0, 2.0])
    lanes.set_lanes([0], window=2)
    other = PlateauLanes(2, 0.1, device=device)
    other.load_state_dict(lanes.state_dict())
    for metric in (0.5, 4.0):
        assert lanes.step([metric] * 2).tolist() == other.step([metric] * 2).tolist()
        assert lanes.best.tolist() == other.best.tolist()
    assert lanes.best.tolist() == [0.75, 1.25]


def test_a_warm_up_that_ends_by_a_setting_gives_the_whole_rate_back(device):
    lanes = PlateauLanes(2, 0.4, warmup_steps=4, warmup_start_factor=0.5, device=device)
    lanes.lr[1] = 0.5
    lanes.step([1.0, 1.0])
    assert lanes.lr.tolist() == on("cpu", [0.25, 0.25]).tolist()
    lanes.set_lanes([0], warmup_steps=0)
    assert lanes.lr_master.tolist() == [0.4, 0.4]
    assert lanes.lr.tolist() == on("cpu", [0.4, 0.25]).tolist()


# -- outputs --------------------------------------------------------------------------------------


def test_events_are_kept_when_lanes_are_added_and_removed(device):
    lanes = PlateauLanes(2, 0.5, patience=0, factor=0.5, events=2, device=device)
    for metric in (1.0, 2.0, 2.0):
        lanes.step([metric] * 2)
    assert [(cut.lane, cut.step) for cut in lanes.events().cuts] == [(0, 3), (1, 3)]
    lanes.append(1, 0.25)
    assert lanes.events().overwritten == 2
    lanes.step([3.0] * 3)
    lanes.step([3.0] * 3)
    cuts, overwritten = lanes.events()
    assert [(cut.lane, cut.step) for cut in cuts] == [(0, 5), (1, 5), (2, 2)]
    assert overwritten == 6
    lanes.remove([0])
    assert [(cut.lane, cut.old_rate) for cut in lanes.events().cuts] == [(1, 0.0625), (2, 0.25)]
    loaded = PlateauLanes(2, 0.5, events=2, device=device)
    loaded.load_state_dict(lanes.state_dict())
    assert loaded.events() == lanes.events()


def test_the_callback_is_told_of_cuts_and_may_change_the_lanes(device):
    told = []

    def restart(lanes, index):
        told.append(index.tolist())
        lanes.reset(index)

    lanes = PlateauLanes(3, 0.5, patience=[0, 1, 9], on_reduce=restart, device=device)
    for _ in range(4):
        lanes.step([1.0] * 3)
    lanes.step([1.0] * 3, active=[False, True, True])
    assert told == [[0], [1], [0]]
    assert lanes.lr.tolist() == [0.5] * 3


def test_what_optional_parts_count_begins_anew_with_a_reset_and_goes_with_a_copy(device):
    lanes = PlateauLanes(3, 0.5, patience=0, max_reductions=[1, 2, 9], device=device)
    for _ in range(3):
        lanes.step([1.0] * 3)
    assert lanes.finished.tolist() == [True, True, False]
    assert lanes.last_reduction.tolist() == [2, 3, 3]
    lanes.reset([0])
    lanes.copy_lanes([1], [2])
    assert lanes.finished.tolist() == [False, True, True]
    assert lanes.last_reduction.tolist() == [0, 3, 3]
    lanes.step([0.5] * 3)
    assert lanes.improved.tolist() == [True, False, False]


# -- refusals -------------------------------------------------------------------------------------

WRONG_LANES = {
    "too high": ([4], IndexError, "lanes: expected lanes from 0 to 3, got 4"),
    "negative": (-1, IndexError, "lanes: expected lanes from 0 to 3, got -1"),
    "tensor too high": (on("cpu", [0, 9]), IndexError, "from 0 to 3, got 9"),
    "fraction": ([0.5], TypeError, "lanes: expected lane numbers, got list of others"),
    "mixed": ([True, 1], TypeError, "lanes: expected lane numbers, got list of others"),
    "one flag": (True, TypeError, "lanes: expected lane numbers, got bool"),
    "None": (None, TypeError, "lanes: expected lane numbers, got None"),
    "word": ("all", TypeError, "lanes: expected lane numbers, got str"),
    "floats": (torch.ones(2), TypeError, "lanes: expected lane numbers, got torch.float32"),
    "matrix": (torch.ones(2, 2).long(), ValueError, r"shape \(k,\), got torch.int64 \(2, 2\)"),
    "short mask": ([True], ValueError, r"bool tensor of shape \(4,\), got torch.bool \(1,\)"),
    "wide mask": (torch.ones(4, 1).bool(), ValueError, r"got torch.bool \(4, 1\)"),
    "meta": (torch.ones(2, device="meta").long(), ValueError, "lanes: .*device meta"),
}


@table(WRONG_LANES)
def test_lanes_that_are_not_there_are_refused(bad, error, words):
    lanes = four("cpu", events=1)
    assert_refused(lanes.reset, bad, error, words, lanes)
    assert_refused(lanes.remove, bad, error, words, lanes)
    assert_refused(lambda bad: lanes.set_lanes(bad, lr=1.0), bad, error, words, lanes)
    if "bool" in words:  # a mask is refused here for being one
        error, words = BOTH, "lanes: expected lane numbers"
    words = words.replace("lanes: ", "src: ", 1)
    assert_refused(lambda bad: lanes.copy_lanes(bad, [0]), bad, error, words, lanes)
    words = words.replace("src: ", "dst: ", 1)
    assert_refused(lambda bad: lanes.copy_lanes(0, bad), bad, error, words, lanes)


WRONG_MASKS = {
    "numbers": ([1, 0, 1, 0], TypeError, "active: expected a bool tensor or 4 bools, got list"),
    "short": ([True], ValueError, r"active: expected a bool tensor of shape \(4,\)"),
    "bytes": (torch.ones(4).byte(), ValueError, "got torch.uint8"),
    "matrix": (torch.ones(4, 1).bool(), ValueError, r"got torch.bool \(4, 1\)"),
    "one": (True, TypeError, "active: expected a bool tensor or 4 bools, got bool"),
    "meta": (torch.ones(4, device="meta").bool(), ValueError, "active: .*device meta"),
}


@table(WRONG_MASKS)
def test_a_wrong_mask_of_a_step_is_refused(bad, error, words):
    for lanes in (four("cpu"), four("cpu", events=1)):
        step = lanes.step
        assert_refused(
            lambda bad, step=step: step([1.0] * 4, active=bad), bad, *(error, words), lanes
        )


WRONG_CHANGES = {
    "unknown": ({"rate": 1.0}, TypeError, r"expected lr or settings, got \['rate'\]"),
    "groups": ({"groups": [1]}, TypeError, r"got \['groups'\]"),
    "factor": ({"lr": 9.0, "factor": 1.0}, ValueError, "factor: .*above 0 and below 1, got 1"),
    "one of two": ({"patience": [1, -1]}, ValueError, "patience: .*got -1 at index 1"),
    "three": ({"lr": [0.1] * 3}, ValueError, r"lr: expected one number or shape \(2,\)"),
    "four floors": ({"min_lr": [0.1] * 4}, ValueError, r"min_lr: .*shape \(2,\), got .*\(4,\)"),
    "None": ({"patience": None}, TypeError, "patience: expected one number"),
    "None of limits": ({"max_reductions": None}, TypeError, "expected a number .* got None"),
    "in others": ({"initial_patience": 1}, ValueError, "initial_patience: .*got None in the other"),
    "NaN": ({"lr": math.nan}, ValueError, "lr: expected finite"),
    "mode": ({"mode": "best"}, ValueError, "mode: expected 'min' or 'max', got 'best'"),
    "modes": ({"mode": ["min"] * 3}, ValueError, "mode: expected one word or 2 of them, got 3"),
    "codes": ({"nan": on("cpu", [1, 9]).byte()}, ValueError, "nan: expected codes below 4, got 9"),
    "window": ({"window": [2, 4]}, ValueError, "at most 3, the longest so far, got 4"),
    "meta": ({"lr": torch.ones(2, device="meta")}, ValueError, "lr: .*device meta"),
    "one flag": ({"patience": True}, TypeError, "patience: expected one number"),
}


@table(WRONG_CHANGES)
def test_wrong_settings_are_refused(bad, error, words):
    lanes = four("cpu", window=[1, 2, 3, 1], max_reductions=[9] * 4)
    assert_refused(lambda bad: lanes.set_lanes([3, 0], **bad), bad, error, words, lanes)


@pytest.mark.parametrize("name", ["window", "accumulate", "smoothing"])
def test_averages_of_float32_lanes_are_refused(name):
    lanes = PlateauLanes(3, 0.1, dtype=torch.float32)
    words = f"{name}: expected dtype=torch.float64 with it"
    value = 0.5 if name == "smoothing" else 2
    assert_refused(lambda v: lanes.set_lanes([0], **{name: v}), value, ValueError, words, lanes)
    assert_refused(lambda v: lanes.append(1, 0.1, **{name: v}), value, ValueError, words, lanes)


def test_copies_of_unequal_lengths_or_groups_are_refused():
    lanes = four("cpu")
    for src, dst in (([0, 1], [1]), ([], [1]), ([0, 1], [1, 2, 3])):
        words = f"src: expected 1 or {len(dst)} lanes, as in dst, got {len(src)}"
        assert_refused(lambda a, b=dst: lanes.copy_lanes(a, b), src, ValueError, words, lanes)
    uneven = PlateauLanes(2, 0.1, groups=[1, 2])
    words = "src: expected lanes with equally many groups"
    assert_refused(lambda a: uneven.copy_lanes(a, [1]), [0], ValueError, words, uneven)


WRONG_ADDITIONS = {
    "negative": ((-1, 0.1), {}, ValueError, "k: expected an integer of 0 or more, got -1"),
    "flag": ((True, 0.1), {}, ValueError, "k: expected an integer of 0 or more, got True"),
    "fraction": ((1.0, 0.1), {}, ValueError, "k: expected an integer of 0 or more, got 1.0"),
    "rates": ((2, [0.1] * 3), {}, ValueError, r"lr: expected one number or shape \(2,\)"),
    "unknown": (
        (1, 0.1),
        {"events": 3},
        TypeError,
        r"append: expected .*groups or settings, got \['events'\]",
    ),
    "range": ((1, 0.1), {"factor": 2}, ValueError, "factor: expected above 0"),
    "None": ((1, 0.1), {"max_reductions": 3}, ValueError, "max_reductions: .*None for some"),
    "window": ((1, 0.1), {"window": 4}, ValueError, "at most 3, the longest so far, got 4"),
    "groups": ((2, 0.1), {"groups": [1]}, ValueError, "groups: expected 2 counts"),
}


@pytest.mark.parametrize(
    ("given", "settings", "error", "words"), WRONG_ADDITIONS.values(), ids=WRONG_ADDITIONS.keys()
)
def test_wrong_additions_are_refused(given, settings, error, words):
    lanes = four("cpu", window=[1, 2, 3, 1])
    assert_refused(lambda given: lanes.append(*given, **settings), given, error, words, lanes)


def test_after_lanes_were_removed_a_step_wants_as_many_metrics_as_are_left(device):
    lanes = four(device)
    lanes.remove([1, 1, 3])
    words = r"metrics: expected shape \(2,\), got \(4,\)"
    assert_refused(lanes.step, [1.0] * 4, ValueError, words, lanes)
    lanes.step([0.0, 0.0])
    assert lanes.improved.tolist() == [True, True]
    lanes.remove([0, 1])
    assert_refused(lanes.reset, 0, IndexError, "expected none, there are no lanes, got 0", lanes)
    lanes.step([])
