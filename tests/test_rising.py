"""Rates that may rise: the band of PPO code, and transformers' GreedyLR, bit for bit."""

import copy
import io
import math
import random

import pytest
import torch
from transformers.optimization import GreedyLR

from oracle import same_bits
from torch_plateau import PlateauLanes, replay

NAN, INF = math.nan, math.inf


class Band:
    """What PPO code does with the rate by the KL divergence of a step (rsl_rl, rl_games, skrl)."""

    def __init__(self, rates, target, width, growth, min_lr, max_lr):
        self.rates = list(rates)
        self.target, self.width, self.growth = target, width, growth
        self.min_lr, self.max_lr = min_lr, max_lr

    def step(self, kl):
        for group, lr in enumerate(self.rates):
            if kl > self.target * self.width:
                self.rates[group] = max(self.min_lr[group], lr / self.growth)
            elif kl < self.target / self.width and kl > 0.0:
                self.rates[group] = min(self.max_lr[group], lr * self.growth)


class Heard(GreedyLR):
    """Transformers' scheduler, which says what its last step was: better, or a new start."""

    def step(self, metric):
        self.improved = self.anew = False
        super().step(metric)

    def is_better(self, *values):
        self.improved = super().is_better(*values)
        return self.improved

    def _reset(self):
        self.anew = True
        super()._reset()


class Greedy:
    """That scheduler over an optimizer with a param group for each rate of a lane."""

    def __init__(self, rates, **settings):
        groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in rates]
        self.scheduler = Heard(torch.optim.SGD(groups, lr=1.0), **settings)

    def step(self, metric):
        self.scheduler.step(metric)

    @property
    def rates(self):
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]

    @property
    def counts(self):
        each = self.scheduler
        resting = each.cooldown_counter + each.warmup_counter  # never both
        return [each.num_bad_epochs, each.num_good_epochs, resting]


def moved(oracles, metrics):
    """Step each oracle; return which had a rate lowered, and which had one raised."""
    lowered, raised = [], []
    for oracle, metric in zip(oracles, metrics, strict=True):
        before = oracle.rates[:]
        oracle.step(metric)
        pairs = list(zip(before, oracle.rates, strict=True))
        lowered.append(any(new < old for old, new in pairs))
        raised.append(any(new > old for old, new in pairs))
    return lowered, raised


def rates_of(oracles):
    return [rate for oracle in oracles for rate in oracle.rates]


def resumed(lanes, device):
    """The same lanes by way of a file, into lanes of torch's own rule."""
    file = io.BytesIO()
    torch.save(lanes.state_dict(), file)
    file.seek(0)
    other = PlateauLanes(len(lanes), 0.7, groups=lanes.groups, device=device)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def drawn_bands(r):
    """Bands with one to three rates each, some beyond their bounds, and keywords for lanes."""
    n = r.randrange(1, 9)
    counts = [r.choice([1, 1, 2, 3]) for _ in range(n)]
    bands = [
        Band(
            [r.choice([1e-3, 3e-4, 5e-6, 0.02, 1.0]) for _ in range(count)],
            r.choice([0.01, 0.008, r.uniform(0.005, 0.02)]),
            r.choice([1.0, 2.0, 1.7]),
            r.choice([1.5, 1.1, 2.0]),
            [r.choice([0.0, 1e-5, 1e-6]) for _ in range(count)],
            [r.choice([1e-2, 1e-3, 3.0]) for _ in range(count)],
        )
        for count in counts
    ]
    keywords = {
        "lr": rates_of(bands),
        "groups": counts,
        "rule": "band",
        **{name: [getattr(b, name) for b in bands] for name in ("target", "width", "growth")},
        **{name: [x for b in bands for x in getattr(b, name)] for name in ("min_lr", "max_lr")},
    }
    return bands, keywords


def divergence(r):
    return r.choice([0.0, -1.0, NAN, INF, -INF, 0.01, 0.02, 0.005, *[r.uniform(0, 0.04)] * 12])


