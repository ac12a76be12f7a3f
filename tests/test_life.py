"""The life of lanes: any sequence of operations leaves what the same done to single ones leaves."""

import copy
import io
import random

import pytest
import torch

from oracle import TorchLanes, same_bits
from torch_plateau import PlateauLanes
from torch_plateau.lanes.selection import chosen

WORDS = {
    "mode": ["min", "max"],
    "threshold_mode": ["rel", "abs"],
    "nan": ["bad", "skip", "cut", "freeze"],
    "counting": ["torch", "keras", "optax"],
}
TORCHS = {  # values of every hyper-parameter of torch's
    "mode": WORDS["mode"],
    "factor": [0.1, 0.5, 0.9],
    "patience": [0, 1, 2, 3],
    "threshold": [0.0, 0.1, 1e-4],
    "threshold_mode": WORDS["threshold_mode"],
    "cooldown": [0, 1, 2],
    "min_lr": [0.0, 1e-3, 0.05],
    "eps": [0.0, 1e-8, 0.02],
}
OPTIONS = {
    **TORCHS,
    "threshold_mode": ["rel", "abs", "rel_safe"],
    "atol": [0.0, 0.125],
    "nan": WORDS["nan"],
    "counting": WORDS["counting"],
    "initial_patience": [0, 1, 5],
    "smoothing": [0.0, 0.5, 0.9],
    "accumulate": [1, 2, 3],
    "max_reductions": [3, 10, 1000],
    "patience_at_min": [2, 5, 1000],
    "stop_patience": [8, 30, 1000],
    "stop_threshold": [0.0, 0.125],
    "stop_mult": [1.0, 2.0],
    "max_steps": [20, 1000],
    "warmup_steps": [0, 3, 8],
    "warmup_start_factor": [0.0, 0.3, 1.0],
}
RATES = [0.1, 0.3, 0.7, 1e-3]
READ = ("best", "num_bad_epochs", "cooldown_counter", "improved", "reduced", "num_reductions")


class TorchLane(TorchLanes):
    """One of torch's schedulers, in the words of the lanes' life."""

    choices = TORCHS

    def __init__(self, rates, settings):
        super().__init__([rates], [settings])
        self.start, self.settings = list(rates), dict(settings)

    def advance(self, metric):
        self.step([metric])

    def rest(self):
        self.improved, self.reduced = [False], [False]

    def fresh(self):
        return type(self)(self.start, self.settings)

    def change(self, name, value):
        scheduler = self.schedulers[0]
        if name == "lr":
            for group in scheduler.optimizer.param_groups:
                group["lr"] = value
            return
        self.settings[name] = value
        if name == "min_lr":
            scheduler.min_lrs = [value] * len(scheduler.min_lrs)
        else:
            setattr(scheduler, name, value)

    def read(self):
        found = {name: self.field(name)[0] for name in READ[:3]}
        found |= {name: getattr(self, name)[0] for name in READ[3:]}
        return {**found, "lr_master": self.rates_of(0), "lr": as_float32(self.rates_of(0))}


class LoneLane:
    """PlateauLanes of one lane, changed by its state alone."""

    choices = OPTIONS

    def __init__(self, rates, settings):
        self.start, self.settings = list(rates), dict(settings)
        each = {name: [value] for name, value in settings.items()}
        self.lanes = PlateauLanes(1, rates, groups=[len(rates)], **each)

    def advance(self, metric):
        self.lanes.step([metric])

    def rest(self):
        nothing = torch.zeros(1, dtype=torch.bool)
        state = {**self.lanes.state_dict(), "improved": nothing, "reduced": nothing}
        self.lanes.load_state_dict(state)

    def fresh(self):
        return type(self)(self.start, self.settings)

    def change(self, name, value):
        state = self.lanes.state_dict()
        if name == "lr":
            state["lr"] = torch.full_like(state["lr"], value)
        else:
            self.settings[name] = value
            state["settings"][name] = [value] * (len(self.start) if name == "min_lr" else 1)
        self.lanes.load_state_dict(state)

    def read(self):
        names = (*READ, "finished", "stop_reason", "best_step", "at_min_lr", "last_reduction")
        found = {name: getattr(self.lanes, name).item() for name in names}
        return found | {name: getattr(self.lanes, name).tolist() for name in ("lr", "lr_master")}


