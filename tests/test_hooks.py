"""What schedulers leave behind in their optimizers: one hook, which calls those that live."""

import gc

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau, compose

KINDS = {
    "floats": lambda o: BatchedReduceLROnPlateau(o, patience=0, publish="float"),
    "tensors": lambda o: BatchedReduceLROnPlateau(o, patience=0, publish="tensor"),
    "composed": lambda o: compose(ConstantLR(o, 0.5), ReduceLROnPlateau(o, patience=0)),
    "composed lanes": lambda o: compose(ConstantLR(o, 0.5), BatchedReduceLROnPlateau(o)),
}
each_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())


def sgd():
    return SGD([torch.zeros(1)], lr=0.5)


def hooks_of(optimizer):
    return list(optimizer._optimizer_load_state_dict_post_hooks.values())


@each_kind
def test_schedulers_that_come_and_go_leave_one_hook_that_remembers_no_more_than_one(build):
    optimizer = sgd()
    saved = optimizer.state_dict()
    for _ in range(100):
        build(optimizer)  # freed at once: nothing of it is in a cycle
    (hook,) = hooks_of(optimizer)
    assert len(hook) <= 1
    optimizer.load_state_dict(saved)
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert optimizer.param_groups[0]["lr"] == 0.5


@each_kind
def test_a_scheduler_that_is_collected_is_not_called_and_the_others_are(build, monkeypatch):
    optimizer, called = sgd(), []
    first = build(optimizer)
    monkeypatch.setattr(type(first), "_after_load", lambda self: called.append(id(self)))
    second, third = build(optimizer), build(optimizer)
    left = {id(first), id(third)}
    del second
    gc.collect()
    optimizer.load_state_dict(optimizer.state_dict())
    assert set(called) == left
    assert len(called) == 2


@each_kind
def test_a_scheduler_may_be_collected_while_hooks_are_called(build):
    optimizer = sgd()
    kept = []

    def drop(_):
        kept.clear()
        gc.collect()

    optimizer.register_load_state_dict_post_hook(drop)
    kept += [build(optimizer), build(optimizer)]
    optimizer.register_load_state_dict_post_hook(drop)
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(hooks_of(optimizer)) == 3


def test_a_plateau_that_is_composed_leaves_its_optimizer_to_the_composed_one():
    optimizer = sgd()
    plateau = BatchedReduceLROnPlateau(optimizer, patience=0, publish="tensor")
    both = compose(ConstantLR(optimizer, 0.5, total_iters=9), plateau)
    for metric in (1.0, 2.0):
        both.step([metric])
    optimizer.load_state_dict(optimizer.state_dict())
    assert plateau.lanes.lr.tolist() == pytest.approx([0.1])
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.5 * 0.5 * 0.1)