def test_every_lane_keeps_its_divergence_in_a_band_as_ppo_code_does(device):
    fell = rose = 0
    for seed in range(20):
        r = random.Random(seed)
        bands, keywords = drawn_bands(r)
        lanes = PlateauLanes(len(bands), device=device, **keywords)
        counted = [[0, 0] for _ in bands]
        for step in range(60):
            metrics = [divergence(r) for _ in bands]
            lowered, raised = moved(bands, metrics)
            lanes.step(metrics)
            assert same_bits(lanes.lr_master, rates_of(bands))
            assert torch.equal(lanes.lr.double(), lanes.lr_master.float().double())
            assert (lanes.reduced.tolist(), lanes.raised.tolist()) == (lowered, raised)
            for counts, down, up in zip(counted, lowered, raised, strict=True):
                counts[0] += down
                counts[1] += up
            if step == 30:
                lanes = resumed(lanes, device)
            found = zip(lanes.num_reductions.tolist(), lanes.num_increases.tolist(), strict=True)
            assert list(map(list, found)) == counted
            assert not lanes.num_bad_epochs.any()
            fell, rose = fell + sum(lowered), rose + sum(raised)
    assert fell > 500
    assert rose > 500


def test_rsl_rls_own_numbers_are_these(device):
    lanes = PlateauLanes(1, 1e-3, device=device, rule="band", target=0.01, min_lr=1e-5, max_lr=1e-2)
    rates = []
    for kl in [0.03, 0.015, 0.004, 0.0, 0.004, *[0.001] * 5, *[0.5] * 30]:
        lanes.step([kl])
        rates.append(lanes.lr_master.item())
    third = 1e-3 / 1.5
    assert rates[:5] == [third, third, third * 1.5, third * 1.5, third * 1.5 * 1.5]
    assert (max(rates), rates[9], rates[-1]) == (1e-2, 1e-2, 1e-5)


def drawn_greedy(r, smooth):
    """GreedyLR's settings, and the same as lanes have them."""
    count = r.choice([1, 1, 2, 3])
    theirs = {
        "mode": r.choice(["min", "max"]),
        "factor": r.choice([0.95, 0.5, 0.7]),
        "patience": r.randrange(3),
        "threshold": r.choice([1e-6, 0.0, 0.1]),
        "threshold_mode": r.choice(["rel", "abs"]),
        "cooldown": r.choice([0, 0, 1, 4]),
        "warmup": r.choice([0, 0, 1, 3]),
        "min_lr": [r.choice([0.0, 1e-3, 0.05, 0.5]) for _ in range(count)],
        "max_lr": [r.choice([1.0, 0.2, 0.01, 50.0]) for _ in range(count)],
        "eps": r.choice([0.0, 1e-8, 1e-3]),
        "reset_start": r.choice([1, 2, 3, 500]),
        "smooth": smooth,
        "window_size": r.randrange(2, 7),
    }
    rates = [r.choice([0.1, 1.0, 1e-3, 0.3]) for _ in range(count)]
    return rates, theirs


OURS = {"warmup": "raise_cooldown", "reset_start": "reset_at_min", "window_size": "window"}


def as_lanes_have_it(settings):
    """The settings of some GreedyLRs as keywords of lanes."""
    flat = ("min_lr", "max_lr")
    keywords = {
        OURS.get(name, name): [x for each in settings for x in each[name]]
        if name in flat
        else [each[name] for each in settings]
        for name in settings[0]
        if name != "smooth"
    }
    if not settings[0]["smooth"]:
        del keywords["window"]
    return keywords


def signal(r, step):
    """Falls and rises for a while, so that rates reach both bounds."""
    value = 3.0 * math.sin(step / 6) + r.gauss(0, 1)
    return r.choice([value, value, value, 1.0, round(value)])


