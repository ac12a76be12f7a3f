"""Nothing grows: long runs keep their memory, and what is dropped is gone at once, hooks too."""

import copy
import gc
import pickle
import tracemalloc
import weakref

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from growth import LONG_RUNS
from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneAdamW,
    LaneBest,
    LaneLR,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
    compose,
)

STEPS = 400
GROWS = 2_000  # bytes of Python: an object a step would be five times as many


@pytest.mark.parametrize("name", LONG_RUNS)
def test_steps_leave_nothing_behind(name):
    step = LONG_RUNS[name]()
    tracemalloc.start()
    try:
        for i in range(100):  # what replaces older things is counted from here on
            step(i)
        grown = []
        for window in range(3):  # what leaks does so in each of them
            before = tracemalloc.get_traced_memory()[0]
            for i in range(STEPS):
                step(100 + window * STEPS + i)
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
        assert min(grown) < GROWS
    finally:
        tracemalloc.stop()


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


@pytest.fixture
def without_collector():
    """Whatever dies in a test dies without the collector of cycles."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
@pytest.mark.usefixtures("without_collector")
def test_what_nobody_holds_is_gone_at_once(build):
    build()  # imports
    there = weakref.ref(build())
    assert there() is None


def test_a_removed_lane_lr_leaves_an_optimizer_as_it_was():
    optimizer = sgd()
    before = set(vars(optimizer)), hooks_of(optimizer)
    LaneLR(optimizer, PlateauLanes(2, 0.1)).remove()
    assert (set(vars(optimizer)), hooks_of(optimizer)) == before


def hooks_of(optimizer):
    names = [name for name in vars(optimizer) if name.endswith("_hooks")]
    return {name: list(getattr(optimizer, name)) for name in names}
