"""LoRA adapters of one frozen transformer, trained in one batch, each until it is done.

Eight adapters learn an artificial language each; six slots hold those in training. One AdamW has a
param group for each, and one scheduler a lane for each slot: its own rate, plateau and stop. Epochs
differ in length, so at a validation some lanes have a metric and the others sit out (``active=``).
Who has stopped leaves the batch, and the next in the queue takes the slot: for a group that was
replaced the lane begins anew. The entropy of a language says how low its loss could be.

Then each is trained by itself, as one would without lanes: an AdamW, torch's ``ReduceLROnPlateau``
and a few lines that stop. Losses must agree to rounding, cuts and stops exactly. It is all in
float64: a loss that just misses the threshold in one run might, rounded, just pass it in another.
The batch saves time where passes are small, as here; with passes large enough to fill a processor
(on two cores, hidden size 128 and 16 rows) the adapters one by one are as fast or faster.

Needs transformers, peft and matplotlib: pip install transformers peft matplotlib. Nothing is
downloaded: the transformer has random weights.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from torch_plateau import BatchedReduceLROnPlateau

SYMBOLS, LENGTH, BATCH, VALIDATION, FACTOR = 16, 16, 8, 64, 0.3
OFFSET = {"textcoords": "offset points"}
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


class Task(NamedTuple):
    """A language, in which some symbols follow more often than others, and how to learn it."""

    name: str
    batches: int  # in an epoch
    contrast: float
    lr: float
    patience: int
    stop_patience: int


TASKS = [
    Task("A", 8, 1.0, 0.02, 2, 7),
    Task("B", 12, 2.0, 0.01, 1, 5),
    Task("C", 6, 3.0, 0.005, 2, 6),
    Task("D", 14, 3.0, 0.005, 3, 9),
    Task("E", 16, 1.0, 0.01, 2, 6),
    Task("F", 20, 2.0, 0.02, 1, 4),
    Task("G", 10, 2.0, 0.01, 2, 6),
    Task("H", 12, 2.5, 0.03, 1, 5),
]


def transformer() -> PeftModel:
    """Return a frozen transformer with random weights, always the same."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(vocab_size=SYMBOLS, num_attention_heads=4, initializer_range=0.2, **SIZE)
    with warnings.catch_warnings():  # peft reads an attribute by a name that is going
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(GPTNeoXForCausalLM(config).double(), LORA)


class Adapter:
    """An adapter of a model, its language, and what became of it, epoch by epoch."""

    def __init__(self, model: PeftModel, task: Task, slot: int = 0, began: int = 0) -> None:
        torch.manual_seed(ord(task.name))  # the same weights and texts in whatever company
        model.add_adapter(task.name, LORA)
        params = [each for name, each in model.named_parameters() if f".{task.name}." in name]
        self.group = {"params": params, "lr": task.lr, "slot": slot}
        self.task, self.slot, self.began = task, slot, began
        odds = (task.contrast * torch.randn(SYMBOLS, SYMBOLS, dtype=torch.float64)).softmax(1)
        symbols = [torch.randint(SYMBOLS, (VALIDATION + task.batches * BATCH,))]
        for _ in range(LENGTH):
            symbols.append(torch.multinomial(odds[symbols[-1]], 1).flatten())
        self.validation, self.texts = torch.stack(symbols, 1).tensor_split([VALIDATION])
        self.entropy = -odds[self.validation[:, :-1], self.validation[:, 1:]].log().mean().item()
        self.shuffle, self.left = torch.Generator().manual_seed(0), []
        self.losses, self.rates, self.cuts, self.stop = [], [], [], None

    def batch(self) -> Tensor:
        """Return the next batch; where none is ``left`` an epoch has ended."""
        if not self.left:
            self.left = list(torch.randperm(len(self.texts), generator=self.shuffle).split(BATCH))
        return self.texts[self.left.pop()]

    def note(self, loss: float, was_cut: bool, rate: float) -> None:
        """Note an epoch that has ended, and the rate after it."""
        self.losses.append(loss)
        self.rates.append(rate)
        self.cuts += [len(self.losses)] * was_cut

    @property
    def steps(self) -> list[int]:
        """Steps of the optimizer after which epochs ended; each step took a batch."""
        return [self.began + (i + 1) * self.task.batches for i in range(len(self.losses))]


