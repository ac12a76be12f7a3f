"""DDP, FSDP2 and tensor parallelism: rates and weights are those of one process with all data.

Run as a script this file is one rank.
"""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, lr_scheduler

from ranks import begin, done, run_ranks
from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau

SETTINGS = {"factor": 0.5, "patience": 1, "threshold": 0.02, "cooldown": 1}
EPOCHS, RANKS = 24, 2
OPTIMIZERS = {
    "SGD": lambda groups: SGD(groups, lr=0.2, momentum=0.9),
    "AdamW": lambda groups: AdamW(groups, lr=0.1),
}
WAYS = [
    *(("ddp", name, face) for name in OPTIMIZERS for face in ("drop-in", "float", "tensor")),
    *(("fsdp2", name, face) for name in OPTIMIZERS for face in ("drop-in", "float", "tensor")),
    *(("tensor parallel", "AdamW", face) for face in ("float", "tensor")),
    *((how, "AdamW", "tensor") for how in ("ddp, compiled", "fsdp2, compiled")),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def data():
    random = torch.Generator().manual_seed(1)
    x = torch.randn(64, 4, generator=random, dtype=torch.float64)
    noise = torch.randn(64, 2, generator=random, dtype=torch.float64)
    return x, torch.stack([x.sum(1), x[:, 0].sin()], 1) + 0.5 * noise


def groups_of(model):
    """Two param groups: the weights and the biases."""
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if name.endswith(end)]} for end in ("weight", "bias")
    ]


def trained(model, net, optimizer, step, rows):
    """Rates of each epoch; ``rows`` of the data are trained on, and as many validated."""
    x, y = data()
    train, val = rows, [row + 32 for row in rows]
    rates = []
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        (model(x[train]) - y[train]).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            loss = (model(x[val]) - y[val]).square().mean(0)  # of each output: a metric a lane
        step(loss)
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    whole = [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in net.parameters()]
    return rates, [each.clone() for each in whole]


def scheduler_of(face, optimizer, group):
    if face == "drop-in":
        scheduler = ReduceLROnPlateau(optimizer, process_group=group, **SETTINGS)
        return scheduler, lambda losses: scheduler.step(losses.mean())
    scheduler = BatchedReduceLROnPlateau(optimizer, publish=face, process_group=group, **SETTINGS)
    return scheduler, scheduler.step


def in_parallel(way, rank, ranks):
    how, name, face = way
    net = model = network()
    rows = list(range(rank, 32, ranks))
    if how.startswith("ddp"):
        model = DistributedDataParallel(net)
    elif how.startswith("fsdp2"):
        fully_shard(net[0])
        fully_shard(net)
    else:
        mesh = init_device_mesh("cpu", (ranks,))
        parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        rows = list(range(32))  # every rank has the whole batch
    optimizer = OPTIMIZERS[name](groups_of(net))
    scheduler, step = scheduler_of(face, optimizer, dist.group.WORLD)
    if how.endswith("compiled"):
        model = torch.compile(model, backend="eager")
        optimizer.step = torch.compile(optimizer.step, backend="eager")
    with warnings.catch_warnings():
        if how.endswith("compiled"):
            warnings.simplefilter("ignore")  # torch's own, of its compiler
        rates, weights = trained(model, net, optimizer, step, rows)
    if how.startswith("fsdp2"):
        net.reshard()  # which the root is not after a validation
    if face == "tensor":
        published = [group["lr"] for group in optimizer.param_groups]
        assert all(type(each) is torch.Tensor and each.device.type == "cpu" for each in published)
        check_flattened(net, optimizer, scheduler)
    return {"rates": rates, "weights": weights}


def check_flattened(net, optimizer, scheduler):
    """A state with a rate for each parameter goes through and comes back as the lanes' rates."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    before = [float(group["lr"]) for group in optimizer.param_groups]
    saved = copy.deepcopy(get_optimizer_state_dict(net, optimizer, options=options))
    scheduler.lanes.set_lanes([0, 1], lr=[0.7, 0.9])
    set_optimizer_state_dict(net, optimizer, saved, options=options)
    assert [float(group["lr"]) for group in optimizer.param_groups] == before
    scheduler.step([0.0, 0.0])  # the best ever: no cut
    lanes = scheduler.lanes.lr
    assert [group["lr"].data_ptr() for group in optimizer.param_groups] == [
        each.data_ptr() for each in lanes.unbind()
    ]
    assert lanes.tolist() == before


def alone(way):
    """One process with all the data and torch's own class, one for each lane."""
    _, name, face = way
    net = network()
    optimizer = OPTIMIZERS[name](groups_of(net))
    theirs = lr_scheduler.ReduceLROnPlateau
    if face == "drop-in":
        scheduler = theirs(optimizer, **SETTINGS)

        def step(losses):
            scheduler.step(losses.mean())

    else:  # a stand-in for each group, as torch has one scheduler for all groups of an optimizer
        stands = [SGD([nn.Parameter(torch.zeros(1))], lr=g["lr"]) for g in optimizer.param_groups]
        each = [theirs(stand, **SETTINGS) for stand in stands]

        def step(losses):
            for group, stand, scheduler, loss in zip(
                optimizer.param_groups, stands, each, losses, strict=True
            ):
                scheduler.step(loss)
                group["lr"] = stand.param_groups[0]["lr"]

    return trained(net, net, optimizer, step, list(range(32)))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_ranks(__file__, RANKS, tmp_path_factory.mktemp("parallel"))


@pytest.mark.parametrize("way", WAYS, ids=["-".join(way) for way in WAYS])
def test_rates_and_weights_are_those_of_one_process(found, way):
    rates, weights = alone(way)
    assert len({tuple(each) for each in rates}) > 3
    for rank in found:
        here = rank[way]
        if way[2] == "tensor":  # float32 rates
            torch.testing.assert_close(torch.tensor(here["rates"]), torch.tensor(rates))
        else:
            assert here["rates"] == rates
        close = {"rtol": 1e-6, "atol": 1e-7} if way[2] == "tensor" else {"rtol": 0, "atol": 1e-12}
        if way[0].endswith("compiled"):  # AdamW then counts in float32 what follows from the rate
            close = {"rtol": 1e-3, "atol": 1e-5}
        for mine, theirs in zip(here["weights"], weights, strict=True):
            torch.testing.assert_close(mine, theirs, **close)


if __name__ == "__main__":
    rank, ranks, folder, _ = begin()
    done({way: in_parallel(way, rank, ranks) for way in WAYS}, rank, folder)
