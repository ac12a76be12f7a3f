"""Population-based training of 128 small networks, with and without a plateau for each member.

Every few epochs the worst members copy better ones and change what they copied a little. Between
these rounds a member with a plateau also lowers its own rate when its validation loss stalls, by
its own patience and factor; when it still stalls at its floor, it retires. Compared at equally many
optimizer steps: this, the same without plateaus, and a random search of constant rates.

All start alike and learn from 500 noisy digits, three in ten with a wrong label. The loss on 300
others decides everything; accuracy on the remaining 997 decides nothing and is what counts. Tried
on two other seeds first; after a first run on these five, in which hardly any member retired, the
plateaus' patience and floors were changed, so their own small change since is no evidence.

Needs scikit-learn and matplotlib: pip install 'torch-plateau[demo]'.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from torch_plateau import LaneLR, LaneStack, PlateauLanes

TRAIN, VALIDATION, WRONG, PIXEL_NOISE, BATCH = 500, 300, 0.3, 0.3, 50
PATIENCES, FACTORS = (1, 5), (0.2, 0.8)
ROUND, SHARE = 5, 4  # every so many epochs the worst fourth copies from the best fourth
WAYS = {  # whether members copy, and whether they have plateaus; how it is drawn
    "PBT with plateaus": (True, True, "C0-"),
    "PBT, no plateaus": (True, False, "C1--"),
    "random search": (False, False, "k:"),
}


def digits(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Split scikit-learn's digits into three parts; falsify labels of the first, to train on."""
    x, y = (torch.tensor(each) for each in load_digits(return_X_y=True))
    parts = torch.randperm(len(y), generator=generator).tensor_split([TRAIN, TRAIN + VALIDATION])
    is_wrong = torch.rand(TRAIN, generator=generator) < WRONG
    y[parts[0]] += is_wrong * torch.randint(1, 10, (TRAIN,), generator=generator)
    return [(x[part].float() / 16, y[part] % 10) for part in parts]


