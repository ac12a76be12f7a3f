"""Calls of lanes."""

import copy
import pickle
from functools import partial

import torch

from subjects.calls import calls_of
from torch_plateau import PlateauLanes

SUBJECTS = {}


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

for kind, settings in KINDS.items():
    build = partial(lanes_of, **settings)
    SUBJECTS |= calls_of(f"{kind} lanes", build, LANE_CALLS, of_lanes, lanes_go_on)
SUBJECTS["lanes, to"] = (
    lanes_of,
    lambda x: x.to(dtype=torch.float32),
    of_lanes,
    lanes_go_on,
)
