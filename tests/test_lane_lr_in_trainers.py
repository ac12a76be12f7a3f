"""LaneLR under what trainers do: schedules, copies, pickles, checkpoints and wrappers.

Each against a separate optimizer for every lane, with a schedule of its own.
"""

import copy
import io
import pickle
import types
from importlib.util import find_spec

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LinearLR, OneCycleLR
from torch.optim.swa_utils import SWALR
from torch.utils.hooks import RemovableHandle

from torch_plateau import LaneAdamW, LaneLR, LaneSGD, LaneStack, PlateauLanes

N = 4
RATES = [1e-3, 1e-2, 0.1, 0.5]
KINDS = {
    "SGD": lambda params, lr: SGD(params, lr=lr, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda params, lr: AdamW(params, lr=lr, weight_decay=0.1),
}
KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


class Stack(torch.nn.Module):
    """Stacked parameters, with the rates of lanes, beside the same apart."""

    def __init__(self, kind, device):
        super().__init__()
        shapes = {"weight": (N, 3, 2), "bias": (N,)}
        for name, shape in shapes.items():
            start = torch.randn(shape, dtype=torch.float64).to(device)
            self.register_parameter(name, torch.nn.Parameter(start))
        self.lanes = PlateauLanes(N, RATES, device=device)
        self.optimizer = kind(self.parameters(), 1.0)
        self.apart = [[p[i].detach().clone() for p in self.parameters()] for i in range(N)]
        self.many = [kind(params, rate) for params, rate in zip(self.apart, RATES, strict=True)]

    def train_apart(self, gradients):
        for i, (params, optimizer) in enumerate(zip(self.apart, self.many, strict=True)):
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient[i].clone()
            optimizer.step()

    def cut(self, lanes):
        """Halve the rates of every other lane."""
        lanes.set_lanes([0, 2], lr=[RATES[0] / 2, RATES[2] / 2])
        for i in (0, 2):
            for group in self.many[i].param_groups:
                group["lr"] *= 0.5
                if "initial_lr" in group:
                    group["initial_lr"] *= 0.5

    def gradients(self):
        return [torch.randn_like(p) for p in self.parameters()]

    def train(self, steps):
        for _ in range(steps):
            gradients = self.gradients()
            self.train_apart(gradients)
            train(self.optimizer, gradients)

    def assert_equal_to_those_apart(self, optimizer=None):
        stacked = params_of(optimizer or self.optimizer)
        for p, parts in zip(stacked, zip(*self.apart, strict=True), strict=True):
            assert (p.detach() - torch.stack(parts)).abs().max() <= 1e-12


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def train(optimizer, gradients):
    for param, gradient in zip(params_of(optimizer), gradients, strict=True):
        param.grad = gradient.clone()
    optimizer.step()


# -- schedules ------------------------------------------------------------------------------------

# Each multiplies the rate, so it is the same for a factor of 1 and for rates of any size.
SCHEDULES = {
    "warm-up": lambda optimizer, _: LinearLR(optimizer, start_factor=0.01, total_iters=30),
    "one cycle": lambda optimizer, lr: OneCycleLR(
        optimizer, max_lr=lr, total_steps=120, cycle_momentum=False
    ),
    "SWA": lambda optimizer, lr: SWALR(optimizer, swa_lr=lr * 0.05, anneal_epochs=20),
}


@pytest.mark.parametrize("first", ["schedule", "LaneLR"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@KIND
def test_a_schedule_of_the_stack_is_a_schedule_of_each_lane(kind, schedule, first, device):
    stack = Stack(kind, device)
    if first == "LaneLR":
        LaneLR(stack.optimizer, stack.lanes)
    schedules = [schedule(stack.optimizer, 1.0), *map(schedule, stack.many, RATES)]
    if first == "schedule":
        LaneLR(stack.optimizer, stack.lanes)
    factors = set()
    for _ in range(100):
        stack.train(1)
        factors.add(stack.optimizer.param_groups[0]["lr"])
        for each in schedules:
            each.step()
    stack.assert_equal_to_those_apart()
    assert len(factors) > 15


@KIND
def test_lanes_that_are_cut_in_a_warm_up_go_on_with_it(kind, device):
    stack = Stack(kind, device)
    LaneLR(stack.optimizer, stack.lanes)
    warm_up = [
        LinearLR(each, start_factor=0.1, total_iters=40) for each in (stack.optimizer, *stack.many)
    ]
    for step in range(60):
        if step == 20:
            stack.cut(stack.lanes)
        stack.train(1)
        for each in warm_up:
            each.step()
    stack.assert_equal_to_those_apart()


# -- copies ---------------------------------------------------------------------------------------


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


TWINS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": through_a_file,
    "a copy of a copy": lambda thing: copy.deepcopy(pickle.loads(pickle.dumps(thing))),
}
TWIN = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS.keys())


@TWIN
@KIND
def test_a_copy_of_the_optimizer_alone_goes_on_with_the_rates_of_its_lanes(kind, twin, device):
    stack = Stack(kind, device)
    rates = LaneLR(stack.optimizer, stack.lanes)
    stack.train(20)
    stack.cut(stack.lanes)
    stack.train(20)
    other = twin(stack.optimizer)
    stack.lanes.set_lanes(range(N), lr=0.0)  # which are not the lanes of the copy
    rates.remove()
    for _ in range(20):
        gradients = stack.gradients()
        stack.train_apart(gradients)
        train(other, gradients)
    stack.assert_equal_to_those_apart(other)


@TWIN
def test_lanes_that_are_copied_with_the_optimizer_are_those_of_the_copy(twin, device):
    stack = Stack(KINDS["SGD"], device)
    LaneLR(stack.optimizer, stack.lanes)
    stack.train(5)
    other, lanes = twin((stack.optimizer, stack.lanes))
    stack.cut(lanes)
    for _ in range(20):
        gradients = stack.gradients()
        stack.train_apart(gradients)
        train(other, gradients)
    stack.assert_equal_to_those_apart(other)


def test_hooks_of_others_do_not_take_the_place_of_those_that_a_pickle_brought(monkeypatch, device):
    stack = Stack(KINDS["SGD"], device)
    LaneLR(stack.optimizer, stack.lanes)
    other = pickle.loads(pickle.dumps(stack.optimizer))
    monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in a new process
    for _ in range(200):
        other.register_step_pre_hook(lambda *_: None)
        other.register_step_post_hook(lambda *_: None)
    gradients = stack.gradients()
    stack.train_apart(gradients)
    train(other, gradients)
    stack.assert_equal_to_those_apart(other)


def test_a_copy_of_an_optimizer_whose_lane_lr_was_removed_has_none(device):
    stack = Stack(KINDS["SGD"], device)
    rates = LaneLR(stack.optimizer, stack.lanes)
    rates.remove()
    other = copy.deepcopy(stack.optimizer)
    assert not other._optimizer_step_pre_hooks
    assert LaneLR(other, stack.lanes) is not rates
    other, copied = copy.deepcopy((stack.optimizer, rates))
    copied.remove()
    assert not other._optimizer_step_pre_hooks


def test_a_lane_lr_outlives_its_optimizer_and_is_then_removed_from_nothing(device):
    stack = Stack(KINDS["SGD"], device)
    rates = LaneLR(stack.optimizer, stack.lanes)
    copied = copy.deepcopy(rates)  # of an optimizer that nobody holds
    copied.remove()
    copy.deepcopy(copied).remove()
    assert stack.optimizer._optimizer_step_pre_hooks


def test_lanes_that_cannot_be_pickled_are_refused_and_not_left_behind(device):
    stack = Stack(KINDS["SGD"], device)
    stack.lanes = PlateauLanes(N, RATES, device=device, on_reduce=lambda *_: None)
    LaneLR(stack.optimizer, stack.lanes)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(stack.optimizer)


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")
@pytest.mark.filterwarnings("ignore::FutureWarning:torch.distributed")
@KIND
def test_a_distributed_checkpoint_is_resumed_with_a_rate_for_each_lane(kind, tmp_path, device):
    stack, fresh = Stack(kind, device), Stack(kind, device)
    for each in (stack, fresh):
        LaneLR(each.optimizer, each.lanes)
        each.warm_up = LinearLR(each.optimizer, start_factor=0.25, total_iters=40)
    own_warm_up = [LinearLR(each, start_factor=0.25, total_iters=40) for each in stack.many]

    def train_both(steps, on):
        for _ in range(steps):
            gradients = stack.gradients()
            stack.train_apart(gradients)
            train(on.optimizer, gradients)
            for each in (on.warm_up, *own_warm_up):
                each.step()

    def parts(of):
        # of a fresh optimizer this takes a step with a rate of 0, to make its state
        return {
            "model": of.state_dict(),
            "optimizer": get_optimizer_state_dict(of, of.optimizer),
            "lanes": of.lanes.state_dict(),
            "warm-up": of.warm_up.state_dict(),
        }

    train_both(20, stack)
    stack.cut(stack.lanes)
    train_both(10, stack)
    dcp.save(parts(stack), checkpoint_id=tmp_path / "checkpoint")
    before = [param.detach().clone() for param in fresh.parameters()]
    loaded = parts(fresh)
    assert all(map(torch.equal, before, fresh.parameters()))
    dcp.load(loaded, checkpoint_id=tmp_path / "checkpoint")
    fresh.load_state_dict(loaded["model"])
    set_optimizer_state_dict(fresh, fresh.optimizer, loaded["optimizer"])
    fresh.lanes.load_state_dict(loaded["lanes"])
    fresh.warm_up.load_state_dict(loaded["warm-up"])
    train_both(30, fresh)
    stack.assert_equal_to_those_apart(fresh.optimizer)


@KIND
def test_a_state_dict_is_that_of_torch_and_is_resumed(kind, device):
    stack, fresh = Stack(kind, device), Stack(kind, device)
    for each in (stack, fresh):
        LaneLR(each.optimizer, each.lanes)
    stack.train(20)
    saved = [each.state_dict() for each in (stack, stack.optimizer, stack.lanes)]
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    for thing, state in zip((fresh, fresh.optimizer, fresh.lanes), states, strict=True):
        thing.load_state_dict(state)
    for _ in range(20):
        gradients = stack.gradients()
        stack.train_apart(gradients)
        train(fresh.optimizer, gradients)
    stack.assert_equal_to_those_apart(fresh.optimizer)


# -- wrappers -------------------------------------------------------------------------------------


class FabricLike:
    """As Fabric's and Lightning's: the attributes of the optimizer, whose class it mixes in."""

    def __init__(self, optimizer, name):
        self.__dict__ = {key: value for key, value in vars(optimizer).items() if key != "step"}
        kind = type(optimizer)
        self.__class__ = type("Fabric" + kind.__name__, (FabricLike, kind), {})
        setattr(self, name, optimizer)
        self._inner = optimizer

    def step(self, closure=None):
        return self._inner.step(closure)


def accelerate_like(optimizer):
    class Wrapper(torch.optim.Optimizer):
        def __init__(self):
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)

        def step(self, closure=None):
            self.optimizer.step(closure)

    return Wrapper()


