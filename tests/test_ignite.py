"""Plateaus in ignite's engines, against torch's class and ignite's own handler.

Run as a script this file is a training that is killed with SIGKILL.
"""

import os
import pickle
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import torch_plateau
from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes

with warnings.catch_warnings():  # ignite imports a part of torch that torch has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver, ReduceLROnPlateauScheduler
    from ignite.metrics import Loss, Metric

    from torch_plateau.integrations.ignite import PlateauHandler

TORCHS, OURS = torch.optim.lr_scheduler.ReduceLROnPlateau, torch_plateau.ReduceLROnPlateau
BOTH = pytest.mark.parametrize("kind", [TORCHS, OURS], ids=["torch's", "ours"])
SETTINGS = {"factor": 0.5, "patience": 0, "threshold": 0.05}
RATES = [0.3, 0.1, 0.01]
EPOCHS, KILLED_AFTER = 12, 2


def data_of(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 4, generator=generator)
    y = x.sum(1, keepdim=True) + 0.5 * torch.randn(32, 1, generator=generator)
    return x, y


class Training:
    """A small model with its trainer and evaluator, and a plateau that ``attach`` adds."""

    def __init__(self, lr=0.1):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.trainer, self.evaluator = Engine(self.train_on), Engine(self.predict)
        Loss(torch.nn.functional.mse_loss).attach(self.evaluator, "loss")
        self.rates = []

    def train_on(self, _, batch):
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(batch[0]), batch[1]).backward()
        self.optimizer.step()

    @torch.no_grad()
    def predict(self, _, batch):
        return self.model(batch[0]), batch[1]

    def attach(self, handler, event=Events.COMPLETED):
        self.evaluator.add_event_handler(event, handler)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)

    def validate(self):
        self.evaluator.run([data_of(1)])
        self.rates.append(float(self.optimizer.param_groups[0]["lr"]))

    def run(self, epochs=EPOCHS):
        self.trainer.run([data_of(2), data_of(3)], max_epochs=epochs)
        return self


def with_handler(kind, lr=0.1, **settings):
    training = Training(lr)
    scheduler = kind(training.optimizer, **{**SETTINGS, **settings})
    training.attach(PlateauHandler(scheduler, "loss"))
    training.scheduler = scheduler
    return training


def by_hand(kind, lr=0.1, **settings):
    """The same without a handler: a loop over epochs."""
    training = Training(lr)
    scheduler = kind(training.optimizer, **{**SETTINGS, **settings})
    for _ in range(EPOCHS):
        for batch in (data_of(2), data_of(3)):
            training.train_on(None, batch)
        prediction, y = training.predict(None, data_of(1))
        scheduler.step(torch.nn.functional.mse_loss(prediction, y).item())
        training.rates.append(float(training.optimizer.param_groups[0]["lr"]))
    return training


def assert_same(one, other):
    assert one.rates == other.rates
    assert len(set(one.rates)) > 3  # there were cuts
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@BOTH
def test_a_run_of_ignite_is_a_loop_with_torchs_class(kind):
    assert_same(with_handler(kind).run(), by_hand(TORCHS))


def test_an_evaluator_that_runs_on_training_data_too_steps_twice_and_a_call_after_one_run_once():
    def trained(attached):
        training = Training()
        scheduler = OURS(training.optimizer, **SETTINGS)
        plateau = PlateauHandler(scheduler, "loss")
        if attached:
            training.evaluator.add_event_handler(Events.COMPLETED, plateau)

        @training.trainer.on(Events.EPOCH_COMPLETED)
        def evaluate():
            training.evaluator.run([data_of(2), data_of(3)])
            training.validate()
            if not attached:
                plateau(training.evaluator)
                training.rates[-1] = scheduler.get_last_lr()[0]

        return training.run(), scheduler.last_epoch

    _, steps = trained(attached=True)
    assert steps == 2 * EPOCHS
    called, steps = trained(attached=False)
    assert steps == EPOCHS
    assert_same(called, by_hand(TORCHS))


# -- ignite's own handler, and what it breaks -----------------------------------------------------


def with_ignites(lr=0.1, **settings):
    training = Training(lr)
    handler = ReduceLROnPlateauScheduler(training.optimizer, "loss", **SETTINGS, **settings)
    training.attach(handler)
    training.handler = handler
    return training


def test_ignites_handler_is_ours_where_nothing_breaks():
    assert_same(with_ignites().run(), with_handler(OURS).run())