class Population:
    """Networks in a stack, trained at once by one AdamW; ``losses`` are those on validation."""

    def __init__(self, data: list, members: int, seed: int, has_plateau: bool) -> None:
        self.data, self.has_plateau, self.trained = data, has_plateau, 0
        torch.manual_seed(seed)
        layers = [(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(members)]
        networks = [nn.Sequential(*each) for each in layers]
        # Batches from one generator and choices from another: all three ways see the same batches.
        self.batches, self.chance = (torch.Generator().manual_seed(seed) for _ in range(2))
        rates, floors = torch.rand(2, members, generator=self.chance, dtype=torch.float64)
        self.lanes = PlateauLanes(
            members,
            lr=1e-4 * 1000**rates,  # up to 0.1, evenly on a log scale
            min_lr=1e-4 * 100**floors,
            patience=torch.randint(PATIENCES[0], PATIENCES[1] + 1, (members,)),
            factor=torch.empty(members, dtype=torch.float64).uniform_(*FACTORS),
            patience_at_min=5,  # finished after five bad epochs in a row at the floor
        )
        self.model, (params, _) = networks[0], stack_module_state(networks)
        optimizer = torch.optim.AdamW(params.values(), lr=1.0)  # the lanes hold the rates
        LaneLR(optimizer, self.lanes)
        self.stack = LaneStack(self.lanes, optimizer, params)

    def loss(self, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of one member."""
        return cross_entropy(functional_call(self.model, params, (x,)), y)

    @torch.no_grad()
    def epoch(self) -> None:
        """Train on every image once, validate, and let each member's plateau decide."""
        (x, y), params, shared = self.data[0], self.stack.params, (0, None, None)
        self.trained += int((~self.lanes.finished).sum())
        x = x + PIXEL_NOISE * torch.randn(x.shape, generator=self.batches)  # anew in each epoch
        for batch in torch.randperm(len(x), generator=self.batches).split(BATCH):
            for name, gradient in vmap(grad(self.loss), shared)(params, x[batch], y[batch]).items():
                params[name].grad = gradient
            self.stack.step()  # members that have retired stay as they are
        losses = vmap(self.loss, shared)(params, *self.data[1])
        self.losses = losses.nan_to_num(nan=torch.inf)  # diverged: ranks last
        if self.has_plateau:
            self.lanes.step(self.losses)

    def exploit_and_explore(self) -> tuple[Tensor, Tensor]:
        """Put changed copies of good members in place of bad ones; return from where and where."""
        ranking = self.losses.argsort(stable=True)  # best first
        best, worst = ranking[: len(ranking) // SHARE], ranking[-(len(ranking) // SHARE) :]
        parents = best[~self.lanes.finished[best]]  # copies of retired ones would be retired too
        dst = worst if len(parents) else worst[:0]  # nobody left to copy: no round
        src = parents[torch.randint(max(len(parents), 1), dst.shape, generator=self.chance)]
        self.stack.copy(src, dst)
        coins = (torch.randint(2, dst.shape, generator=self.chance) for _ in range(3))
        sign = [coin.double() * 2 - 1 for coin in coins]
        patience, factor = (self.lanes.settings[name][dst] for name in ("patience", "factor"))
        self.lanes.set_lanes(
            dst,
            lr=self.lanes.lr_master[dst] * 1.25 ** sign[0],
            patience=(patience + sign[1]).clamp(*PATIENCES),
            factor=(factor * 1.25 ** sign[2]).clamp(*FACTORS),
        )
        return src, dst


def train(way: str, members: int, epochs: int, seed: int) -> tuple[list, list[float]]:
    """Return accuracy per epoch on validation and test of the network kept; what was trained."""
    (exploits, has_plateau, _), data = WAYS[way], digits(torch.Generator().manual_seed(seed))
    population = Population(data, members, seed, has_plateau)
    curve, lowest = [], torch.inf
    for epoch in range(1, epochs + 1):
        population.epoch()
        loss, best = (each.item() for each in population.losses.min(0))
        if loss < lowest:
            lowest, kept = loss, population.stack.unstack(best, population.model)
        curve.append([(kept(x).argmax(1) == y).double().mean().item() * 100 for x, y in data[1:]])
        if exploits and epoch % ROUND == 0 and epoch < epochs:
            population.exploit_and_explore()
    return curve, [population.trained / members / epochs, population.lanes.finished.sum().item()]


def report(curves: dict[str, Tensor], trained: dict[str, Tensor], out: Path) -> None:
    """Print and draw mean and standard deviation over the seeds of the networks kept."""
    figure = Figure((10, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    print(f"accuracy in %{'validation':>19}{'test':>14}{'trained':>10}{'retired':>10}")
    for name, each in curves.items():
        texts = []
        for part, axes in enumerate(panels):
            m, d = each[:, :, part].mean(0), each[:, :, part].std(0)
            texts.append(f"{m[-1]:.1f} ± {d[-1]:.1f}")
            x = range(1, len(m) + 1)
            (line,) = axes.plot(x, m, WAYS[name][2], label=f"{name}: {texts[-1]}%")
            axes.fill_between(x, m - d, m + d, color=line.get_color(), alpha=0.13)
            axes.set(title=("validation", "test")[part], xlabel="epoch", ylabel="accuracy, %")
            axes.legend(loc="lower right")
        share, retired = trained[name].mean(0).tolist()
        print(f"{name:18}{texts[0]:>14}{texts[1]:>14}{share:>10.0%}{retired:>10.1f}")
    ours, *others = WAYS
    for name in others:  # on the same seed: what all have in common, such as the split, cancels out
        ahead = (curves[ours] - curves[name])[:, -1, 1]
        within = ", within the spread" if ahead.mean().abs() <= ahead.std() else ""
        print(f"{ours} minus {name}, test: {ahead.mean():+.1f} ± {ahead.std():.1f}{within}")
    panels[0].set_ylim(bottom=min(each[:, -1].min().item() for each in curves.values()) - 15)
    figure.savefig(out)
    print(f"Picture: {out}")


def main(argv: list[str] | None = None) -> None:
    """Train every way on every seed, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="Population-based training, with plateaus.")
    for name, value in (("members", 128), ("epochs", 60), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path("population.png"), help="the picture")
    args = parser.parse_args(argv)
    if args.members < SHARE or args.epochs < 1 or args.seeds < 2 or not args.out.parent.is_dir():
        parser.error(f"expected {SHARE} members, 1 epoch and 2 seeds at least; a folder for --out")
    curves, trained = {}, {}
    for way in WAYS:
        runs = [train(way, args.members, args.epochs, seed) for seed in range(args.seeds)]
        curves[way], trained[way] = (torch.tensor(each) for each in zip(*runs, strict=True))
    report(curves, trained, args.out)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
