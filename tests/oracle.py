"""The reference: real torch schedulers, one per lane, driven by Python floats."""

import torch

FIELDS = ("best", "num_bad_epochs", "cooldown_counter")


class TorchLanes:
    """N of torch's own ReduceLROnPlateau, each over an SGD with one param group per rate.

    ``rates`` is a list of rates for every lane; ``settings`` the keyword arguments of every lane.
    """

    def __init__(self, rates, settings):
        self.schedulers = []
        for lane_rates, lane_settings in zip(rates, settings, strict=True):
            groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in lane_rates]
            optimizer = torch.optim.SGD(groups, lr=1.0)
            self.schedulers.append(
                torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **lane_settings)
            )
        self.improved = [False] * len(self.schedulers)
        self.reduced = [False] * len(self.schedulers)
        self.num_reductions = [0] * len(self.schedulers)

    def step(self, metrics):
        for lane, (scheduler, metric) in enumerate(zip(self.schedulers, metrics, strict=True)):
            self.improved[lane] = bool(scheduler._is_better(metric, scheduler.best))
            before = self.rates_of(lane)
            scheduler.step(metric)
            self.reduced[lane] = self.rates_of(lane) != before
            self.num_reductions[lane] += self.reduced[lane]

    def rates_of(self, lane):
        return [group["lr"] for group in self.schedulers[lane].optimizer.param_groups]

    def field(self, name):
        return [getattr(scheduler, name) for scheduler in self.schedulers]

    @property
    def rates(self):
        return [rate for lane in range(len(self.schedulers)) for rate in self.rates_of(lane)]


def same_bits(ours, theirs):
    """Whether two sequences of floats, on any device, are equal bit for bit (0.0 is not -0.0)."""
    ours = torch.as_tensor(ours, dtype=torch.float64, device="cpu")
    theirs = torch.as_tensor(theirs, dtype=torch.float64, device="cpu")
    return torch.equal(ours.view(torch.int64), theirs.view(torch.int64))


def assert_same_state(lanes, oracle):
    """Compare every field of PlateauLanes with the torch schedulers, bit for bit."""
    assert same_bits(lanes.best.double(), oracle.field("best"))
    assert lanes.num_bad_epochs.tolist() == oracle.field("num_bad_epochs")
    assert lanes.cooldown_counter.tolist() == oracle.field("cooldown_counter")
    assert same_bits(lanes.lr_master, oracle.rates)
    assert torch.equal(lanes.lr.cpu(), torch.tensor(oracle.rates, dtype=torch.float64).float())
    assert lanes.improved.tolist() == oracle.improved
    assert lanes.reduced.tolist() == oracle.reduced
    assert lanes.num_reductions.tolist() == oracle.num_reductions
