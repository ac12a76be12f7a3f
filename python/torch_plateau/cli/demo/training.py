"""The demo's training: an ensemble of small networks on scikit-learn's digits, a lane for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy
from torchmetrics.functional import accuracy, f1_score, precision, recall

from ...lanes.lanes import PlateauLanes
from ...optim.lane_lr import LaneLR
from ..threads import torch_threads

RARE = 8  # the digit that the imbalanced scene looks for: a hard one for these networks
OTHERS = 49  # digits for each rare one, which makes it 2% of the images
HIDDEN, BATCH, PATIENCE, FACTOR = 32, 64, 4, 0.5
_SCORES = {"accuracy": accuracy, "f1": f1_score, "precision": precision, "recall": recall}


@dataclass(frozen=True)
class Data:
    """Three splits without a common image: float32 ``[n, 64]`` from 0 to 1, and classes ``[n]``.

    ``weight`` is what each class counts in the loss. In the imbalanced scene every other digit
    stands ``times`` times in ``validation`` and ``test``: so most of the rare digits can be held
    out and still be 2%.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    weight: Tensor
    times: int = 1

    def to(self, device: torch.device) -> Data:
        """Return the same on another device."""
        splits = [(x.to(device), y.to(device)) for x, y in (self.train, self.validation, self.test)]
        return Data(splits[0], splits[1], splits[2], self.weight.to(device), self.times)


def all_digits(seed: int) -> Data:
    """Load the 1,797 digits of scikit-learn: 60% to train on, 20% to validate, 20% to test."""
    images, labels = load_digits(return_X_y=True)
    parts = _three_ways(np.arange(len(labels)), labels, 0.6, seed)
    train, validation, test = [_tensors(images, labels, part) for part in parts]
    return Data(train, validation, test, torch.ones(10))


