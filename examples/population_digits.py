"""Population-based training of 128 small networks, with and without a plateau for each member.

Every few epochs the worst members copy better ones (exploit) and change what they copied a little
(explore). Between these rounds a member with a plateau also lowers its own rate when its validation
loss stalls, by its own patience and factor; when it still stalls at its floor, it retires. Three
ways to spend the same number of optimizer steps are compared:

* the population with a plateau for each member,
* the same population without: only copying changes rates,
* a random search: constant rates, nobody copies anybody.

The three start from the same weights and rates, and each learns from 500 noisy digits, of which
three in ten have a wrong label. Everything (plateau, ranking, which network to keep) is decided by
the loss on 300 other digits. The picture shows the accuracy of the network that each way would
keep: on those 300, and on the remaining 997, which decide nothing and are what counts. The seeds
are 0 to 4, all of them. Variants of the task were tried on two other seeds. After a first run on
these five, in which hardly any member retired, the patience of the plateaus (at the floor too) was
lowered and their floors were raised, so the plateaus' own small change since is no evidence.

Takes about two minutes on one core. Needs scikit-learn and matplotlib:
pip install 'torch-plateau[demo]'.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from torch_plateau import LaneLR, PlateauLanes

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
except ModuleNotFoundError as missing:
    cure = "this example needs the demo's extra: pip install 'torch-plateau[demo]'"
    raise SystemExit(f"population_digits: no module {missing.name!r}; {cure}") from None

TRAIN, VALIDATION, WRONG, PIXEL_NOISE, BATCH, HIDDEN = 500, 300, 0.3, 0.3, 50, 32
RATES = (1e-4, 1e-1)  # of AdamW, drawn evenly on a log scale: the same for all three ways
PATIENCES, FACTORS, FLOORS = (1, 5), (0.2, 0.8), (1e-4, 1e-2)
ROUND = 5  # epochs between two rounds of exploit and explore
SHARE = 4  # in a round, the worst fourth copies from the best fourth


class Way(NamedTuple):
    """One of the three, and how it is drawn."""

    name: str
    exploits: bool
    has_plateau: bool
    look: dict[str, str]


WAYS = (
    Way("PBT with plateaus", True, True, {"color": "#0072B2", "linestyle": "-", "marker": "o"}),
    Way("PBT, no plateaus", True, False, {"color": "#D55E00", "linestyle": "--", "marker": "s"}),
    Way("random search", False, False, {"color": "#222222", "linestyle": ":", "marker": "^"}),
)


class Data(NamedTuple):
    """Images and labels of each part; those to train on have some wrong labels."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits(generator: torch.Generator) -> Data:
    """Split scikit-learn's digits at random and falsify some of the labels to train on."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(y), generator=generator)
    parts = order.split([TRAIN, VALIDATION, len(y) - TRAIN - VALIDATION])
    train, validation, test = ((x[part], y[part]) for part in parts)
    is_wrong = torch.rand(TRAIN, generator=generator) < WRONG
    other = (train[1] + torch.randint(1, 10, (TRAIN,), generator=generator)) % 10
    return Data((train[0], torch.where(is_wrong, other, train[1])), validation, test)


def log_uniform(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw numbers evenly on a log scale."""
    return low * (high / low) ** torch.rand(n, generator=generator, dtype=torch.float64)


