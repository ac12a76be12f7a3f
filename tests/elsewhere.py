"""What is sent to other processes and steps there; a module that a spawned process can import."""

import os

import torch
from torch.optim import SGD
from torch.utils.data import Dataset, get_worker_info

from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneLR,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
)

RATES = [0.4, 0.2, 0.1]
SETTINGS = {"patience": 1, "factor": 0.5, "cooldown": 1}


def rows(seed, count=20):
    """Metrics, one for each lane in a row."""
    random = torch.Generator().manual_seed(seed)
    found = torch.rand(count, len(RATES), dtype=torch.float64, generator=random)
    return ((found * 8).round() / 8).tolist()


def lanes():
    return PlateauLanes(len(RATES), RATES, **SETTINGS)


def drop_in():
    return ReduceLROnPlateau(SGD([torch.ones(1)], lr=RATES[0]), **SETTINGS)


def batched(publish):
    groups = [{"params": [torch.ones(1)], "lr": rate} for rate in RATES]
    return BatchedReduceLROnPlateau(SGD(groups, lr=1.0), publish=publish, **SETTINGS)


def stack():
    owner, params = lanes(), {"w": torch.ones(len(RATES), 2)}
    optimizer = SGD(params.values(), lr=1.0, momentum=0.9)
    LaneLR(optimizer, owner)
    return LaneStack(owner, optimizer, params)


THINGS = {
    "lanes": lanes,
    "a state of lanes": lambda: lanes().state_dict(),
    "drop-in": drop_in,
    "batched, floats": lambda: batched("float"),
    "batched, tensors": lambda: batched("tensor"),
    "stack": stack,
}


def awake(thing):
    """What a thing was sent for: lanes of a state."""
    if not isinstance(thing, dict):
        return thing
    found = lanes()
    found.load_state_dict(thing)
    return found


def step(thing, row):
    """Take metrics; return the rates, with which optimizers step, one for each lane there is."""
    if isinstance(thing, PlateauLanes):
        thing.step(row)
        return thing.lr_master.tolist()
    if isinstance(thing, LaneStack):
        before = thing.params["w"].detach().clone()
        thing.params["w"].grad = torch.ones(len(RATES), 2)
        thing.optimizer.state.clear()
        thing.step()
        moved = (before - thing.params["w"])[:, 0]
        torch.testing.assert_close(moved, thing.lanes.lr, rtol=1e-3, atol=1e-6)
        thing.lanes.step(row)
        return thing.lanes.lr_master.tolist()
    thing.step(row[0] if isinstance(thing, ReduceLROnPlateau) else row)
    shown = [float(group["lr"]) for group in thing.optimizer.param_groups]
    if isinstance(thing, ReduceLROnPlateau):
        return shown
    assert torch.equal(torch.tensor(shown), thing.lanes.lr)
    return thing.lanes.lr_master.tolist()


def serve(inbox, outbox):
    """Step what comes by the rows that come with it, and send both back; until None comes."""
    torch.set_num_threads(1)
    while (job := inbox.get()) is not None:
        try:
            thing = awake(job[0])
            found = [step(thing, row) for row in job[1]]
            outbox.put((os.getpid(), found, thing))
        except Exception as error:
            outbox.put(repr(error))


class Rates(Dataset):
    """Of each item the rates of lanes, and of a drop-in with a tensor, that step as it is taken."""

    def __init__(self, metrics):
        self.metrics, self.lanes = metrics, lanes()
        optimizer = SGD([torch.ones(1)], lr=torch.tensor(RATES[0], dtype=torch.float64))
        self.drop_in = ReduceLROnPlateau(optimizer, **SETTINGS)

    def __len__(self):
        return len(self.metrics)

    def __getitem__(self, i):
        every = step(self.lanes, self.metrics[i])
        if get_worker_info():  # whose rate, as all tensors that torch sends, is shared
            assert step(self.drop_in, self.metrics[i]) == every[:1]
        return torch.tensor(every, dtype=torch.float64)


class Collate:
    """A ``collate_fn`` that has a scheduler, and steps it for each batch."""

    def __init__(self):
        self.scheduler = batched("tensor")

    def __call__(self, batch):
        found = [step(self.scheduler, row) for row in batch]
        return torch.tensor(found, dtype=torch.float64)
