"""Two threads on one object: a defined order or a clear error, never a torn state."""

import sys
import threading
import time

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneAdam,
    LaneBest,
    LaneLR,
    LaneSGD,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
    compose,
    replay,
)

SECONDS = 0.3  # enough for each fault that was here to have shown every time


@pytest.fixture(autouse=True)
def often():
    """Threads of Python take turns far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def beside(*calls, seconds=SECONDS):
    """Make each call in a thread of its own, again and again; return how often."""
    counts, errors, end = [0] * len(calls), [], time.monotonic() + seconds

    def loop(i, call):
        try:
            while time.monotonic() < end or not counts[i]:
                call()
                counts[i] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return counts


class Oracle:
    """A scheduler of torch's that is taken to ever more equal metrics."""

    def __init__(self, **settings):
        self.optimizer = SGD([torch.ones(1)], lr=1.0)
        self.scheduler = TorchPlateau(self.optimizer, **settings)

    def after(self, steps):
        while self.scheduler.last_epoch < steps:
            self.scheduler.step(1.0)
        return self.scheduler, self.optimizer.param_groups[0]["lr"]


def torch_after(steps, **settings):
    return Oracle(**settings).after(steps)


CUTS = {"patience": 3, "cooldown": 2, "factor": 0.9999, "eps": 0.0}


@pytest.mark.parametrize("rate", [1.0, torch.tensor(1.0, dtype=torch.float64)])
def test_steps_of_the_drop_in_by_two_threads_are_so_many_steps(rate):
    rate = rate.clone() if isinstance(rate, torch.Tensor) else rate
    optimizer = SGD([torch.ones(1)], lr=rate)
    scheduler = ReduceLROnPlateau(optimizer, **CUTS)
    count = sum(beside(*[lambda: scheduler.step(1.0)] * 2, seconds=0.1))
    oracle, lowered = torch_after(count, **CUTS)
    assert float(optimizer.param_groups[0]["lr"]) == scheduler.get_last_lr()[0] == lowered
    for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
        assert getattr(scheduler, name) == getattr(oracle, name)


def test_a_snapshot_of_the_drop_in_is_of_whole_steps():
    optimizer = SGD([torch.ones(1)], lr=torch.tensor(1.0, dtype=torch.float64))
    scheduler, found = ReduceLROnPlateau(optimizer, **CUTS), []
    scheduler.step(1.0)
    beside(lambda: scheduler.step(1.0), lambda: found.append(scheduler.state_dict()))
    all_along = Oracle(**CUTS)
    for state in found:
        oracle, lowered = all_along.after(state["last_epoch"])
        assert state["num_bad_epochs"] == oracle.num_bad_epochs
        assert state["cooldown_counter"] == oracle.cooldown_counter
        assert state["_last_lr"] == [lowered]


def test_a_state_that_is_loaded_beside_steps_of_the_drop_in_is_whole():
    optimizer = SGD([torch.ones(1)], lr=torch.tensor(1.0, dtype=torch.float64))
    scheduler = ReduceLROnPlateau(optimizer, patience=10**6)
    states = [scheduler.state_dict() for _ in range(2)]
    for i, state in enumerate(states):
        state.update(last_epoch=10**6 * i, num_bad_epochs=10**6 * i, best=-1.0, patience=2**30)

    def look():
        now = scheduler.state_dict()
        assert now["last_epoch"] == now["num_bad_epochs"]

    scheduler.load_state_dict(states[0])
    beside(
        lambda: scheduler.step(1.0),
        lambda: [scheduler.load_state_dict(state) for state in states],
        look,
    )


@pytest.mark.parametrize("n", [3, 20_000])
def test_a_snapshot_of_lanes_is_of_whole_steps(n):
    lanes, metrics, found = PlateauLanes(n, 0.1, patience=2**30), torch.ones(n), []
    lanes.step(metrics)
    beside(
        lambda: lanes.step(metrics),
        lambda: found.append(lanes.state_dict()),
        lambda: found.append({"num_bad_epochs": lanes.num_bad_epochs}),
        lambda: found.append({"num_bad_epochs": 1 - lanes.last_reduction}),
    )
    for state in found:
        bad = state["num_bad_epochs"].unique()
        assert len(bad) == 1
        assert bad == state.get("num_steps", bad + 1) - 1


