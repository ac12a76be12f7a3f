"""A replay: what stepping through the same history gives, and torch's schedulers, to the bit."""

import math
import random

import pytest
import torch
from hypothesis import given, settings

from features import AVERAGES, EXAMPLES, FEATURES, SEEDS, SPECIAL, plain_settings
from oracle import OneLane, TorchLanes, assert_same_state, same_bits
from torch_plateau import PlateauLanes, replay

REPLAYED = [name for name in FEATURES if name not in ("mask", "events")]
STEPPED = ("improved", "reduced", "raised", "best", "num_bad_epochs", "cooldown_counter", "lr")


def spread(each, groups):
    """Settings of PlateauLanes from those of every lane."""
    keywords = {name: [chosen[name] for chosen in each] for name in each[0]}
    keywords |= {name: each[0][name] for name in ("rule",) if name in keywords}
    floors = zip(keywords["min_lr"], groups, strict=True)
    keywords["min_lr"] = [
        floor for given, count in floors
        for floor in (given if isinstance(given, list) else [given] * count)
    ]  # fmt: skip
    return keywords


class Case:
    """Random lanes, and a random history: one for all of them, or one each."""

    def __init__(self, seed, features, most=200, fewest_rates=0):
        r = self.random = random.Random(seed)
        n = r.choice([0, 1, 2, 63, 64, 65, most]) if most > 9 else r.randrange(1, most)
        counts = [r.randrange(fewest_rates, 4) if r.random() < 0.2 else 1 for _ in range(n)]
        if r.random() < 0.6:
            counts = [1] * n
        self.each = []
        for count in counts:
            chosen = plain_settings(r, count)
            for feature in features:
                chosen.update(FEATURES[feature](r))
            self.each.append(chosen)
        self.uniform = n > 0 and r.random() < 0.4
        if self.uniform:
            counts = [1] * n
            self.each = [{**self.each[0], "min_lr": r.choice([0.0, 0.05])}] * n
        self.rates = [[r.choice([0.1, 1.0, 1e-3, 0.0]) for _ in range(count)] for count in counts]
        self.keywords = {
            "lr": [rate for rates in self.rates for rate in rates],
            "groups": None if set(counts) <= {1} else counts,
            "dtype": torch.float64,
        }
        if not AVERAGES & set(features) and r.random() < 0.5:
            self.keywords["dtype"] = torch.float32
        if n:
            self.keywords.update(self.each[0] if self.uniform else spread(self.each, counts))
        self.n = n
        values = [*r.sample(SPECIAL, 2), *[r.uniform(-1, 1) for _ in range(4)]]
        alphabet = torch.tensor(values, dtype=self.keywords["dtype"])
        size = r.choice([0, 1, 7, 40])
        self.shared = r.random() < 0.5
        picks = [[r.randrange(6) for _ in range(1 if self.shared else n)] for _ in range(size)]
        index = torch.tensor(picks, dtype=torch.int64).reshape(size, 1 if self.shared else n)
        self.metrics = alphabet[index]  # [epochs, 1 or n]

    def replayed(self, device):
        """The replay, and the metrics of every lane at each epoch."""
        rows = self.metrics.expand(-1, self.n).to(device)
        history = rows[:, 0] if self.shared and self.n else rows
        threads = self.random.randrange(1, 4)
        return replay(history, record="all", threads=threads, **self.keywords), rows