def test_ignites_handler_ignores_min_lr_and_ours_does_not():
    floor = 0.04
    assert min(with_ignites(min_lr=floor).run().rates) < floor
    mended = with_handler(OURS, min_lr=floor).run()
    assert min(mended.rates) == floor
    assert mended.rates == by_hand(TORCHS, min_lr=floor).rates


def test_a_tensor_rate_becomes_a_float_in_ignites_handler_and_not_in_ours():
    broken = with_ignites(torch.tensor(0.1)).run()
    assert isinstance(broken.optimizer.param_groups[0]["lr"], float)
    rate = torch.tensor(0.1)
    mended = with_handler(OURS, rate).run()
    assert mended.optimizer.param_groups[0]["lr"] is rate
    assert_same(mended, by_hand(TORCHS, torch.tensor(0.1)))


def test_ignites_handler_has_a_method_in_its_state_which_no_checkpoint_loads(tmp_path):
    for training, part in ((with_ignites(), "handler"), (with_handler(OURS), "scheduler")):
        training.run(3)
        part = getattr(training, part)
        path = tmp_path / "checkpoint.pt"
        torch.save({"plateau": part.state_dict(), "more": torch.nn.Linear(1, 1).state_dict()}, path)
        parts = {"plateau": part, "more": torch.nn.Linear(1, 1)}
        if isinstance(part, ReduceLROnPlateauScheduler):
            assert part.state_dict()["scheduler"]["_reduce_lr"].__self__ is part
            with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
                Checkpoint.load_objects(parts, path)
        else:
            Checkpoint.load_objects(parts, path)


# -- many models ----------------------------------------------------------------------------------


class Losses(Metric):
    """The mean loss of each of several models, from batches of such losses."""

    def reset(self):
        self.sum, self.count = 0.0, 0

    def update(self, losses):
        self.sum, self.count = self.sum + losses, self.count + 1

    def compute(self):
        return self.sum / self.count


def train_stack(stack, optimizer, plateau, metric, device):
    """Train three linear models that are stacked; return the rates after each epoch."""

    def losses(batch):
        x, y = (part.to(device) for part in batch)
        return (torch.einsum("bi,nio->nbo", x, stack) - y).square().mean((1, 2))

    def train_on(_, batch):
        optimizer.zero_grad()
        losses(batch).sum().backward()
        optimizer.step()

    @torch.no_grad()
    def predict(_, batch):
        return losses(batch)

    trainer, evaluator = Engine(train_on), Engine(predict)
    Losses().attach(evaluator, "losses")
    evaluator.add_event_handler(Events.COMPLETED, PlateauHandler(plateau, metric))
    rates = []

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        evaluator.run([data_of(1)])
        rates.append(getattr(plateau, "lanes", plateau).lr_master.tolist())

    trainer.run([data_of(2), data_of(3)], max_epochs=EPOCHS)
    return list(zip(*rates, strict=True))


def alone(start, rate, patience, device):
    param = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([param], lr=rate)
    scheduler = BatchedReduceLROnPlateau([optimizer], **{**SETTINGS, "patience": patience})
    rates = train_stack(param, optimizer, scheduler, "losses", device)
    return rates[0], param


METRICS = pytest.mark.parametrize(
    "metric",
    ["losses", lambda engine: engine.state.metrics["losses"].tolist()],
    ids=["a name", "a function"],
)


@METRICS
def test_lanes_that_get_a_vector_are_as_many_runs_apart(metric, device):
    start = torch.randn(3, 4, 1, dtype=torch.float32).to(device)
    patience = [0, 1, 2]
    stack = start.clone().requires_grad_()
    lanes = PlateauLanes(3, RATES, device=device, **{**SETTINGS, "patience": patience})
    optimizer = torch.optim.SGD([stack], lr=1.0)
    LaneLR(optimizer, lanes)
    rates = train_stack(stack, optimizer, lanes, metric, device)
    for i in range(3):
        theirs, param = alone(start[i : i + 1], RATES[i], patience[i], device)
        assert rates[i] == theirs
        torch.testing.assert_close(stack[i : i + 1], param, rtol=1e-5, atol=1e-6)
    assert len(set(rates)) == 3


