"""Memory that lanes hand out may be moved, shared or freed: the next step is right, or refused."""

import copy
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch.optim import SGD

from oracle import TorchLanes, assert_same_state
from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes

N = 5
SETTINGS = {"patience": 1, "factor": 0.5, "cooldown": 1}


def noisy(steps, n=N):
    return (torch.rand(steps, n, dtype=torch.float64) * 8).round() / 8


def send(thing):
    """Make ready for another process, as a queue's own thread does, and an argument of one."""
    torch.multiprocessing.reductions.init_reductions()
    return ForkingPickler.dumps(thing)


def trade(tensor, other):
    tensor.data = other


MOVES = {
    "shared": lambda _, tensor: tensor.share_memory_(),
    "sent": lambda _, tensor: send(tensor),
    "one element sent": lambda _, tensor: send(tensor[2]),
    "sent as lanes": lambda lanes, _: send(lanes),
    "given other data": lambda _, tensor: trade(tensor, tensor.clone()),
    "set to other data": lambda _, tensor: tensor.set_(tensor.clone()),
    "put into a larger one": lambda _, tensor: tensor.set_(
        torch.cat([tensor, tensor])[len(tensor) :]
    ),
}
BREAKS = {
    "longer": lambda tensor: trade(tensor, torch.cat([tensor, tensor])),
    "shorter": lambda tensor: tensor.resize_(N - 1),
    "no vector": lambda tensor: tensor.resize_(N, 1),
    "strided": lambda tensor: trade(tensor, torch.stack([tensor, tensor], 1)[:, 0]),
    "another type": lambda tensor: trade(tensor, tensor.to(torch.float16)),
    "freed": lambda tensor: (trade(tensor, tensor.clone()), tensor.untyped_storage().resize_(0)),
}
each_tensor = pytest.mark.parametrize("name", ["lr", "best"])


@each_tensor
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_lanes_go_on_in_the_memory_to_which_a_tensor_was_moved(move, name):
    lanes, oracle = PlateauLanes(N, 0.1, **SETTINGS), TorchLanes([[0.1]] * N, [SETTINGS] * N)
    tensor = getattr(lanes, name)
    for epoch, row in enumerate(noisy(40)):
        if epoch in (7, 20):
            move(lanes, tensor)
        lanes.step(row)
        oracle.step(row.tolist())
        assert_same_state(lanes, oracle)
        assert getattr(lanes, name) is tensor
    assert min(oracle.num_reductions) > 2


@each_tensor
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_whatever_else_reads_or_changes_lanes_goes_on_there_too(move, name):
    lanes = PlateauLanes(N, 0.1, **SETTINGS)
    lanes.step(noisy(1)[0])
    twin = copy.deepcopy(lanes)
    for change in (
        lambda each: each.set_lanes([1, 3], lr=0.25, patience=0),
        lambda each: each.copy_lanes([1], [4]),
        lambda each: each.reset([0]),
        lambda each: each.load_state_dict(each.state_dict()),
        lambda each: each.append(1, 0.5),
        lambda each: each.remove([5]),
    ):
        move(lanes, getattr(lanes, name))
        for each in (lanes, twin):
            change(each)
        assert torch.equal(lanes.lr, twin.lr)
        for row in noisy(8, len(lanes)):
            assert torch.equal(lanes.step(row), twin.step(row))
            assert torch.equal(lanes.best, twin.best)


