"""Calls of the drop-in and of batched schedulers."""

import copy
from functools import partial

import torch
from torch.optim import SGD

from subjects.calls import calls_of
from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau

SUBJECTS = {}


def sgd(rates=(0.4, 0.5)):
    return SGD([{"params": [torch.ones(2, 2)], "lr": rate} for rate in rates], lr=0.1)


def drop_in(rates=(0.4, 0.5), **kwargs):
    scheduler = ReduceLROnPlateau(sgd(rates), patience=0, cooldown=1, **kwargs)
    for metric in (1.0, 2.0, 1.5):
        scheduler.step(metric)
    return scheduler


def hooks_of(optimizer):
    return [
        list(map(str, getattr(optimizer, name)))
        for name in vars(optimizer)
        if name.endswith("hooks") and isinstance(getattr(optimizer, name), dict)
    ]


def of_scheduler(scheduler):
    optimizers = scheduler.optimizer
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    rates = [float(group["lr"]) for each in optimizers for group in each.param_groups]
    return scheduler.state_dict(), rates


def scheduler_goes_on(metrics):
    def go_on(scheduler):
        found = []
        for i in range(4):
            scheduler.step(metrics(5.0 + i))
            found.append(of_scheduler(scheduler))
        return found

    return go_on


def tensors():
    return torch.tensor(0.4), torch.tensor(0.5, dtype=torch.float64)


DROP_IN_CALLS = {
    "step": lambda x: x.step(9.0),
    "step of a tensor": lambda x: x.step(torch.tensor(9.0)),
    "step of an int": lambda x: x.step(9),
    "load_state_dict": lambda x: x.load_state_dict(
        {**x.state_dict(), "patience": 3, "mode": "max", "best": 4.0, "min_lrs": [0.1, 0.2]}
    ),
    "copy": copy.deepcopy,
}
for kind, rates in {"floats": lambda: (0.4, 0.5), "tensors": tensors}.items():
    name, build = f"drop-in with {kind}", lambda rates=rates: drop_in(rates())
    SUBJECTS |= calls_of(name, build, DROP_IN_CALLS, of_scheduler, scheduler_goes_on(lambda x: x))


# -- lanes in optimizers --


def batched(publish):
    optimizers = [sgd(), sgd((0.6,))]
    scheduler = BatchedReduceLROnPlateau(optimizers, patience=0, cooldown=1, publish=publish)
    for row in ([1.0, 1.0], [2.0, 0.5], [3.0, 1.0]):
        scheduler.step(row)
    return scheduler


def batched_state():
    other = BatchedReduceLROnPlateau([sgd(), sgd((0.6,))], patience=3)
    other.step([4.0, 4.0])
    return other.state_dict()


def with_more_groups(publish):
    scheduler = batched(publish)
    scheduler.optimizer[0].add_param_group({"params": [torch.ones(1)], "lr": 0.9})
    return scheduler


BATCHED_CALLS = {
    "step": lambda x: x.step(torch.tensor([9.0, 9.0])),
    "step of a list": lambda x: x.step([9.0, 9.0], active=[True, False]),
    "load_state_dict": lambda x: x.load_state_dict(batched_state()),
    "setting": lambda x: setattr(x, "patience", [4, 5]),
    "copy": copy.deepcopy,
}
GROUPS_COME = {"groups come": lambda x: x.step([9.0, 9.0])}
for publish in ("float", "tensor"):
    name, go_on = f"batched {publish}", scheduler_goes_on(lambda x: [x, x])
    for make, calls in ((batched, BATCHED_CALLS), (with_more_groups, GROUPS_COME)):
        SUBJECTS |= calls_of(name, partial(make, publish), calls, of_scheduler, go_on)