class GreedyRun:
    """Lanes, and beside each of them transformers' scheduler."""

    def __init__(self, seed, device):
        r = self.random = random.Random(seed)
        self.smooth = bool(seed % 2)
        drawn = [drawn_greedy(r, self.smooth) for _ in range(r.randrange(1, 9))]
        self.oracles = [Greedy(rates, **settings) for rates, settings in drawn]
        self.settings = [settings for _, settings in drawn]
        self.lanes = PlateauLanes(
            len(drawn),
            [rate for rates, _ in drawn for rate in rates],
            groups=[len(rates) for rates, _ in drawn],
            rule="greedy",
            device=device,
            **as_lanes_have_it(self.settings),
        )

    def step(self, step):
        metrics = [
            NAN if not self.smooth and self.random.random() < 0.03 else signal(self.random, step)
            for _ in self.oracles
        ]
        lowered, raised = moved(self.oracles, metrics)
        self.lanes.step(metrics)
        lanes, oracles = self.lanes, self.oracles
        assert same_bits(lanes.lr_master, rates_of(oracles))
        assert torch.equal(lanes.lr.double(), lanes.lr_master.float().double())
        assert (lanes.reduced.tolist(), lanes.raised.tolist()) == (lowered, raised)
        assert lanes.improved.tolist() == [each.scheduler.improved for each in oracles]
        assert same_bits(lanes.best, [each.scheduler.best for each in oracles])
        good = lanes.state_dict()["options"]["good_steps"]
        found = zip(
            lanes.num_bad_epochs.tolist(),
            good.tolist(),
            lanes.cooldown_counter.tolist(),
            strict=True,
        )
        assert list(map(list, found)) == [each.counts for each in oracles]
        return sum(lowered), sum(raised), metrics


def test_every_lane_grows_and_shrinks_its_rates_as_transformers_greedylr_does(device):
    fell = rose = anew = 0
    for seed in range(40):
        run = GreedyRun(seed, device)
        for step in range(120):
            if step == 50:
                run.lanes = resumed(run.lanes, device)
            down, up, _ = run.step(step)
            fell, rose = fell + down, rose + up
            anew += sum(each.scheduler.anew for each in run.oracles)
    assert fell > 1000
    assert rose > 500
    assert anew > 50


def test_greedy_lanes_are_copied_reset_added_and_removed_with_all_that_they_count(device):
    for seed in range(12):
        run = GreedyRun(seed, device)
        r, lanes = run.random, run.lanes
        for step in range(90):
            n = len(lanes)
            if step % 10 == 9 and n > 1:
                lane, other = r.randrange(n), r.randrange(n)
                rates, settings = drawn_greedy(r, run.smooth)
                if step % 30 == 9:
                    start = run.oracles[lane].scheduler._init_lrs
                    run.oracles[lane] = Greedy(start, **run.settings[lane])
                    lanes.reset([lane])
                elif step % 30 == 19 and len(set(lanes.groups)) == 1:
                    run.oracles[lane] = copy.deepcopy(run.oracles[other])
                    run.settings[lane] = run.settings[other]
                    lanes.copy_lanes([other], [lane])
                else:
                    settings["window_size"] = min(each["window_size"] for each in run.settings)
                    lanes.append(1, rates, groups=[len(rates)], **as_lanes_have_it([settings]))
                    run.oracles.append(Greedy(rates, **settings))
                    run.settings.append(settings)
                    lanes.remove([lane])
                    del run.oracles[lane], run.settings[lane]
            run.step(step)


def test_a_rule_is_replayed_as_it_is_stepped_with_every_move_on_record(device):
    for seed, rule in enumerate(["band", "greedy", "greedy"]):
        r = random.Random(seed)
        history = torch.tensor([[abs(signal(r, i)) for _ in range(9)] for i in range(80)]).double()
        kept = {"rule": rule, "patience": 1, "factor": 0.5, "max_lr": 1.0, "min_lr": 1e-3}
        kept |= {"target": 1.0, "reset_at_min": 2, "cooldown": seed}
        lanes = PlateauLanes(9, 0.1, device=device, **kept)
        course = replay(history.to(device), lr=0.1, record="all", **kept)
        for epoch, metrics in enumerate(history):
            assert torch.equal(lanes.step(metrics.to(device)), course.lr[epoch])
            assert torch.equal(lanes.reduced, course.reduced[epoch])
            assert torch.equal(lanes.raised, course.raised[epoch])
        assert torch.equal(course.lanes.num_increases, lanes.num_increases)
        assert course.raised.any()
        assert course.reduced.any()


def test_a_move_is_recorded_whichever_way_it_goes(device):
    lanes = PlateauLanes(1, 0.4, device=device, rule="band", target=1.0, growth=2.0, events=9)
    for metric in [3.0, 1.0, 0.25, 0.25]:
        lanes.step([metric])
    assert [each[2:5] for each in lanes.events().cuts] == [
        (1, 0.4, 0.2),
        (3, 0.2, 0.4),
        (4, 0.4, 0.8),
    ]


