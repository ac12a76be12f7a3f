"""Lightning beyond one plain fit: two processes, its command line, a search for a rate, averages.

Run as a script this file is two processes.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import (
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.cli import ReduceLROnPlateau as Theirs
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.multiprocessing import start_processes
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR

from test_lightning import (
    BOTH,
    EPOCHS,
    SETTINGS,
    THEIRS,
    Model,
    Stacked,
    assert_equal,
    assert_same,
    loaders,
    losses,
    mse,
    plain_loop,
    pytestmark,
    stacked,
    trained,
)
from torch_plateau import LaneLR, LaneStack, ReduceLROnPlateau
from torch_plateau.integrations.lightning import PlateauCallback
from torch_plateau.integrations.lightning_cli import MonitoredPlateau
from torch_plateau.integrations.logging import LaneLog

__all__ = ["pytestmark"]  # the warnings of Lightning's own

# -- two processes --------------------------------------------------------------------------------


class Shared(Model):
    """One of two processes, whose validations are their own or, where they are synced, of both."""

    def __init__(self, policy, returned, synced):
        super().__init__(policy, returned)
        self.synced = synced

    def validation_step(self, batch):
        self.log("val_loss", mse(self.line, batch), sync_dist=self.synced)


CASES = {
    "theirs, returned, apart": (THEIRS, True, False),
    "ours, kept, apart": (ReduceLROnPlateau, False, False),
    "theirs, kept, synced": (THEIRS, False, True),
    "ours, kept, synced": (ReduceLROnPlateau, False, True),
}


def in_a_process(rank, folder):
    """What one of two processes does: write the rates and weights of each case."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    found = {}
    for name, (policy, returned, synced) in CASES.items():
        callbacks = [] if returned else [PlateauCallback()]
        model = Shared(policy, returned, synced)
        trained(model, *callbacks, strategy="ddp", devices=2)
        found[name] = model.rates, [each.tolist() for each in model.line.parameters()]
    Path(folder, str(rank)).write_text(json.dumps(found))


def in_two_processes(folder):
    """Run this file, which becomes two processes of gloo; return what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    subprocess.run(command, env=shared, check=True, timeout=120)
    return [json.loads((folder / rank).read_text()) for rank in "01"]


def test_two_processes_part_by_metrics_of_their_own_and_agree_by_one_that_is_synced(tmp_path):
    first, second = in_two_processes(tmp_path)
    for name, (_, _, synced) in CASES.items():
        (rates, weights), (other_rates, other_weights) = first[name], second[name]
        assert len(set(rates)) > 2  # there were cuts
        assert (rates == other_rates) is synced, name
        assert (weights == other_weights) is synced, name
    assert first["ours, kept, synced"] == first["theirs, kept, synced"]


# -- checkpoints of steps -------------------------------------------------------------------------


class Stepping(Model):
    """Remembers the rate of each of its steps, three to an epoch."""

    def on_train_batch_start(self, *_):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_start(self):
        pass


class Resumable:
    """A loader that goes on where it was, as Lightning asks for in the midst of an epoch."""

    def __init__(self):
        self.batches, self.done = list(loaders()[0]), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for i in range(self.done % len(self), len(self)):
            self.done = i + 1
            yield self.batches[i]

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state_dict):
        self.done = state_dict["done"]


@BOTH
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.parametrize("late", [False, True])
def test_a_run_goes_on_from_the_checkpoint_of_a_step(policy, late, tmp_path):
    def fitted(*callbacks, **options):
        callbacks = PlateauCallback(), *callbacks
        return trained(Stepping(policy), *callbacks, train=Resumable(), **options)

    settings = {"monitor": "val_loss", "save_on_train_epoch_end": False} if late else {}
    each = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1, **settings)
    whole, lost = fitted(each, enable_checkpointing=True), []
    for step in (13, 14, 20, 21, 25):
        rest = fitted(resume=tmp_path / f"step={step}.ckpt")
        if rest.rates == whole.rates[step:]:
            assert_equal(rest.line, whole.line)
        else:
            lost.append(step)
    # the last of an epoch is saved before its validation, for which Lightning does not make up,
    # if it is not told to wait for that
    assert lost == ([] if late else [21])


# -- lanes ----------------------------------------------------------------------------------------


class ByHand(Stacked):
    """Steps of a LaneStack, in manual optimisation."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return SGD([self.weight], lr=1.0)

    def on_train_start(self):
        optimizer = self.optimizers()  # Lightning's, around it
        LaneLR(optimizer, self.lanes)
        self.stack = LaneStack(self.lanes, optimizer, [self.weight])

    def training_step(self, batch):
        self.weight.grad = None
        self.manual_backward(self.losses_of(batch).sum())
        self.stack.step()