def assert_same_bits(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert same_bits(ours.double().flatten(), theirs.double().flatten())


def flat(state):
    """A state as one level of entries."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", each) for key, each in flat(value))
        else:
            yield name, value


def assert_equals_stepping(case, device):
    result, rows = case.replayed(device)
    lanes = PlateauLanes(case.n, device=device, **case.keywords)
    cuts, first, improved = torch.zeros(case.n), torch.zeros(case.n), torch.zeros(case.n)
    wasted = torch.zeros(case.n)
    for epoch, metrics in enumerate(rows):
        lanes.step(metrics)
        for name in STEPPED:
            assert_same_bits(getattr(result, name)[epoch], getattr(lanes, name))
        reduced = lanes.reduced.cpu()
        improved += lanes.improved.cpu()
        now = reduced & (first == 0)
        first[now], wasted[now] = epoch + 1, epoch + 1 - improved[now]
        cuts += reduced
    wasted[first == 0] = len(rows) - improved[first == 0]
    theirs = dict(flat(lanes.state_dict()))
    for name, ours in flat(result.lanes.state_dict()):
        if isinstance(ours, torch.Tensor):
            assert_same_bits(ours, theirs[name])
        else:
            assert ours == theirs[name]
    assert result.num_reductions.tolist() == cuts.tolist()
    assert result.first_cut.tolist() == first.tolist()
    assert result.wasted.tolist() == wasted.tolist()
    assert_same_bits(result.final_lr, lanes.lr_master)


@pytest.mark.parametrize("feature", ["plain", "all", *REPLAYED])
def test_a_replay_equals_stepping(feature, device):
    features = {"plain": [], "all": REPLAYED}.get(feature, [feature])

    @settings(EXAMPLES, max_examples=40)
    @given(seed=SEEDS)
    def check(seed):
        assert_equals_stepping(Case(seed, features), device)

    check()


@EXAMPLES
@given(seed=SEEDS)
def test_a_plain_replay_equals_torchs_schedulers(seed):
    case = Case(seed, [], most=70, fewest_rates=1)  # torch takes no optimizer without
    result, rows = case.replayed("cpu")
    oracle = TorchLanes(case.rates, case.each)
    for epoch, metrics in enumerate(rows.tolist()):
        oracle.step(metrics)
        assert result.reduced[epoch].tolist() == oracle.reduced
        assert same_bits(result.best[epoch].double(), oracle.field("best"))
    if len(rows):
        assert_same_state(result.lanes, oracle)


@EXAMPLES
@given(seed=SEEDS)
def test_a_replay_with_all_parts_does_what_the_documentation_says(seed):
    case = Case(seed, REPLAYED, most=8)
    result, rows = case.replayed("cpu")
    oracles = [
        OneLane(rates, **chosen) for rates, chosen in zip(case.rates, case.each, strict=True)
    ]  # fmt: skip
    for epoch, metrics in enumerate(rows.tolist()):
        for lane, oracle in enumerate(oracles):
            oracle.step(metrics[lane])
            assert bool(result.reduced[epoch, lane]) == oracle.reduced
            assert bool(result.improved[epoch, lane]) == oracle.improved
    assert result.num_reductions.tolist() == [oracle.num_reductions for oracle in oracles]
    assert same_bits(result.final_lr, [rate for oracle in oracles for rate in oracle.rates])


def test_the_textbook_table_is_cut_at_step_ten():
    metrics = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
    result = replay(metrics, lr=0.1, patience=3, record="all")
    assert result.first_cut.tolist() == [10]
    assert result.num_bad_epochs[:, 0].tolist() == [0, 0, 0, 1, 2, 0, 1, 2, 3, 0]
    assert result.wasted.tolist() == [6]
    assert result.final_lr.tolist() == [0.1 * 0.1]


def test_many_threads_give_what_one_gives():
    history = torch.rand(50, dtype=torch.float64).sort(descending=True).values
    history += torch.rand(50) * 0.1
    chosen = {"patience": torch.arange(20_000) % 40, "threshold": torch.rand(20_000) * 0.1}
    one, many = (replay(history, threads=count, **chosen) for count in (1, 7))
    for name in ("num_reductions", "first_cut", "wasted", "final_lr"):
        assert torch.equal(getattr(one, name), getattr(many, name))
    assert one.first_cut.unique().numel() > 10


def test_value_is_the_average_that_decided():
    metrics = [3.0, 1.0, 2.0, 6.0]
    result = replay(metrics, window=2, record=["value"])
    assert result.value[:, 0].tolist() == [3.0, 2.0, 1.5, 4.0]


def test_lanes_of_a_replay_go_on_where_it_ended():
    metrics = torch.rand(30, dtype=torch.float64).tolist()
    result = replay(metrics[:17], patience=[0, 1, 2])
    whole = replay(metrics, patience=[0, 1, 2])
    for metric in metrics[17:]:
        result.lanes.step([metric] * 3)
    assert torch.equal(result.lanes.lr_master, whole.final_lr)
    assert torch.equal(result.lanes.best, whole.lanes.best)


def test_what_was_not_recorded_is_named_with_the_cure():
    result = replay([1.0, 2.0])
    with pytest.raises(AttributeError, match=r"lr: not recorded; replay with record=\('lr',\)"):
        _ = result.lr
    with pytest.raises(AttributeError, match="no attribute 'rates'"):
        _ = result.rates


def test_the_table_names_what_differs_between_lanes():
    result = replay([2.0, 1.0, 1.0, 1.0], lr=0.5, patience=[1, 5], mode=["min", "max"])
    assert result.table() == {
        "lane": [0, 1],
        "mode": ["min", "max"],
        "patience": [1, 5],
        "num_reductions": [1, 0],
        "first_cut": [4, 0],
        "wasted": [2, 3],
        "final_lr": [0.5 * 0.1, 0.5],
    }
    assert result.to_pandas()["first_cut"].tolist() == [4, 0]


@pytest.mark.parametrize(
    ("history", "keywords", "error", "words"),
    [
        ("abc", {}, TypeError, r"history: expected numbers .* got str"),
        (None, {}, TypeError, "got NoneType|got None"),
        ([1.0, "x"], {}, TypeError, "history: expected numbers"),
        (torch.zeros(2, 2, 2), {}, ValueError, r"got shape \(2, 2, 2\)"),
        (1.0, {}, ValueError, r"got shape \(\)"),
        (torch.zeros(3, dtype=torch.complex64), {}, TypeError, "real number type"),
        (torch.zeros(3, device="meta"), {}, ValueError, "history: .*meta"),
        (torch.zeros(3).double(), {"dtype": torch.float32}, TypeError, r"history.float\(\)"),
        ([1.0], {"events": 3}, TypeError, r"replay: expected settings, got \['events'\]"),
        ([1.0], {"on_reduce": print}, TypeError, r"replay: expected settings, got \['on_reduce'\]"),
        ([1.0], {"threads": 0}, ValueError, "threads: expected an integer of 1 or more, got 0"),
        ([1.0], {"record": "lr"}, TypeError, "record: expected 'all' or names, got 'lr'"),
        ([1.0], {"record": ["rate"]}, ValueError, "record: expected some of .* got 'rate'"),
        ([1.0], {"patience": [1, 2], "factor": [0.1] * 3}, ValueError, "factor: expected .*"),
        (torch.zeros(3, 4), {"patience": [1, 2]}, ValueError, r"patience: .*shape \(4,\)"),
        ([1.0], {"patience": -1}, ValueError, "patience: expected an integer from 0"),
    ],
)
def test_bad_input_is_refused_by_name(history, keywords, error, words):
    with pytest.raises(error, match=words):
        replay(history, **keywords)


def test_a_view_of_a_history_is_read_by_its_strides():
    whole = torch.rand(40, 6, dtype=torch.float64)
    one = replay(whole[::2, 1::2], patience=1, record=["best"])
    other = replay(whole[::2, 1::2].clone(), patience=1, record=["best"])
    assert torch.equal(one.best, other.best)
    turned = replay(whole.T[:3], patience=1)
    assert torch.equal(turned.lanes.best, whole.T[:3].min(0).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_metrics_of_any_type_are_read_as_their_values(dtype):
    history = (torch.rand(20, 70) * 3).to(dtype)
    ours = replay(history, patience=1)
    assert torch.equal(ours.lanes.best, history.double().min(0).values)
    assert math.isinf(replay(history[:0], patience=1).lanes.best[0])
