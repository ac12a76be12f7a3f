"""What is called with a fault at every point: how it is built, called, looked at, and goes on."""

import copy
import pickle

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneAdamW,
    LaneBest,
    LaneLR,
    LaneSGD,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
    compose,
    replay,
)

PARTS = {
    "events": 4,
    "window": [2, 3, 1],
    "smoothing": 0.1,
    "max_steps": 50,
    "warmup_steps": [0, 2, 4],
    "stop_patience": 20,
    "patience_at_min": 9,
}
RISING = [[1.0, 2.0, 3.0], [1.5, 1.0, 3.5], [2.0, 1.5, 4.0]]


def lanes_of(**settings):
    lanes = PlateauLanes(3, [0.1, 0.2, 0.3], patience=0, **settings)
    for row in RISING:
        lanes.step(torch.tensor(row, dtype=torch.float64))
    return lanes


KINDS = {
    "plain": {},
    "with parts": PARTS,
    "of several rates": {"groups": [2, 2, 2], "events": 3, "noise_from": 1},
}


def of_lanes(lanes):
    return lanes.state_dict(), lanes.lr, lanes.best, lanes.settings


def lanes_go_on(lanes):
    found = []
    for i in range(5):
        lanes.step(torch.full((len(lanes),), 5.0 + i, dtype=lanes.dtype))
        found.append(lanes.lr.tolist())
    lanes.append(1, 0.5)
    lanes.step(torch.full((len(lanes),), 9.0, dtype=lanes.dtype))
    return found, of_lanes(lanes)


def other_state(lanes):
    other = PlateauLanes(
        3, 0.7, patience=[1, 2, 3], events=lanes._state.capacity, groups=lanes.groups
    )
    for row in RISING:
        other.step(row)
    return other.state_dict()


