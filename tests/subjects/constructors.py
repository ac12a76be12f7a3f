"""What is built on something: a class of ours on optimizers, schedules, lanes and parameters."""

from types import SimpleNamespace

import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from subjects.lanes import KINDS, lanes_of, of_lanes
from subjects.schedulers import drop_in, hooks_of, sgd
from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneAdam,
    LaneAdamW,
    LaneBest,
    LaneLR,
    LaneSGD,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
    compose,
)
from torch_plateau.optim.lane_lr import lane_lr_of


def given(**things):
    return lambda: SimpleNamespace(**{name: make() for name, make in things.items()})


def weights():
    params = {"w": torch.linspace(0, 1, 12).reshape(3, 2, 2), "b": torch.ones(3, 2)}
    for param in params.values():
        param.grad = torch.full_like(param, 0.5)
    return params


def ready():
    """Lanes, parameters and an optimizer of both, which is all that a stack is built on."""
    lanes, params = lanes_of(), weights()
    optimizer = Adam(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    return SimpleNamespace(
        lanes=lanes, params=params, optimizer=optimizer, best=LaneBest(lanes, params)
    )


def schedule_and(kind):
    def make():
        optimizer = sgd()
        schedule = StepLR(optimizer, 2, 0.5)
        plateau = kind(optimizer, patience=0, min_lr=1e-3)
        return SimpleNamespace(optimizer=optimizer, schedule=schedule, plateau=plateau)

    return make


def of_optimizer(optimizer):
    """Hooks are ours, but for the one that torch goes through and that therefore stays."""
    groups = [
        {name: value for name, value in each.items() if name != "params"}
        for each in optimizer.param_groups
    ]
    hooks = [[each for each in keys if not each.isdigit()] for keys in hooks_of(optimizer)]
    names = [name for name in vars(optimizer) if name != "param_groups"]
    return groups, hooks, names, optimizer.state_dict()["state"]


def of_given(x):
    found = []
    for each in vars(x).values():
        for thing in each if isinstance(each, list) else [each]:
            if isinstance(thing, PlateauLanes):
                found.append(of_lanes(thing))
            elif isinstance(thing, torch.optim.Optimizer):
                found.append(of_optimizer(thing))
            elif isinstance(thing, dict):
                found += [(name, param, param.grad) for name, param in thing.items()]
            else:
                found.append(thing.state_dict())
    return found


def built_and_run(build, run):
    """Build once more on what was given, and go on with both."""

    def go_on(x):
        built, found = build(x), []
        for i in range(4):
            run(x, built, 5.0 + i)
            found.append(of_given(x))
        return found

    return go_on


def step_batched(x, built, metric):
    built.step([metric] * len(built.lanes))
    x.optimizers[0].load_state_dict(x.optimizers[0].state_dict())  # calls the hooks


def step_composed(x, built, metric):
    x.optimizer.step()
    built.step_schedule()
    built.step([metric] * 2 if isinstance(x.plateau, BatchedReduceLROnPlateau) else metric)


def step_lanes(x, built, metric):
    x.lanes.step([metric] * 3)
    getattr(x, "optimizer", built).step()


def step_best(x, built, metric):
    x.lanes.step([metric] * 3)
    built.update()
    built.restore()


def batched_of(publish):
    return lambda x: BatchedReduceLROnPlateau(
        x.optimizers, patience=0, cooldown=1, events=4, publish=publish
    )


ON_LANES = given(lanes=lanes_of, params=weights)
BUILT = {
    "drop-in": (
        given(optimizer=sgd),
        lambda x: ReduceLROnPlateau(x.optimizer, patience=0, min_lr=[0.1, 0.2]),
        lambda _, built, metric: built.step(metric),
    ),
    "LaneLR": (
        given(lanes=lanes_of, optimizer=lambda: SGD(weights().values(), lr=1.0)),
        lambda x: LaneLR(x.optimizer, x.lanes, lane_of=[0, 1, 2]),
        step_lanes,
    ),
    "LaneBest": (ON_LANES, lambda x: LaneBest(x.lanes, x.params), step_best),
    "LaneBest of the drop-in": (
        given(scheduler=drop_in, params=weights),
        lambda x: LaneBest(x.scheduler, x.params, on_cut="rollback"),
        lambda x, built, metric: (x.scheduler.step(metric), built.update()),
    ),
    "LaneStack": (
        ready,
        lambda x: LaneStack(x.lanes, x.optimizer, x.params, best=x.best),
        step_lanes,
    ),
}
for publish in ("float", "tensor"):
    optimizers = given(optimizers=lambda: [sgd(), sgd((0.6,))])
    BUILT[f"batched {publish}"] = optimizers, batched_of(publish), step_batched
for kind in (ReduceLROnPlateau, BatchedReduceLROnPlateau):
    BUILT[f"composed {kind.__name__}"] = (
        schedule_and(kind),
        lambda x: compose(x.schedule, x.plateau),
        step_composed,
    )
for kind in (LaneSGD, LaneAdam, LaneAdamW):
    BUILT[kind.__name__] = (
        ON_LANES,
        lambda x, kind=kind: kind(x.params.values(), x.lanes, weight_decay=[0.1, 0.2, 0.3]),
        step_lanes,
    )

SUBJECTS = {
    f"new {name}": (make, build, of_given, built_and_run(build, run))
    for name, (make, build, run) in BUILT.items()
}
for name, settings in KINDS.items():
    SUBJECTS[f"new lanes, {name}"] = (
        lambda: None,
        lambda _, settings=settings: lanes_of(**settings),
        lambda x: x,
        lambda x: x,
    )
SUBJECTS["LaneLR, remove"] = (
    ready,
    lambda x: lane_lr_of(x.optimizer).remove(),
    of_given,
    built_and_run(lambda x: x.optimizer, step_lanes),
)