@METRICS
def test_a_vector_for_many_optimizers_is_torchs_class_for_each(metric):
    trainings = [Training(lr) for lr in RATES]
    batched = BatchedReduceLROnPlateau([each.optimizer for each in trainings], **SETTINGS)

    def train_on(_, batch):
        for each in trainings:
            each.train_on(None, batch)

    def predict(_, batch):
        predictions = [each.predict(None, batch) for each in trainings]
        return torch.stack([torch.nn.functional.mse_loss(*each) for each in predictions])

    trainer, evaluator = Engine(train_on), Engine(predict)
    Losses().attach(evaluator, "losses")
    evaluator.add_event_handler(Events.COMPLETED, PlateauHandler(batched, metric))

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        evaluator.run([data_of(1)])
        for each in trainings:
            each.rates.append(each.optimizer.param_groups[0]["lr"])

    trainer.run([data_of(2), data_of(3)], max_epochs=EPOCHS)
    for each, lr in zip(trainings, RATES, strict=True):
        theirs = by_hand(TORCHS, lr)
        assert each.rates == theirs.rates
        assert torch.equal(each.model.weight, theirs.model.weight)


# -- killed and resumed ---------------------------------------------------------------------------


def resumable(kind, directory):
    """Train from the last checkpoint in a directory, if there is one."""
    training = with_handler(kind)
    parts = {
        "model": training.model,
        "optimizer": training.optimizer,
        "plateau": training.scheduler,
        "trainer": training.trainer,
    }
    checkpoint = Checkpoint(parts, DiskSaver(directory, require_empty=False), n_saved=1)
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
    saved = sorted(Path(directory).glob("*.pt"))
    if saved:
        Checkpoint.load_objects(parts, saved[-1])
    return training


@BOTH
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(kind, tmp_path):
    script = [sys.executable, __file__, str(tmp_path), kind.__module__]
    killed = subprocess.run(script, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed, whole = resumable(kind, str(tmp_path)).run(), with_handler(kind).run()
    first = EPOCHS - len(resumed.rates)
    assert first == KILLED_AFTER
    assert resumed.rates == whole.rates[first:]
    assert len({*resumed.rates}) > 1
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert resumed.scheduler.state_dict() == whole.scheduler.state_dict()


def test_a_checkpoint_of_the_handler_is_that_of_its_scheduler():
    training = with_handler(OURS).run(4)
    handler = PlateauHandler(training.scheduler, "loss")
    other = with_handler(OURS)
    PlateauHandler(other.scheduler, "loss").load_state_dict(handler.state_dict())
    assert other.scheduler.state_dict() == training.scheduler.state_dict()


# -- bad input ------------------------------------------------------------------------------------


def test_what_is_no_scheduler_or_no_metric_is_refused():
    training = with_handler(OURS)
    with pytest.raises(TypeError, match="scheduler: expected a ReduceLROnPlateau"):
        PlateauHandler(training.optimizer, "loss")
    with pytest.raises(TypeError, match="metric: expected the name"):
        PlateauHandler(training.scheduler, 1)


def test_a_name_that_the_engine_does_not_know_is_refused_with_those_that_it_does():
    training = Training()
    scheduler = OURS(training.optimizer)
    training.evaluator.add_event_handler(Events.COMPLETED, PlateauHandler(scheduler, "accuracy"))
    training.evaluator.logger.setLevel("CRITICAL")
    with pytest.raises(ValueError, match=r"expected one of \['loss'\].* got 'accuracy'"):
        training.evaluator.run([data_of(1)])
    assert scheduler.last_epoch == 0


def test_a_handler_of_the_trainer_is_told_to_stand_at_the_evaluator():
    training = Training()
    handler = PlateauHandler(OURS(training.optimizer), "loss")
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED, handler)
    training.trainer.logger.setLevel("CRITICAL")
    with pytest.raises(ValueError, match=r"one of \[\].* got 'loss'; attach it to the evaluator"):
        training.run()


def test_the_example_cuts_the_rate_and_does_not_pass_the_floor(capsys):
    example = Path(__file__).parent.parent / "examples" / "ignite_plateau.py"
    runpy.run_path(str(example), run_name="__main__")
    rates = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) > 2
    assert min(rates) == 0.04


if __name__ == "__main__":
    training = resumable(TORCHS if sys.argv[2].startswith("torch.") else OURS, sys.argv[1])
    when = Events.ITERATION_COMPLETED(once=2 * KILLED_AFTER + 1)  # in the middle of an epoch
    training.trainer.add_event_handler(when, lambda: os.kill(os.getpid(), signal.SIGKILL))
    training.run()