def test_steps_of_a_stack_with_lightnings_optimizer_are_steps_of_the_trainer():
    by_hand, whole = ByHand(), stacked()
    trained(by_hand, PlateauCallback("lanes", losses))
    assert by_hand.rates == whole.rates
    assert torch.equal(by_hand.weight, whole.weight)
    assert by_hand.trainer.global_step == 3 * EPOCHS


class Warmed(Stacked):
    """All lanes, or one of them by itself, under what scales their rates in a fit."""

    def __init__(self, lane=None, warm_up=False):
        super().__init__()
        self.lane, self.warm_up, self.lr, self.seen = lane, warm_up, 1.0, []
        if lane is not None:
            self.weight = nn.Parameter(self.weight[lane].detach().clone())
            self.lr = self.start[lane]

    def configure_optimizers(self):
        optimizer = SGD([self.weight], lr=self.lr, momentum=0.9)
        if self.lane is None:
            LaneLR(optimizer, self.lanes)
        else:
            self.plateau = THEIRS(optimizer, **SETTINGS)
        if not self.warm_up:
            return optimizer
        warm_up = LinearLR(optimizer, start_factor=0.1, total_iters=24)
        return [optimizer], [{"scheduler": warm_up, "interval": "step"}]

    def losses_of(self, batch):
        each = (batch[0].double() @ self.weight - batch[1].double()).square()
        return each.mean((-2, -1))

    def training_step(self, batch):
        found = self.losses_of(batch)
        self.seen.append(found.detach())
        return found.sum()

    def plateau_callback(self):
        return PlateauCallback("lanes" if self.lane is None else "plateau", losses)


def assert_as_apart(whole, apart):
    """Losses of all steps and the weights at the end, but for rounding."""
    assert len(whole.seen) == len(apart[0].seen)
    close = {"rtol": 1e-9, "atol": 1e-12}
    for i, each in enumerate(apart):
        torch.testing.assert_close(torch.stack(whole.seen)[:, i], torch.stack(each.seen), **close)
        torch.testing.assert_close(whole.weight[i], each.weight, **close)


def test_a_warm_up_scales_each_lane_while_plateaus_cut_it():
    def fitted(lane=None):
        model = Warmed(lane, warm_up=True)
        return trained(model, model.plateau_callback())

    whole, apart = fitted(), [fitted(lane) for lane in range(3)]
    assert_as_apart(whole, apart)
    cut = [each.trainer.optimizers[0].param_groups[0]["lr"] for each in apart]
    assert whole.lanes.lr_master.tolist() == pytest.approx(cut, rel=1e-12)
    assert min(whole.rates[6]) < min(Stacked.start)  # cut in the warm-up, of eight epochs


def test_an_average_of_weights_is_that_of_each_lane():
    def fitted(lane=None):
        model = Warmed(lane)
        average = StochasticWeightAveraging(0.5 * model.lr, swa_epoch_start=4, annealing_epochs=3)
        return trained(model, average)

    assert_as_apart(fitted(), [fitted(lane) for lane in range(3)])


def test_a_search_for_a_rate_tries_each_factor_on_all_lanes(tmp_path):
    def searched(lane=None):
        model = Warmed(lane)
        finder = LearningRateFinder(
            1e-3 * model.lr, model.lr, 12, early_stop_threshold=None, update_attr=False
        )
        trained(model, finder, epochs=4, default_root_dir=tmp_path)
        return model, finder.optimal_lr.results["lr"]

    whole, tried = searched()
    apart, tried_apart = zip(*(searched(lane) for lane in range(3)), strict=True)
    assert_as_apart(whole, apart)
    for start, rates in zip(Stacked.start, tried_apart, strict=True):
        assert rates == pytest.approx([start * each for each in tried])
    assert len(set(tried)) == 12