class Population:
    """Networks in stacked parameters, trained at once by one AdamW, with a lane for each.

    Attributes:
        losses: On the validation images after the last epoch, ``[members]``.
        trained: Epochs of all members, those of retired ones not counted.
    """

    def __init__(self, data: Data, members: int, seed: int, has_plateau: bool) -> None:
        self.data, self.has_plateau, self.trained = data, has_plateau, 0
        torch.manual_seed(seed)  # layers take their weights from the global generator
        networks = [
            nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
            for _ in range(members)
        ]
        self.model, (self.params, _) = networks[0], stack_module_state(networks)
        # Batches from one generator and choices from another: all three ways see the same batches.
        self.batches, self.chance = (torch.Generator().manual_seed(seed) for _ in range(2))
        low, high = FACTORS
        self.lanes = PlateauLanes(
            members,
            log_uniform(*RATES, members, self.chance),
            patience=torch.randint(PATIENCES[0], PATIENCES[1] + 1, (members,)),
            factor=low + (high - low) * torch.rand(members, dtype=torch.float64),
            min_lr=log_uniform(*FLOORS, members, self.chance),
            patience_at_min=5,  # finished after five bad epochs in a row at the floor
        )
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=1.0)  # the lanes hold the rates
        LaneLR(self.optimizer, self.lanes)
        self.gradients = vmap(grad(self._loss), in_dims=(0, None, None))
        self.losses = torch.full((members,), torch.inf)

    def _answer(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.model, params, (x,))

    def _loss(self, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self._answer(params, x), y)

    @torch.no_grad()
    def epoch(self) -> None:
        """Train on every image once, validate, and let each member's plateau decide."""
        self.trained += int((~self.lanes.finished).sum())
        x, y = self.data.train
        x = x + PIXEL_NOISE * torch.randn(x.shape, generator=self.batches)  # anew in each epoch
        for batch in torch.randperm(len(x), generator=self.batches).split(BATCH):
            for name, gradient in self.gradients(self.params, x[batch], y[batch]).items():
                self.params[name].grad = gradient  # put there, not added: nothing to zero
            self.optimizer.step()
        losses = vmap(self._loss, (0, None, None))(self.params, *self.data.validation)
        self.losses = losses.nan_to_num(nan=torch.inf)  # diverged: ranks last
        if self.has_plateau:
            self.lanes.step(self.losses)
            # Steps pass finished lanes by, and with a rate of 0 the weights stay too, bit for bit:
            # a retired member changes no more, in a stack in which others train on.
            self.lanes.set_lanes(self.lanes.finished, lr=0.0)

    def exploit_and_explore(self) -> tuple[Tensor, Tensor]:
        """Put changed copies of good members in place of bad ones; return from where and where.

        A retired member may be replaced, but is no parent: its copy would be retired too. If it is
        good it just stays, and may be the one to keep.
        """
        ranking = self.losses.argsort(stable=True)  # best first
        count = len(ranking) // SHARE
        parents = ranking[:count][~self.lanes.finished[ranking[:count]]]
        dst = ranking[-count:] if len(parents) else ranking[:0]  # nobody left to copy: no round
        src = parents[torch.randint(max(len(parents), 1), dst.shape, generator=self.chance)]

        # Exploit: copy what a member has learnt, the optimizer's averages and the lane.
        for param in self.params.values():
            averages = [each for each in self.optimizer.state[param].values() if each.ndim]
            for stacked in (param.data, *averages):  # not the count of steps, the same for all
                stacked[dst] = stacked[src]
        self.lanes.copy_lanes(src, dst)

        # Explore: move the copied rate and settings a little, up or down.
        def one_of(low: float, high: float) -> Tensor:
            pick = torch.randint(2, dst.shape, generator=self.chance)
            return torch.tensor([low, high], dtype=torch.float64)[pick]

        settings = self.lanes.settings
        self.lanes.set_lanes(
            dst,
            lr=self.lanes.lr_master[dst] * one_of(0.8, 1.25),
            patience=(settings["patience"][dst] + one_of(-1, 1)).clamp(*PATIENCES),
            factor=(settings["factor"][dst] * one_of(0.8, 1.25)).clamp(*FACTORS),
        )
        return src, dst

    @torch.no_grad()
    def accuracy(self, member: int, part: tuple[Tensor, Tensor]) -> float:
        """Return the share of right answers of one member."""
        x, y = part
        answers = self._answer({name: each[member] for name, each in self.params.items()}, x)
        return (answers.argmax(1) == y).double().mean().item()


class Run(NamedTuple):
    """What one way came to on one seed.

    Attributes:
        validation: Accuracy, after each epoch, of the network that would be kept then: that of the
            lowest validation loss so far.
        test: The same network's accuracy on images that decide nothing.
        trained: Share of the epochs of all members in which a member was not retired.
        retired: Members that were retired at the end.
    """

    validation: list[float]
    test: list[float]
    trained: float
    retired: int


