"""Noise on the rate as timm's PlateauLRScheduler has it, with the numbers of SplitMix64."""

import io
import math
import random

import pytest
import torch

from oracle import SplitMix64, noise_of, same_bits
from torch_plateau import PlateauLanes, replay


def test_the_generator_gives_the_numbers_that_are_published_for_it():
    generator = SplitMix64(1234567)
    assert [generator.bits() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


class Timm:
    """PlateauLRScheduler.step of timm: torch's scheduler, with noise on its rates in between."""

    def __init__(self, rates, warmup, start, end, pct, kind, seed, **settings):
        groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in rates]
        self.optimizer = torch.optim.SGD(groups, lr=1.0)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, **settings)
        self.warmup, self.start, self.end = warmup, start, end
        self.pct, self.kind, self.seed = pct, kind, seed
        self.base, self.restore = list(rates), None
        self.published = list(rates) if warmup == 0 else [0.0] * len(rates)

    def step(self, epoch, metric):
        groups = self.optimizer.param_groups
        if epoch <= self.warmup:
            self.plateau.best = min(self.plateau.best, metric)  # lanes know it; timm does not
            self.published = [rate * (epoch / self.warmup) for rate in self.base]
            return
        if self.restore is not None:
            for group, rate in zip(groups, self.restore, strict=True):
                group["lr"] = rate
            self.restore = None
        self.plateau.step(metric)
        self.published = self.masters = [group["lr"] for group in groups]
        if self.start <= epoch < self.end:
            noise = noise_of(self.kind, self.pct, self.seed, epoch)
            self.restore = self.masters
            self.published = [rate + rate * noise for rate in self.masters]
            for group, rate in zip(groups, self.published, strict=True):
                group["lr"] = rate

    @property
    def rates(self):
        return self.restore or [group["lr"] for group in self.optimizer.param_groups]


def drawn(r):
    """Schedulers of timm, and keywords for lanes of theirs."""
    n = r.randrange(1, 7)
    timms = []
    for _ in range(n):
        start = r.randrange(20)
        timms.append(
            Timm(
                [r.choice([0.1, 1.0, 0.3]) for _ in range(r.choice([1, 1, 2]))],
                r.choice([0, 0, 5]),
                start,
                r.choice([start + r.randrange(30), 2**31 - 2]),
                r.choice([0.67, 0.1, 0.99, r.uniform(0.01, 0.99)]),
                r.choice(["normal", "uniform"]),
                r.choice([42, r.randrange(2**31 - 1)]),
                patience=r.randrange(3),
                factor=r.choice([0.5, 0.9]),
                cooldown=r.choice([0, 2]),
                min_lr=r.choice([0.0, 0.05]),
                threshold=0.0,
            )
        )
    names = {"warmup_steps": "warmup", "noise_from": "start", "noise_until": "end"}
    names |= {"noise_pct": "pct", "noise_type": "kind", "noise_seed": "seed"}
    keywords = {ours: [getattr(each, name) for each in timms] for ours, name in names.items()}
    for name in ("patience", "factor", "cooldown"):
        keywords[name] = [getattr(each.plateau, name) for each in timms]
    keywords["min_lr"] = [each.plateau.min_lrs[0] for each in timms]
    keywords["groups"] = [len(each.base) for each in timms]
    rates = [rate for each in timms for rate in each.base]
    return timms, rates, {"threshold": 0.0, **keywords}


def float32(rates):
    return torch.tensor(rates, dtype=torch.float64).float()


def test_every_lane_publishes_the_noisy_rates_of_timm_and_decides_by_the_others(device):
    noisy = 0
    for seed in range(30):
        r = random.Random(seed)
        timms, rates, keywords = drawn(r)
        lanes = PlateauLanes(len(timms), rates, device=device, **keywords)
        resume_at = r.randrange(1, 50)
        for epoch in range(1, 51):
            metrics = [r.choice([1.0, 0.5, r.random()]) for _ in timms]
            for timm, metric in zip(timms, metrics, strict=True):
                timm.step(epoch, metric)
                noisy += timm.restore is not None
            lanes.step(metrics)
            if epoch == resume_at:
                lanes = resumed(lanes, device)
            assert torch.equal(lanes.lr.cpu(), float32([x for t in timms for x in t.published]))
            assert same_bits(lanes.lr_master, [x for t in timms for x in t.rates])
            assert lanes.num_bad_epochs.tolist() == [t.plateau.num_bad_epochs for t in timms]
    assert noisy > 1000


