"""transformers' Trainer with torch's plateau, with ours and with a vector of metrics.

Run as a script this file is one of two processes, or trainings that are killed with SIGKILL.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainingArguments

from ranks import in_two_processes
from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes, ReduceLROnPlateau
from torch_plateau.integrations.plateaus import SchedulerOfLanes
from torch_plateau.integrations.transformers import PlateauTrainerMixin

EPOCHS = 8


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


class Stacked(torch.nn.Module):
    """The same in one parameter, of which each lane has a row."""

    def __init__(self, members=(0, 1)):
        super().__init__()
        rows = torch.stack([*Model(members).parameters()]).detach()
        self.weight = torch.nn.Parameter(rows)

    def forward(self, x, labels):
        errors = (x @ self.weight.T - labels[:, None]) ** 2
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

    def on_epoch_begin(self, *_, optimizer, lr_scheduler, **__):
        if isinstance(lr_scheduler, SchedulerOfLanes):
            self.rates.append(lr_scheduler.lanes.lr_master.tolist())
        else:
            self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def on_save(self, _, state, *__, **___):
        if state.epoch == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


SETTINGS = {"factor": 0.5, "patience": 0, "threshold": 0.05}


def ours_for(kind, **options):
    return lambda optimizer: kind(optimizer, **SETTINGS | options)


def lanes_for(optimizer, **options):
    device = optimizer.param_groups[0]["params"][0].device
    lanes = PlateauLanes(2, 0.2, device=device, **SETTINGS | options)
    LaneLR(optimizer, lanes)
    return lanes


def run(
    folder,
    trainer,
    kind,
    members=(0, 1),
    resume=False,
    killed_at=None,
    model=Model,
    rate=0.2,
    device="cpu",
    **arguments,
):
    """Rates at the start of each epoch, and the weights at the end."""
    torch.set_num_threads(1)
    defaults = {"metric_for_best_model": "loss", "logging_strategy": "no"}
    defaults |= {"eval_strategy": "epoch", "save_strategy": "epoch"}
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=device == "cpu",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        max_grad_norm=0,
        seed=3,
        dataloader_pin_memory=False,
        **defaults | arguments,
    )
    model = model(members).to(device)
    optimizer = torch.optim.SGD(
        [{"params": [p]} for p in model.parameters()], lr=rate, momentum=0.5
    )
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
LANES = {"trainer": VectorTrainer, "kind": lanes_for, "model": Stacked, "rate": 1.0}
RUNS = {
    "drop-in": {"trainer": OursTrainer, "kind": OURS},
    "batched": {"trainer": VectorTrainer, "kind": BATCHED},
    "lanes": LANES,
}


def assert_same(one, other):
    assert one[0] == other[0]
    assert all(map(torch.equal, one[1], other[1]))


def test_rates_and_weights_are_those_of_torchs_class(tmp_path):
    plain = run(tmp_path, Trainer, TORCH, save_strategy="no")
    for trainer, kind in ((Trainer, OURS), (OursTrainer, OURS), (OursTrainer, TORCH)):
        assert_same(plain, run(tmp_path, trainer, kind, save_strategy="no"))
    assert len({rate for rate, _ in plain[0]}) > 2


def test_lanes_of_a_vector_have_the_rates_of_separate_runs(tmp_path, device):
    options = {"save_strategy": "no", "device": device}
    rates, weights, made = run(tmp_path, VectorTrainer, BATCHED, **options)
    for i in range(2):
        apart = run(tmp_path, OursTrainer, OURS, members=(i,), **options)
        assert [rate[i] for rate in rates] == [rate for (rate,) in apart[0]]
        exactly = {"rtol": 0, "atol": 0} if device == "cpu" else {}  # a GPU sums in its own order
        torch.testing.assert_close(weights[i], apart[1][0], **exactly)
    assert made.lr_scheduler.last_epoch == EPOCHS


def test_lanes_of_one_parameter_have_the_rates_of_separate_runs(tmp_path, device):
    options = {"save_strategy": "no", "device": device}
    rates, (weight,), made = run(tmp_path, **LANES, **options)
    for i in range(2):
        apart = run(tmp_path, Trainer, TORCH, members=(i,), **options)
        assert [rate[i] for rate in rates] == [rate for (rate,) in apart[0]]
        torch.testing.assert_close(weight[i], apart[1][0])
    assert len({tuple(rate) for rate in rates}) > 2
    assert int(made.lr_scheduler.lanes.num_steps) == EPOCHS
    assert made.lr_scheduler.get_last_lr() == made.lr_scheduler.lanes.lr.tolist()


@pytest.mark.parametrize(("mode", "greater"), [("min", False), ("max", True)])
def test_lanes_may_be_made_when_training_begins_and_their_mode_is_checked(mode, greater, tmp_path):
    class Late(VectorTrainer):
        def create_scheduler(self, *_, **__):
            self.lr_scheduler = lanes_for(self.optimizer, mode=mode)
            return self.lr_scheduler

    late = {**LANES, "trainer": Late, "kind": lambda _: None, "save_strategy": "no"}
    rates, weights, _ = run(tmp_path, **late, greater_is_better=greater)
    assert len({tuple(rate) for rate in rates}) > 1
    if mode == "min":
        assert_same((rates, weights), run(tmp_path, **LANES, save_strategy="no"))
    with pytest.raises(ValueError, match=f"as greater_is_better is {not greater} .* got '{mode}'"):
        run(tmp_path, **late, greater_is_better=not greater)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of trainings that were killed in their midst, by the names in RUNS."""
    folder = tmp_path_factory.mktemp("killed")
    script = [sys.executable, __file__, "killed", str(folder)]
    said = subprocess.run(script, check=True, timeout=120, stdout=subprocess.PIPE, text=True)
    assert json.loads(said.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(RUNS)
    return {name: folder / name for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_and_resumed_is_the_uninterrupted_one(name, killed, tmp_path):
    rates, weights, _ = run(killed[name], **RUNS[name], resume=True)
    whole = run(tmp_path, **RUNS[name], save_strategy="no")
    assert_same((whole[0][3:], whole[1]), (rates, weights))


class Reads(TorchDispatchMode):
    """Counts how often the rate of an optimizer is read, for which a GPU is waited for."""

    def __init__(self, optimizer):
        super().__init__()
        self.optimizer, self.count = optimizer, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            rates = [group["lr"].data_ptr() for group in self.optimizer.param_groups]
            self.count += args[0].data_ptr() in rates
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [TorchPlateau, ReduceLROnPlateau, BatchedReduceLROnPlateau])
def test_the_trainer_reads_a_tensor_rate_in_each_step_and_the_mixin_where_it_is_logged(
    kind, tmp_path
):
    def reads_and_logs(trainer):
        modes = []

        class Counting(trainer):
            def _inner_training_loop(self, *args, **options):
                with Reads(self.optimizer) as mode:
                    modes.append(mode)
                    return super()._inner_training_loop(*args, **options)

        _, _, made = run(
            tmp_path,
            Counting,
            ours_for(kind, patience=100),  # a cut reads it too
            rate=torch.tensor(0.2),
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=8,
        )
        assert isinstance(made.optimizer.param_groups[0]["lr"], torch.Tensor)
        logs = [each["learning_rate"] for each in made.state.log_history if "learning_rate" in each]
        return modes[0].count - 2 * EPOCHS, logs  # without what Rates reads

    vector = kind is BatchedReduceLROnPlateau
    ours, logs = reads_and_logs(VectorTrainer if vector else OursTrainer)
    assert ours == len(logs) == 4
    assert logs == [pytest.approx(0.2)] * 4
    assert all(type(each) is float for each in logs)
    if not vector:
        theirs, same = reads_and_logs(Trainer)
        assert same == logs
        assert theirs == 4 * EPOCHS  # steps


def test_two_processes_have_the_same_rates_and_an_evaluation_is_one_step():
    first, second = in_two_processes(__file__, "rank")
    assert first == second
    for name in RUNS:
        assert first[name]["steps"] == EPOCHS
        assert len({tuple(rates) for rates in first[name]["rates"]}) > 2


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
    with pytest.raises(ValueError, match=r"metric_for_best_model: expected one of .*got 'eval_f1'"):
        run(tmp_path, OursTrainer, OURS, **options)


def test_without_a_plateau_or_evaluations_there_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="lr_scheduler: expected .*, got LambdaLR: .* nothing"):
        run(tmp_path, OursTrainer, lambda _: None, save_strategy="no")
    with pytest.warns(UserWarning, match="eval_strategy: expected .*, got 'no': .* nothing"):
        rates, _, made = run(tmp_path, OursTrainer, OURS, save_strategy="no", eval_strategy="no")
    assert made.lr_scheduler.last_epoch == 0
    assert rates == [[0.2, 0.2]] * EPOCHS


