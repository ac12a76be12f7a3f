"""The life of lanes on a GPU: nothing waits for it, and all that writes in place can be captured.

That nothing waits is shown without a GPU too: on tensors of device meta, which have no values to
read, under a mode that finds copies from the host for which torch would wait.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cuda_lanes import sync_debug_mode
from oracle import same_bits
from torch_plateau import (
    LaneBest,
    LaneLR,
    LaneStack,
    PlateauLanes,
    clip_lane_grad_norm_,
)
from torch_plateau.lanes import changes, inputs, selection

N = 6
SETTINGS = {
    "uniform": {},
    "one per lane": {"patience": [1] * N},
    "gates": {"threshold": [0.1] * N, "mode": ["min", "max"] * 3, "counting": ["optax"] * N},
    "optional parts": {
        "window": [1, 2, 3] * 2,
        "smoothing": 0.5,
        "accumulate": 2,
        "patience_at_min": 3,
        "warmup_steps": 4,
        "events": 3,
        "initial_patience": 1,
        "max_reductions": 3,
    },
    "groups": {"groups": [2] * N, "min_lr": [0.01] * N, "warmup_steps": [4, 1] * 3},
}
CHANGES = {
    "lr": 0.2,
    "factor": 0.5,
    "patience": 3,
    "threshold": 0.1,
    "cooldown": 1,
    "min_lr": 0.05,
    "mode": "max",
    "threshold_mode": "abs",
    "counting": "keras",
    "nan": "skip",
    "eps": 0.0,
    "atol": 0.1,
    "smoothing": 0.25,
    "accumulate": 2,
    "warmup_steps": 3,
}
each_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def live_through(lanes, params, device):
    """All that may happen to lanes in place, by lane numbers and by masks on the device."""
    numbers = torch.tensor([4, 1, 4], device="cpu").to(device, non_blocking=True)
    others = torch.tensor([0, 4, 2], device="cpu").to(device, non_blocking=True)
    mask = torch.tensor([True, False] * 3, device="cpu").to(device, non_blocking=True)
    values = torch.full((3,), 0.25, dtype=torch.float64, device=device)
    best = LaneBest(lanes, params, on_cut="rollback")

    def live():
        lanes.set_lanes(mask, **CHANGES)
        lanes.set_lanes([0, 1], lr=[0.1, 0.2])
        lanes.set_lanes(numbers, lr=values, factor=values, smoothing=values, mode=values.byte())
        lanes.copy_lanes(others, numbers)
        lanes.reset(mask)
        lanes.reset([5])
        best.update()
        best.restore(numbers)
        best.state_dict()
        return [lanes.at_min_lr, lanes.finished, lanes.lr_master, lanes.state_dict()]

    return live


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU if device meta were one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        of = [each.device.type for each in args if isinstance(each, torch.Tensor)]
        name = func.overloadpacket.__name__
        blocking = not kwargs.get("non_blocking") and not (name == "copy_" and args[2:])
        moved = name in ("_to_copy", "copy_") and kwargs.get("device", args[0].device).type
        if moved and blocking and {moved, *of} == {"cpu", "meta"}:
            self.found.append(f"copy from {of[-1]}")
        elif len(set(of)) > 1 and not moved:
            self.found.append(f"{name} of both")
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal") and "meta" in of:
            self.found.append(name)
        return func(*args, **kwargs)


class NoCore(contextlib.nullcontext):
    """In place of the core, which cannot point at tensors that hold nothing."""

    def has_moved(self):
        return False

    def connect(self, *args):
        *_, writes, owner, names = args
        for write in writes:
            write()
        for name, value in names.items():
            setattr(owner, name, value)


def on_meta(lanes):
    """The lanes as they would be on a GPU, with tensors that hold nothing."""
    lanes._core = NoCore()
    lanes._become(lanes._state.to(torch.device("meta"), lanes.dtype), in_place=False)
    return lanes


@each_setting
def test_no_part_of_a_life_in_place_would_wait(settings, monkeypatch):
    for module in (changes, inputs, selection):
        monkeypatch.setattr(module, "check_readable", lambda *_: None)
    monkeypatch.setattr("torch_plateau.optim.stacked.check_readable", lambda *_: None)
    lanes = on_meta(PlateauLanes(N, 0.1, **settings))
    live = live_through(lanes, [torch.empty(N, 3, device="meta")], "meta")
    with Waits() as waits:
        live()
    assert waits.found == []


def stack_on(lanes, device):
    """A stack with gradients and a state of its optimizer."""
    params = [torch.zeros(N, 3, 2, device=device), torch.zeros(N, device=device)]
    for param in params:
        param.requires_grad_().grad = torch.ones(param.shape, device=device)
    optimizer = torch.optim.AdamW(params, lr=1.0, capturable=torch.device(device).type == "cuda")
    LaneLR(optimizer, lanes)
    buffers = [torch.zeros(N, 4, device=device)]
    return LaneStack(lanes, optimizer, params, buffers, LaneBest(lanes, [*params, *buffers]))


def move_through(stack, device):
    """All that may happen to a stack without a change of its size."""
    numbers = torch.tensor([4, 1, 4], device="cpu").to(device, non_blocking=True)
    mask = torch.tensor([True, False] * 3, device="cpu").to(device, non_blocking=True)
    metrics = torch.ones(N, device=device)
    new = [torch.ones(3, *param.shape[1:], device=device) for param in stack.params.values()]
    all_new = [torch.ones(param.shape, device=device) for param in stack.params.values()]
    buffers = [torch.ones(3, 4, device=device)], [torch.ones(N, 4, device=device)]

    def moves():
        clip_lane_grad_norm_(stack.params, 1.0)
        stack.step()
        stack.copy(numbers, numbers.flip(0))
        stack.refill(numbers, new, buffers[0])
        stack.refill(mask, all_new, buffers[1])
        stack.refill([1, 2, 3], new, buffers[0])
        stack.reset(numbers)
        stack.reset(mask)
        stack.lanes.halve(metrics)
        return stack.skipped, stack.state_dict()

    return moves


def test_no_move_of_a_stack_would_wait(monkeypatch):
    for module in (changes, inputs, selection):
        monkeypatch.setattr(module, "check_readable", lambda *_: None)
    for module in ("stacked", "stack_state"):
        monkeypatch.setattr(f"torch_plateau.optim.{module}.check_readable", lambda *_: None)
    lanes = on_meta(PlateauLanes(N, 0.1))
    moves = move_through(stack_on(lanes, "meta"), "meta")
    with Waits() as waits:
        moves()
        moves()  # with a state of the optimizer from the start
    assert waits.found == []


def test_the_mode_that_finds_waits_finds_them():
    numbers, here = torch.ones(3), torch.empty(3, device="meta")
    with Waits() as waits:
        numbers.to("meta", non_blocking=True)
        here.copy_(here)
        assert waits.found == []
        numbers.to("meta")
        here.copy_(numbers)
        here * numbers.sum()
    assert waits.found == ["copy from cpu", "copy from cpu", "mul of both"]
    with Waits() as waits, pytest.raises((RuntimeError, NotImplementedError)):
        here.sum().item()
    assert waits.found == ["_local_scalar_dense"]


# -- with a GPU -----------------------------------------------------------------------------------


def noisy(steps):
    return (torch.rand(steps, N) * 8).round() / 8


def assert_same(lanes, twin):
    ours, theirs = lanes.state_dict(), twin.state_dict()
    for name in ("best", "num_bad_epochs", "cooldown_counter", "num_reductions", "lr"):
        assert same_bits(ours[name].double().cpu(), theirs[name].double()), name
    for part, tensor in theirs["options"].items():
        if not part.startswith("events_"):
            assert torch.equal(ours["options"][part].cpu(), tensor), part
    assert torch.equal(lanes.lr.cpu(), twin.lr)


@each_setting
def test_no_part_of_a_life_in_place_waits(settings, cuda_devices):
    device = cuda_devices[0]
    lanes, twin = (PlateauLanes(N, 0.1, device=d, **settings) for d in (device, "cpu"))
    params = [torch.zeros(N, 3, device=device)]
    live, same = live_through(lanes, params, device), live_through(twin, [torch.zeros(N, 3)], "cpu")
    for row in noisy(10):
        metrics = row.to(device)
        with sync_debug_mode("error"):
            lanes.step(metrics)
            live()
        twin.step(row)
        same()
        assert_same(lanes, twin)


def test_no_move_of_a_stack_waits(cuda_devices):
    device = cuda_devices[0]
    stack = stack_on(PlateauLanes(N, 0.1, device=device), device)
    twin = stack_on(PlateauLanes(N, 0.1), "cpu")
    moves, same = move_through(stack, device), move_through(twin, "cpu")
    moves(), same()  # the first makes the optimizer's state
    with sync_debug_mode("error"):
        moves()
    same()
    for ours, theirs in zip(stack.params.values(), twin.params.values(), strict=True):
        assert torch.allclose(ours.cpu(), theirs)
    assert_same(stack.lanes, twin.lanes)


@each_setting
def test_exploit_and_explore_are_captured_with_the_step(settings, cuda_devices):
    device = cuda_devices[0]
    each = {"patience": [1] * N, "factor": [0.5] * N, "lr": 0.1, "mode": ["min"] * N}
    keywords = {**each, **settings}
    lanes, twin = (PlateauLanes(N, device=d, **keywords) for d in (device, "cpu"))
    params, same_params = torch.zeros(N, 3, device=device), torch.zeros(N, 3)
    best, same_best = LaneBest(lanes, [params]), LaneBest(twin, [same_params])
    metrics, order = torch.zeros(N, device=device), torch.zeros(4, device=device).long()
    mask, rates = (
        torch.zeros(N, device=device).bool(),
        torch.full((2,), 0.5, device=device).double(),
    )

    def epoch(lanes, best, params, metrics, order, mask, rates):
        params += 1
        lanes.step(metrics)
        best.update()
        lanes.copy_lanes(order[:2], order[2:])
        lanes.set_lanes(order[2:], lr=rates, factor=rates, patience=2)
        lanes.reset(mask)
        best.restore(mask)

    ours, theirs = (lanes, best, params), (twin, same_best, same_params)
    inputs = (metrics, order, mask, rates)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # once before, as torch's capture asks for
        epoch(*ours, *inputs)
    stream.synchronize()
    epoch(*theirs, *(each.cpu() for each in inputs))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        epoch(*ours, *inputs)
    for row in noisy(40):
        metrics.copy_(row)
        order.copy_(torch.randint(N, (4,)))
        mask.copy_(torch.rand(N) < 0.1)
        rates.copy_(torch.rand(2).double() / 2 + 0.25)
        graph.replay()
        epoch(*theirs, *(each.cpu() for each in inputs))
        assert_same(lanes, twin)
        assert torch.equal(params.cpu(), same_params)
    assert lanes.num_steps == 41
