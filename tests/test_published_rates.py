"""A rate that is a tensor, under all that is done to an optimizer in mid-run.

Each run is of two weights with a rate each, beside the same with torch's scheduler and floats, to
which nothing is done. All rates are powers of two, so that one in float32 and one in float64 take
the very same step. What is done to an optimizer with a LaneLR otherwise is in
test_lane_lr_in_trainers.py.
"""

import copy
import io
import operator
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Module, Parameter, ParameterList
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs
from torch.optim.swa_utils import AveragedModel

from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes, ReduceLROnPlateau
from torch_plateau.optim.lane_lr import lane_lr_of

RATES, SETTINGS = [0.5, 0.25], {"factor": 0.5, "patience": 0}
# of each epoch, one a weight; what is not the best so far cuts
METRICS = [[4.0, 4.0], [3.0, 5.0], [3.0, 3.0], [2.0, 3.5], [2.5, 2.0], [2.5, 2.5]]
CHANGED = 3  # the epoch before which something is done to the optimizer


class Run(Module):
    """A training; a subclass builds what holds the rates."""

    one_each = True  # a metric for each weight, or the first for both
    stacked = False

    def __init__(self, rates=RATES):
        super().__init__()
        start = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
        parts = [start] if self.stacked else start.unbind()
        self.weights = ParameterList(Parameter(part.clone()) for part in parts)
        self.seen = []
        self.build(rates)
        self.take_step = self.optimizer.step

    def groups(self, rates, as_rate):
        pairs = zip(self.weights, rates, strict=True)
        return [{"params": [weight], "lr": as_rate(rate)} for weight, rate in pairs]

    def train_epochs(self, first, last=None):
        for row in METRICS[first:last]:
            self.backward()
            self.take_step()
            self.scheduler.step(row if self.one_each else row[0])
            self.seen.append(self.rates())

    def backward(self):
        self.zero_grad()
        sum((weight.sin() + weight.square()).sum() for weight in self.weights).backward()

    def rates(self):
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def values(self):
        return torch.cat([weight.detach().reshape(-1, 3) for weight in self.weights])


class Batched(Run):
    """A lane for each weight; its rate is a view into the lanes, or a float."""

    publish = "tensor"

    def build(self, rates):
        self.optimizer = SGD(self.groups(rates, float), lr=1.0, momentum=0.9)
        self.schedule()

    def schedule(self):
        self.scheduler = BatchedReduceLROnPlateau(self.optimizer, publish=self.publish, **SETTINGS)

    def assert_bound(self):
        cells = self.scheduler.lanes.lr.unbind()
        for group, cell in zip(self.optimizer.param_groups, cells, strict=True):
            assert group["lr"].data_ptr() == cell.data_ptr()


class DropIn(Run):
    """The drop-in for both weights, whose rates are tensors."""

    one_each = False
    as_rate, kind = staticmethod(torch.tensor), ReduceLROnPlateau

    def build(self, rates):
        self.optimizer = SGD(self.groups(rates, self.as_rate), lr=1.0, momentum=0.9)
        self.schedule()

    def schedule(self):
        self.scheduler = self.kind(self.optimizer, **SETTINGS)

    def assert_bound(self):
        ours, optimizers = self.scheduler.optimizer.param_groups, self.optimizer.param_groups
        assert all(map(operator.is_, ours, optimizers))


class Lanes(Run):
    """Both weights stacked, with a LaneLR."""

    stacked = True

    def build(self, rates):
        self.optimizer = SGD(self.parameters(), lr=1.0, momentum=0.9)
        self.scheduler = PlateauLanes(2, rates, **SETTINGS)
        LaneLR(self.optimizer, self.scheduler)

    def rates(self):
        return self.scheduler.lr_master.tolist()

    def assert_bound(self):
        assert lane_lr_of(self.optimizer).lanes is self.scheduler
        assert [group["lr"] for group in self.optimizer.param_groups] == [1.0]


class TorchsForBoth(DropIn):
    """torch's scheduler and floats."""

    as_rate, kind = float, Torchs


class TorchsForEach(TorchsForBoth):
    """One of torch's schedulers for each weight."""

    one_each = True

    def schedule(self):
        self.optimizers = [SGD([group], momentum=0.9) for group in self.groups(RATES, float)]
        self.schedulers = [Torchs(each, **SETTINGS) for each in self.optimizers]

    def train_epochs(self, first, last=None):
        for row in METRICS[first:last]:
            self.backward()
            for optimizer, scheduler, metric in zip(
                self.optimizers, self.schedulers, row, strict=True
            ):
                optimizer.step()
                scheduler.step(metric)
            self.seen.append([each.param_groups[0]["lr"] for each in self.optimizers])


