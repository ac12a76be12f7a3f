"""A population of networks over any number of processes, which goes on after a restart with others.

    torchrun --nproc-per-node 2 examples/sharded_population.py

Each rank trains its members as one stack and sends nothing while it does. Every few epochs the
worst quarter of all becomes the best quarter, wherever these are, with other rates; every epoch is
saved, each rank its own members. Stop it and start it again with more or fewer processes, or let
torchrun do so when one dies (--nnodes 1:8 --max-restarts 3): it goes on.
Needs scikit-learn for the digits: pip install scikit-learn.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.func import functional_call, grad, stack_module_state, vmap

from torch_plateau import LaneLR, LaneStack, PlateauLanes
from torch_plateau.distributed import LaneShard

ROUND = 4  # epochs between the rounds in which members copy


def main():
    """Train as one rank, from the last checkpoint if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--checkpoint", default="population")
    options = parser.parse_args()
    dist.init_process_group()  # gloo on the CPU, NCCL on GPUs
    rank, ranks, n = dist.get_rank(), dist.get_world_size(), options.members
    if (ranks - 1) * -(-n // ranks) >= n:
        parser.error(f"expected members for each of {ranks} ranks, got {n}")
    device = torch.device(f"cuda:{rank}" if torch.cuda.device_count() >= ranks else "cpu")
    mesh = init_device_mesh(device.type, (ranks,))
    x, y = (torch.tensor(each, device=device) for each in load_digits(return_X_y=True))
    x = x.float() / 16

    mine = LaneShard.numbers_of(n, mesh)
    models = []
    for member in mine:
        torch.manual_seed(member)  # the same member on any rank
        models.append(nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)))
    net = models[0]
    params, _ = stack_module_state(models)
    params = {name: nn.Parameter(each.detach().to(device)) for name, each in params.items()}
    rates = torch.logspace(-4, -1, n, dtype=torch.float64)[mine.start : mine.stop]
    lanes = PlateauLanes(
        len(mine), rates, mode="max", patience=1, factor=0.5, device=device, process_group=False
    )
    optimizer = torch.optim.AdamW(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    stack = LaneStack(lanes, optimizer, params)
    shard = LaneShard(stack, n, mesh)
    if Path(options.checkpoint).exists():
        shard.load(options.checkpoint)

    def loss(weights, inputs, labels):
        return nn.functional.cross_entropy(functional_call(net, weights, (inputs,)), labels)

    for epoch in range(int(lanes.num_steps), options.epochs):
        order = torch.randperm(1200, generator=torch.Generator().manual_seed(epoch))
        for batch in order.to(device).split(100):
            grads = vmap(grad(loss), (0, None, None))(params, x[batch], y[batch])
            for name, param in params.items():
                param.grad = grads[name].detach()
            stack.step()
        with torch.no_grad():
            outputs = vmap(lambda weights: functional_call(net, weights, (x[1200:],)))(params)
        accuracy = (outputs.argmax(-1) == y[1200:]).double().mean(-1)
        lanes.step(accuracy)
        everyone = shard.gather(accuracy)
        if epoch % ROUND == ROUND - 1:
            ranked = everyone.argsort(descending=True, stable=True)
            best, worst = ranked[: n // 4].tolist(), ranked[-(n // 4) :].tolist()
            shard.copy(best, worst)
            here = [each - mine.start for each in worst if each in mine]
            lanes.set_lanes(here, lr=lanes.lr_master[here] * 0.7)
        shard.save(options.checkpoint)
        if rank == 0:
            print(f"epoch {epoch + 1}: best {everyone.max():.4f}, median {everyone.median():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
