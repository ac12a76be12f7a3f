"""What is built and dropped: ``python tests/dropped.py [OBJECTS] [NAME ...]``.

Prints, as JSON, by how many MiB the process grew while OBJECTS of each kind were built and dropped,
with the collector of cycles off but for pickles, for which torch makes classes; fails where that is
1 MiB and more.
"""

import copy
import gc
import pickle

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from growth import main
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


def sgd():
    return SGD([torch.ones(2, 2)], lr=0.5)


def stack():
    lanes, params = PlateauLanes(2, 0.1), {"w": torch.ones(2, 2)}
    optimizer = SGD(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    return LaneStack(lanes, optimizer, params, best=LaneBest(lanes, params))


def stepped(scheduler, metrics):
    for metric in metrics:
        scheduler.step(metric)
    return scheduler


BUILT = {
    "lanes": lambda: stepped(PlateauLanes(2, 0.1, patience=0, events=3), [[1.0, 1.0], [2.0, 2.0]]),
    "lanes with a callback": lambda: PlateauLanes(2, 0.1, on_reduce=print),
    "appended lanes": lambda: appended(PlateauLanes(2, 0.1)),
    "copied lanes": lambda: copy.deepcopy(PlateauLanes(2, 0.1)),
    "pickled lanes": lambda: pickle.loads(pickle.dumps(PlateauLanes(2, 0.1))),
    "drop-in": lambda: stepped(ReduceLROnPlateau(sgd(), patience=0), [1.0, 2.0]),
    "copied drop-in": lambda: copy.deepcopy(ReduceLROnPlateau(sgd())),
    "batched": lambda: stepped(BatchedReduceLROnPlateau(sgd(), patience=0), [[1.0], [2.0]]),
    "batched tensors": lambda: BatchedReduceLROnPlateau(sgd(), publish="tensor"),
    "pickled batched": lambda: pickle.loads(pickle.dumps(BatchedReduceLROnPlateau(sgd()))),
    "composed": lambda: composed(ReduceLROnPlateau),
    "composed lanes": lambda: composed(BatchedReduceLROnPlateau),
    "best": lambda: LaneBest(PlateauLanes(2, 0.1), [torch.ones(2, 2)]),
    "LaneSGD": lambda: LaneSGD([torch.ones(2, 2)], PlateauLanes(2, 0.1)),
    "LaneAdam": lambda: LaneAdam([torch.ones(2, 2)], PlateauLanes(2, 0.1)),
    "LaneAdamW": lambda: LaneAdamW([torch.ones(2, 2)], PlateauLanes(2, 0.1)),
    "stack": stack,
}


def appended(lanes):
    lanes.append(1, 0.1)
    lanes.remove([0])
    return lanes


def composed(kind):
    optimizer = sgd()
    return compose(StepLR(optimizer, 2), kind(optimizer))


ON_ONE_OPTIMIZER = {
    "drop-in": lambda optimizer: stepped(ReduceLROnPlateau(optimizer, patience=0), [1.0, 2.0]),
    "batched": lambda optimizer: stepped(BatchedReduceLROnPlateau(optimizer), [[1.0], [2.0]]),
    "batched tensors": lambda optimizer: BatchedReduceLROnPlateau(optimizer, publish="tensor"),
    "composed": lambda optimizer: compose(StepLR(optimizer, 2), ReduceLROnPlateau(optimizer)),
    "removed LaneLR": lambda optimizer: LaneLR(optimizer, PlateauLanes(2, 0.1)).remove(),
}


def building(name, build):
    """What builds and drops it, with the collector as is said above."""

    def make():
        gc.enable() if "pickled" in name else gc.disable()
        return lambda _: build()

    return make


def on_one(build):
    optimizer = sgd()
    return lambda: build(optimizer)


if __name__ == "__main__":
    kinds = BUILT | {
        f"{name} on one optimizer": on_one(build) for name, build in ON_ONE_OPTIMIZER.items()
    }
    main({name: building(name, build) for name, build in kinds.items()}, 10_000)