def test_lanes_of_a_rule_have_the_other_parts_too(device):
    kept = {"device": device, "rule": "band", "target": 1.0, "growth": 2.0}
    lanes = PlateauLanes(2, 0.4, min_lr=0.1, patience_at_min=2, min_steps=2, nan="skip", **kept)
    for metrics in ([3.0, 0.1], [3.0, NAN], [3.0, 0.1], [3.0, 3.0], [3.0, 3.0]):
        lanes.step(metrics)
    assert lanes.lr_master.tolist() == [0.1, 0.2]
    assert lanes.stop_reasons() == ["floor", None]
    assert lanes.at_min_lr.tolist() == [True, False]
    ended = PlateauLanes(1, 0.4, max_reductions=1, **kept)
    ended.step([3.0])
    ended.step([0.1])
    assert ended.lr_master.tolist() == [0.2]


def test_autograd_hears_of_a_rate_that_rises():
    lanes = PlateauLanes(1, 0.4, rule="band", target=1.0)
    before = lanes.lr._version
    lanes.step([0.1])
    assert lanes.lr._version > before


def test_lanes_of_torchs_own_rule_never_rise_and_remember_nothing_of_it(device):
    lanes = PlateauLanes(2, 0.1, device=device, patience=0)
    for metric in (1.0, 2.0):
        lanes.step([metric] * 2)
    assert lanes.num_increases.tolist() == [0, 0]
    assert not lanes.raised.any()
    state = lanes.state_dict()
    remembered = {"raised", "num_increases", "good_steps", "floor_cuts", "recent_sum"}
    assert not remembered & {*state, *state["options"]}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"rule": "golden"}, "rule: expected 'plateau' or 'band' or 'greedy', got 'golden'"),
        ({"rule": ["band", "greedy"]}, r"rule: expected 'plateau' or .*, got \['band', 'greedy'\]"),
        ({"rule": "band"}, "target: expected a number with rule='band', got None"),
        ({"rule": "band", "target": 0.0}, "target: expected finite and above 0, got 0"),
        ({"width": 0.5}, "width: expected finite and at least 1, got 0.5"),
        ({"growth": 1.0}, "growth: expected finite and above 1, got 1"),
        ({"max_lr": -1.0}, "max_lr: expected not negative and below 3.4e38, got -1"),
        ({"reset_at_min": 0}, "reset_at_min: expected an integer from 1"),
    ],
)
def test_rules_that_can_only_be_mistakes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        PlateauLanes(2, 1.0, **keywords)


def test_a_rule_is_for_all_lanes_and_stays():
    lanes = PlateauLanes(2, 0.1, rule="greedy")
    with pytest.raises(ValueError, match="rule: expected it for all lanes, in the constructor"):
        lanes.set_lanes([0], rule="plateau")
    with pytest.raises(ValueError, match="rule: expected one for all lanes, got greedy for some"):
        lanes.append(1, 0.1, rule="band", target=1.0)
    lanes.append(1, 0.1)
    assert lanes.settings["rule"] == "greedy"
    assert len(lanes) == 3


def test_a_state_from_before_rates_could_rise_is_loaded():
    lanes = PlateauLanes(2, 0.1, patience=0)
    for metric in (1.0, 2.0):
        lanes.step([metric] * 2)
    state = lanes.state_dict()
    del state["settings"]["rule"]
    other = PlateauLanes(2, 0.5)
    other.load_state_dict(state)
    assert other.reduced.all()
    assert not other.raised.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("rule", ["band", "greedy"])
def test_compiled_code_steps_lanes_of_a_rule_as_eager_code_does(rule, device):
    kept = {"rule": rule, "target": 0.5, "patience": 0, "max_lr": 1.0, "noise_from": 3}
    lanes, twin = (PlateauLanes(4, 0.1, device=device, **kept) for _ in range(2))
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    for metrics in torch.rand(20, 4, dtype=torch.float64).to(device):
        assert torch.equal(compiled(metrics), twin.step(metrics))
        assert torch.equal(lanes.raised, twin.raised)
    assert twin.num_increases.all()