def loss_of(model: PeftModel, texts: Tensor) -> Tensor:
    """Return the loss of each text."""
    logits = model(texts[:, :-1]).logits
    return cross_entropy(logits.transpose(1, 2), texts[:, 1:], reduction="none").mean(1)


def losses_of(model: PeftModel, texts: dict[Adapter, Tensor]) -> Tensor:
    """Return the loss of each adapter on its texts, equally many, in one pass for all.

    peft mixes batches for inference; its gradients then take longer than a pass for each adapter.
    """
    names = [adapter.task.name for adapter in texts]

    def forward(layer: Linear, x: Tensor) -> Tensor:
        rows = zip(names, x.chunk(len(names)), strict=True)
        added = [layer.lora_B[n](layer.lora_A[n](part)) * layer.scaling[n] for n, part in rows]
        return layer.base_layer(x) + torch.cat(added)

    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.forward = partial(forward, layer)
    return loss_of(model, torch.cat([*texts.values()])).view(len(names), -1).mean(1)


def settings_of(tasks: Sequence[Task]) -> dict[str, list[int]]:
    """Return the settings of their lanes."""
    names = ("patience", "stop_patience")
    return {name: [getattr(task, name) for task in tasks] for name in names}


def train_together(tasks: Sequence[Task], slots: int) -> list[Adapter]:
    """Train all adapters, as many at once as there are slots."""
    model, waiting, step = transformer(), list(tasks[slots:]), 0
    adapters = [Adapter(model, task, slot) for slot, task in enumerate(tasks[:slots])]
    optimizer = AdamW([each.group for each in adapters])
    scheduler = BatchedReduceLROnPlateau(
        optimizer, lane_of=lambda group: group["slot"], factor=FACTOR, **settings_of(tasks[:slots])
    )
    while training := [each for each in adapters if each.stop is None]:
        model.base_model.set_adapter([each.task.name for each in training])  # these need gradients
        losses_of(model, {each: each.batch() for each in training}).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if not (ended := [each for each in training if not each.left]):
            continue
        metrics, active = (
            torch.zeros(slots, dtype=torch.float64),
            torch.zeros(slots, dtype=torch.bool),
        )
        at = [each.slot for each in ended]
        active[at] = True
        with torch.no_grad():
            metrics[at] = losses_of(model, {each: each.validation for each in ended})
        scheduler.step(metrics, active=active)
        reduced, stops = scheduler.lanes.reduced.tolist(), scheduler.lanes.stop_reasons()
        rates = {group["slot"]: group["lr"] for group in optimizer.param_groups}
        for each in ended:
            each.note(metrics[each.slot].item(), reduced[each.slot], rates[each.slot])
            each.stop = stops[each.slot]
            if each.stop and waiting:
                adapters.append(Adapter(model, waiting.pop(0), each.slot, step))
                replace(optimizer, adapters[-1].group)
                scheduler.lanes.set_lanes([each.slot], **settings_of([adapters[-1].task]))
    return adapters


def replace(optimizer: AdamW, new: dict[str, Any]) -> None:
    """Put a param group in the place of the one with its slot, of which nothing stays."""
    (old,) = (group for group in optimizer.param_groups if group["slot"] == new["slot"])
    optimizer.param_groups[:] = [each for each in optimizer.param_groups if each is not old]
    for param in old["params"]:
        del optimizer.state[param]
    optimizer.add_param_group(new)