def as_float32(values):
    return torch.tensor(values, dtype=torch.float64).float().tolist()


def assert_same(lanes, references):
    read = [reference.read() for reference in references]
    assert len(lanes) == len(read)
    for name in read[0] if read else []:
        values = [lane[name] for lane in read]
        if name in ("lr", "lr_master"):
            values = [rate for lane in values for rate in lane]
        assert same_bits(getattr(lanes, name).double().cpu(), values), name


class Life:
    """Lanes, and next to them a list of single ones; the same is done to both."""

    def __init__(self, kind, counts, seed, device, dtype, fixed):
        self.random, self.kind, self.device, self.fixed = random.Random(seed), kind, device, fixed
        self.equal = len(set(counts)) == 1
        self.counts = counts
        self.lone = [self.new(count) for count in counts]
        if fixed:
            self.lone[0].settings |= {name: values[-1] for name, values in fixed.items()}
            self.lone[0] = self.lone[0].fresh()
        common = set() if kind is LoneLane else {"patience", "mode", "min_lr"}  # uniform at first
        for name in common:
            for lane in self.lone[1:]:
                lane.settings[name] = self.lone[0].settings[name]
            self.lone = [lane.fresh() for lane in self.lone]
        self.lanes = self.built(self.lone, dtype, common)

    def new(self, count):
        choices = self.kind.choices | self.fixed
        settings = {name: self.random.choice(values) for name, values in choices.items()}
        return self.kind([self.random.choice(RATES) for _ in range(count)], settings)

    def arguments(self, lone, common=()):
        counts = [len(lane.start) for lane in lone]
        names = lone[0].settings if lone else {}
        settings = {name: [lane.settings[name] for lane in lone] for name in names}
        settings |= {name: lone[0].settings[name] for name in common}
        rates = [rate for lane in lone for rate in lane.start]
        groups = None if set(self.counts) == {1} else counts
        return rates, {**settings, **({"groups": groups} if groups is not None else {})}

    def built(self, lone, dtype, common=()):
        rates, settings = self.arguments(lone, common)
        return PlateauLanes(len(lone), rates, device=self.device, dtype=dtype, **settings)

    def some(self, size=None):
        """Lane numbers, with repetitions, and one of the ways to write them."""
        n = len(self.lone)
        size = self.random.randint(0, n) if size is None else size
        numbers = [self.random.randrange(n) for _ in range(size if n else 0)]
        ways = [list, tuple, self.tensor, lambda v: self.tensor(v).int()]
        if len(numbers) == 1:
            ways.append(lambda v: v[0])
        return numbers, self.random.choice(ways)(numbers)

    def tensor(self, values):
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def some_or_mask(self):
        if self.random.random() < 0.5:
            return self.some()
        flags = [self.random.random() < 0.4 for _ in self.lone]
        written = torch.tensor(flags, dtype=torch.bool, device=self.device)
        ways = [written, flags] if flags else [written]
        return [i for i, flag in enumerate(flags) if flag], self.random.choice(ways)

    # -- what may happen --------------------------------------------------------------------------

    def step(self):
        row = [self.random.randint(-4, 8) / 8 for _ in self.lone]
        row = [float("nan") if self.random.random() < 0.05 else metric for metric in row]
        active = [self.random.random() < 0.7 for _ in self.lone]
        if self.random.random() < 0.5:
            active = [True] * len(row)
        for lane, metric, is_active in zip(self.lone, row, active, strict=True):
            lane.advance(metric) if is_active else lane.rest()
        metrics = torch.tensor(row, dtype=self.lanes.dtype, device=self.device)
        mask = torch.tensor(active, dtype=torch.bool, device=self.device)
        masks = [mask, active, mask.repeat_interleave(2)[::2]] + [None] * all(active)
        self.lanes.step(metrics, active=self.random.choice(masks))

    def reset(self):
        numbers, written = self.some_or_mask()
        self.lanes.reset(written)
        for lane in numbers:
            self.lone[lane] = self.lone[lane].fresh()

    def copy_lanes(self):
        if not self.equal:
            return
        targets, dst = self.some()
        sources, src = self.some(self.random.choice([len(targets), 1]) if targets else 0)
        self.lanes.copy_lanes(src, dst)
        before = list(self.lone)
        sources = sources * len(targets) if len(sources) == 1 else sources
        for source, target in zip(sources, targets, strict=True):
            self.lone[target] = copy.deepcopy(before[source])

    def set_lanes(self):
        numbers, written = self.some_or_mask()
        lanes = self.lanes
        is_mask = chosen("lanes", written, len(lanes), lanes.device).place is None
        changes = {}
        for name in self.random.sample([*self.kind.choices, "lr"], self.random.randint(0, 4)):
            values = self.kind.choices.get(name, RATES)
            places = range(len(self.lone)) if is_mask else numbers
            each = [self.random.choice(values) for _ in places]
            one = self.random.choice(values)
            word, given = isinstance(one, str), torch.tensor
            ways = [each, each if word else given(each, dtype=torch.float64), one]
            changes[name] = self.random.choice(ways)
            for i, lane in enumerate(places):
                if lane in numbers:
                    self.lone[lane].change(name, one if changes[name] is one else each[i])
        self.lanes.set_lanes(written, **changes)

    def append(self):
        few = len(self.lone) < 4
        added = [self.new(self.counts[0]) for _ in range(self.random.randint(0, 1 + 2 * few))]
        rates, settings = self.arguments(added)
        if added:
            self.lanes.append(len(added), rates, **settings)
        else:
            self.lanes.append(0, [])
        self.lone += added

    def remove(self):
        numbers, written = self.some_or_mask() if self.random.random() < 0.1 else self.some(1)
        if {"window"} & self.fixed.keys() and len(set(numbers)) == len(self.lone):
            return  # an empty batch forgets how long its longest window was
        self.lanes.remove(written)
        self.lone = [lane for i, lane in enumerate(self.lone) if i not in numbers]

    def save_and_load(self):
        file = io.BytesIO()
        torch.save(self.lanes.state_dict(), file)
        file.seek(0)
        loaded = PlateauLanes(
            *(len(self.lone), 0.5),
            groups=self.lanes.groups,
            device=self.device,
            dtype=self.lanes.dtype,
        )
        loaded.load_state_dict(torch.load(file, weights_only=True))
        self.lanes = self.random.choice([loaded, copy.deepcopy(self.lanes)])


KINDS = ["step"] * 8 + ["reset", "copy_lanes", "set_lanes", "append", "remove", "save_and_load"]
COUNTS = {"one rate": [1] * 5, "two rates": [2] * 4, "uneven": [1, 3, 2, 1]}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("seed", range(4))
def test_any_life_of_lanes_is_that_of_as_many_of_torchs_schedulers(seed, counts, device):
    dtype = torch.float32 if seed % 2 else torch.float64
    life = Life(TorchLane, counts, seed, device, dtype, {})
    cuts = 0
    for _ in range(400):
        getattr(life, life.random.choice(KINDS))()
        assert_same(life.lanes, life.lone)
        cuts += int(life.lanes.reduced.sum())
    assert cuts > 100


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("seed", range(4))
def test_optional_parts_go_with_their_lane_through_any_life(seed, counts, device):
    life = Life(LoneLane, counts, seed, device, torch.float64, {"window": [1, 2, 3]})
    cuts = 0
    for _ in range(200):
        getattr(life, life.random.choice(KINDS))()
        assert_same(life.lanes, life.lone)
        cuts += int(life.lanes.reduced.sum())
    assert cuts > 10