EACH = pytest.mark.parametrize("kind", [Batched, DropIn, Lanes])
IN_GROUPS = pytest.mark.parametrize("kind", [Batched, DropIn])


def torchs_for(run):
    return TorchsForEach() if run.one_each else TorchsForBoth()


def assert_undisturbed(run, within=0.0):
    """A run is the one with floats; with LaneLR to rounding."""
    plain = torchs_for(run)
    plain.train_epochs(0)
    assert run.seen == plain.seen
    assert len({tuple(rates) for rates in plain.seen[CHANGED:]}) > 1  # cuts came after it too
    assert (run.values() - plain.values()).abs().max() <= (1e-14 if run.stacked else within)
    run.assert_bound()


# -- states of the optimizer ----------------------------------------------------------------------


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


RATES_OF_STATES = {
    "as they are": lambda rate: rate,
    "floats": float,
    "tensors": lambda rate: torch.tensor(float(rate)),
    "float64 tensors": lambda rate: torch.tensor(float(rate), dtype=torch.float64),
    "vectors of one": lambda rate: torch.tensor([float(rate)]),
}


@pytest.mark.parametrize("as_rate", RATES_OF_STATES.values(), ids=RATES_OF_STATES)
@EACH
def test_a_state_may_bring_rates_of_any_kind(kind, as_rate):
    run = kind()
    run.train_epochs(0, CHANGED)
    state = through_a_file(run.optimizer.state_dict())
    for group in state["param_groups"]:
        group["lr"] = as_rate(group["lr"])
    run.optimizer.load_state_dict(state)
    run.assert_bound()
    run.train_epochs(CHANGED)
    assert_undisturbed(run)


# -- accelerate -----------------------------------------------------------------------------------


@pytest.fixture
def accelerator():
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("scheduled", ["before", "after"])
@IN_GROUPS
def test_accelerate_prepares_an_optimizer_whose_rates_are_tensors(kind, scheduled, accelerator):
    run = kind()
    run.train_epochs(0, CHANGED)
    state = run.scheduler.state_dict()
    run.optimizer = accelerator.prepare(run.optimizer)  # which loads its own state
    if scheduled == "after":
        run.schedule()
        run.scheduler.load_state_dict(state)
    run.assert_bound()
    run.take_step = run.optimizer.step
    run.train_epochs(CHANGED)
    assert_undisturbed(run)


# -- distributed checkpoints ----------------------------------------------------------------------

OPTIONS = {
    "as it is": StateDictOptions(),
    "whole on the CPU": StateDictOptions(full_state_dict=True, cpu_offload=True),
    "flat": StateDictOptions(flatten_optimizer_state_dict=True),
}


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")
@pytest.mark.filterwarnings("ignore::FutureWarning:torch.distributed")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@IN_GROUPS
def test_a_distributed_checkpoint_is_loaded_into_the_rates_of_a_fresh_run(kind, options, tmp_path):
    def parts(run):
        return {
            "model": run.state_dict(),
            # of a fresh optimizer this takes a step with a rate of 0, to make its state
            "optimizer": get_optimizer_state_dict(run, run.optimizer, options=options),
            "scheduler": run.scheduler.state_dict(),
        }

    first, run = kind(), kind(rates=[0.125, 0.125])
    first.train_epochs(0, CHANGED)
    dcp.save(parts(first), checkpoint_id=tmp_path / "checkpoint")
    loaded = parts(run)
    run.assert_bound()
    assert torch.equal(run.values(), kind().values())
    dcp.load(loaded, checkpoint_id=tmp_path / "checkpoint")
    run.load_state_dict(loaded["model"])
    set_optimizer_state_dict(run, run.optimizer, loaded["optimizer"], options=options)
    run.scheduler.load_state_dict(loaded["scheduler"])
    run.assert_bound()
    run.seen = first.seen
    run.train_epochs(CHANGED)
    assert_undisturbed(run)


# -- copies ---------------------------------------------------------------------------------------

TWINS = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}
TWIN = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


def half_trained(kind):
    """A run, without the method that is not part of what is copied."""
    run = kind()
    run.train_epochs(0, CHANGED)
    del run.take_step
    return run


