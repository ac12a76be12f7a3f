"""An epoch of many small networks, trained in three ways that decide alike.

Each network is an MLP on the same random regression data, has a rate of its own, and is cut when
its own validation loss stalls.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...bench.cases import NEVER
from ...bench.device_timing import wait
from ...bench.equal import DifferenceError
from ...bench.figures import Row
from ...bench.timing import compared, in_turn, on_host, seconds
from ...lanes.lanes import PlateauLanes
from ...optim.lane_adam import LaneAdamW
from ...optim.lane_lr import LaneLR

__all__ = ["SEPARATE", "TOLERANCE", "WAYS", "check", "time_epochs"]

INPUTS, HIDDEN = 16, 32
TRAINED, VALIDATED, BATCH = 512, 128, 64
CHECKED = 4  # epochs
SEPARATE = "separate"
TOLERANCE = 1e-8  # of float64 weights after so many epochs: sums are rounded in another order
LONG = 2.0  # seconds of an epoch from which it is timed fewer times

Weights = dict[str, Tensor]


class Problem(NamedTuple):
    """What the networks learn, where they begin, and their rates."""

    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    weights: Weights  # of all networks, [n, ...]
    rates: Tensor  # [n], float64


def problem(n: int, device: torch.device, dtype: torch.dtype) -> Problem:
    """Return the same for the same ``n``, whatever the global generator."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=dtype)
    x, direction = draw(TRAINED + VALIDATED, INPUTS), draw(INPUTS, 1)
    y = (x @ direction).sin() + 0.1 * draw(len(x), 1)
    weights = {
        "w1": draw(n, INPUTS, HIDDEN) * INPUTS**-0.5,
        "b1": torch.zeros(n, 1, HIDDEN, dtype=dtype),
        "w2": draw(n, HIDDEN, 1) * HIDDEN**-0.5,
        "b2": torch.zeros(n, 1, 1, dtype=dtype),
    }
    x, y = x.to(device), y.to(device)
    return Problem(
        (x[:TRAINED], y[:TRAINED]),
        (x[TRAINED:], y[TRAINED:]),
        {name: each.to(device) for name, each in weights.items()},
        torch.logspace(-4, -1.5, n, dtype=torch.float64),
    )


class Way(Protocol):
    """A way to train all networks."""

    def train(self) -> None:
        """Go through the training data once."""

    def validate(self) -> Any:
        """Return a metric for each network, as ``schedule`` takes them."""

    def schedule(self, metrics: Any) -> None:
        """Step the schedulers."""

    def rates(self) -> Tensor:
        """Return the rate of each network, float64."""

    def weights(self) -> Weights:
        """Return them stacked."""


class Separate:
    """``n`` modules, each with an optimizer and a scheduler of torch."""

    def __init__(self, given: Problem, settings: dict[str, Any]) -> None:
        self.given = given
        self.models, self.optimizers, self.schedulers = [], [], []
        for i, rate in enumerate(given.rates.tolist()):
            like = given.weights["w1"]
            layer = partial(nn.utils.skip_init, nn.Linear, device=like.device, dtype=like.dtype)
            model = nn.Sequential(layer(INPUTS, HIDDEN), nn.ReLU(), layer(HIDDEN, 1))
            with torch.no_grad():
                for param, name in zip(model.parameters(), given.weights, strict=True):
                    param.copy_(given.weights[name][i].T.reshape(param.shape))
            self.models.append(model)
            self.optimizers.append(AdamW(model.parameters(), lr=rate, fused=True))
            self.schedulers.append(ReduceLROnPlateau(self.optimizers[-1], **settings))

    def train(self) -> None:
        """Train each network on a batch before the next batch."""
        for x, y in _batches(self.given.train):
            for model, optimizer in zip(self.models, self.optimizers, strict=True):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Return floats, as torch's schedulers want them."""
        x, y = self.given.valid
        return [nn.functional.mse_loss(model(x), y).item() for model in self.models]

    def schedule(self, metrics: list[float]) -> None:
        """Step one after the other."""
        for scheduler, metric in zip(self.schedulers, metrics, strict=True):
            scheduler.step(metric)

    def rates(self) -> Tensor:
        """Return what the optimizers have."""
        rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        return torch.tensor(rates, dtype=torch.float64)

    def weights(self) -> Weights:
        """Return them in the shapes of a stack."""
        each = zip(*(model.parameters() for model in self.models), strict=True)
        shapes = self.given.weights
        return {
            name: torch.stack([param.detach().t() for param in params]).reshape(shapes[name].shape)
            for name, params in zip(shapes, each, strict=True)
        }