LANE_CALLS = {
    "step": lambda x: x.step(torch.tensor([9.0, 9.0, 9.0])),
    "step of a list": lambda x: x.step([9.0, 9.0, 9.0]),
    "masked step": lambda x: x.step([9.0, 9.0, 9.0], active=[True, False, True]),
    "append": lambda x: x.append(2, [0.5, 0.6], patience=3),
    "remove": lambda x: x.remove([1]),
    "set_lanes": lambda x: x.set_lanes([0, 2], lr=0.9, patience=5, min_lr=1e-3),
    "reset": lambda x: x.reset([0]),
    "copy_lanes": lambda x: x.copy_lanes([0], [2]),
    "halve": lambda x: x.halve([3.0, 2.0, 1.0]),
    "load_state_dict": lambda x: x.load_state_dict(other_state(x)),
    "copy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}

SUBJECTS = {}
for kind, settings in KINDS.items():
    for call, act in LANE_CALLS.items():
        SUBJECTS[f"{kind} lanes, {call}"] = (
            lambda settings=settings: lanes_of(**settings),
            act,
            of_lanes,
            lanes_go_on,
        )
SUBJECTS["lanes, to"] = (
    lanes_of,
    lambda x: x.to(dtype=torch.float32),
    of_lanes,
    lanes_go_on,
)


# -- the drop-in --


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
    for call, act in DROP_IN_CALLS.items():
        SUBJECTS[f"drop-in with {kind}, {call}"] = (
            lambda rates=rates: drop_in(rates()),
            act,
            of_scheduler,
            scheduler_goes_on(lambda x: x),
        )


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


def more_groups(x):
    x.optimizer[0].add_param_group({"params": [torch.ones(1)], "lr": 0.9})
    return x


BATCHED_CALLS = {
    "step": lambda x: x.step(torch.tensor([9.0, 9.0])),
    "step of a list": lambda x: x.step([9.0, 9.0], active=[True, False]),
    "load_state_dict": lambda x: x.load_state_dict(batched_state()),
    "setting": lambda x: setattr(x, "patience", [4, 5]),
    "copy": copy.deepcopy,
}
for publish in ("float", "tensor"):
    for call, act in BATCHED_CALLS.items():
        SUBJECTS[f"batched {publish}, {call}"] = (
            lambda publish=publish: batched(publish),
            act,
            of_scheduler,
            scheduler_goes_on(lambda x: [x, x]),
        )
    SUBJECTS[f"batched {publish}, groups come"] = (
        lambda publish=publish: more_groups(batched(publish)),
        lambda x: x.step([9.0, 9.0]),
        of_scheduler,
        scheduler_goes_on(lambda x: [x, x]),
    )


def composed(kind):
    optimizer = sgd()
    schedule = StepLR(optimizer, 2, 0.5)
    plateau = kind(optimizer, patience=0, cooldown=1)
    both = compose(schedule, plateau)
    both._metrics = (lambda x: x) if kind is ReduceLROnPlateau else (lambda x: [x, x])
    return both


def stepped(both):
    for i in range(3):
        both.optimizer.step() if hasattr(both.optimizer, "step") else None
        both.step_schedule()
        both.step(both._metrics(1.0 + i))
    return both


def composed_goes_on(both):
    found = []
    for i in range(4):
        both.step_schedule()
        both.step(both._metrics(5.0 + i))
        found.append(of_scheduler(both))
    return found


COMPOSED_CALLS = {
    "step": lambda x: x.step(x._metrics(9.0)),
    "step_schedule": lambda x: x.step_schedule(),
    "load_state_dict": lambda x: x.load_state_dict(composed(type(x.plateau)).state_dict()),
}
for kind in (ReduceLROnPlateau, BatchedReduceLROnPlateau):
    for call, act in COMPOSED_CALLS.items():
        SUBJECTS[f"composed {kind.__name__}, {call}"] = (
            lambda kind=kind: stepped(composed(kind)),
            act,
            of_scheduler,
            composed_goes_on,
        )


# -- stacks --


def stack_of(kind="lr", n=3):
    torch.manual_seed(0)
    params = {"w": torch.randn(n, 2, 2), "b": torch.randn(n, 2)}
    buffers = {"seen": torch.zeros(n, dtype=torch.int64)}
    lanes = PlateauLanes(n, 0.1, patience=0)
    if kind == "lr":
        optimizer = SGD(params.values(), lr=1.0, momentum=0.9)
        LaneLR(optimizer, lanes)
    else:
        groups = [{"params": [each]} for each in params.values()]
        optimizer = LaneAdamW(groups, lanes, weight_decay=[0.1] * n)
    stack = LaneStack(lanes, optimizer, params, buffers, LaneBest(lanes, params, on_cut="rollback"))
    for i in range(3):
        train(stack, float(i))
    return stack


def train(stack, metric):
    for i, param in enumerate(stack.params.values()):
        param.grad = torch.full_like(param, 0.1 * (i + 1))
    stack.params["w"].grad[0] = torch.nan
    stack.step()
    stack.lanes.step([metric] * len(stack))
    stack.best.update()


def of_stack(stack):
    return stack.state_dict(), stack.lanes.lr, [p.grad for p in stack.params.values()]


def stack_goes_on(stack):
    found = []
    for i in range(3):
        train(stack, 5.0 + i)
        found.append(of_stack(stack))
    return found


def new_rows(k):
    params = {"w": torch.ones(k, 2, 2), "b": torch.ones(k, 2)}
    return params, {"seen": torch.ones(k, dtype=torch.int64)}


def with_another_state(kind):
    stack = stack_of(kind)
    stack._other = stack.state_dict()
    train(stack, 3.0)
    return stack


STACK_CALLS = {
    "step": lambda x: x.step(),
    "best.update": lambda x: x.best.update(),
    "best.restore": lambda x: x.best.restore([0, 1]),
    "best.load_state_dict": lambda x: x.best.load_state_dict(stack_of().best.state_dict()),
    "copy": lambda x: x.copy([0], [2]),
    "keep": lambda x: x.keep([0, 2]),
    "refill": lambda x: x.refill([1], *new_rows(1)),
    "reset": lambda x: x.reset([1]),
    "append": lambda x: x.append(2, 0.5, *new_rows(2)),
}
for kind in ("lr", "adamw"):
    for call, act in STACK_CALLS.items():
        SUBJECTS[f"stack {kind}, {call}"] = (
            lambda kind=kind: stack_of(kind),
            act,
            of_stack,
            stack_goes_on,
        )
    SUBJECTS[f"stack {kind}, load_state_dict"] = (
        lambda kind=kind: with_another_state(kind),
        lambda x: x.load_state_dict(x._other),
        of_stack,
        stack_goes_on,
    )


def trained(optimizer):
    return [optimizer.state_dict(), [p for g in optimizer.param_groups for p in g["params"]]]


def lane_optimizer(kind, fresh=False):
    torch.manual_seed(0)
    params = [torch.randn(3, 2), torch.randn(3, 4)]
    lanes = PlateauLanes(3, 0.1, patience=0)
    more = {"momentum": 0.9} if kind is LaneSGD else {}
    optimizer = kind([{"params": [p]} for p in params], lanes, weight_decay=[0.1, 0.2, 0.3], **more)
    for p in params:
        p.grad = torch.ones_like(p)
    if not fresh:
        optimizer.step()
    return optimizer


def optimizer_goes_on(optimizer):
    for _ in range(3):
        optimizer.step()
    return trained(optimizer)


OPTIMIZER_CALLS = {
    "step": lambda x: x.step(),
    "load_state_dict": lambda x: x.load_state_dict(lane_optimizer(type(x)).state_dict()),
    "reset_lanes": lambda x: x.reset_lanes([1]),
    "add_param_group": lambda x: x.add_param_group(
        {"params": [torch.ones(3)], "weight_decay": 0.5}
    ),
}
for kind in (LaneSGD, LaneAdamW):
    for call, act in OPTIMIZER_CALLS.items():
        SUBJECTS[f"{kind.__name__}, {call}"] = (
            lambda kind=kind: lane_optimizer(kind),
            act,
            trained,
            optimizer_goes_on,
        )
    SUBJECTS[f"{kind.__name__}, first step"] = (
        lambda kind=kind: lane_optimizer(kind, True),
        lambda x: x.step(),
        trained,
        optimizer_goes_on,
    )


def replayed(_):
    return replay(torch.rand(40, 600, dtype=torch.float64), smoothing=0.1, threads=2)


SUBJECTS["replay"] = (lambda: None, replayed, lambda x: x, lambda x: x)