def train(way: Way, members: int, epochs: int, seed: int) -> Run:
    """Train one population."""
    data = digits(torch.Generator().manual_seed(seed))
    population = Population(data, members, seed, way.has_plateau)
    validation, test, lowest = [0.0], [0.0], torch.inf
    for epoch in range(1, epochs + 1):
        population.epoch()
        loss, kept = (each.item() for each in population.losses.min(0))
        better = loss < lowest
        for curve, part in ((validation, data.validation), (test, data.test)):
            curve.append(population.accuracy(kept, part) if better else curve[-1])
        lowest = min(loss, lowest)
        if way.exploits and epoch % ROUND == 0 and epoch < epochs:
            population.exploit_and_explore()
    share = population.trained / (members * epochs)
    return Run(validation[1:], test[1:], share, int(population.lanes.finished.sum()))


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and sample standard deviation over the seeds, the first dimension."""
    return values.mean(0), values.std(0) if len(values) > 1 else torch.zeros_like(values[0])


def percent(values: Tensor, sign: str = "") -> str:
    """Write mean and standard deviation of shares in percent."""
    mean, deviation = spread(100 * values)
    return f"{mean:{sign}.1f} ± {deviation:.1f}"


def report(runs: dict[str, list[Run]]) -> str:
    """Print the table and what it means; return the latter in a line."""
    seeds = len(next(iter(runs.values())))
    last = {name: torch.tensor([run.test[-1] for run in each]) for name, each in runs.items()}
    print(f"accuracy in % (mean ± standard deviation, {seeds} seeds) of the networks kept")
    print(f"{'':18}{'validation':>14}{'test':>14}{'trained':>10}{'retired':>10}")
    for name, each in runs.items():
        validation = percent(torch.tensor([run.validation[-1] for run in each]))
        trained, retired = (sum(run[i] for run in each) / seeds for i in (2, 3))
        print(f"{name:18}{validation:>14}{percent(last[name]):>14}{trained:>10.0%}{retired:>10.1f}")
    first, *others = sorted(last, key=lambda name: -last[name].mean())
    clear = True
    for name in others:  # on the same seed: what all have in common, such as the split, cancels out
        ahead = last[first] - last[name]
        mean, deviation = spread(ahead)
        within = bool(mean <= deviation)
        clear = clear and not within
        print(f"{first} minus {name}, test: {percent(ahead, '+')}", end="")
        print(", within the spread" if within else "")
    if seeds == 1:
        return "Of one seed nobody can tell whether a difference is chance"
    if clear:
        return f"{first} is ahead on test images by more than the spread over seeds"
    return "No way is ahead of both others on test images by more than the spread over seeds"


def draw(runs: dict[str, list[Run]], verdict: str, out: Path) -> None:
    """Draw mean and standard deviation of each way over the epochs: validation and test."""
    figure = Figure(figsize=(10, 5.2), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, part in zip(panels, ("validation", "test"), strict=True):
        for i, way in enumerate(WAYS):
            curves = torch.tensor([getattr(run, part) for run in runs[way.name]]) * 100
            mean, deviation = (each.numpy() for each in spread(curves))
            epochs = range(1, len(mean) + 1)
            every = max(len(mean) // 8, 1)
            axes.plot(epochs, mean, **way.look, markevery=(i * every // 3, every), label=way.name)
            color = way.look["color"]
            axes.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.13)
        axes.set(xlabel="epoch", axisbelow=True)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    final = [100 * run.test[-1] for each in runs.values() for run in each]
    panels[0].set_ylim(min(final) - 8, min(max(final) + 3, 100))  # the start is far below
    panels[0].set_ylabel("accuracy of the network kept so far, %")
    panels[0].set_title("on the validation images that chose it", loc="left")
    panels[1].set_title("on test images, which decide nothing", loc="left")
    seeds = len(runs[WAYS[0].name])
    band = f"lines: means of {seeds} seeds; bands: ± one standard deviation" if seeds > 1 else ""
    figure.suptitle(f"{verdict}\n{band}", fontsize=11)
    lines, names = panels[0].get_legend_handles_labels()
    tests = [percent(torch.tensor([run.test[-1] for run in runs[name]])) for name in names]
    labels = [f"{name}: test {each}%" for name, each in zip(names, tests, strict=True)]
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(out, format="png")


def main(argv: Sequence[str] | None = None) -> None:
    """Train every way on every seed, print the table and draw the picture."""
    parser = argparse.ArgumentParser(description="Population-based training, with plateaus.")
    parser.add_argument("--members", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--out", type=Path, default=Path("population.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="16 members, 8 epochs, 2 seeds")
    args = parser.parse_args(argv)
    if args.quick:
        args.members, args.epochs, args.seeds = 16, 8, 2
    if args.members < SHARE or args.epochs < 1 or args.seeds < 1:
        parser.error(f"expected at least {SHARE} members, 1 epoch and 1 seed")
    if not args.out.parent.is_dir():
        parser.error(f"--out: no such folder: {str(args.out.parent)!r}")

    runs: dict[str, list[Run]] = {way.name: [] for way in WAYS}
    for seed in range(args.seeds):
        for way in WAYS:
            print(f"seed {seed} of 0 to {args.seeds - 1}: {way.name}", file=sys.stderr, flush=True)
            runs[way.name].append(train(way, args.members, args.epochs, seed))
    verdict = report(runs)
    draw(runs, verdict, args.out)
    print(f"{verdict}\nPicture: {args.out}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
