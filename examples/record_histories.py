"""Training histories of small networks on scikit-learn's digits, written as CSV: one file a scene.

::

    python examples/record_histories.py --scene clean --out histories

Five scenes: one in which the plateau does its work, and four in which something is wrong with the
training or with what the scheduler is told.

* clean: ordinary training; the rate is cut when the validation loss stops falling.
* noisy: validation on a few fresh images each epoch and hardly any patience.
* overfitting: a few training images, a fifth of them with false labels, learned by heart.
* wrong_mode: the scheduler watches accuracy as if lower were better.
* leak: the validation images are among those that the network is trained on.

A row is an epoch: ``seed,epoch,lr,train_loss,val_loss,val_accuracy``. Epochs count from 1; ``lr``
is the rate that the epoch was trained with, so a cut after epoch 7 shows in row 8. Both losses are
taken after the epoch, in the same way. Each seed has its own split, first weights and batches, and
all of them train at once: stacked parameters, a lane for each. `inspect` is held to these
files: they are in tests/data/histories, with the seeds 0 to 4.

Takes some seconds a scene. Needs scikit-learn and torchmetrics: pip install 'torch-plateau[demo]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from torch_plateau import LaneLR, PlateauLanes

try:
    from torch_plateau.cli.demo.training import BATCH, _network, all_digits
except ModuleNotFoundError as missing:
    cure = "this example needs the demo's extra: pip install 'torch-plateau[demo]'"
    raise SystemExit(f"record_histories: no module {missing.name!r}; {cure}") from None

COLUMNS = ("seed", "epoch", "lr", "train_loss", "val_loss", "val_accuracy")


class Scene(NamedTuple):
    """What is trained, and what the scheduler is told.

    ``wrong`` is the share of training labels that are false. ``fresh`` is how many of the
    validation images are drawn anew for each epoch; 0 takes all of them. ``pixel_noise`` is added
    to the images of each batch, against overfitting.
    """

    watch: str
    settings: dict[str, Any]
    lr: float = 0.01
    images: int = 1078
    wrong: float = 0.0
    pixel_noise: float = 0.0
    fresh: int = 0
    leaks: bool = False


PLATEAU = {"mode": "min", "patience": 4, "factor": 0.5}
SCENES = {
    "clean": Scene("val_loss", PLATEAU, lr=0.02, pixel_noise=0.3),
    "noisy": Scene("val_loss", {**PLATEAU, "patience": 1}, lr=0.001, pixel_noise=0.3, fresh=30),
    "overfitting": Scene("val_loss", {**PLATEAU, "patience": 10}, lr=0.02, images=100, wrong=0.2),
    "wrong_mode": Scene("val_accuracy", PLATEAU, lr=0.001, pixel_noise=0.3),
    "leak": Scene("val_loss", PLATEAU, leaks=True),
}


def _stacked(splits: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    x, y = zip(*splits, strict=True)
    return torch.stack(x), torch.stack(y)


@torch.no_grad()
def record(scene: Scene, seeds: Sequence[int], epochs: int) -> dict[str, Tensor]:
    """Train a network for each seed and return the columns, ``[epochs, seeds]`` each."""
    data = [all_digits(seed) for seed in seeds]
    x, y = _stacked(
        [(each.train[0][: scene.images], each.train[1][: scene.images]) for each in data]
    )
    val = _stacked([each.validation for each in data])
    if scene.leaks:
        val = x[:, : val[0].shape[1]], y[:, : val[1].shape[1]]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    networks = [_network(10, generator) for generator in generators]
    false = torch.stack([torch.rand(y.shape[1], generator=each) for each in generators])
    y = torch.where(false < scene.wrong, (y + 1) % 10, y)
    model, (params, _) = networks[0], stack_module_state(networks)
    lanes = PlateauLanes(len(seeds), scene.lr, **scene.settings)
    optimizer = torch.optim.Adam(params.values(), lr=1.0)  # the lanes hold the rates
    LaneLR(optimizer, lanes)

    def loss_of(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, params, (x,)), y)

    def accuracy_of(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return (functional_call(model, params, (x,)).argmax(-1) == y).float().mean()

    gradients, losses, accuracies = vmap(grad(loss_of)), vmap(loss_of), vmap(accuracy_of)
    of_seed = torch.arange(len(seeds))[:, None]
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(epochs):
        order = torch.stack([torch.randperm(x.shape[1], generator=each) for each in generators])
        for batch in order.split(BATCH, dim=1):
            images = x[of_seed, batch]
            if scene.pixel_noise:
                shape = images.shape[1:]
                noise = [torch.randn(shape, generator=generator) for generator in generators]
                images = images + scene.pixel_noise * torch.stack(noise)
            for name, gradient in gradients(params, images, y[of_seed, batch]).items():
                params[name].grad = gradient
            optimizer.step()
        seen = val
        if scene.fresh:
            draw = [torch.randperm(val[0].shape[1], generator=each) for each in generators]
            drawn = torch.stack(draw)[:, : scene.fresh]
            seen = val[0][of_seed, drawn], val[1][of_seed, drawn]
        row = {
            "lr": lanes.lr.clone(),
            "train_loss": losses(params, x, y),
            "val_loss": losses(params, *seen),
            "val_accuracy": accuracies(params, *seen),
        }
        lanes.step(row[scene.watch])
        rows.append(tuple(row.values()))
    return dict(zip(COLUMNS[2:], map(torch.stack, zip(*rows, strict=True)), strict=True))


def write(history: dict[str, Tensor], seeds: Sequence[int], path: Path) -> None:
    """Write the columns as CSV, seed after seed, with six digits."""
    lines = [",".join(COLUMNS)]
    for lane, seed in enumerate(seeds):
        values = torch.stack([column[:, lane] for column in history.values()], dim=1)
        for epoch, row in enumerate(values.tolist(), start=1):
            lines.append(",".join([str(seed), str(epoch), *(f"{value:.6g}" for value in row)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Record a scene, or all of them."""
    parser = argparse.ArgumentParser(description="Record training histories as CSV.")
    parser.add_argument("--scene", choices=[*SCENES, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("histories"), help="a folder")
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.epochs < 1:
        parser.error("expected at least 1 seed and 1 epoch")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in SCENES if args.scene == "all" else [args.scene]:
        seeds = range(args.seeds)
        history = record(SCENES[name], seeds, args.epochs)
        write(history, seeds, args.out / f"{name}.csv")
        print(f"{args.out / name}.csv: {args.seeds} seeds of {args.epochs} epochs")


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