@pytest.mark.parametrize("n", [100, 20_000])
def test_lanes_are_stepped_beside_all_that_changes_them(n):
    lanes = PlateauLanes(n, 0.1, patience=10**6)
    states = [lanes.state_dict(), PlateauLanes(n, 0.1, patience=[3] * n).state_dict()]
    metrics = {size: torch.rand(size) for size in range(n, n + 3)}

    def step():
        try:
            lanes.step(metrics[len(lanes)])
        except ValueError as error:  # another thread was between len() and step()
            if "metrics: expected shape" not in str(error):
                raise

    def change():
        lanes.append(2, 0.1)
        lanes.remove([0, 1])
        for state in states:
            lanes.load_state_dict(state)
        lanes.set_lanes([0, n - 1], patience=5, lr=0.1)

    beside(step, step, change)
    assert len(lanes.lr) == len(lanes.best) == len(lanes.num_bad_epochs) == n


@pytest.mark.parametrize("n", [3, 20_000])
def test_a_callback_is_told_of_the_lanes_of_its_own_step(n):
    told = []
    lanes = PlateauLanes(
        n, 1.0, patience=0, factor=0.999, eps=0.0, on_reduce=lambda _, index: told.append(index)
    )
    lanes.step(torch.ones(n))
    first, last = torch.ones(n), torch.ones(n)
    first[-1], last[0] = -torch.inf, -torch.inf  # never worse
    counts = beside(*[lambda row=row: lanes.step(row) for row in (first, last)])
    everyone = torch.arange(n)
    assert len(told) == sum(counts)
    assert sum(torch.equal(index, everyone[:-1]) for index in told) <= counts[0]
    assert all(len(index) >= n - 2 for index in told)
    cuts = torch.zeros(n, dtype=torch.int32)
    for index in told:
        cuts[index] += 1
    assert torch.equal(cuts, lanes.num_reductions)


@pytest.mark.parametrize("publish", ["float", "tensor"])
def test_steps_of_a_batched_scheduler_by_two_threads_are_so_many_steps(publish):
    optimizers = [SGD([torch.ones(1)], lr=1.0) for _ in range(4)]
    scheduler = BatchedReduceLROnPlateau(optimizers, publish=publish, **CUTS)
    metrics = torch.ones(4)
    count = sum(beside(*[lambda: scheduler.step(metrics)] * 2))
    _, lowered = torch_after(count, **CUTS)
    assert scheduler.last_epoch == scheduler.lanes.num_steps == count
    assert scheduler.lanes.lr_master.tolist() == [lowered] * 4
    shown = lowered if publish == "float" else torch.tensor(lowered, dtype=torch.float32).item()
    assert [float(each.param_groups[0]["lr"]) for each in optimizers] == [shown] * 4


def test_a_batched_scheduler_may_be_changed_by_one_thread_while_another_steps_it():
    optimizers = [SGD([torch.ones(1)], lr=1.0) for _ in range(2)]
    scheduler = BatchedReduceLROnPlateau(optimizers, patience=0, factor=0.999, eps=0.0)
    metrics, state = torch.ones(2), scheduler.state_dict()

    def change():
        scheduler.load_state_dict(state)
        scheduler.patience = 0
        scheduler.lanes.set_lanes([0, 1], lr=0.5)
        saved = scheduler.state_dict()
        assert saved["last_epoch"] == saved["lanes"]["num_steps"]

    beside(lambda: scheduler.step(metrics), change)
    scheduler.step(metrics)
    shown = [each.param_groups[0]["lr"] for each in optimizers]
    assert shown == scheduler.lanes.lr_master.tolist()


def test_steps_of_a_composed_schedule_by_two_threads_are_so_many_steps():
    optimizer = SGD([torch.ones(1)], lr=1.0)
    schedule = ExponentialLR(optimizer, 0.9999)
    both = compose(schedule, ReduceLROnPlateau(optimizer, **CUTS))
    optimizer.step()  # or torch warns of schedules that are stepped before
    steps, _, _ = beside(
        lambda: both.step(1.0), both.step_schedule, lambda: both.state_dict()["scale"]
    )
    _, scale = torch_after(steps, **CUTS)
    plain = schedule.get_last_lr()[0]
    assert both.scale == scale
    assert optimizer.param_groups[0]["lr"] == plain * scale