def resumed(lanes, device):
    """The same lanes by way of a file."""
    file = io.BytesIO()
    torch.save(lanes.state_dict(), file)
    file.seek(0)
    other = PlateauLanes(len(lanes), 0.7, groups=lanes.groups, device=device)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_is_spread_as_that_of_timm(kind, device):
    n, pct = 20_000, 0.67
    lanes = PlateauLanes(
        n, 1.0, device=device, noise_from=1, noise_type=kind, noise_seed=list(range(n))
    )
    lanes.step(torch.zeros(n, device=device))
    first = lanes.lr.double().cpu() - 1.0
    lanes.step(torch.zeros(n, device=device))
    second = lanes.lr.double().cpu() - 1.0
    if kind == "normal":
        theirs = torch.randn(4 * n, dtype=torch.float64)
        theirs = theirs[theirs.abs() < pct]  # drawn anew where it passes the limit
    else:
        theirs = 2 * (torch.rand(2 * n, dtype=torch.float64) - 0.5) * pct
    for ours in (first, second):
        assert ours.abs().max() <= pct
        points = torch.cat([ours, theirs])
        below = [torch.searchsorted(each.sort()[0], points) / len(each) for each in (ours, theirs)]
        spread = math.sqrt(1 / len(ours) + 1 / len(theirs))
        assert (below[0] - below[1]).abs().max() < 1.95 * spread  # Kolmogorov and Smirnov, 0.1%
    both = torch.stack([first, second, first.roll(1), second.roll(1)])
    assert (torch.corrcoef(both) - torch.eye(4)).abs().max() < 0.03


def test_a_replay_has_the_noise_of_steps(device):
    history = torch.rand(40, 5, dtype=torch.float64)
    kept = {"noise_from": 3, "noise_until": 30, "noise_seed": list(range(5)), "patience": 1}
    lanes = PlateauLanes(5, 0.1, device=device, **kept)
    course = replay(history.to(device), lr=0.1, record=("lr",), **kept)
    for epoch, metrics in enumerate(history):
        assert torch.equal(lanes.step(metrics.to(device)), course.lr[epoch])
    assert torch.equal(course.final_lr, lanes.lr_master)


def test_a_lane_that_no_metric_comes_for_keeps_its_noise(device):
    lanes = PlateauLanes(2, 0.1, device=device, noise_from=1, noise_seed=[1, 2])
    lanes.step([1.0, 1.0])
    before = lanes.lr.tolist()
    lanes.step([1.0, 1.0], active=[True, False])
    assert lanes.lr.tolist()[1] == before[1]
    assert lanes.lr.tolist()[0] != before[0]


def test_noise_is_put_on_what_others_wrote_before_it_and_taken_off_again(device):
    lanes = PlateauLanes(1, 0.1, device=device, noise_from=2, noise_until=4, patience=9)
    lanes.step([1.0])
    lanes.lr[0] = 0.25
    for step in (2, 3):
        lanes.step([1.0])
        noise = noise_of("normal", 0.67, 42, step)
        assert lanes.lr.tolist() == float32([0.25 + 0.25 * noise]).tolist()
        assert lanes.lr_master.tolist() == [0.25]
    lanes.step([1.0])
    assert lanes.lr.tolist() == [0.25]


def test_noise_moves_with_lanes_and_ends_where_they_begin_anew(device):
    lanes = PlateauLanes(3, [0.1, 0.2, 0.3], device=device, noise_from=1, noise_seed=[1, 2, 3])
    lanes.step([1.0] * 3)
    noisy = lanes.lr.tolist()
    lanes.copy_lanes([2], [0])
    assert lanes.lr.tolist() == [noisy[2], noisy[1], noisy[2]]
    lanes.set_lanes([1], lr=0.5)
    noise = noise_of("normal", 0.67, 2, 1)
    assert lanes.lr.tolist()[1] == float32([0.5 + 0.5 * noise]).item()
    lanes.reset([2])
    assert lanes.lr.tolist()[2] == float32([0.3]).item()
    assert lanes.lr_master.tolist() == [0.3, 0.5, 0.3]
    lanes.remove([0])
    lanes.step([1.0] * 2)
    assert lanes.lr.tolist()[1] == float32([0.3 + 0.3 * noise_of("normal", 0.67, 3, 1)]).item()


def test_rates_that_rise_are_noisy_too(device):
    kept = {"rule": "band", "target": 1.0, "max_lr": 1.0, "device": device}
    quiet, noisy = PlateauLanes(1, 0.1, **kept), PlateauLanes(1, 0.1, noise_from=1, **kept)
    for step, metric in enumerate([0.1, 0.1, 5.0, 1.0, 0.1], 1):
        quiet.step([metric])
        noisy.step([metric])
        master, noise = quiet.lr_master.item(), noise_of("normal", 0.67, 42, step)
        assert noisy.lr_master.item() == master
        assert noisy.lr.tolist() == float32([master + master * noise]).tolist()


def test_autograd_hears_of_every_noise():
    lanes = PlateauLanes(1, 0.4, noise_from=1)
    before = lanes.lr._version
    lanes.step([1.0])
    assert lanes.lr._version > before


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"noise_from": -1}, "noise_from: expected an integer from 0"),
        ({"noise_pct": 1.0}, "noise_pct: expected above 0 and below 1, got 1"),
        ({"noise_type": "gauss"}, "noise_type: expected 'normal' or 'uniform', got 'gauss'"),
        ({"noise_seed": 0.5}, "noise_seed: expected an integer from 0"),
    ],
)
def test_noise_that_can_only_be_a_mistake_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        PlateauLanes(2, 1.0, **keywords)
