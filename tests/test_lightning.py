"""Plateaus in Lightning's fit, against torch's class in a loop.

Run as a script this file is a training that is killed with SIGKILL.
"""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes, ReduceLROnPlateau
from torch_plateau.integrations.lightning import PlateauCallback

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{each}")
    for each in (
        ".*does not have many workers",
        ".*is smaller than the logging interval",
        "`isinstance.treespec, LeafSpec.` is deprecated",
        "Checkpoint directory .* exists and is not empty",
        ".*tensorboardX.* has been removed",
        "ReduceLROnPlateau conditioned on metric val_loss which is not available",
        "GPU available but not used",
    )
]

THEIRS = lr_scheduler.ReduceLROnPlateau
SETTINGS = {"factor": 0.5, "patience": 1, "threshold": 0.05}
EPOCHS, KILLED_AFTER = 12, 5


def data():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=random)
    y = x.sum(1, keepdim=True) + torch.randn(64, 1, generator=random)
    return TensorDataset(x[:48], y[:48]), TensorDataset(x[48:], y[48:])


def loaders():
    return tuple(DataLoader(part, 16) for part in data())


def mse(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


class Model(LightningModule):
    """A line, whose plateau is returned, as Lightning's guide has it, or kept for the callback."""

    def __init__(self, policy=ReduceLROnPlateau, returned=False):
        super().__init__()
        torch.manual_seed(0)
        self.line, self.policy, self.returned = nn.Linear(4, 1), policy, returned
        self.rates = []

    def configure_optimizers(self):
        optimizer = SGD(self.parameters(), lr=0.2, momentum=0.9)
        self.plateau = self.policy(optimizer, **SETTINGS)
        if self.returned:
            return {
                "optimizer": optimizer,
                "lr_scheduler": {
                    "scheduler": self.plateau,
                    "monitor": "val_loss",
                    "strict": False,  # there may be none yet
                },
            }
        return optimizer

    def training_step(self, batch):
        return mse(self.line, batch)

    def validation_step(self, batch):
        self.log("val_loss", mse(self.line, batch))

    def on_train_epoch_start(self):
        self.rates.append(float(self.trainer.optimizers[0].param_groups[0]["lr"]))


class KilledAfter(Callback):
    """Ends the process in the midst of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


def trained(
    model,
    *callbacks,
    epochs=EPOCHS,
    path=None,
    resume=None,
    device="cpu",
    train=None,
    **options,
):
    """Fit; a folder gets a checkpoint after each validation."""
    saved = [ModelCheckpoint(path, save_last=True)] if path else []
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, *saved],
        accelerator="gpu" if device == "cuda" else "cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, "devices": 1, "enable_checkpointing": bool(saved), **options},
    )
    usual, val = loaders()
    trainer.fit(model, train or usual, val, ckpt_path=resume)
    return model


def alone(line, rate, momentum=0.0):
    """The rates and weights of a line that is trained by itself, with torch alone."""
    (train, val), rates = loaders(), []
    optimizer = SGD(line.parameters(), lr=rate, momentum=momentum)
    scheduler = THEIRS(optimizer, **SETTINGS)

    def loss(batch):
        return mse(line, [each.to(line.weight) for each in batch])

    for _ in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        for batch in train:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        with torch.no_grad():
            scheduler.step(torch.stack([loss(batch) for batch in val]).mean())
    return SimpleNamespace(rates=rates, line=line.cpu())


def plain_loop(device="cpu"):
    """The training of Model."""
    return alone(Model().line.to(device), 0.2, momentum=0.9)


def assert_same(one, other):
    assert one.rates == other.rates
    assert len(set(one.rates)) > 2  # there were cuts
    assert_equal(one.line, other.line)


def assert_equal(one, other):
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


BOTH = pytest.mark.parametrize("policy", [THEIRS, ReduceLROnPlateau], ids=["torch's", "ours"])


@BOTH
def test_a_fit_is_a_loop_with_torchs_class(policy, device):
    fitted = trained(Model(policy), PlateauCallback(), device=device)
    assert_same(fitted, plain_loop(device))  # Lightning leaves the model on the CPU


def test_a_fit_with_a_batched_scheduler_is_a_loop_with_torchs_class():
    model = Model(lambda optimizer, **each: BatchedReduceLROnPlateau([optimizer], **each))
    metric = PlateauCallback(metric=["val_loss"])
    assert_same(trained(model, metric), plain_loop())


def test_torchs_class_returned_loses_a_step_on_resume_and_in_the_callback_none(tmp_path):
    whole = plain_loop().rates

    def lost(returned, *callbacks):
        found = []
        for epochs in range(3, 7):
            folder = tmp_path / f"{returned}-{epochs}"
            trained(Model(THEIRS, returned), *callbacks, epochs=epochs, path=folder)
            rest = Model(THEIRS, returned)
            trained(rest, *callbacks, path=folder, resume=folder / "last.ckpt")
            found += [epochs] if rest.rates != whole[epochs:] else []
        return found

    assert lost(True)
    assert not lost(False, PlateauCallback())


@BOTH
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(policy, tmp_path):
    name = "theirs" if policy is THEIRS else "ours"
    done = subprocess.run([sys.executable, __file__, name, str(tmp_path)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    last = tmp_path / "last.ckpt"
    rest = trained(Model(policy), PlateauCallback(), path=tmp_path, resume=last)
    whole = trained(Model(policy), PlateauCallback())
    assert len(rest.rates) == EPOCHS - KILLED_AFTER
    rest.rates = whole.rates[:KILLED_AFTER] + rest.rates
    assert_same(rest, whole)
    assert rest.plateau.state_dict() == whole.plateau.state_dict()


def counting(policy):
    """A plateau that counts its steps."""

    class Counting(policy):
        steps = 0

        def step(self, *args):
            self.steps += 1
            super().step(*args)

    return Counting


@BOTH
def test_a_plateau_that_is_returned_steps_by_stale_metrics_and_in_the_callback_by_none(policy):
    def steps(returned, *callbacks):
        model = Model(counting(policy), returned)
        trained(model, *callbacks, epochs=12, check_val_every_n_epoch=3)
        return model.plateau.steps

    returned, kept = steps(True), steps(False, PlateauCallback())
    assert kept == 4  # validations
    assert returned == 10  # epochs from the first validation on


def test_the_sanity_check_and_validate_are_no_steps():
    model, callback = Model(counting(ReduceLROnPlateau)), PlateauCallback()
    trained(model, callback, epochs=2, num_sanity_val_steps=2)
    assert model.plateau.steps == 2
    model.trainer.validate(model, loaders()[1], verbose=False)
    assert model.plateau.steps == 2


class Manual(Model):
    """Two lines, each with an optimizer, and one plateau for both."""

    def __init__(self, returned=False):
        super().__init__()
        self.automatic_optimization = False
        self.returned = returned
        torch.manual_seed(1)
        self.lines = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))

    def configure_optimizers(self):
        both = [
            SGD(line.parameters(), lr=rate)
            for line, rate in zip(self.lines, [0.2, 0.4], strict=True)
        ]
        self.plateau = BatchedReduceLROnPlateau(both, **SETTINGS)
        if self.returned:
            return both, [self.plateau]
        return both

    def training_step(self, batch):
        for line, optimizer in zip(self.lines, self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(mse(line, batch))
            optimizer.step()

    def validation_step(self, batch):
        for i, line in enumerate(self.lines):
            self.log(f"loss_{i}", mse(line, batch))

    def on_train_epoch_start(self):
        self.rates.append([each["lr"] for o in self.trainer.optimizers for each in o.param_groups])


def test_a_scheduler_of_two_optimizers_that_lightning_refuses_steps_in_the_callback(tmp_path):
    with pytest.raises(Exception, match="optimizer that wasn't returned"):
        trained(Manual(returned=True))
    metrics = PlateauCallback("plateau", ["loss_0", "loss_1"])
    model = trained(Manual(), metrics)
    apart = [alone(line, rate) for line, rate in zip(Manual().lines, [0.2, 0.4], strict=True)]
    expected = [each.rates for each in apart]
    assert [list(each) for each in zip(*model.rates, strict=True)] == expected
    assert len({rate for each in expected for rate in each}) > 3
    assert_equal(model.lines, nn.ModuleList(each.line for each in apart))

    trained(Manual(), PlateauCallback("plateau", ["loss_0", "loss_1"]), epochs=5, path=tmp_path)
    rest = Manual()
    again = PlateauCallback("plateau", ["loss_0", "loss_1"])
    trained(rest, again, path=tmp_path, resume=tmp_path / "last.ckpt")
    assert rest.rates == model.rates[5:]
    assert_equal(rest.lines, model.lines)


class Twice(Manual):
    """The same with a plateau for each line."""

    def configure_optimizers(self):
        both = super().configure_optimizers()
        self.first, self.second = (ReduceLROnPlateau(each, **SETTINGS) for each in both)
        return both


def test_each_plateau_of_a_module_has_a_callback_and_a_state_of_its_own(tmp_path):
    def callbacks():
        return [PlateauCallback("first", "loss_0"), PlateauCallback("second", "loss_1")]

    whole = trained(Manual(), PlateauCallback("plateau", ["loss_0", "loss_1"]))
    trained(Twice(), *callbacks(), epochs=5, path=tmp_path)
    rest = trained(Twice(), *callbacks(), path=tmp_path, resume=tmp_path / "last.ckpt")
    assert rest.rates == whole.rates[5:]
    assert_equal(rest.lines, whole.lines)


class Stacked(LightningModule):
    """Three lines in one parameter, with a rate each, whose losses are a vector."""

    start = (0.4, 0.2, 0.1)

    def __init__(self, device="cpu"):
        super().__init__()
        random = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3, 4, 1, generator=random, dtype=torch.float64))
        self.lanes = PlateauLanes(3, self.start, device=device, **SETTINGS)
        self.rates = []

    def configure_optimizers(self):
        optimizer = SGD([self.weight], lr=1.0)
        LaneLR(optimizer, self.lanes)
        return optimizer

    def losses_of(self, batch):
        return (batch[0].double() @ self.weight - batch[1].double()).square().mean((1, 2))

    def training_step(self, batch):
        return self.losses_of(batch).sum()

    def validation_step(self, batch):
        self.losses = self.losses_of(batch)

    def on_train_epoch_start(self):
        self.rates.append(self.lanes.lr_master.tolist())


def losses(_, module):
    return module.losses


def stacked(device="cpu", **options):
    return trained(Stacked(device), PlateauCallback("lanes", losses), device=device, **options)


def test_a_vector_of_metrics_cuts_each_lane_as_in_a_run_of_its_own(device, tmp_path):
    whole = stacked(device)
    for i, rate in enumerate(Stacked.start):
        line = nn.Linear(4, 1, bias=False).double().to(device)
        with torch.no_grad():
            line.weight.copy_(Stacked().weight[i].T)
        single = alone(line, rate)
        assert [each[i] for each in whole.rates] == single.rates
        torch.testing.assert_close(whole.weight[i].T, single.line.weight, rtol=1e-9, atol=1e-12)

    # the lanes of a module are in its checkpoint
    stacked(device, epochs=5, path=tmp_path)
    rest = stacked(device, path=tmp_path, resume=tmp_path / "last.ckpt")
    assert rest.rates == whole.rates[5:]
    assert torch.equal(rest.weight, whole.weight)


def test_lightning_logs_no_vector_and_the_callback_takes_one_or_its_numbers():
    class Logging(Stacked):
        def validation_step(self, batch):
            self.log("losses", self.losses_of(batch))

    with pytest.raises(ValueError, match=r"self.log\(losses.*single element"):
        trained(Logging(), PlateauCallback("lanes", "losses"))

    class Numbers(Stacked):
        def validation_step(self, batch):
            for i, loss in enumerate(self.losses_of(batch)):
                self.log(f"loss_{i}", loss)

    names = [f"loss_{i}" for i in range(3)]
    assert trained(Numbers(), PlateauCallback("lanes", names)).rates == stacked().rates


@pytest.mark.parametrize(("n", "names"), [(3, ["0", "1", "2"]), (20, ["min", "median", "max"])])
def test_rates_are_logged_each_of_few_and_in_short_of_many(n, names, tmp_path):
    class Many(Model):
        def configure_optimizers(self):
            self.lanes = PlateauLanes(n, [0.1 * (i + 1) for i in range(n)])
            return super().configure_optimizers()

    rows = []

    class Log(CSVLogger):
        def log_metrics(self, metrics, step=None):
            rows.append((step, metrics))

    callback = PlateauCallback("lanes", lambda *_: torch.ones(n), log=True)
    trained(Many(), callback, epochs=2, logger=Log(tmp_path))
    mine = [row for row in rows if "plateau/lr/" + names[0] in row[1]]
    assert [step for step, _ in mine] == [3, 6]
    assert set(mine[0][1]) == {f"plateau/lr/{name}" for name in names}
    assert mine[0][1][f"plateau/lr/{names[2]}"] == pytest.approx(0.1 * n)


@BOTH
def test_a_plateau_that_is_kept_and_returned_is_refused_before_it_steps_twice(policy):
    model = Model(counting(policy), returned=True)
    with pytest.raises(ValueError, match=r"scheduler: expected .* keeps and does not return"):
        trained(model, PlateauCallback())
    assert model.plateau.steps == 0


def test_a_fit_without_validation_is_warned_of():
    model = Model(counting(ReduceLROnPlateau))
    with pytest.warns(UserWarning, match="fit has no validation, so the rates stay"):
        trained(model, PlateauCallback(), epochs=1, limit_val_batches=0)
    assert model.plateau.steps == 0


def test_a_scheduler_in_place_of_its_name_is_refused():
    plateau = ReduceLROnPlateau(SGD([torch.zeros(1)], lr=0.1))
    for wrong, kind in ((plateau, "ReduceLROnPlateau"), (None, "None")):
        with pytest.raises(TypeError, match=f"scheduler: expected the name of .*, got {kind}"):
            PlateauCallback(wrong)


def test_what_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match="scheduler: expected an attribute of Model, which"):
        trained(Model(), PlateauCallback("scheduler"))
    with pytest.raises(TypeError, match=r"scheduler: expected a ReduceLROnPlateau.*got Linear"):
        trained(Model(), PlateauCallback("line"))
    with pytest.raises(ValueError, match=r"metric: expected one of \['val_loss'\], .* got 'loss'"):
        trained(Model(), PlateauCallback(metric="loss"))


def test_the_example_cuts_the_rate(capsys):
    example = Path(__file__).parent.parent / "examples" / "lightning_plateau.py"
    runpy.run_path(str(example), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    rates = [float(line.split()[-1]) for line in lines]
    assert len(rates) == 12
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


if __name__ == "__main__":
    kind = THEIRS if sys.argv[1] == "theirs" else ReduceLROnPlateau
    trained(Model(kind), PlateauCallback(), KilledAfter(KILLED_AFTER), path=sys.argv[2])