def fabrics(optimizer):
    from lightning.fabric import Fabric

    return Fabric(accelerator="cpu", devices=1).setup_optimizers(optimizer)


def own_accelerates(optimizer):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)  # of other tests, on other devices
    GradientState._reset_state()
    return Accelerator(cpu=True).prepare_optimizer(optimizer)


WRAPPERS = {
    "by optimizer": lambda optimizer: FabricLike(optimizer, "optimizer"),
    "by _optimizer": lambda optimizer: FabricLike(optimizer, "_optimizer"),
    "one by isinstance": accelerate_like,
    "twice": lambda optimizer: accelerate_like(FabricLike(optimizer, "optimizer")),
}
# the real ones, where they are installed
REAL = {"lightning": fabrics, "accelerate": own_accelerates}
WRAPPERS |= {name: wrap for name, wrap in REAL.items() if find_spec(name)}


@pytest.mark.parametrize("first", ["wrapper", "LaneLR"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@KIND
def test_a_wrapped_optimizer_has_the_rates_whatever_came_first(kind, wrap, first, device):
    stack = Stack(kind, device)
    if first == "LaneLR":
        LaneLR(stack.optimizer, stack.lanes)
    wrapped = wrap(stack.optimizer)
    if first == "wrapper":
        LaneLR(wrapped, stack.lanes)
    with pytest.raises(ValueError, match="optimizer: expected one without a LaneLR"):
        LaneLR(wrapped, stack.lanes)
    for _ in range(20):
        gradients = stack.gradients()
        stack.train_apart(gradients)
        train(wrapped, gradients)
    stack.assert_equal_to_those_apart()


STACKED = {
    "SGD": lambda params, _: SGD(params, lr=1.0, momentum=0.9),
    "LaneSGD": lambda params, lanes: LaneSGD(params, lanes, momentum=0.9),
    "LaneAdamW": LaneAdamW,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("kind", STACKED.values(), ids=STACKED.keys())
def test_a_stack_with_a_wrapped_optimizer_is_one_with_the_optimizer(kind, wrap, device):
    start = torch.randn(N, 3, device=device)

    def stack(wrap):
        lanes, params = PlateauLanes(N, RATES, device=device), [start.clone().requires_grad_()]
        optimizer = kind(params, lanes)
        wrapped = wrap(optimizer)
        if isinstance(optimizer, SGD):
            LaneLR(wrapped, lanes)
        return LaneStack(lanes, wrapped, params)

    def lived(stack):
        (param,) = stack.params.values()
        for gradient in gradients[:6]:
            param.grad = gradient.clone()
            stack.step()
        assert stack.skipped.tolist() == [0, 1, 0, 0]
        stack.copy([0], [3])
        stack.refill([1], [torch.ones(1, 3, device=device)])
        stack.load_state_dict(stack.state_dict())
        stack.keep([0, 1, 3])
        stack.append(1, 0.1, [torch.ones(1, 3, device=device)])
        other = copy.deepcopy(stack)
        for each in (stack, other):
            (param,) = each.params.values()
            param.grad = gradients[6].clone()
            each.step()
        return [*stack.params.values(), *other.params.values(), stack.skipped, stack.lanes.lr]

    gradients = torch.randn(7, N, 3, device=device)
    gradients[2, 1, 0] = torch.nan
    bare, wrapped = stack(lambda optimizer: optimizer), stack(wrap)
    assert type(wrapped.optimizer) is type(bare.optimizer)
    for one, two in zip(lived(bare), lived(wrapped), strict=True):
        assert torch.equal(one, two)


def test_a_wrapper_around_what_is_no_optimizer_is_refused(device):
    wrapper = types.SimpleNamespace(optimizer="adam", _optimizer=None)
    with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got SimpleNamespace"):
        LaneLR(wrapper, PlateauLanes(N, RATES, device=device))
