"""Accelerate: a plateau that counts each validation once, in one process or in many.

Against Accelerate's quick start one line is new: the plateau is wrapped, not prepared. Needs
Accelerate: pip install accelerate. In two processes: torchrun --nproc_per_node 2 this_file.
"""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from torch_plateau import ReduceLROnPlateau
from torch_plateau.integrations.accelerate import AcceleratedPlateau


def main() -> None:
    """Fit a line to noise, and print the rate that each epoch was trained with."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    x = torch.randn(256, 8)
    y = x.sum(1, keepdim=True) + torch.randn(256, 1)
    loader = DataLoader(TensorDataset(x[:128], y[:128]), batch_size=16)
    val_loader = DataLoader(TensorDataset(x[128:], y[128:]), batch_size=64)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    model, optimizer, loader, val_loader = accelerator.prepare(model, optimizer, loader, val_loader)
    plateau = AcceleratedPlateau(accelerator, ReduceLROnPlateau(optimizer, patience=1, factor=0.5))
    for epoch in range(12):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        rate = optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            losses = [torch.nn.functional.mse_loss(model(a), b) for a, b in val_loader]
        plateau.step(torch.stack(losses).mean())
        accelerator.print(f"epoch {epoch}: rate {rate}")


if __name__ == "__main__":
    main()