@pytest.mark.parametrize("kind", [TorchPlateau, ReduceLROnPlateau, BatchedReduceLROnPlateau])
def test_a_scheduler_of_another_optimizer_than_the_trainers_is_refused(kind, tmp_path):
    def another(_):
        return kind(torch.optim.SGD([torch.zeros(1)], lr=0.1))

    with pytest.raises(ValueError, match=f"got a {kind.__name__} of another; hand in both"):
        run(tmp_path, OursTrainer, another, save_strategy="no")


def test_a_scheduler_of_several_optimizers_may_have_the_trainers_among_them(tmp_path):
    def kind(optimizer):
        other = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        return BatchedReduceLROnPlateau([optimizer, other], **SETTINGS)

    rates, _, _ = run(tmp_path, VectorTrainer, kind, save_strategy="no")
    assert len({rate for rate, _ in rates}) > 1


def test_the_trainer_before_the_mixin_is_refused_and_a_trainer_of_ones_own_is_not(tmp_path):
    with pytest.raises(TypeError, match="bases Trainer, PlateauTrainerMixin"):
        type("Wrong", (Trainer, PlateauTrainerMixin), {})
    mine = type("Mine", (Trainer,), {})
    either_way = [type("Either", (mine, PlateauTrainerMixin), {}), OursTrainer]
    first, second = (run(tmp_path, each, OURS, save_strategy="no") for each in either_way)
    assert_same(first, second)


def test_the_example_steps_once_for_each_evaluation(capsys):
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / "transformers_plateau.py"))
    assert "12 evaluations, rates [" in capsys.readouterr().out


def in_a_process():
    """What one of two processes does."""
    found = {}
    for name, options in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            rates, weights, made = run(folder, **options, save_strategy="no")
        assert made.accelerator.num_processes == 2
        scheduler = made.lr_scheduler
        lanes = isinstance(scheduler, SchedulerOfLanes)
        steps = int(scheduler.lanes.num_steps) if lanes else scheduler.last_epoch
        found[name] = {
            "rates": rates,
            "weights": [each.tolist() for each in weights],
            "steps": steps,
        }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def kill_each(folder):
    """Start each training in a process of its own; write how they ended."""
    ends = []
    for name, options in RUNS.items():
        child = os.fork()
        if child == 0:
            run(folder / name, **options, killed_at=3)
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write("\n" + json.dumps(ends) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        in_a_process()
    else:
        kill_each(Path(sys.argv[2]))
