"""Trials as lanes of one stack, against the same trials apart.

Apart means a model, an optimizer and torch's scheduler each, through optuna's own ask and tell or
its optimize.
"""

import os
import pathlib
import pickle
import runpy
import signal
import subprocess
import sys

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState
from torch.func import functional_call, grad, stack_module_state, vmap

from torch_plateau import LaneAdamW, LaneLR, LaneStack, PlateauLanes
from torch_plateau.integrations.optuna import LaneStudy

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "optuna_lanes.py"
EPOCHS = 12
SPACE = {
    "lr": FloatDistribution(1e-4, 3.0, log=True),
    "patience": IntDistribution(0, 3),
    "factor": CategoricalDistribution([0.1, 0.5]),
}
DATA = torch.Generator().manual_seed(5)
X = torch.randn(32, 4, generator=DATA, dtype=torch.float64)
Y = torch.sin(2 * X.sum(1, keepdim=True)) + 0.1 * torch.randn(32, 1, generator=DATA).double()


@pytest.fixture(autouse=True)
def one_quiet_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    torch.set_num_threads(before)


def model_of(number):
    """The model of a trial: the same wherever it is trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        layers = torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        return torch.nn.Sequential(*layers).double()


class Apart:
    """One trial as anyone would write it."""

    def __init__(self, trial, kind="SGD"):
        self.trial, self.steps = trial, 0
        lr, patience, factor = (trial.params[name] for name in SPACE)
        self.model = model_of(trial.number)
        if kind == "SGD":
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        else:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, patience=patience, factor=factor
        )

    def epoch(self):
        for _ in range(2):
            self.optimizer.zero_grad()
            loss_of(self.model(X[:24]), Y[:24]).backward()
            self.optimizer.step()
        loss = loss_of(self.model(X[24:]), Y[24:]).item()
        self.scheduler.step(loss)
        self.steps += 1
        return loss


def loss_of(output, target):
    return (output - target).square().mean()


def apart(study, slots, total, kind="SGD"):
    """Ask and tell, an epoch of each running trial after the other."""
    running, asked = [], 0
    while asked < total or running:
        while asked < total and len(running) < slots:
            running.append(Apart(study.ask(SPACE), kind))
            asked += 1
        losses = [each.epoch() for each in running]
        for each, loss in zip(list(running), losses, strict=True):
            each.trial.report(loss, each.steps - 1)
            if each.trial.should_prune():
                study.tell(each.trial, state=TrialState.PRUNED)
                running.remove(each)
        for each in list(running):
            if each.steps == EPOCHS:
                study.tell(each.trial, each.scheduler.best)
                running.remove(each)


def one_by_one(study, total):
    """Optimize as in optuna's quick start: each trial to its end before the next."""

    def objective(trial):
        trial.suggest_float("lr", 1e-4, 3.0, log=True)
        trial.suggest_int("patience", 0, 3)
        trial.suggest_categorical("factor", [0.1, 0.5])
        this = Apart(trial)
        for step in range(EPOCHS):
            trial.report(this.epoch(), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return this.scheduler.best

    study.optimize(objective, n_trials=total)


class Together:
    """The same as lanes."""

    def __init__(self, study, slots, total, device="cpu", kind="SGD"):
        self.trials, self.total = LaneStudy(study, SPACE, slots, device), total
        asked, params = self.trials.ask()
        assert asked.tolist() == list(range(slots))
        self.lanes = PlateauLanes(slots, **params, max_steps=EPOCHS, device=device)
        self.x, self.y = X.to(device), Y.to(device)
        self.asked, rows = slots, self.models()
        params = {name: each.clone().requires_grad_() for name, each in rows.items()}
        if kind == "SGD":
            optimizer = torch.optim.SGD(params.values(), lr=1.0, momentum=0.9)
            LaneLR(optimizer, self.lanes)
        else:
            optimizer = LaneAdamW(params.values(), self.lanes, weight_decay=0.01)
        self.stack = LaneStack(self.lanes, optimizer, params)

    def models(self, lanes=None):
        trials = self.trials.trials if lanes is None else [self.trials.trials[i] for i in lanes]
        rows, _ = stack_module_state([model_of(trial.number) for trial in trials])
        return {name: each.detach().to(self.lanes.device) for name, each in rows.items()}

    def epoch(self):
        pattern, params = model_of(0).to(self.lanes.device), self.stack.params

        def loss(params, x, y):
            return loss_of(functional_call(pattern, params, (x,)), y)

        for _ in range(2):
            gradients = vmap(grad(loss), (0, None, None))(params, self.x[:24], self.y[:24])
            for name, gradient in gradients.items():
                params[name].grad = gradient
            self.stack.step()
        with torch.no_grad():
            losses = vmap(loss, (0, None, None))(params, self.x[24:], self.y[24:])
        self.lanes.step(losses)
        before = self.trials.running
        pruned = self.trials.report(losses)
        assert torch.equal(before & ~self.trials.running, pruned)
        self.trials.tell(self.lanes.finished, self.lanes.best)
        self.refill()

    def refill(self):
        free = ~self.trials.running
        k = min(int(free.sum()), self.total - self.asked)
        if k:
            lanes, params = self.trials.ask(k)
            self.asked += k
            self.stack.refill(lanes, self.models(lanes.tolist()))
            self.lanes.set_lanes(lanes, **params)
        elif free.any() and not free.all():
            self.trials.keep(self.stack.keep(~free))

    def train(self):
        while self.trials.running.any():
            self.epoch()


def study_of(sampler=RandomSampler, pruner=NopPruner, *args, **settings):
    return optuna.create_study(
        sampler=sampler(seed=3),
        pruner=pruner(*args, **settings),
        study_name="one name",  # by which Hyperband chooses brackets
    )


def assert_same(ours, theirs):
    """The same trials, decisions and, to rounding, values."""
    assert len(ours.trials) == len(theirs.trials)
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert (one.params, one.state) == (other.params, other.state)
        assert list(one.intermediate_values) == list(other.intermediate_values)
        values = [list(each.intermediate_values.values()) for each in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-9, nan_ok=True)
        assert one.value == pytest.approx(other.value, rel=1e-9)
    assert ours.best_params == theirs.best_params
    assert ours.best_trial.number == theirs.best_trial.number


def pruned_steps(study):
    return [each.last_step for each in study.trials if each.state == TrialState.PRUNED]


RUNS = {
    "none": (RandomSampler, NopPruner, 64),
    "halving": (TPESampler, lambda: SuccessiveHalvingPruner(1, reduction_factor=3), 64),
    "hyperband": (RandomSampler, lambda: HyperbandPruner(1, EPOCHS, 3), 64),
    "halving, refilled": (TPESampler, lambda: SuccessiveHalvingPruner(2), 20),
    "median, refilled": (TPESampler, lambda: MedianPruner(n_warmup_steps=2), 16),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("sampler", "pruner", "slots"), RUNS.values(), ids=RUNS.keys())
def test_trials_as_lanes_find_what_they_find_apart(sampler, pruner, slots):
    ours, theirs = (study_of(sampler, pruner) for _ in range(2))
    Together(ours, slots, 64).train()
    apart(theirs, slots, 64)
    assert_same(ours, theirs)
    steps = pruned_steps(ours)
    assert (len(set(steps)) > 1) == (pruner is not NopPruner)
    assert len(steps) < 64


def test_a_refilled_lane_of_an_optimizer_that_counts_steps_per_lane_is_a_new_trial():
    ours, theirs = (study_of(RandomSampler, SuccessiveHalvingPruner, 2) for _ in range(2))
    Together(ours, 12, 40, kind="AdamW").train()
    apart(theirs, 12, 40, kind="AdamW")
    assert_same(ours, theirs)
    assert len(set(pruned_steps(ours))) > 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_where_a_decision_needs_no_other_trial_lanes_find_what_optimize_finds_one_by_one():
    ours, theirs = (study_of(RandomSampler, PatientPruner, None, patience=1) for _ in range(2))
    Together(ours, 64, 64).train()
    one_by_one(theirs, 64)
    assert_same(ours, theirs)
    assert len(set(pruned_steps(ours))) > 1
    assert ours.best_trial.state == TrialState.COMPLETE


def test_a_pruner_of_completed_trials_prunes_nothing_while_all_run():
    study = study_of(RandomSampler, MedianPruner)
    Together(study, 64, 64).train()
    assert not pruned_steps(study)


def test_lanes_that_the_device_halves_are_trials_that_were_pruned(device):
    study = study_of()
    run = Together(study, 27, 27, device)
    for rung in range(3):
        for _ in range(3):
            run.epoch()
        worst = run.lanes.halve(run.lanes.best, keep=1 / 3)
        run.trials.tell(worst)
        run.refill()
        assert len(run.lanes) == len(run.trials.trials) == 27 // 3 ** (rung + 1)
    run.train()
    assert pruned_steps(study).count(2) == 18
    assert pruned_steps(study).count(5) == 6
    assert pruned_steps(study).count(8) == 2
    assert study.best_trial.state == TrialState.COMPLETE


def test_the_example_finds_the_same_in_both_ways(capsys):
    made = runpy.run_path(str(EXAMPLE))
    assert_same(made["together"], made["apart"])
    assert 0 < len(pruned_steps(made["apart"])) < 64
    one_by_one, as_lanes, ratio = capsys.readouterr().out.splitlines()
    assert one_by_one == as_lanes
    assert one_by_one.startswith("best: trial ")
    assert ratio.startswith("one by one takes ")


# -- one lane and another -------------------------------------------------------------------------


def small(n=3, **settings):
    return LaneStudy(study_of(**settings), SPACE, n)


def test_parameters_come_as_tensors_and_categories_as_a_list(device):
    trials = LaneStudy(study_of(), SPACE, 3, device)
    lanes, params = trials.ask(2)
    assert lanes.tolist() == [0, 1]
    assert params["lr"].dtype == torch.float64
    assert params["patience"].dtype == torch.int64
    assert {lanes.device, params["lr"].device, trials.running.device} == {
        torch.zeros(1).to(device).device
    }
    for at, trial in enumerate(trials.study.trials):
        assert {name: torch.as_tensor(each)[at].item() for name, each in params.items()} == (
            pytest.approx(trial.params)
        )
    assert trials.running.tolist() == [True, True, False]


def test_a_value_that_is_nan_fails_its_trial_and_no_other():
    trials = small()
    trials.ask()
    trials.tell([0, 1], [float("nan"), 2.0, 3.0])
    states = [each.state for each in trials.study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.RUNNING]
    assert trials.study.best_value == 2.0


def test_a_study_that_maximizes_ranks_the_highest_of_lanes_whose_mode_is_max():
    trials = LaneStudy(optuna.create_study(direction="maximize"), SPACE, 2)
    lanes = PlateauLanes(2, lr=trials.ask()[1]["lr"], mode="max", max_steps=3)
    for accuracies in ([0.3, 0.5], [0.9, 0.6], [0.4, 0.7]):
        lanes.step(torch.tensor(accuracies, dtype=torch.float64))
        trials.report(accuracies)
        trials.tell(lanes.finished, lanes.best)
    assert not trials.running.any()
    assert [each.value for each in trials.study.trials] == [0.9, 0.7]
    assert trials.study.best_trial.number == 0


def test_free_lanes_are_passed_by():
    trials = small()
    trials.ask(1)
    trials.report([1.0, float("nan"), 7.0])
    trials.tell([True, True, True], [1.0, 2.0, 3.0])
    assert [each.values for each in trials.study.trials] == [[1.0]]
    assert not trials.running.any()
    assert not trials.report([1.0] * 3).any()


def test_a_lane_that_is_asked_for_again_begins_at_step_0():
    trials = small(1)
    for value in (3.0, 2.0):
        trials.ask()
        trials.report([value])
        trials.report([value])
        trials.tell(0, [value])
    assert [list(each.intermediate_values) for each in trials.study.trials] == [[0, 1]] * 2


def test_trials_that_were_enqueued_come_first():
    trials = small()
    trials.study.enqueue_trial({"lr": 0.5, "patience": 2, "factor": 0.1})
    _, params = trials.ask()
    assert (params["lr"][0], params["patience"][0], params["factor"][0]) == (0.5, 2, 0.1)


WRONG = {
    "no study": (lambda: LaneStudy(3, SPACE, 2), TypeError, "study: expected .* got 3"),
    "two objectives": (
        lambda: LaneStudy(optuna.create_study(directions=["minimize"] * 2), SPACE, 2),
        TypeError,
        "study: expected one of one objective, got one of 2",
    ),
    "no distribution": (
        lambda: LaneStudy(study_of(), {"lr": 0.1}, 2),
        TypeError,
        r"distributions\['lr'\]: .* got 0.1",
    ),
    "half a lane": (lambda: small(0.5), ValueError, "n: expected an integer"),
    "too many": (lambda: small().ask(4), ValueError, "k: expected at most the 3 free lanes, got 4"),
}


@pytest.mark.parametrize(("call", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_study_of_lanes_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


REFUSED = {
    "a value less": (lambda t: t.report([1.0, 2.0]), ValueError, r"metrics: expected shape \(3,\)"),
    "a word": (lambda t: t.tell([0], ["a", 1, 2]), TypeError, "metrics: "),
    "another lane": (lambda t: t.tell([3], [1.0] * 3), IndexError, "lanes: .* got 3"),
    "to keep too few": (lambda t: t.keep([0, 1]), ValueError, "lanes: expected all that have"),
}


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_call_tells_the_study_nothing(call, error, words):
    trials = small()
    trials.ask()
    with pytest.raises(error, match=words):
        call(trials)
    assert trials.running.all()
    assert all(not each.intermediate_values for each in trials.study.trials)


# -- killed ---------------------------------------------------------------------------------------


def halved():
    pruner = SuccessiveHalvingPruner(min_resource=2)
    return Together(optuna.create_study(sampler=TPESampler(seed=3), pruner=pruner), 8, 24)


def train_and_die(path):
    """Save after each epoch, in one file; die in the ninth."""
    run = halved()
    for _ in range(8):
        run.epoch()
        with open(path, "wb") as file:
            pickle.dump(run, file)
    run.epoch()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_study_that_was_killed_goes_on_as_if_it_was_not(tmp_path):
    path = tmp_path / "run.pickle"
    code = f"import test_optuna; test_optuna.train_and_die({str(path)!r})"
    died = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__), check=False)
    assert died.returncode == -signal.SIGKILL
    uninterrupted = halved()
    uninterrupted.train()
    resumed = load(path)
    assert 8 < resumed.asked < 24
    resumed.train()
    ours, theirs = resumed.trials.study, uninterrupted.trials.study
    assert_same(ours, theirs)
    assert [t.intermediate_values for t in ours.trials] == [
        t.intermediate_values for t in theirs.trials
    ]
    assert torch.equal(resumed.lanes.lr_master, uninterrupted.lanes.lr_master)
    for name, weights in uninterrupted.stack.params.items():
        assert torch.equal(resumed.stack.params[name], weights)


class _Here(pickle.Unpickler):
    """Finds what the other process knew as the module test_optuna here."""

    def find_class(self, module, name):
        return globals()[name] if module == "test_optuna" else super().find_class(module, name)


def load(path):
    with open(path, "rb") as file:
        return _Here(file).load()
