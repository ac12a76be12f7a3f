"""A fault in the middle of a call leaves all of it done, or nothing: at every point in turn.

``python tests/test_faults.py full|interrupts MOST [PART OF A NAME ...]`` tries so many of a call.
"""

import itertools
import json
import sys
import time

import pytest
import torch

import torch_plateau
from injected import DeviceFull, Interrupt, plain
from subjects import SUBJECTS
from torch_plateau.lanes.readable import is_out_of_memory
from torn import FOREIGN, is_whole, ways_on

FAULTS = {
    "full": (DeviceFull, torch.OutOfMemoryError),
    "interrupts": (Interrupt, KeyboardInterrupt),
}


def count(fault, subject):
    """How many points the call has."""
    build, act, *_ = subject
    act(build())  # what is made once
    thing, endless = build(), fault(10**9)
    with endless:
        act(thing)
    return 10**9 - endless.left


def found_in(name, kind, most):
    """Try so many points; say after which the subject is neither as before nor as after."""
    fault, error = FAULTS[kind]
    build, act, *_ = subject = SUBJECTS[name]
    ways, points = ways_on(name), count(fault, subject)
    tried = range(points - 1, -1, -max(-(-points // most), 1))  # the last: almost all is done
    torn = []
    for k in tried:
        thing, raised = build(), None
        with fault(k) as at:
            try:
                act(thing)
            except error as caught:
                raised = caught  # with all that it holds
        if not (at.raised and raised and is_whole(name, ways, thing)):
            torn.append(k)
    return {"call": name, "points": points, "tried": len(tried), "torn": torn}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_call_that_a_fault_ends_is_all_done_or_not_begun(kind):
    found = {}
    for name in SUBJECTS:
        if kind == "interrupts" and name in FOREIGN:
            continue
        torn = found_in(name, kind, most=3)["torn"]
        found.update({name: torn} if torn else {})
    assert found == {}


# -- callbacks that raise -------------------------------------------------------------------------


class BoomError(Exception):
    pass


def boom(*_):
    raise BoomError


def test_a_callback_that_raises_is_called_after_a_whole_step():
    ours, twin = (
        torch_plateau.PlateauLanes(2, 0.1, patience=0, on_reduce=call) for call in (boom, None)
    )
    for row in ([1.0, 1.0], [2.0, 0.5]):
        twin.step(row)
    ours.step([1.0, 1.0])
    with pytest.raises(BoomError):
        ours.step([2.0, 0.5])
    assert plain(ours.state_dict()) == plain(twin.state_dict())


def test_a_cut_of_a_subclass_that_raises_takes_the_step_back():
    class Refuses(torch_plateau.ReduceLROnPlateau):
        _reduce_lr = boom

    scheduler = Refuses(torch.optim.SGD([torch.ones(1)], lr=0.1), patience=0)
    scheduler.step(1.0)
    before = plain(scheduler.state_dict())
    with pytest.raises(BoomError):
        scheduler.step(2.0)
    assert plain(scheduler.state_dict()) == before


def test_a_number_that_raises_changes_nothing():
    class Raises:
        __float__ = boom

    scheduler = torch_plateau.ReduceLROnPlateau(torch.optim.SGD([torch.ones(1)], lr=0.1))
    before = plain(scheduler.state_dict())
    with pytest.raises(BoomError):
        scheduler.step(Raises())
    assert plain(scheduler.state_dict()) == before


@pytest.mark.parametrize("publish", ["float", "tensor"])
def test_a_scheduler_that_cannot_be_built_leaves_rates_as_they_were(publish, monkeypatch):
    optimizer = torch.optim.SGD([torch.ones(1)], lr=0.1)
    rate, kind = optimizer.param_groups[0]["lr"], torch_plateau.BatchedReduceLROnPlateau
    publishes = kind._publish

    def then_boom(self):
        publishes(self)
        boom()

    monkeypatch.setattr(kind, "_publish", then_boom)
    with pytest.raises(BoomError) as held:  # and in its frames what is half built
        kind(optimizer, publish=publish)
    assert optimizer.param_groups[0]["lr"] is rate
    (hook,) = optimizer._optimizer_load_state_dict_post_hooks.values()
    assert len(hook) == 0
    assert held.tb is not None


@pytest.mark.parametrize("lanes", [False, True])
def test_a_plateau_that_cannot_be_composed_is_as_it_was(lanes, monkeypatch):
    def built():
        optimizer = torch.optim.SGD([torch.ones(1)], lr=0.1)
        kinds = torch_plateau.ReduceLROnPlateau, torch_plateau.BatchedReduceLROnPlateau
        return optimizer, kinds[lanes](optimizer, patience=0, min_lr=1e-3)

    (optimizer, plateau), (_, twin) = built(), built()
    before = plain(plateau.state_dict())
    monkeypatch.setattr(torch_plateau.optim.scaled_schedule.Composed, "_attach", boom)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.raises(BoomError):
        torch_plateau.compose(schedule, plateau)
    assert plain(plateau.state_dict()) == before
    assert plateau.optimizer is optimizer
    for metric in (1.0, 2.0, 3.0):
        for each in (plateau, twin):
            each.step([metric] if lanes else metric)
    assert optimizer.param_groups[0]["lr"] == twin.optimizer.param_groups[0]["lr"] < 0.1


def test_memory_that_is_used_up_is_not_said_to_be_a_wrong_setting():
    with DeviceFull(0), pytest.raises(torch.OutOfMemoryError, match="injected"):
        torch_plateau.PlateauLanes(2, [0.1, 0.2])
    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    assert is_out_of_memory(full)  # for which torch has no class
    assert not is_out_of_memory(RuntimeError("no number"))


# -- clocks that jump -----------------------------------------------------------------------------


def test_clocks_that_jump_change_nothing(monkeypatch):
    history = torch.rand(50, 4, dtype=torch.float64)

    def results():
        swept = torch_plateau.sweep(history[:, 0], patience=[1, 2, 3], progress=True)
        scheduler = torch_plateau.BatchedReduceLROnPlateau(
            [torch.optim.SGD([torch.ones(1)], lr=0.1) for _ in range(4)], patience=1
        )
        for row in history:
            scheduler.step(row)
        return swept.final_lr.tolist(), plain(scheduler.state_dict())

    expected = results()
    jumps = itertools.cycle([1e9, -1e9, 0.0, 5.0])
    for clock in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: next(jumps))
    found = results()
    monkeypatch.undo()
    assert found == expected


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, most, *parts = sys.argv[1:]
    any_torn = False
    for each in SUBJECTS:
        if any(part in each for part in parts or ("",)):
            found = found_in(each, kind, int(most))
            any_torn |= bool(found["torn"]) and each not in FOREIGN
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
    sys.exit(any_torn)
