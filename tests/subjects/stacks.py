"""Calls of stacks and of optimizers with a rate per lane."""

from functools import partial

import torch
from torch.optim import SGD

from subjects.calls import calls_of
from torch_plateau import LaneAdam, LaneAdamW, LaneBest, LaneLR, LaneSGD, LaneStack, PlateauLanes

SUBJECTS = {}


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
LOADS = {"load_state_dict": lambda x: x.load_state_dict(x._other)}
for kind in ("lr", "adamw"):
    for make, calls in ((stack_of, STACK_CALLS), (with_another_state, LOADS)):
        SUBJECTS |= calls_of(f"stack {kind}", partial(make, kind), calls, of_stack, stack_goes_on)


# -- optimizers with a rate per lane --


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
FIRST = {"first step": lambda x: x.step()}
for kind in (LaneSGD, LaneAdam, LaneAdamW):
    for fresh, calls in ((False, OPTIMIZER_CALLS), (True, FIRST)):
        build = partial(lane_optimizer, kind, fresh)
        SUBJECTS |= calls_of(kind.__name__, build, calls, trained, optimizer_goes_on)
