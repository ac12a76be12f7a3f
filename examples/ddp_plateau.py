"""Data parallel training whose ranks cut the learning rate together.

    torchrun --nproc-per-node 2 examples/ddp_plateau.py

Each rank validates a shard of its own size. Their accuracies differ, and a scheduler for each would
soon have other rates than the next rank's; here every rank decides by the accuracy of all samples.
Needs scikit-learn for the digits: pip install scikit-learn.
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from torch_plateau import ReduceLROnPlateau
from torch_plateau.distributed import Agreement

EPOCHS = 20


def main():
    """Train as one rank."""
    dist.init_process_group()  # gloo on the CPU, NCCL on GPUs
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device(f"cuda:{rank}" if torch.cuda.device_count() >= ranks else "cpu")
    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    x = torch.tensor(digits.data, dtype=torch.float32)[order] / 16
    y = torch.tensor(digits.target)[order]
    train_x, train_y = x[rank:1200:ranks].to(device), y[rank:1200:ranks].to(device)
    first, last = (1200 + 597 * each**2 // ranks**2 for each in (rank, rank + 1))  # uneven shards
    val_x, val_y = x[first:last].to(device), y[first:last].to(device)

    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    scheduler = ReduceLROnPlateau(
        optimizer, mode="max", patience=2, process_group=Agreement(None, "ratio", check_every=10)
    )
    for epoch in range(EPOCHS):
        for batch in torch.arange(len(train_x), device=device).split(64 // ranks):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            correct = (net(val_x).argmax(1) == val_y).sum()
        scheduler.step((correct, len(val_y)))
        if rank == 0 and epoch % 5 == 4:
            rate = scheduler.get_last_lr()[0]
            print(f"epoch {epoch + 1}: lr {rate:g}, accuracy {scheduler.best:.4f}")
    rates = [None] * ranks
    dist.all_gather_object(rates, scheduler.get_last_lr()[0])
    if rank == 0:
        print(f"{ranks} ranks, their rates at the end: {sorted(set(rates))}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
