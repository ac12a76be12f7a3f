"""Whole epochs of an ensemble as one CUDA graph: training, validation and the plateau of each lane.

Nothing in an epoch asks the host: the lanes decide, count and cut on the device, so that one replay
is one epoch. The same training without a graph follows, and both are compared. Without a GPU only
the latter runs. Needs nothing but torch.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import mse_loss

from torch_plateau import LaneLR, PlateauLanes

WARM_UP = 3  # epochs before the capture
FEATURES, HIDDEN, TRAIN, VALIDATION, BATCH = 8, 32, 512, 256, 64


def network() -> nn.Module:
    """Make a network of one hidden layer."""
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))


class Ensemble:
    """Networks trained at once by AdamW, from rates between 1e-4 and 1, a lane for each.

    Attributes:
        losses: What the lanes were stepped with after each epoch, ``[epochs, lanes]``.
        rates: Rates at the start and after each epoch, ``[epochs + 1, lanes]``.
    """

    def __init__(self, models: list[nn.Module], x: Tensor, y: Tensor, orders: Tensor) -> None:
        n, device = len(models), x.device
        self.model, (self.params, _) = models[0], stack_module_state(models)
        self.x, self.y, self.orders = x, y, orders
        rates = torch.logspace(-4, 0, n, dtype=torch.float64)
        self.lanes = PlateauLanes(n, rates, patience=3, factor=0.5, device=device)
        # lr=1.0 as the lanes hold the rates. A capturable AdamW counts its steps on the GPU.
        self.optimizer = torch.optim.AdamW(
            self.params.values(), lr=1.0, capturable=device.type == "cuda"
        )
        LaneLR(self.optimizer, self.lanes)
        self.losses = torch.zeros(len(orders), n, device=device)
        self.rates = torch.zeros(len(orders) + 1, n, device=device)
        self.rates[0] = self.lanes.lr

    def loss(self, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of one network."""
        return mse_loss(functional_call(self.model, params, (x,)), y)

    @torch.no_grad()
    def epoch(self) -> None:
        """Train on every batch, validate, step the lanes and write down what happened.

        Rows are chosen by the lanes' own count of steps, which is on the device: a Python number
        would be a constant of the graph, and every replay the same epoch.
        """
        gradients = vmap(grad(self.loss), in_dims=(0, None, None))
        row = self.lanes.num_steps.view(1)
        for batch in self.orders.index_select(0, row)[0].split(BATCH):
            for name, gradient in gradients(self.params, self.x[batch], self.y[batch]).items():
                self.params[name].grad = gradient  # put there, not added: nothing to zero
            self.optimizer.step()
        losses = vmap(self.loss, (0, None, None))(self.params, self.x[TRAIN:], self.y[TRAIN:])
        self.losses.index_copy_(0, row, losses[None])
        self.lanes.step(losses)
        self.rates.index_copy_(0, row + 1, self.lanes.lr[None])


def capture(epoch: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Run ``WARM_UP`` epochs, then capture one, which does not run it.

    The warm-up allocates what lives longer than an epoch (the optimizer's state, LaneLR's copy, the
    workspaces of cuBLAS) where replays find it, on the stream of the capture. Its epochs are the
    first of the training, so there is nothing to restore.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            epoch()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        epoch()
    return graph


def train(ensemble: Ensemble, graphed: bool) -> float:
    """Train for all epochs; return the mean seconds of those after the warm-up."""
    epochs = len(ensemble.losses)
    wait = torch.cuda.synchronize if ensemble.lanes.device.type == "cuda" else lambda: None
    if graphed:
        advance = capture(ensemble.epoch).replay
    else:
        advance = ensemble.epoch
        for _ in range(WARM_UP):
            advance()
    advance()  # not timed either: the first replay also uploads the graph
    wait()
    start = time.perf_counter()
    for _ in range(WARM_UP + 1, epochs):
        advance()
    wait()
    return (time.perf_counter() - start) / (epochs - WARM_UP - 1)


def report(ensemble: Ensemble) -> None:
    """Print the rates of four lanes and the cuts so far, for five epochs."""
    rates = ensemble.rates.cpu()  # the history is read once, here
    epochs, lanes = len(rates) - 1, rates.shape[1]
    cuts = (rates[1:] < rates[:-1]).sum(1).cumsum(0).tolist()
    shown = sorted({lane * (lanes - 1) // 3 for lane in range(4)})
    print("after epoch" + "".join(f"   lr[{lane:3}]" for lane in shown) + "   cuts")
    for epoch in sorted({1, *(epochs * part // 4 for part in (1, 2, 3, 4))}):
        print(f"{epoch:11}" + "".join(f"{rates[epoch, i]:10.1e}" for i in shown), end="")
        print(f"{cuts[epoch - 1]:7}")


def main(argv: Sequence[str] | None = None) -> list[Ensemble]:
    """Train with a graph and without (without only, on the CPU), compare, and return both."""
    parser = argparse.ArgumentParser(description="An ensemble whose epochs are one CUDA graph.")
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    args = parser.parse_args(argv)
    if args.lanes < 1 or args.epochs < WARM_UP + 2:
        parser.error(f"expected at least 1 lane and {WARM_UP + 2} epochs")

    torch.manual_seed(0)  # all chance is in what follows, on the CPU, the same for both trainings
    x = torch.randn(TRAIN + VALIDATION, FEATURES)
    y = (x @ torch.randn(FEATURES, 1) / 2).sin() + 0.1 * torch.randn(len(x), 1)
    orders = torch.stack([torch.randperm(TRAIN) for _ in range(args.epochs)])
    models = [network().to(args.device) for _ in range(args.lanes)]
    data = [tensor.to(args.device) for tensor in (x, y, orders)]

    eager = Ensemble(models, *data)
    if args.device == "cpu":
        seconds = train(eager, graphed=False)
        report(eager)
        print("no CUDA graph was captured: that needs a CUDA device, and this ran on the CPU")
        print(f"eager: {seconds * 1e3:.2f} ms an epoch")
        return [eager]

    graphed = Ensemble(models, *data)
    seconds = {"graph": train(graphed, graphed=True), "eager": train(eager, graphed=False)}
    report(graphed)
    same = torch.equal(graphed.rates, eager.rates)
    print(f"learning rates of graph and eager: {'the same' if same else 'NOT the same'}")
    apart = [(graphed.params[name] - eager.params[name]).abs().max() for name in eager.params]
    print(f"largest difference of a parameter: {max(apart).item():.1e}")
    for name, each in seconds.items():
        print(f"{name}: {each * 1e3:.2f} ms an epoch")
    return [graphed, eager]


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
