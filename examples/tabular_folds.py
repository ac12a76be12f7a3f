"""Ten folds times eight seeds of a small network on a table, trained as one stack of 80 lanes.

A lane learns from eight folds, watches the ninth and is tested on the tenth. The loss on the fold
that it watches lowers its rate at a plateau, ends its training when it stalls for longer, and says
which weights are kept. Lanes that are done leave the batch, so that late epochs are cheap.

The rival is what one writes without lanes: a loop over 80 modules, each with torch's AdamW and
ReduceLROnPlateau and the usual early stopping, from the same weights and with the same batches.
Needs scikit-learn and matplotlib: pip install 'torch-plateau[demo]'.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import sklearn.datasets
import torch
from matplotlib.figure import Figure
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from torch_plateau import LaneAdamW, LaneBest, LaneStack, PlateauLanes

RATE, BATCH = 3e-3, 32
PLATEAU = {"factor": 0.3, "patience": 4, "threshold": 1e-4}
STOP = 12  # training ends after so many epochs without a better loss
CROWDED = 0.9  # lanes that are done leave when others are at most this share of the batch

Part = tuple[Tensor, Tensor]  # x, [lanes, rows, columns], and y, [lanes, rows]


class Outcome(NamedTuple):
    """What became of the lanes: losses and rates are ``[epochs, lanes]``, NaN after the stop."""

    losses: Tensor
    rates: Tensor
    accuracy: Tensor  # on the tested fold, of the weights with the best loss on the watched one
    widths: list[int]  # how many lanes each epoch computed
    seconds: float


def deal(name: str, folds: int, seeds: int, dtype: torch.dtype) -> list[Part]:
    """Return what each lane learns from, watches and is tested on: other folds for each seed."""
    x, y = (torch.tensor(e) for e in getattr(sklearn.datasets, f"load_{name}")(return_X_y=True))
    x, y = x.to(dtype), y[: len(y) // folds * folds]  # folds of one size, so a few rows stay out
    lanes: list[list[Tensor]] = []
    for seed in range(seeds):
        split = StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)
        parts = [torch.tensor(part) for _, part in split]
        for fold in range(folds):
            tested, watched, *learnt = parts[fold:] + parts[:fold]
            lanes.append([torch.cat(learnt), watched, tested])
    roles = [torch.stack(each) for each in zip(*lanes, strict=True)]
    mean, scale = (of(x[roles[0]], 1, keepdim=True) for of in (torch.mean, torch.std))
    scale[scale == 0] = 1  # a column that is constant where the lane learns
    return [((x[rows] - mean) / scale, y[rows]) for rows in roles]


def network(columns: int, classes: int) -> nn.Sequential:
    """Return a network with two hidden layers."""
    hidden = (nn.Linear(columns, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(32, classes))


def share_right(scores: Tensor, y: Tensor) -> Tensor:
    """Return the accuracy."""
    return (scores.argmax(1) == y).float().mean()


def one_stack(models: list[nn.Sequential], data: list[Part], orders: list[Tensor]) -> Outcome:
    """Train all lanes at once."""
    start, epochs, n = time.perf_counter(), len(orders), len(models)
    stop = {"stop_patience": STOP, "stop_threshold": PLATEAU["threshold"], "max_steps": epochs}
    lanes = PlateauLanes(n, lr=RATE, **PLATEAU, **stop, stop_threshold_mode="rel")
    params, buffers = stack_module_state(models)
    optimizer, best = LaneAdamW(params.values(), lanes), LaneBest(lanes, params)
    stack = LaneStack(lanes, optimizer, params, buffers, best)

    def each(measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        scores = vmap(lambda *lane: functional_call(models[0], *lane))((params, buffers), x)
        return vmap(measure)(scores, y)

    losses, rates = torch.full((2, epochs, n), torch.nan, dtype=torch.float64)
    accuracy, who = torch.zeros(n), torch.arange(n)  # who: the lanes in the batch
    widths: list[int] = []
    while len(stack):
        epoch, live = len(widths), ~lanes.finished
        widths.append(len(stack))
        (x, y), watched, tested = data
        for batch in orders[epoch].split(BATCH):
            optimizer.zero_grad()
            each(cross_entropy, x[:, batch], y[:, batch]).sum().backward()
            optimizer.step()  # passes over the lanes that are done
        with torch.no_grad():
            loss = each(cross_entropy, *watched)
            lanes.step(loss)
            best.update()
            losses[epoch, who[live]] = loss[live].double()
            rates[epoch, who[live]] = lanes.lr_master[live]
            live = ~lanes.finished
            if live.sum() <= CROWDED * len(stack):
                best.restore(~live)
                accuracy[who[~live]] = each(share_right, *tested)[~live]
                who = who[stack.keep(live)]
                data = [(x[live], y[live]) for x, y in data]
    return Outcome(losses, rates, accuracy, widths, time.perf_counter() - start)


def one_by_one(models: list[nn.Sequential], data: list[Part], orders: list[Tensor]) -> Outcome:
    """Train a module after the other, as one does without lanes."""
    start = time.perf_counter()
    losses, rates = torch.full((2, len(orders), len(models)), torch.nan, dtype=torch.float64)
    accuracy = torch.zeros(len(models))
    for lane, untrained in enumerate(models):
        (x, y), (xw, yw), (xt, yt) = ((x[lane], y[lane]) for x, y in data)
        model = copy.deepcopy(untrained)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
        lowest, waited = torch.inf, 0
        for epoch, order in enumerate(orders):
            for batch in order.split(BATCH):
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = cross_entropy(model(xw), yw).item()
            scheduler.step(loss)
            losses[epoch, lane], rates[epoch, lane] = loss, scheduler.get_last_lr()[0]
            waited += 1
            if loss < lowest * (1 - PLATEAU["threshold"]):
                lowest, waited, kept = loss, 0, copy.deepcopy(model.state_dict())
            if waited == STOP:
                break
        model.load_state_dict(kept)
        with torch.no_grad():
            accuracy[lane] = share_right(model(xt), yt)
    widths = losses.isfinite().sum(1).tolist()
    return Outcome(losses, rates, accuracy, widths, time.perf_counter() - start)


def draw(outcome: Outcome, out: Path) -> None:
    """Draw the losses with cuts and stops, and how many lanes are still learning."""
    figure = Figure((10, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    losses, rates = outcome.losses, outcome.rates
    ends = losses.isfinite().sum(0) - 1
    epochs = torch.arange(1, int(ends.max()) + 2)
    cuts = (rates[1:] < rates[:-1]).nonzero()
    for lane in range(losses.shape[1]):
        upper.plot(epochs, losses[: len(epochs), lane], color=f"C{lane % 10}", lw=0.8, alpha=0.5)
    upper.plot(cuts[:, 0] + 2, losses[1:][cuts.T.unbind()], "kv", ms=3, label="the rate is cut")
    upper.plot(ends + 1, losses[ends, range(len(ends))], "ro", ms=4, label="the lane stops")
    upper.set(yscale="log", ylabel="loss on the watched fold")
    upper.legend(loc="upper right")
    lower.step(epochs, outcome.widths, "C1--", where="mid", label="lanes in the batch")
    lower.step(epochs, losses.isfinite().sum(1)[: len(epochs)], "C0", where="mid", label="learning")
    lower.set(xlabel="epoch", ylabel="lanes", ylim=0)
    lower.legend(loc="upper right")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> tuple[Outcome, Outcome]:
    """Train both ways, print what they took and found, and draw the stack's lanes."""
    parser = argparse.ArgumentParser(description="Folds times seeds of a network in one stack.")
    parser.add_argument("--table", choices=("breast_cancer", "digits"), default="breast_cancer")
    for name, value in (("folds", 10), ("seeds", 8), ("epochs", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--quick", action="store_true", help="4 folds, 2 seeds, 40 epochs")
    parser.add_argument("--out", type=Path, default=Path("folds.png"), help="the picture")
    args = parser.parse_args(argv)
    if args.quick:
        args.folds, args.seeds, args.epochs = 4, 2, 40
    if args.folds < 3 or args.seeds < 1 or args.epochs < 1 or not args.out.parent.is_dir():
        parser.error("expected 3 folds, 1 seed and 1 epoch at least; a folder for --out")

    dtype = torch.float64 if args.double else torch.float32
    data = deal(args.table, args.folds, args.seeds, dtype)
    (x, y), n = data[0], args.folds * args.seeds
    torch.manual_seed(0)
    models = [network(x.shape[2], int(y.max()) + 1).to(dtype) for _ in range(n)]
    orders = [torch.randperm(x.shape[1]) for _ in range(args.epochs)]
    torch.optim.SGD(models[0].parameters())  # the first optimizer imports much: before the clock
    ours, theirs = one_stack(models, data, orders), one_by_one(models, data, orders)

    print(f"{'':24}{'seconds':>8}{'lane-epochs':>13}{'tested, accuracy':>20}")
    for name, each in ((f"one stack of {n} lanes", ours), (f"a loop over {n} modules", theirs)):
        accuracy = f"{each.accuracy.mean():.2%} ± {each.accuracy.std():.2%}"
        print(f"{name:24}{each.seconds:8.1f}{sum(each.widths):13}{accuracy:>20}")
    print(f"The loop took {theirs.seconds / ours.seconds:.2f} times as long as the stack.")
    same = (ours.rates.nan_to_num() == theirs.rates.nan_to_num()).all(0).sum()
    print(f"Cut and stopped at the same epochs: {same} of {n} lanes.")
    draw(ours, args.out)
    print(f"Picture: {args.out}")
    return ours, theirs


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