def train_alone(model: PeftModel, task: Task) -> Adapter:
    """Train one adapter by itself, with torch's scheduler."""
    adapter = Adapter(model, task)
    model.set_adapter(task.name)
    optimizer = AdamW([adapter.group])
    scheduler = ReduceLROnPlateau(optimizer, factor=FACTOR, patience=task.patience)
    lowest, waited = torch.inf, 0
    while waited < task.stop_patience:
        for _ in range(task.batches):
            loss_of(model, adapter.batch()).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            loss = loss_of(model, adapter.validation).mean().item()
        before = scheduler.get_last_lr()
        scheduler.step(loss)
        adapter.note(loss, scheduler.get_last_lr() != before, *scheduler.get_last_lr())
        lowest, waited = (loss, 0) if loss < lowest else (lowest, waited + 1)
    adapter.stop = "patience"
    return adapter


def draw(adapters: Sequence[Adapter], out: Path) -> None:
    """Draw the losses, and below them who was in which slot; both with cuts and stops."""
    figure = Figure((10, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[5, 3])
    for i, each in enumerate(adapters):
        above = [loss - each.entropy for loss in each.losses]
        for axes, ys in zip(panels, (above, [each.slot + 1] * len(above)), strict=True):
            color = {"color": f"C{i}", "mec": "black", "mew": 0.6}
            cuts = [epoch - 1 for epoch in each.cuts]
            axes.plot(each.steps[-1], ys[-1], "o", ms=12, label="stopped" * (i == 0), **color)
            xs = [each.steps[cut] for cut in cuts]
            axes.plot(xs, [ys[c] for c in cuts], "wv", label="cut" * (i == 0), mec="black")
        panels[0].plot(each.steps, above, f"C{i}", zorder=1)
        panels[0].annotate(each.task.name, (each.steps[0], above[0]), (-12, 0), **OFFSET)
        panels[1].plot(
            [each.began, each.steps[-1]], ys[:1] * 2, f"C{i}", lw=10, alpha=0.4, zorder=1
        )
        panels[1].annotate(each.task.name, (each.began, ys[0]), (9, -4), **OFFSET)
    panels[0].set(yscale="log", ylabel="validation loss minus entropy of the language")
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_formatter("{x:g}")
    panels[0].legend()
    panels[1].set(xlabel="step of the optimizer", ylabel="slot")
    panels[1].margins(y=0.15)
    panels[1].invert_yaxis()
    figure.savefig(out)


def main(argv: Sequence[str] | None = None) -> tuple[list[Adapter], list[Adapter]]:
    """Train both ways, print a table and draw the picture; return the adapters of both."""
    parser = argparse.ArgumentParser(description="LoRA adapters, each with a plateau and a stop.")
    parser.add_argument("--out", type=Path, default=Path("lora_adapters.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="four adapters in three slots")
    args = parser.parse_args(argv)
    tasks, slots = ([*TASKS[:3], TASKS[6]], 3) if args.quick else (TASKS, 6)
    start = time.process_time()
    together = train_together(tasks, slots)
    middle, model = time.process_time(), transformer()
    alone = [train_alone(model, task) for task in tasks]
    end = time.process_time()
    print(f"adapter  slot  {'steps':10}{'epochs, cut after':20}best loss  entropy  alone")
    for ours, theirs in zip(together, alone, strict=True):
        apart = max(abs(a / b - 1) for a, b in zip(ours.losses, theirs.losses, strict=False))
        is_same = (ours.cuts, len(ours.losses)) == (theirs.cuts, len(theirs.losses))
        steps, cuts = f"{ours.began}-{ours.steps[-1]}", " ".join(map(str, ours.cuts))
        print(
            f"{ours.task.name:9}{ours.slot + 1:<6}{steps:10}{f'{len(ours.losses)}, {cuts}':20}"
            f"{min(ours.losses):<11.3f}{ours.entropy:<9.3f}{'the same' if is_same else 'OTHERS'}, "
            f"losses within {apart:.1g}"
        )
    print(f"CPU time: together {middle - start:.1f} s, one after the other {end - middle:.1f} s")
    draw(together, args.out)
    print(f"Picture: {args.out}")
    return together, alone


if __name__ == "__main__":
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    main()