def test_lanes_are_logged_in_full_beside_the_callback(tmp_path):
    class Logged(Stacked):
        def on_train_start(self):
            self.log_of_lanes = LaneLog(self.lanes, self.logger.experiment, few=0)

        def on_validation_end(self):
            if not self.trainer.sanity_checking:
                self.log_of_lanes.write(self.current_epoch, self.losses)

    model, logger = Logged(), TensorBoardLogger(tmp_path)
    trained(model, PlateauCallback("lanes", losses), logger=logger)
    logger.experiment.close()
    events = EventAccumulator(logger.log_dir, {"histograms": 0})
    events.Reload()
    cuts = [each.value for each in events.Scalars("lanes/cuts/max")]
    assert cuts == sorted(cuts)
    assert cuts[-1] == model.lanes.num_reductions.max() > 1  # the last step is in it
    assert len(events.Histograms("lanes/lr")) == len(cuts) == EPOCHS


# -- the command line -----------------------------------------------------------------------------


class KeepingCLI(LightningCLI):
    """Leaves the plateau to the callback."""

    @staticmethod
    def configure_optimizers(lightning_module, optimizer, lr_scheduler=None):
        lightning_module.plateau = lr_scheduler
        return optimizer


class Bare(LightningModule):
    """The model, for which the command line says how it is trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line, self.rates = nn.Linear(4, 1), []

    training_step, validation_step = Model.training_step, Model.validation_step
    on_train_epoch_start = Model.on_train_epoch_start

    def train_dataloader(self):
        return loaders()[0]

    def val_dataloader(self):
        return loaders()[1]


@pytest.fixture
def by_command_line(monkeypatch):
    """Fits as a command line says, with SETTINGS of the plateau."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings = {"monitor": "val_loss", **SETTINGS}

    def fitted(plateau, *options, cli=LightningCLI):
        line = [
            "program",
            *("fit", "--seed_everything=false"),
            "--trainer.accelerator=cpu",
            f"--trainer.max_epochs={EPOCHS}",
            *(f"--trainer.{name}=false" for name in off),
            *("--optimizer=SGD", "--optimizer.lr=0.2", "--optimizer.momentum=0.9"),
            f"--lr_scheduler={plateau}",
            *(f"--lr_scheduler.{name}={value}" for name, value in settings.items()),
            *options,
        ]
        monkeypatch.setattr(sys, "argv", line)
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls such
        return cli(Bare, save_config_callback=None)

    return fitted


OURS = "torch_plateau.integrations.lightning_cli.MonitoredPlateau"


@pytest.mark.parametrize("plateau", ["ReduceLROnPlateau", OURS], ids=["torch's", "ours"])
def test_the_command_line_builds_a_plateau_with_its_monitor(plateau, by_command_line):
    built = by_command_line(plateau)
    assert_same(built.model, plain_loop())
    (config,) = built.trainer.lr_scheduler_configs
    assert isinstance(config.scheduler, ReduceLROnPlateau) is (plateau == OURS)


@pytest.mark.parametrize("kind", ["torch.optim.lr_scheduler", "torch_plateau"])
def test_the_command_line_takes_no_plateau_without_a_monitor(kind, by_command_line, capsys):
    with pytest.raises(SystemExit):
        by_command_line(f"{kind}.ReduceLROnPlateau")
    assert "Option 'monitor' is not accepted" in capsys.readouterr().err


def test_a_plateau_of_the_command_line_is_kept_for_a_callback_of_the_command_line(by_command_line):
    callback = "--trainer.callbacks=torch_plateau.integrations.lightning.PlateauCallback"
    built = by_command_line(OURS, callback, "--trainer.callbacks.metric=val_loss", cli=KeepingCLI)
    assert not built.trainer.lr_scheduler_configs
    assert_same(built.model, plain_loop())


def test_a_monitored_plateau_goes_on_from_a_state_of_torchs_class_and_back():
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    ours, theirs = MonitoredPlateau(optimizer, "val_loss"), Theirs(optimizer, "x")
    ours.step(1.0)
    assert ours.state_dict()["monitor"] == "val_loss"
    for one, other in ((ours, theirs), (theirs, ours)):
        other.load_state_dict(one.state_dict())
        assert (other.best, other.monitor) == (1.0, "val_loss")


if __name__ == "__main__":
    start_processes(in_a_process, (sys.argv[1],), 2, start_method="fork")  # imports once
