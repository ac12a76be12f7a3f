"""The reference: real torch schedulers, one per lane, driven by Python floats."""

import math

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


class OneLane:
    """One lane with its optional parts: what the documentation says, step by step.

    The arguments are those of ``PlateauLanes``, but ``rates``, the lane's list of rates; ``min_lr``
    is one number or one for each of them.
    """

    def __init__(self, rates, **settings):
        self.__dict__.update(
            mode="min",
            factor=0.1,
            patience=10,
            threshold=1e-4,
            threshold_mode="rel",
            cooldown=0,
            min_lr=0.0,
            eps=1e-8,
            atol=0.0,
            nan="bad",
            counting="torch",
            initial_patience=None,
            min_steps=0,
            smoothing=0.0,
            accumulate=1,
            window=1,
            max_reductions=None,
            patience_at_min=None,
            warmup_steps=0,
            warmup_start_factor=0.0,
        )
        self.__dict__.update(settings)
        self.rates = list(rates)
        self.floors = self.min_lr if isinstance(self.min_lr, list) else [self.min_lr] * len(rates)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.steps = 0  # that the lane took: not as masked or finished
        self.num_bad_epochs = self.cooldown_counter = self.bad_at_min = 0
        self.num_reductions = self.last_reduction = 0
        self.improved = self.reduced = self.finished = self.once_due = False
        self.pending = []  # metrics to accumulate
        self.recent = []  # the window
        self.smooth, self.smooth_weight = 0.0, 1.0
        self.events = []  # (group, step, old rate, new rate, metric, best)

    def step(self, metric, active=True):
        self.improved = self.reduced = False
        missing = math.isnan(metric)
        if self.finished or not active or (missing and self.nan == "skip"):
            return
        if missing and self.nan == "freeze":
            self.finished = True
            return
        self.steps += 1
        warming = self.steps <= self.warmup_steps
        if missing and self.nan == "cut" and self.steps >= self.min_steps:
            if not warming:
                self.count_at_min()
            self.cut(metric)
            return
        value = self.filtered(metric)
        if value is None:
            return
        self.improved = self.is_better(value)
        if self.improved:
            self.best = value
        if not warming:
            self.count(value)

    def filtered(self, value):
        """The value to decide by: accumulated, windowed, smoothed. None: not yet."""
        if self.accumulate > 1:
            self.pending.append(value)
            if len(self.pending) < self.accumulate:
                return None
            value = mean(self.pending)
            self.pending = []
        if self.window > 1 and not math.isnan(value):
            self.recent = [*self.recent, value][-self.window :]
            value = mean(self.recent)
        if self.smoothing and math.isfinite(value):
            self.smooth = self.smoothing * self.smooth + (1.0 - self.smoothing) * value
            self.smooth_weight *= self.smoothing
            value = self.smooth / (1.0 - self.smooth_weight)
        return value

    def is_better(self, value):
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            bar = self.best * (1.0 + sign * self.threshold) + sign * self.atol
        elif self.threshold_mode == "abs":
            bar = self.best + sign * (self.threshold + self.atol)
        elif math.isinf(self.best):
            bar = self.best
        else:
            bar = self.best + sign * abs(self.best) * self.threshold + sign * self.atol
        return value < bar if self.mode == "min" else value > bar

    def count(self, value):
        """Bad steps and cooldown, and the cut when one is due."""
        ignored = self.cooldown_counter > 0
        self.cooldown_counter -= ignored
        if self.counting == "keras":  # the step on which the cooldown ends counts
            ignored = self.cooldown_counter > 0
        if self.improved:
            self.num_bad_epochs = self.bad_at_min = 0
        elif not ignored:
            self.num_bad_epochs += 1
            self.count_at_min()
        patience = self.patience
        if self.initial_patience is not None and not self.once_due:
            patience = self.initial_patience
        if self.counting == "torch":
            patience += 1
        if self.num_bad_epochs >= max(patience, 1) and self.steps >= self.min_steps:
            self.cut(value)

    def count_at_min(self):
        if self.patience_at_min is not None and self.at_min_lr:
            self.bad_at_min += 1
            self.finished = self.finished or self.bad_at_min >= self.patience_at_min

    def lowered(self, group):
        """The rate after a cut, None if that leaves it alone."""
        rate = self.rates[group]
        new = max(rate * self.factor, self.floors[group])
        return new if rate - new > self.eps else None

    @property
    def at_min_lr(self):
        return all(self.lowered(group) is None for group in range(len(self.rates)))

    def cut(self, value):
        self.once_due = True
        for group, old in enumerate(self.rates):
            new = self.lowered(group)
            if new is not None:
                self.rates[group] = new
                self.reduced = True
                self.events.append((group, self.steps, old, new, value, self.best))
        if self.reduced or self.counting != "keras":
            self.num_bad_epochs, self.cooldown_counter = 0, self.cooldown
        if self.reduced:
            self.num_reductions += 1
            self.last_reduction = self.steps
            if self.max_reductions is not None and self.num_reductions >= self.max_reductions:
                self.finished = True

    @property
    def published(self):
        """What optimizers read, before it is rounded to float32."""
        if self.steps >= self.warmup_steps:
            return self.rates
        start = self.warmup_start_factor
        factor = start + (1.0 - start) * (self.steps / self.warmup_steps)
        return [rate * factor for rate in self.rates]


def mean(values):
    """Added up from the oldest on."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
