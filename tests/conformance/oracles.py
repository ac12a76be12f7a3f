"""A lane by torch's own scheduler, or by tests/oracle.py where torch's has no such part."""

import array
import copy
import operator

import numpy as np
import torch

from oracle import OneLane

PARAMS = [torch.zeros(1) for _ in range(8)]  # which no optimizer ever steps
COMMON = ("best", "num_bad_epochs", "cooldown_counter", "improved", "reduced", "num_reductions")
ADDED = ("raised", "num_increases", "finished", "last_reduction")


def optimizer_of(rates, tensors=False):
    """An optimizer with these rates, that nobody steps."""
    given = [torch.tensor(rate) for rate in rates] if tensors else rates
    groups = [{"params": [p], "lr": rate} for p, rate in zip(PARAMS, given, strict=False)]
    return torch.optim.SGD(groups, lr=1.0)


class TorchLane:
    """One of torch's schedulers; ``trace`` returns its fields and rates after each metric."""

    fields = COMMON

    def __init__(self, rates, settings, tensors=False):
        self.start, self.settings, self.cuts = list(rates), dict(settings), 0
        self.tensors = tensors
        if not rates:  # torch wants a group: one whose rate nobody looks at
            self.settings["min_lr"] = 0.0
        optimizer = optimizer_of(rates or [1.0], tensors)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **self.settings)

    def trace(self, metrics, active=None):
        """Fields, rates and published rates, [steps, each], float64."""
        fields, rates, scheduler = array.array("d"), array.array("d"), self.scheduler
        last = self.rates()
        for i, metric in enumerate(metrics):
            improved = reduced = False
            if active is None or active[i]:
                improved = scheduler._is_better(metric, scheduler.best)
                scheduler.step(metric)
                before, last = last, self.last_rates()
                reduced = last != before
                self.cuts += reduced
            counts = (scheduler.num_bad_epochs, scheduler.cooldown_counter)
            fields.extend((scheduler.best, *counts, improved, reduced, self.cuts))
            rates.extend(last)
        rates = table(rates, len(metrics))
        return table(fields, len(metrics)), rates, rates

    def rates(self):
        groups = self.scheduler.optimizer.param_groups if self.start else []
        return [float(group["lr"]) for group in groups]

    def last_rates(self):
        """What torch itself read from its groups after a step."""
        rates = self.scheduler._last_lr if self.start else []
        return [float(rate) for rate in rates] if self.tensors else rates

    def fresh(self):
        return type(self)(self.start, self.settings)

    def change(self, name, value):
        if name == "lr":
            for group in self.scheduler.optimizer.param_groups:
                group["lr"] = value
        else:
            self.settings[name] = value
            setattr(self.scheduler, name, value)

    def copied(self):
        other = self.fresh()
        other.cuts, state = self.cuts, copy.deepcopy(self.scheduler.state_dict())
        other.scheduler.load_state_dict(state)
        theirs, ours = other.scheduler.optimizer.param_groups, self.scheduler.optimizer.param_groups
        for their, our in zip(theirs, ours, strict=True):
            their["lr"] = our["lr"]
        return other


class PartsLane:
    """One lane of tests/oracle.py, in the same words."""

    fields = COMMON + ADDED

    def __init__(self, rates, settings):
        self.start, self.settings = list(rates), dict(settings)
        self.lane = OneLane(rates, **settings)

    def trace(self, metrics, active=None):
        fields, rates, published = (array.array("d") for _ in range(3))
        lane, read = self.lane, operator.attrgetter(*self.fields)
        for i, metric in enumerate(metrics):
            lane.step(metric, active is None or active[i])
            fields.extend(read(lane))
            rates.extend(lane.rates)
            published.extend(lane.published)
        return tuple(table(each, len(metrics)) for each in (fields, rates, published))

    def fresh(self):
        return type(self)(self.start, self.settings)

    def change(self, name, value):
        if name == "lr":
            self.lane.rates = [value] * len(self.lane.rates)
        else:
            self.settings[name] = value
            setattr(self.lane, name, value)

    def copied(self):
        return copy.deepcopy(self)


def table(values, rows):
    """An array.array as rows of equal length."""
    return np.array(values).reshape(rows, len(values) // rows)