class Stack:
    """One set of ``[n, ...]`` parameters, lanes, and one optimizer."""

    def __init__(
        self,
        given: Problem,
        settings: dict[str, Any],
        optimizer: Callable[[list[Tensor], PlateauLanes], Optimizer],
    ) -> None:
        self.given = given
        self.params = {name: x.clone().requires_grad_() for name, x in given.weights.items()}
        device = given.weights["w1"].device
        self.lanes = PlateauLanes(len(given.rates), given.rates, device=device, **settings)
        self.optimizer = optimizer(list(self.params.values()), self.lanes)

    def train(self) -> None:
        """Train all networks on a batch at once."""
        for x, y in _batches(self.given.train):
            self.optimizer.zero_grad()
            self._losses(x, y).sum().backward()
            self.optimizer.step()

    @torch.no_grad()
    def validate(self) -> Tensor:
        """Return one tensor."""
        return self._losses(*self.given.valid)

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each network: ``[n]``."""
        w = self.params
        x = x.expand(len(w["w1"]), -1, -1)
        hidden = torch.baddbmm(w["b1"], x, w["w1"]).relu()
        return (torch.baddbmm(w["b2"], hidden, w["w2"]) - y).square().mean((1, 2))

    def schedule(self, metrics: Tensor) -> None:
        """Step all lanes."""
        self.lanes.step(metrics)

    def rates(self) -> Tensor:
        """Return those in float64."""
        return self.lanes.lr_master.cpu()

    def weights(self) -> Weights:
        """Return what is trained."""
        return {name: param.detach() for name, param in self.params.items()}


def _batches(data: tuple[Tensor, Tensor]) -> Any:
    return zip(*(torch.split(each, BATCH) for each in data), strict=True)


def _with_lane_lr(params: list[Tensor], lanes: PlateauLanes) -> Optimizer:
    optimizer = AdamW(params, lr=1.0, fused=True)
    LaneLR(optimizer, lanes)
    return optimizer


WAYS: dict[str, Callable[[Problem, dict[str, Any]], Way]] = {
    SEPARATE: Separate,
    "stack, LaneLR": partial(Stack, optimizer=_with_lane_lr),
    "stack, LaneAdamW": partial(Stack, optimizer=LaneAdamW),
}


def check(n: int, device: torch.device) -> int:
    """Train in all ways at once, with the same metrics; return the cuts of all networks.

    Raises DifferenceError unless all rates are equal, bit for bit, in every epoch, and all weights
    within ``TOLERANCE`` at the end. Done in float64: in float32 the rounding of a sum can decide on
    which side of zero a ReLU is, and training then makes much of it.
    """
    given = problem(n, device, torch.float64)
    settings = {"patience": 0, "threshold": 0.05, "factor": 0.5}  # cut whenever the gain is small
    ways = {name: make(given, settings) for name, make in WAYS.items()}
    truth = ways[SEPARATE]
    for epoch in range(CHECKED):
        for way in ways.values():
            way.train()
        metrics = truth.validate()
        for name, way in ways.items():
            way.schedule(
                metrics
                if way is truth
                else torch.tensor(metrics, dtype=torch.float64, device=device)
            )
            if not torch.equal(way.rates(), truth.rates()):
                raise DifferenceError(
                    f"{name}: other rates than of separate models, in epoch {epoch + 1}"
                )
    expected = truth.weights()
    for name, way in ways.items():
        for weight, got in way.weights().items():
            most = float((got - expected[weight]).abs().max())
            if not most <= TOLERANCE:
                raise DifferenceError(
                    f"{name}: {weight} differs by {most:.2g} from that of separate models, "
                    f"expected at most {TOLERANCE:g}"
                )
    ratios = truth.rates() / given.rates
    return int(ratios.log2().neg().round().sum())


def time_epochs(n: int, device: torch.device, quick: bool) -> list[Row]:
    """Time epochs of all ways in turn, then their schedulers alone.

    No rate is cut meanwhile, and the schedulers step by the metrics of the last epoch. ``ratio`` is
    the time of ``SEPARATE`` over a way's own in the same round: below 1 that way is slower.
    ``share`` is the scheduler's part of an epoch.
    """
    given, settings = problem(n, device, torch.float32), {"patience": NEVER}
    ways = {name: make(given, settings) for name, make in WAYS.items()}

    def epoch(way: Way) -> None:
        way.train()
        way.schedule(way.validate())
        wait(device)

    longest = max(seconds(partial(epoch, way)) for way in ways.values())
    rounds = 3 if longest > LONG else 5 if quick else 11
    taken = in_turn(
        {name: (rounds, partial(seconds, partial(epoch, way))) for name, way in ways.items()}
    )
    calls = {name: (way.schedule, way.validate()) for name, way in ways.items()}
    alone = on_host(calls, rounds=9, burst=0.002)
    rows = []
    for name, spent in taken.items():
        p25, median, p75 = statistics.quantiles(spent, n=4, method="inclusive")
        figures = {"median_s": median, "p25_s": p25, "p75_s": p75}
        scheduler = alone[name]["median_us"]
        rows.append(
            {
                "networks": n,
                "way": name,
                **{key: float(f"{value:.4g}") for key, value in figures.items()},
                "n": rounds,
                **compared(taken[SEPARATE], spent),
                "scheduler_us": scheduler,
                "share": float(f"{scheduler * 1e-6 / median:.3g}"),
            }
        )
    return rows
