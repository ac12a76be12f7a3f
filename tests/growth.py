"""Memory after a million steps of each class: ``python tests/growth.py [STEPS] [NAME ...]``.

Prints, as JSON, by how many MiB the process grew in the steps after the first tenth; fails where
that is 1 MiB and more.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

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

PARTS = {
    "events": 8,
    "window": 3,
    "smoothing": 0.1,
    "accumulate": 2,
    "nan": "bad",
    "patience_at_min": 2**30,
    "stop_patience": 2**30,
    "warmup_steps": 5,
    "cooldown": 1,
}
FALLING = torch.linspace(2.0, 1.0, 7)[:, None].repeat(1, 3).double()  # then up again: it cuts


def sgd(*rates):
    return SGD([{"params": [torch.ones(2)], "lr": rate} for rate in rates], lr=0.1)


def lanes(**settings):
    each = PlateauLanes(3, 0.1, patience=0, factor=0.999, **settings)
    return lambda i: each.step(FALLING[i % 7])


def drop_in(metrics):
    scheduler = ReduceLROnPlateau(sgd(0.1, 0.2), patience=0, factor=0.999)
    return lambda i: scheduler.step(metrics[i % 7])


def drop_in_of_tensors():
    scheduler = ReduceLROnPlateau(sgd(torch.tensor(0.1)), patience=0, factor=0.999)
    return lambda i: scheduler.step(float(i % 7))


def batched(publish):
    scheduler = BatchedReduceLROnPlateau(
        [sgd(0.1), sgd(0.1, 0.2), sgd(0.3)], patience=0, factor=0.999, publish=publish
    )
    return lambda i: scheduler.step(FALLING[i % 7])


def composed():
    optimizer = sgd(0.1)
    both = compose(CosineAnnealingWarmRestarts(optimizer, 10), ReduceLROnPlateau(optimizer))
    optimizer.step()

    def step(i):
        both.step_schedule()
        both.step(float(i % 7))

    return step


def stacked(make):
    params = {"w": torch.ones(3, 2)}
    params["w"].grad = torch.full((3, 2), 1e-6)
    owner = PlateauLanes(3, 0.1, patience=0, factor=0.999)
    return make(params, owner)


def lane_lr():
    def make(params, owner):
        optimizer = SGD(params.values(), lr=1.0, momentum=0.9)
        LaneLR(optimizer, owner)
        return lambda _: optimizer.step()

    return stacked(make)


def best():
    def make(params, owner):
        kept = LaneBest(owner, params, on_cut="rollback")

        def step(i):
            owner.step(FALLING[i % 7])
            kept.update()

        return step

    return stacked(make)


def stack():
    def make(params, owner):
        optimizer = SGD(params.values(), lr=1.0, momentum=0.9)
        LaneLR(optimizer, owner)
        whole = LaneStack(owner, optimizer, params, best=LaneBest(owner, params))

        def step(i):
            whole.step()
            owner.step(FALLING[i % 7])
            whole.best.update()
            if i % 10 == 0:
                whole.copy([0], [1])

        return step

    return stacked(make)


def lane_optimizer(kind, **options):
    def make(params, owner):
        optimizer = kind(params.values(), owner, **options)

        def step(i):
            optimizer.step()
            owner.step(FALLING[i % 7])

        return step

    return stacked(make)


LONG_RUNS = {
    "lanes": lanes,
    "lanes with parts": lambda: lanes(**PARTS),
    "lanes with a callback": lambda: lanes(on_reduce=lambda *_: None),
    "drop-in, floats": lambda: drop_in([float(each[0]) for each in FALLING]),
    "drop-in, metrics in tensors": lambda: drop_in([each[0] for each in FALLING]),
    "drop-in, rates in tensors": drop_in_of_tensors,
    "batched, floats": lambda: batched("float"),
    "batched, tensors": lambda: batched("tensor"),
    "compose": composed,
    "LaneLR": lane_lr,
    "LaneBest": best,
    "LaneStack": stack,
    "LaneSGD": lambda: lane_optimizer(LaneSGD, momentum=0.9),
    "LaneAdam": lambda: lane_optimizer(LaneAdam),
    "LaneAdamW": lambda: lane_optimizer(LaneAdamW, amsgrad=True),
}


def resident():
    """Bytes of this process that are in memory; garbage is collected first where it ever is."""
    if gc.isenabled():
        gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grown(call, times):
    """Call so often, after a tenth of that; return by how much the process grew, and the time."""
    warm = times // 10
    for i in range(warm):
        call(i)
    before, began = resident(), time.perf_counter()
    for i in range(warm, warm + times):
        call(i)
    took = time.perf_counter() - began
    return {
        "times": times,
        "grown_mib": round((resident() - before) / 2**20, 3),
        "us_each": round(took / times * 1e6, 2),
    }


def main(makers, times):
    """Measure what these make, as the command line says; print it; fail where one grew by a MiB."""
    torch.set_num_threads(1)
    count, names = int((sys.argv[1:] or [times])[0]), sys.argv[2:] or makers
    found = {name: grown(makers[name](), count) for name in names}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.exit(any(each["grown_mib"] >= 1 for each in found.values()))


if __name__ == "__main__":
    main(LONG_RUNS, 1_000_000)
