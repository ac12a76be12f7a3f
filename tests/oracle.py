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
            stop_patience=None,
            stop_threshold=0.0,
            stop_threshold_mode="abs",
            stop_mult=1.0,
            max_steps=None,
            stop_at=None,
            diverge_at=None,
            warmup_steps=0,
            warmup_start_factor=0.0,
            rule="plateau",
            max_lr=math.inf,
            target=None,
            width=2.0,
            growth=1.5,
            raise_cooldown=0,
            reset_at_min=None,
            noise_from=None,
            noise_until=math.inf,
            noise_pct=0.67,
            noise_type="normal",
            noise_seed=42,
        )
        self.__dict__.update(settings)
        self.rates, self.first_rates = list(rates), list(rates)
        self.floors = self.min_lr if isinstance(self.min_lr, list) else [self.min_lr] * len(rates)
        self.best = self.stop_best = math.inf if self.mode == "min" else -math.inf
        self.steps = 0  # that the lane took: not as masked or finished
        self.num_bad_epochs = self.cooldown_counter = self.bad_at_min = 0
        self.num_reductions = self.last_reduction = self.best_step = 0
        self.stop_best_at = self.stop_waited = 0  # decisions: of the best, and bad since
        self.num_increases = self.good = self.at_floor = 0  # good steps in a row, cuts at the floor
        self.noise = 0.0
        self.improved = self.reduced = self.raised = self.once_due = False
        self.stop_reason = None
        self.pending = []  # metrics to accumulate
        self.recent, self.sum = [], 0.0  # the window
        self.smooth, self.smooth_weight = 0.0, 1.0
        self.events = []  # (group, step, old rate, new rate, metric, best)

    def step(self, metric, active=True):
        self.improved = self.reduced = self.raised = False
        missing = math.isnan(metric)
        if self.finished or not active or (missing and self.nan == "skip"):
            return
        if missing and self.nan == "freeze":
            self.finish("nan")
            return
        self.steps += 1
        self.noise = 0.0
        noisy = self.noise_from is not None and self.noise_from <= self.steps < self.noise_until
        if noisy and self.steps > self.warmup_steps:
            self.noise = noise_of(self.noise_type, self.noise_pct, self.noise_seed, self.steps)
        self.take(metric)
        if self.max_steps is not None and self.steps >= self.max_steps:
            self.finish("max_steps")

    def take(self, metric):
        missing = math.isnan(metric)
        warming = self.steps <= self.warmup_steps
        if missing and self.nan == "cut" and self.steps >= self.min_steps:
            self.count_to_stop(metric, warming)
            if not warming:
                self.count_at_min()
            self.move(metric, "cut")
            return
        value = self.filtered(metric)
        if value is None:
            return
        reason = self.stopped_by(value, missing and self.nan != "bad")
        if reason:
            self.finish(reason)
        if reason == "diverged":
            return
        resting = self.cooldown_counter > (self.counting == "keras")
        self.improved = self.is_better(value) and not (self.rule == "greedy" and resting)
        if self.improved:
            self.best, self.best_step = value, self.steps
        self.count_to_stop(value, warming)
        if not warming and self.rule == "band":
            self.steer(value)
        elif not warming:
            self.count(value)

    @property
    def finished(self):
        return self.stop_reason is not None

    def finish(self, reason):
        self.stop_reason = self.stop_reason or reason

    def stopped_by(self, value, nan_has_a_rule):
        """Why the value itself ends the lane, asked as Lightning's EarlyStopping asks."""
        sign = 1 if self.mode == "min" else -1
        if self.diverge_at is not None and not math.isfinite(value):
            return None if math.isnan(value) and nan_has_a_rule else "diverged"
        if self.stop_at is not None and sign * value < sign * self.stop_at:
            return "target"
        if self.diverge_at is not None and sign * value > sign * self.diverge_at:
            return "diverged"
        return None

    def count_to_stop(self, value, warming):
        if self.stop_patience is None:
            return
        gate = (self.stop_best, self.stop_threshold, self.stop_threshold_mode, 0.0)
        if self.is_better(value, *gate):
            self.stop_best = value
            self.stop_best_at += self.stop_waited + 1
            self.stop_waited = 0
        elif warming:
            self.stop_best_at += 1
        else:
            self.stop_waited += 1
            now = self.stop_best_at + self.stop_waited
            bears = now + 1 <= self.stop_mult * self.stop_best_at + self.stop_patience
            if not bears and self.steps >= self.min_steps:
                self.finish("patience")

    def filtered(self, value):
        """The value to decide by: accumulated, windowed, smoothed. None: not yet."""
        if self.accumulate > 1:
            self.pending.append(value)
            if len(self.pending) < self.accumulate:
                return None
            value = mean(self.pending)
            self.pending = []
        if self.window > 1 and not math.isnan(value):
            oldest = self.recent[-self.window] if len(self.recent) >= self.window else None
            self.recent = [*self.recent, value][-self.window :]
            value = mean(self.recent)
            if self.rule == "greedy":  # a running sum, unless something infinite was in it
                self.sum += self.recent[-1]
                if oldest is not None:
                    self.sum -= oldest
                if not math.isfinite(self.sum):
                    self.sum = total_of(self.recent)
                value = self.sum / len(self.recent)
        if self.smoothing and math.isfinite(value):
            self.smooth = self.smoothing * self.smooth + (1.0 - self.smoothing) * value
            self.smooth_weight *= self.smoothing
            value = self.smooth / (1.0 - self.smooth_weight)
        return value

    def is_better(self, value, *gate):
        """Whether it beats best by the threshold, or by another gate."""
        best, threshold, mode, atol = gate or (
            self.best,
            self.threshold,
            self.threshold_mode,
            self.atol,
        )
        sign = -1.0 if self.mode == "min" else 1.0
        if mode == "rel":
            bar = best * (1.0 + sign * threshold) + sign * atol
        elif mode == "abs":
            bar = best + sign * (threshold + atol)
        elif math.isinf(best):
            bar = best
        else:
            bar = best + sign * abs(best) * threshold + sign * atol
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
        may_move = self.steps >= self.min_steps
        if self.rule == "greedy":
            self.good = self.good + 1 if self.improved else 0
            if self.good >= max(patience, 1) and may_move:
                self.move(value, "raise")
        if self.num_bad_epochs >= max(patience, 1) and may_move:
            self.cut(value)

    def steer(self, value):
        """What a band does by the value."""
        way = None
        if value > self.width * self.target:
            way = "cut"
            self.count_at_min()
        else:
            self.bad_at_min = 0
            if 0.0 < value < self.target / self.width:
                way = "raise"
        if way and self.steps >= self.min_steps:
            self.move(value, way)

    def count_at_min(self):
        if self.patience_at_min is not None and self.at_min_lr:
            self.bad_at_min += 1
            if self.bad_at_min >= self.patience_at_min:
                self.finish("floor")

    def asked(self, group, way):
        """The rate after a cut, a raise, or where the lane begins anew."""
        rate, floor = self.rates[group], self.floors[group]
        if way == "anew":
            return self.first_rates[group]
        if self.rule == "band":
            if way == "cut":
                return max(floor, rate / self.growth)
            return min(self.max_lr, rate * self.growth)
        if way == "cut":
            new = max(rate * self.factor, floor)
            return new if rate - new > self.eps else rate
        new = min(rate / self.factor, self.max_lr)
        return new if new - rate > self.eps else rate

    @property
    def at_min_lr(self):
        return not any(self.asked(group, "cut") < rate for group, rate in enumerate(self.rates))

    def cut(self, value):
        anew = False
        if self.rule == "greedy" and self.reset_at_min is not None:
            cut = [self.asked(group, "cut") for group in range(len(self.rates))]
            if all(rate <= floor for rate, floor in zip(cut, self.floors, strict=True)):
                self.at_floor += 1
                anew = self.at_floor >= self.reset_at_min
        if anew:
            self.best = math.inf if self.mode == "min" else -math.inf
            self.recent, self.sum = [], 0.0
            self.smooth, self.smooth_weight = 0.0, 1.0
        self.move(value, "anew" if anew else "cut")

    def move(self, value, way):
        self.once_due = self.once_due or way != "raise"
        for group, old in enumerate(self.rates):
            new = self.asked(group, way)
            if new != old:
                self.rates[group] = new
                self.reduced |= new < old
                self.raised |= new > old
                self.events.append((group, self.steps, old, new, value, self.best))
        if self.rule != "band":
            moved = self.reduced or (self.raised and self.rule == "greedy") or way == "anew"
            if moved or self.counting != "keras":
                rest = self.raise_cooldown if way == "raise" else self.cooldown
                self.num_bad_epochs, self.cooldown_counter = 0, rest
            self.good = 0
            self.at_floor *= way == "cut"
        self.num_increases += self.raised
        if self.reduced:
            self.num_reductions += 1
            self.last_reduction = self.steps
            if self.max_reductions is not None and self.num_reductions >= self.max_reductions:
                self.finish("max_reductions")

    @property
    def published(self):
        """What optimizers read, before it is rounded to float32."""
        if self.noise:
            return [rate + rate * self.noise for rate in self.rates]
        if self.steps >= self.warmup_steps:
            return self.rates
        start = self.warmup_start_factor
        factor = start + (1.0 - start) * (self.steps / self.warmup_steps)
        return [rate * factor for rate in self.rates]


def mean(values):
    """Added up from the oldest on."""
    return total_of(values) / len(values)


def total_of(values):
    total = 0.0
    for value in values:
        total += value
    return total


class SplitMix64:
    """Steele, Lea and Flood 2014: a counter, and a mixer of its bits."""

    def __init__(self, seed):
        self.counter = seed

    def bits(self):
        mask = 2**64 - 1
        self.counter = (self.counter + 0x9E3779B97F4A7C15) & mask
        z = self.counter
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def rand(self):
        return (self.bits() >> 11) / 2**53


def noise_of(kind, pct, seed, step):
    """The noise of a step: timm's formulas, over a stream of their own for each step."""
    seeds = SplitMix64(seed)
    for _ in range(step):
        stream = seeds.bits()
    generator = SplitMix64(stream)
    if kind == "uniform":
        return 2 * (generator.rand() - 0.5) * pct
    while True:  # a normal number within the limit, by von Neumann's rejection
        noise = 2 * (generator.rand() - 0.5) * pct
        if generator.rand() < math.exp(-noise * noise / 2):
            return noise