@each_tensor
@pytest.mark.parametrize("spoil", BREAKS.values(), ids=BREAKS)
def test_a_tensor_that_is_not_what_it_was_is_refused_and_nothing_changes(spoil, name):
    lanes = PlateauLanes(N, 0.1, **SETTINGS)
    for row in noisy(3):
        lanes.step(row)
    tensor, others = getattr(lanes, name), ("num_bad_epochs", "num_reductions", "num_steps")
    good, before = tensor.clone(), [getattr(lanes, each) for each in others]
    twin = copy.deepcopy(lanes)
    spoil(tensor)
    for call in (
        lambda: lanes.step(noisy(1)[0]),
        lambda: lanes.step(noisy(1)[0], active=[True] * N),
        lambda: lanes.set_lanes([0], patience=3),
        lambda: lanes.append(1, 0.1),
        lambda: lanes.remove([0]),
    ):
        with pytest.raises(RuntimeError, match=f"^{name}: expected the tensor that the lanes gave"):
            call()
    after = [getattr(lanes, each) for each in others]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    trade(tensor, good)  # the cure
    row = noisy(1)[0]
    assert torch.equal(lanes.step(row), twin.step(row))
    assert torch.equal(lanes.best, twin.best)


@each_tensor
def test_their_memory_cannot_be_freed_or_made_longer_under_the_core(name):
    lanes = PlateauLanes(N, 0.1, **SETTINGS)
    tensor, oracle = getattr(lanes, name), TorchLanes([[0.1]] * N, [SETTINGS] * N)
    for row in noisy(30):
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.untyped_storage().resize_(0)
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.resize_(1000)  # after which torch calls it that long all the same
        with pytest.raises(RuntimeError, match=f"^{name}: expected the tensor that the lanes gave"):
            lanes.step(row)
        tensor.resize_(N)
        lanes.step(row)
        oracle.step(row.tolist())
        assert_same_state(lanes, oracle)


@pytest.mark.parametrize(
    "name",
    [
        *("lr_master", "num_bad_epochs", "cooldown_counter", "improved", "reduced", "at_min_lr"),
        *("num_reductions", "num_steps", "last_reduction", "finished"),
    ],
)
def test_all_but_lr_and_best_is_a_copy(name, device):
    lanes = PlateauLanes(3, 0.1, patience=0, nan="freeze", device=device)
    lanes.step([1.0, 1.0, 1.0])
    before = getattr(lanes, name)
    kept = before.clone()
    before.untyped_storage().resize_(0)
    for row in ([2.0, 0.5, float("nan")], [3.0, 0.5, 1.0]):
        lanes.step(row)
    assert getattr(lanes, name).shape == kept.shape
    before = getattr(lanes, name)
    before.fill_(1)
    lanes.step([4.0, 1.0, 1.0])
    assert lanes.num_steps == 4
    assert lanes.num_reductions.tolist() == [3, 2, 0]


def test_counts_can_be_compared_before_and_after_a_step(device):
    lanes = PlateauLanes(2, 0.1, patience=0, device=device)
    lanes.step([1.0, 1.0])
    before = lanes.num_reductions
    lanes.step([2.0, 0.5])
    assert (lanes.num_reductions > before).tolist() == [True, False]


@pytest.mark.parametrize(
    "move",
    [
        lambda _, optimizer: send(optimizer.state_dict()),
        lambda _, optimizer: send(optimizer.param_groups[0]["lr"]),
        lambda lanes, _: lanes.lr.share_memory_(),
        lambda lanes, _: trade(lanes.lr, lanes.lr.clone()),
        lambda lanes, _: lanes.lr.set_(lanes.lr.clone()),
    ],
    ids=["state sent", "rate sent", "shared", "given other data", "set to other data"],
)
def test_tensor_rates_of_optimizers_go_on_there_too(move):
    rates = [0.5, 0.25]
    optimizers = [SGD([torch.ones(2)], lr=torch.tensor(rate)) for rate in rates]
    scheduler = BatchedReduceLROnPlateau(optimizers, publish="tensor", **SETTINGS)
    oracle = TorchLanes([[rate] for rate in rates], [SETTINGS] * 2)
    for epoch, row in enumerate(noisy(40, 2)):
        if epoch in (7, 20):
            move(scheduler.lanes, optimizers[0])
        scheduler.step(row)
        oracle.step(row.tolist())
        assert [float(each.param_groups[0]["lr"]) for each in optimizers] == oracle.rates
    assert min(oracle.num_reductions) > 2


