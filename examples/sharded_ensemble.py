"""A deep ensemble whose members are spread over processes; only predictions are added up.

    torchrun --nproc-per-node 2 examples/sharded_ensemble.py

Each rank trains its members as one stack. Each member has a plateau of its own, and stops when cuts
do not help any more; a rank whose members are all done waits for the others at the end.
Needs scikit-learn for the digits: pip install scikit-learn.
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.func import functional_call, grad, stack_module_state, vmap

from torch_plateau import LaneLR, LaneStack, PlateauLanes
from torch_plateau.distributed import LaneShard


def network(seed):
    """Return a member; the same on any rank."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def main():
    """Train as one rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--members", type=int, default=12)
    n = parser.parse_args().members
    dist.init_process_group()  # gloo on the CPU, NCCL on GPUs
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device(f"cuda:{rank}" if torch.cuda.device_count() >= ranks else "cpu")
    mine = LaneShard.numbers_of(n, init_device_mesh(device.type, (ranks,)))
    if (ranks - 1) * -(-n // ranks) >= n:
        parser.error(f"expected members for each of {ranks} ranks, got {n}")
    x, y = (torch.tensor(each, device=device) for each in load_digits(return_X_y=True))
    x = x.float() / 16

    net, (params, _) = network(0), stack_module_state([network(member) for member in mine])
    params = {name: nn.Parameter(each.detach().to(device)) for name, each in params.items()}
    settings = {"factor": 0.3, "patience": 2, "max_reductions": 3}
    lanes = PlateauLanes(len(mine), 0.03, device=device, process_group=False, **settings)
    optimizer = torch.optim.AdamW(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    stack = LaneStack(lanes, optimizer, params)

    def loss(weights, inputs, labels):
        return nn.functional.cross_entropy(functional_call(net, weights, (inputs,)), labels)

    shared, batches = (0, None, None), torch.Generator().manual_seed(0)
    while not lanes.all_finished():
        for batch in torch.randperm(1000, generator=batches).to(device).split(100):
            grads = vmap(grad(loss), shared)(params, x[batch], y[batch])
            for name, param in params.items():
                param.grad = grads[name].detach()
            stack.step()  # members that are done stay as they are
        with torch.no_grad():
            lanes.step(vmap(loss, shared)(params, x[1000:1400], y[1000:1400]))

    with torch.no_grad():
        outputs = vmap(lambda weights: functional_call(net, weights, (x[1400:],)))(params)
    votes = outputs.softmax(-1).sum(0)
    correct = (outputs.argmax(-1) == y[1400:]).double().mean(-1).sum()
    dist.all_reduce(votes)
    dist.all_reduce(correct)
    if rank == 0:
        together = (votes.argmax(-1) == y[1400:]).double().mean()
        print(f"{n} members on {ranks} ranks: {correct / n:.4f} each, {together:.4f} together")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