def stacked(n, *shape):
    weights = torch.ones(n, *shape, requires_grad=True)
    weights.grad = torch.ones(n, *shape)
    return weights


@pytest.mark.parametrize("kind", [LaneSGD, LaneAdam])
def test_an_optimizer_with_a_rate_per_lane_steps_beside_changes_of_its_lanes(kind):
    n = 64
    lanes, weights = PlateauLanes(n, 0.5), [stacked(n, 3), stacked(n, 1000)]
    optimizer = kind(weights, lanes)
    for param in weights:
        param.data.zero_()
    seen = []

    def look():
        with torch.no_grad():
            seen.append([param[:, 0].clone() for param in weights])

    changes = beside(
        *[optimizer.step] * 2,
        lambda: lanes.set_lanes(torch.arange(n), lr=0.25),
        lambda: lanes.set_lanes(torch.arange(n), lr=0.5),
        lambda: optimizer.load_state_dict(optimizer.state_dict()),
    )
    look()
    one, other = seen[-1]
    assert torch.equal(one, other)  # by the same rates, whatever they were
    if kind is LaneSGD:
        assert -0.5 * sum(changes[:2]) <= one.max() <= -0.25 * sum(changes[:2])
    else:
        counts = {float(each["step"].max()) for each in optimizer.state.values()}
        assert counts <= set(range(1, sum(changes[:2]) + 1))


def test_a_stack_is_stepped_by_one_thread_while_another_moves_its_lanes():
    n = 6
    weights = stacked(n, 2)
    lanes = PlateauLanes(n, 0.5)
    optimizer = LaneSGD([weights], lanes)
    best = LaneBest(lanes, [weights])
    stack = LaneStack(lanes, optimizer, [weights], best=best)

    def shrink_and_grow():
        stack.keep(torch.arange(len(stack)) > 0)
        stack.append(1, 0.5, [torch.zeros(1, 2)])

    def save():
        state = stack.state_dict()
        rows = {len(state["lanes"]["best"]), len(state["params"]["0"])}
        assert rows <= {n - 1, n}
        assert len(rows) == 1

    beside(stack.step, shrink_and_grow, lambda: stack.copy([1], [2]), save)
    assert len(lanes) == len(weights) == len(best.best["0"]) == n


def test_the_best_of_lanes_is_of_one_step_in_all_parameters():
    n = 4
    lanes = PlateauLanes(n, 0.1)
    weights = {name: torch.zeros(n) for name in "ab"}
    best = LaneBest(lanes, weights)
    lanes.step(torch.zeros(n))

    def save():
        state = best.state_dict()["best"]
        assert torch.equal(state["a"], state["b"])

    def train():
        with lanes._core:  # as far as users can: weights are theirs
            for tensor in weights.values():
                tensor += 1

    beside(train, best.update, best.restore, save)
    assert torch.equal(best.best["a"], best.best["b"])


def test_lanes_that_leave_in_the_middle_of_an_optimizer_step_leave_the_parameters_as_they_were():
    lanes, weights = PlateauLanes(3, 0.5), stacked(3, 2)
    optimizer = SGD([weights], lr=1.0)
    LaneLR(optimizer, lanes)

    def closure():
        thread = threading.Thread(target=lambda: lanes.remove([0]))
        thread.start()
        thread.join()
        return torch.zeros(())

    before = weights.detach().clone()
    with pytest.raises(RuntimeError, match=r"lanes: expected 3 on cpu until the optimizer's step"):
        optimizer.step(closure)
    assert torch.equal(weights, before)


def test_replays_by_two_threads_are_what_each_is_alone():
    history = (torch.rand(50, 300, dtype=torch.float64) * 8).round()
    alone = replay(history, patience=1, threads=2).lanes.state_dict()
    found = []
    beside(
        *[lambda: found.append(replay(history, patience=1, threads=2).lanes.state_dict())] * 2,
        seconds=0.1,
    )
    for state in found:
        for name in ("best", "lr", "num_reductions"):
            assert torch.equal(state[name], alone[name])