def rare_digits(seed: int) -> Data:
    """Load the digits as two classes, with class 1 thinned out to 2% of every split.

    The loss weighs both classes the same in total, as is usual for rare positives.
    """
    images, labels = load_digits(return_X_y=True)
    others = _three_ways(np.flatnonzero(labels != RARE), labels, 0.5, seed)
    rare = _three_ways(np.flatnonzero(labels == RARE), labels, len(others[0]) // OTHERS, seed)
    times = len(rare[1]) * OTHERS // len(others[1])
    splits = []
    for few, many, repeat in zip(rare, others, (1, times, times), strict=True):
        few, many = few[: len(many) * repeat // OTHERS], np.tile(many, repeat)
        splits.append(_tensors(images, labels == RARE, np.append(few, many)))
    return Data(splits[0], splits[1], splits[2], torch.tensor([1.0, OTHERS]), times)


def _three_ways(index: Any, labels: Any, train: float, seed: int) -> list[Any]:
    """Split an index, stratified: ``train`` of it (a share or a count), and the rest in halves."""
    chosen, rest = train_test_split(
        index, train_size=train, stratify=labels[index], random_state=seed
    )
    halves = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    return [chosen, *halves]


def _tensors(images: Any, labels: Any, index: Any) -> tuple[Tensor, Tensor]:
    x = torch.tensor(images[index] / 16, dtype=torch.float32)
    return x, torch.tensor(labels[index], dtype=torch.int64)


def score(name: str, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return one number per lane from ``[lanes, n, classes]``.

    Two classes: of class 1. More: the mean over the classes; accuracy: over the images.
    """
    lanes, _, classes = logits.shape
    targets = y.expand(lanes, -1)
    if name == "loss":
        losses = cross_entropy(logits.mT, targets, weight=weight, reduction="none")
        return losses.sum(1) / weight[y].sum()
    numbers: Tensor = _SCORES[name](
        logits.argmax(-1),
        targets,
        task="binary" if classes == 2 else "multiclass",
        num_classes=classes,
        average="micro" if name == "accuracy" else "macro",
        multidim_average="samplewise",
    )
    return numbers


@dataclass(frozen=True)
class Run:
    """What happened to the lanes.

    Attributes:
        watched: Name of the metric that each lane watches.
        first: Starting rates, ``[lanes]``.
        last: Final rates, ``[lanes]``.
        metric: What each lane watched, on validation data after each epoch, ``[epochs, lanes]``.
        scores: Of all lanes, by name of the metric, ``[epochs, lanes]`` each.
        rates: Rates during each epoch, ``[epochs, lanes]``.
        cuts: Whether the rate was cut after the epoch, bool, ``[epochs, lanes]``.
        logits: Answers to the test images after the last epoch, ``[lanes, images, classes]``.
    """

    watched: list[str]
    first: Tensor
    last: Tensor
    metric: Tensor
    scores: dict[str, Tensor]
    rates: Tensor
    cuts: Tensor
    logits: Tensor

    def ranking(self, metric: str) -> list[int]:
        """List the lanes that watch ``metric``, best last validation value first."""
        final = self.metric[-1] * (-1 if metric == "loss" else 1)
        order = final.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True).tolist()
        return [lane for lane in order if self.watched[lane] == metric]


class Ensemble:
    """Networks of one hidden layer, trained at once by AdamW, each with its own rate and lane.

    Starting rates spread from 1e-4 to 1, and all lanes see the same batches. Half of the lanes
    watch each metric of ``watch`` (or all the only one); the halves start from the same weights
    and rates.

    Raises:
        RuntimeError: the lanes cannot live on ``device``.
    """

    def __init__(self, data: Data, lanes: int, watch: list[str], seed: int, device: str) -> None:
        each = lanes // len(watch)
        self._watched = [name for name in watch for _ in range(each)]
        self._first = torch.logspace(-4, 0, each, dtype=torch.float64).repeat(len(watch))
        self.lanes = PlateauLanes(
            lanes,
            self._first,
            mode=["min" if name == "loss" else "max" for name in self._watched],
            patience=PATIENCE,
            factor=FACTOR,
            device=device,
        )
        self._data = data.to(self.lanes.device)
        self._generator = torch.Generator().manual_seed(seed)
        models = [_network(len(data.weight), self._generator) for _ in range(each)] * len(watch)
        self._model = models[0].to(self.lanes.device)
        self._params, _ = stack_module_state([model.to(self.lanes.device) for model in models])
        self._optimizer = torch.optim.AdamW(self._params.values(), lr=1.0)  # lanes hold the rates
        LaneLR(self._optimizer, self.lanes)
        self._gradients = vmap(grad(self._loss), in_dims=(0, None, None))
        self._answers = vmap(self._answer, in_dims=(0, None))
        self._names = sorted({"accuracy", "recall", *watch})
        mine = torch.tensor([[self._names.index(name) for name in self._watched]])
        self._mine = mine.to(self.lanes.device)
        self._history: list[tuple[Tensor, ...]] = []

    def _answer(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._model, params, (x,))
        return logits

    def _loss(self, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self._answer(params, x), y, weight=self._data.weight)

    @torch.no_grad()
    def epoch(self) -> None:
        """Train on every image once, validate, and step the lanes."""
        x, y = self._data.train
        # one: the tensors are so small that two would mostly wait; on two idle cores two gain
        # little, and beside another program they lose tenfold
        with torch_threads(1):
            order = torch.randperm(len(x), generator=self._generator).to(x.device)
            for batch in torch.split(order, BATCH):
                for name, gradient in self._gradients(self._params, x[batch], y[batch]).items():
                    self._params[name].grad = gradient
                self._optimizer.step()
            x, y = self._data.validation
            logits = self._answers(self._params, x)
            scores = [score(name, logits, y, self._data.weight) for name in self._names]
            metric = torch.stack(scores).gather(0, self._mine)[0]
            rates = self.lanes.lr.clone()
            self.lanes.step(metric)
        self._history.append((metric, rates, self.lanes.reduced, *scores))

    @torch.no_grad()
    def result(self) -> Run:
        """Answer the test images, which nothing was decided on; return all of it on the CPU."""
        history = [torch.stack(each).cpu() for each in zip(*self._history, strict=True)]
        metric, rates, cuts, *scores = history
        return Run(
            watched=self._watched,
            first=self._first,
            last=self.lanes.lr_master.cpu(),
            metric=metric,
            scores=dict(zip(self._names, scores, strict=True)),
            rates=rates,
            cuts=cuts,
            logits=self._answers(self._params, self._data.test[0]).cpu(),
        )


def _network(classes: int, generator: torch.Generator) -> nn.Module:
    """Make a network, initialised as ``nn.Linear`` does, with no use of the global generator."""
    model = nn.Sequential(
        nn.Linear(64, HIDDEN, device="meta"), nn.ReLU(), nn.Linear(HIDDEN, classes, device="meta")
    ).to_empty(device="cpu")
    for layer, inputs in ((model[0], 64), (model[2], HIDDEN)):
        for param in layer.parameters():
            nn.init.uniform_(param, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return model