def go_on(run):
    run.take_step = run.optimizer.step
    run.train_epochs(CHANGED)
    assert_undisturbed(run)


@TWIN
@IN_GROUPS
def test_a_copy_of_optimizer_and_scheduler_goes_on_and_so_does_the_original(kind, twin):
    run = half_trained(kind)
    other = twin(run)
    other.assert_bound()
    go_on(other)
    go_on(run)


@TWIN
@IN_GROUPS
def test_a_copy_of_the_optimizer_alone_keeps_the_rates_of_then_in_memory_of_its_own(kind, twin):
    run = half_trained(kind)
    rates, copied = run.rates(), twin(run.optimizer).param_groups
    go_on(run)
    assert [float(group["lr"]) for group in copied] == rates != run.rates()
    for group in copied:
        group["lr"].fill_(8.0)
    assert 8.0 not in run.rates()


@TWIN
@IN_GROUPS
def test_a_copy_of_the_optimizer_alone_is_given_a_scheduler_of_its_own(kind, twin):
    run = half_trained(kind)
    state = run.scheduler.state_dict()
    del run.scheduler
    other = twin(run)
    other.schedule()
    other.scheduler.load_state_dict(state)
    go_on(other)


# -- a compiled step ------------------------------------------------------------------------------


def compilations(run, load=False):
    """How often the step was compiled after each epoch; a state may be loaded in between."""
    torch._dynamo.reset()
    counter, counts = CompileCounterWithBackend("aot_eager"), []
    run.take_step = torch.compile(run.optimizer.step, backend=counter)
    for epoch in range(len(METRICS)):
        if load and epoch == CHANGED:
            run.optimizer.load_state_dict(through_a_file(run.optimizer.state_dict()))
        run.train_epochs(epoch, epoch + 1)
        counts.append(counter.frame_count)
    return counts


@EACH
def test_a_compiled_step_is_not_compiled_again_at_a_cut(kind):
    run = kind()
    first, second, *later = compilations(run)
    assert 0 < first < second  # the first step makes the momentum
    assert later == [second] * len(later)
    assert_undisturbed(run)


@pytest.mark.parametrize("kind", [Batched, DropIn])
def test_a_compiled_step_is_compiled_again_at_cuts_of_floats(kind, monkeypatch):
    monkeypatch.setattr(Batched, "publish", "float")
    monkeypatch.setattr(DropIn, "as_rate", float)
    monkeypatch.setattr(Batched, "assert_bound", lambda _: None)
    run = kind()
    counts = compilations(run)
    assert counts[-1] > counts[1] + 1
    assert_undisturbed(run)


@EACH
def test_a_compiled_step_has_the_rates_that_a_state_brings(kind):
    run = kind()
    compilations(run, load=True)
    assert_undisturbed(run)


# -- GradScaler and AveragedModel -----------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])  # which unscales and skips in its own way
@EACH
def test_a_gradient_scaler_steps_with_the_rates_and_skips_what_overflows(kind, fused):
    run, scaler = kind(), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for group in run.optimizer.param_groups:
        group["fused"] = fused
    run.optimizer._step_supports_amp_scaling = fused  # as its constructor does

    def take_step(spoil=False):
        for weight in run.weights:  # as scaler.scale(loss).backward() does
            weight.grad.mul_(scaler.scale(torch.ones(())))
        if spoil:
            run.weights[0].grad.view(-1)[0] = torch.inf
        scaler.step(run.optimizer)
        scaler.update()

    run.take_step = take_step
    run.train_epochs(0, CHANGED)
    before = run.values()
    run.backward()
    take_step(spoil=True)
    assert scaler.get_scale() == 512.0
    assert torch.equal(run.values(), before)
    run.train_epochs(CHANGED)
    assert_undisturbed(run, within=1e-14 if fused else 0.0)


@EACH
def test_an_average_of_weights_is_that_of_a_run_with_floats(kind):
    run = kind()
    plain = torchs_for(run)
    averages = [AveragedModel(each.weights) for each in (run, plain)]
    for epoch in range(len(METRICS)):
        for each, average in zip((run, plain), averages, strict=True):
            each.train_epochs(epoch, epoch + 1)
            average.update_parameters(each.weights)
    ours, torchs = (torch.cat([p.view(-1) for p in each.parameters()]) for each in averages)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-14)
    assert not torch.equal(ours, run.values().view(-1))
    assert_undisturbed(run)