def test_a_rate_per_lane_is_read_where_lr_was_moved_to():
    params = torch.ones(2, 3, requires_grad=True)
    optimizer = SGD([params], lr=1.0)
    lanes = PlateauLanes(2, [0.5, 0.25], patience=0, factor=0.5)
    LaneLR(optimizer, lanes)
    send(lanes)
    lanes.step([1.0, 1.0])
    lanes.step([2.0, 0.5])
    params.grad = torch.ones(2, 3)
    optimizer.step()
    assert params.tolist() == [[0.75] * 3, [0.75] * 3]


def child(queue, answers):
    """Read rates that another process cuts, whenever it says so."""
    rates = queue.get()
    answers.put("got it")
    for _ in iter(queue.get, None):
        answers.put(rates.tolist())


# JAX warns of any fork once another test has imported it
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called")
@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_another_process_sees_the_cuts_in_a_rate_that_it_was_sent(way):
    context = torch.multiprocessing.get_context(way)
    queue, answers = context.Queue(), context.Queue()
    process = context.Process(target=child, args=(queue, answers))
    process.start()
    lanes = PlateauLanes(3, 0.5, patience=0, factor=0.5)
    lanes.step([1.0, 1.0, 1.0])
    queue.put(lanes.lr)
    assert answers.get(timeout=60) == "got it"  # a thread of the queue moves it until then
    for row, rates in (([2.0, 0.5, 0.5], [0.25, 0.5, 0.5]), ([2.0, 2.0, 0.1], [0.125, 0.25, 0.5])):
        lanes.step(row)
        queue.put("read")
        assert answers.get(timeout=60) == rates == lanes.lr.tolist()
    queue.put(None)
    process.join(60)
    assert process.exitcode == 0


# -- autograd -------------------------------------------------------------------------------------


def loss_of(values):
    weights = torch.ones(2, dtype=values.dtype, device=values.device, requires_grad=True)
    return weights, (weights * values).sum()


WRITES = {
    "step": lambda lanes: lanes.step([2.0, 2.0]),
    "masked step": lambda lanes: lanes.step([2.0, 2.0], active=[True, False]),
    "set_lanes": lambda lanes: lanes.set_lanes([0], lr=0.3),
    "reset": lambda lanes: lanes.reset([0]),
    "copy_lanes": lambda lanes: lanes.copy_lanes([0], [1]),
    "load_state_dict": lambda lanes: lanes.load_state_dict(lanes.state_dict()),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("parts", [{}, {"window": 2}], ids=["plain", "parts"])
def test_a_gradient_that_needs_rates_from_before_a_write_is_refused(write, parts, device):
    lanes = PlateauLanes(2, [0.5, 0.25], patience=0, device=device, **parts)
    lanes.step([1.0, 1.0])
    _, loss = loss_of(lanes.lr)
    write(lanes)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("groups", [None, [1, 1]], ids=["a rate a lane", "groups"])
def test_a_gradient_that_needs_rates_from_before_a_step_of_a_warm_up_is_refused(groups, device):
    lanes = PlateauLanes(2, [0.5, 0.25], groups=groups, warmup_steps=3, device=device)
    _, loss = loss_of(lanes.lr)
    lanes.step([1.0, 1.0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_that_needs_a_best_from_before_a_step_is_refused(device):
    lanes = PlateauLanes(2, [0.5, 0.25], device=device)
    lanes.step([1.0, 1.0])
    _, loss = loss_of(lanes.best)
    lanes.step([0.5, 2.0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_across_a_step_that_cuts_nothing_is_right():
    lanes = PlateauLanes(2, [0.5, 0.25], patience=0)
    lanes.step([1.0, 1.0])
    weights, loss = loss_of(lanes.lr)
    lanes.step([0.5, 0.5])
    loss.backward()
    assert weights.grad.tolist() == [0.5, 0.25]
