"""transformers' Trainer with torch's plateau, with ours and with a vector of metrics."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau
from transformers import Trainer, TrainerCallback, TrainingArguments

from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau
from torch_plateau.integrations.transformers import PlateauTrainerMixin

EPOCHS = 8
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Model(torch.nn.Module):
    """Two models side by side that share nothing: a lane each."""

    def __init__(self, members=(0, 1)):
        super().__init__()
        for i in members:
            generator = torch.Generator().manual_seed(i)
            self.register_parameter(
                f"w{i}", torch.nn.Parameter(torch.randn(3, generator=generator))
            )

    def forward(self, x, labels):
        errors = torch.stack([(x @ w - labels) ** 2 for w in self.parameters()], 1)
        return {"loss": errors.mean(0).sum(), "logits": errors}


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    y = x.sum(1) + torch.randn(n, generator=generator)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


class OursTrainer(PlateauTrainerMixin, Trainer):
    pass


class VectorTrainer(PlateauTrainerMixin, Trainer):
    def plateau_metrics(self, metrics):
        return [metrics[f"eval_{i}"] for i in range(2)]


def each_error(prediction):
    return {str(i): float(e) for i, e in enumerate(prediction.predictions.mean(0))}


class Rates(TrainerCallback):
    def __init__(self, killed_at=None):
        self.rates, self.killed_at = [], killed_at

    def on_epoch_begin(self, *_, optimizer, **__):
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def on_save(self, _, state, *__, **___):
        if state.epoch == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def ours_for(kind, **options):
    options = {"factor": 0.5, "patience": 0, "threshold": 0.05} | options
    return lambda optimizer: kind(optimizer, **options)


def run(folder, trainer, kind, members=(0, 1), resume=False, killed_at=None, **arguments):
    """Rates at the start of each epoch, and the weights at the end."""
    torch.set_num_threads(1)
    arguments = {"metric_for_best_model": "loss", "save_strategy": "epoch"} | arguments
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=8,
        eval_strategy="epoch",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0,
        seed=3,
        dataloader_pin_memory=False,
        **arguments,
    )
    model = Model(members)
    optimizer = torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.2, momentum=0.5)
    rates = Rates(killed_at)
    made = trainer(
        model=model,
        args=args,
        train_dataset=data(32, 0),
        eval_dataset=data(16, 1),
        compute_metrics=each_error,
        optimizers=(optimizer, kind(optimizer)),
        callbacks=[rates],
    )
    made.train(resume_from_checkpoint=resume)
    return rates.rates, [p.detach().clone() for p in model.parameters()], made


TORCH, OURS, BATCHED = map(ours_for, (TorchPlateau, ReduceLROnPlateau, BatchedReduceLROnPlateau))
RUNS = {"drop-in": (OursTrainer, OURS), "batched": (VectorTrainer, BATCHED)}


def assert_same(one, other):
    assert one[0] == other[0]
    assert all(map(torch.equal, one[1], other[1]))


def test_rates_and_weights_are_those_of_torchs_class(tmp_path):
    plain = run(tmp_path, Trainer, TORCH, save_strategy="no")
    for trainer, kind in ((Trainer, OURS), (OursTrainer, OURS), (OursTrainer, TORCH)):
        assert_same(plain, run(tmp_path, trainer, kind, save_strategy="no"))
    assert len({rate for rate, _ in plain[0]}) > 2


def test_lanes_of_a_vector_have_the_rates_of_separate_runs(tmp_path):
    rates, weights, made = run(tmp_path, VectorTrainer, BATCHED, save_strategy="no")
    for i in range(2):
        apart = run(tmp_path, OursTrainer, OURS, members=(i,), save_strategy="no")
        assert [rate[i] for rate in rates] == [rate for (rate,) in apart[0]]
        assert torch.equal(weights[i], apart[1][0])
    assert made.lr_scheduler.last_epoch == EPOCHS


def killed(name, folder):
    run(folder, *RUNS[name], killed_at=3)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_and_resumed_is_the_uninterrupted_one(name, tmp_path):
    code = f"import test_transformers as t; t.killed({name!r}, {str(tmp_path)!r})"
    process = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__))
    assert process.returncode == -signal.SIGKILL
    rates, weights, _ = run(tmp_path, *RUNS[name], resume=True)
    whole = run(tmp_path / "whole", *RUNS[name], save_strategy="no")
    assert_same((whole[0][3:], whole[1]), (rates, weights))


def test_the_trainer_breaks_without_a_metric_name_and_the_mixin_takes_the_loss(tmp_path):
    options = {"metric_for_best_model": None, "save_strategy": "no"}
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'startswith'"):
        run(tmp_path, Trainer, TORCH, **options)
    plain = run(tmp_path, Trainer, TORCH, save_strategy="no")
    for kind in (TORCH, OURS):
        assert_same(plain, run(tmp_path, OursTrainer, kind, **options))


def test_the_trainer_breaks_with_a_vector(tmp_path):
    with pytest.raises((TypeError, ValueError), match="metrics"):
        run(tmp_path, Trainer, BATCHED, save_strategy="no")


@pytest.mark.parametrize("kind", [TorchPlateau, ReduceLROnPlateau])
def test_a_mode_against_greater_is_better_is_ignored_by_the_trainer_and_refused(kind, tmp_path):
    options = {"greater_is_better": True, "save_strategy": "no"}
    run(tmp_path, Trainer, ours_for(kind), **options)
    with pytest.raises(ValueError, match="mode: expected 'max', as greater_is_better is True"):
        run(tmp_path, OursTrainer, ours_for(kind), **options)
    run(tmp_path, OursTrainer, ours_for(kind, mode="max"), **options)


def test_lanes_may_have_modes_of_their_own_beside_that_of_greater_is_better(tmp_path):
    kind = ours_for(BatchedReduceLROnPlateau, mode=["min", "max"])
    _, _, made = run(tmp_path, VectorTrainer, kind, save_strategy="no")
    assert made.lr_scheduler.last_epoch == EPOCHS
    kind = ours_for(BatchedReduceLROnPlateau, mode=["max", "max"])
    with pytest.raises(ValueError, match="mode: expected 'min'"):
        run(tmp_path, VectorTrainer, kind, save_strategy="no")


def test_an_evaluation_without_the_named_metric_is_refused_with_those_there_are(tmp_path):
    options = {"metric_for_best_model": "f1", "greater_is_better": False, "save_strategy": "no"}
    with pytest.raises(KeyError, match=r"metric_for_best_model: expected one of .*got 'eval_f1'"):
        run(tmp_path, OursTrainer, OURS, **options)


def test_the_example_steps_once_for_each_evaluation(capsys):
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / "transformers_plateau.py"))
    assert "12 evaluations, rates [" in capsys.readouterr().out
