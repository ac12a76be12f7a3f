"""The step in compiled code: one operator, which torch can check, and the same decisions."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import grad, vmap
from torch.profiler import ProfilerActivity, profile

from oracle import TorchLanes, assert_same_state
from torch_plateau import PlateauLanes

OPERATOR = "torch_plateau::step_"

# Inductor imports parts of torch that are deprecated, and says on a GPU what TensorFloat32 is for.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


LANES = {
    "uniform": {"patience": 1, "cooldown": 1},
    "per-lane": {
        "mode": ["min", "max", "min", "max"],
        "patience": [0, 1, 2, 0],
        "cooldown": [0, 0, 1, 2],
        "factor": [0.1, 0.5, 0.9, 0.3],
        "min_lr": [0.0, 1e-3, 0.05, 0.0],
    },
    "groups": {"groups": [2, 1, 3, 1], "patience": [0, 1, 0, 2]},
    "float32": {"dtype": torch.float32, "patience": 0},
}
EACH = pytest.mark.parametrize("keywords", LANES.values(), ids=LANES.keys())


def lanes_for(keywords, device, lr=0.1):
    return PlateauLanes(4, lr, device=device, **keywords)


def noisy(steps, device, dtype=torch.float32):
    """Metrics with ties and plateaus, for four lanes."""
    return (torch.rand(steps, 4) * 8).round().div(8).to(device, dtype)


def torchs(keywords):
    """The schedulers of torch for the same lanes."""
    counts = keywords.get("groups", [1] * 4)
    settings = {name: v for name, v in keywords.items() if name not in ("groups", "dtype")}
    spread = {name: v if isinstance(v, list) else [v] * 4 for name, v in settings.items()}
    each = [{name: values[lane] for name, values in spread.items()} for lane in range(4)]
    return TorchLanes([[0.1] * count for count in counts], each)


def assert_same(lanes, twin):
    for name, ours in lanes.state_dict().items():
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, twin.state_dict()[name]), name
    assert torch.equal(lanes.lr, twin.lr)


# -- the operator ---------------------------------------------------------------------------------


def arguments_of(lanes, metrics, active=None):
    """What compiled code gives the operator."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_plateau.lanes.lanes.step_", lambda *args: calls.append(args))
        lanes._step_traced(metrics, active)
    return list(calls[0])


@pytest.mark.parametrize("strided", [False, True], ids=["plain", "strided"])
@EACH
def test_torch_finds_nothing_wrong_with_the_operator(keywords, strided, device):
    lanes = lanes_for(keywords, device)
    metrics = torch.rand(8, device=device)[::2] if strided else torch.rand(4, device=device)
    arguments = arguments_of(lanes, metrics)
    results = torch.library.opcheck(torch.ops.torch_plateau.step_.default, arguments)
    assert set(results.values()) == {"SUCCESS"}


def events_of(function, *args):
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as trace:
        function(*args)
    return [event.name for event in trace.events()]


def test_eager_steps_do_not_go_through_the_dispatcher_and_compiled_ones_do(device):
    lanes, metrics = lanes_for({}, device), torch.rand(4, device=device)
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    compiled(metrics)
    eager = [name for name in events_of(lanes.step, metrics) if "::" in name]
    assert eager == []  # no operator of any kind
    assert OPERATOR in events_of(compiled, metrics)
    assert lanes.num_steps == 3


def changed_in_every_way(lanes):
    """Change lanes in turn by all that puts other tensors or settings in place of theirs."""
    yield lanes
    lanes.set_lanes([1], patience=1, lr=0.75)  # uniform becomes per lane
    yield lanes
    lanes.reset([0])
    yield lanes
    lanes.lr.share_memory_()
    yield lanes
    lanes.best.share_memory_()
    yield lanes
    lanes.append(2, 0.5, patience=0)
    lanes.remove([4, 5])
    yield lanes
    lanes.load_state_dict(lanes_for({"patience": 0, "cooldown": 1}, lanes.device).state_dict())
    yield lanes


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_the_operator_follows_lanes_that_are_changed(masked, device):
    ways = zip(
        *(changed_in_every_way(lanes_for({"patience": 0}, device)) for _ in range(2)), strict=True
    )
    for lanes, twin in ways:
        for row in noisy(6, device):
            active = row < 0.8 if masked else None
            torch.ops.torch_plateau.step_(*arguments_of(lanes, row, active))
            twin.step(row, active)
            assert_same(lanes, twin)
    assert lanes.num_reductions.sum() > 3


def test_lanes_are_stepped_by_the_object_that_they_have(device, monkeypatch):
    lanes, twin = (lanes_for(LANES["per-lane"], device) for _ in range(2))
    monkeypatch.setattr("torch_plateau.lanes.operator._core.Lanes", None)  # no other can be made
    for row in noisy(6, device):
        torch.ops.torch_plateau.step_(*arguments_of(lanes, row))
        twin.step(row)
        assert_same(lanes, twin)


@EACH
def test_copies_of_the_tensors_are_stepped_and_the_lanes_left_alone(keywords, device):
    lanes, twin, still = (lanes_for(keywords, device) for _ in range(3))
    for row in noisy(3, device):
        for each in (lanes, twin, still):
            each.step(row)
    copies = [tensor.clone() for tensor in arguments_of(lanes, row)[2]]
    for row in noisy(6, device):
        arguments = arguments_of(lanes, row)
        arguments[2] = copies
        torch.ops.torch_plateau.step_(*arguments)
        twin.step(row)
        for ours, expected in zip(copies, arguments_of(twin, row)[2], strict=True):
            assert torch.equal(ours, expected)
    assert_same(lanes, still)


def test_a_part_of_the_tensors_is_not_taken_for_all_of_them(device):
    lanes, part = (
        lanes_for({"patience": 0}, device),
        PlateauLanes(2, 0.1, patience=0, device=device),
    )
    for row in noisy(4, device):
        arguments = arguments_of(lanes, row)
        arguments[0] = row[:2]
        arguments[2] = [tensor[:2] for tensor in arguments[2]]
        torch.ops.torch_plateau.step_(*arguments)
        part.step(row[:2])
    assert lanes.lr[:2].tolist() == part.lr.tolist()
    assert lanes.best.tolist() == [*part.best.tolist(), torch.inf, torch.inf]


def test_new_lanes_in_the_place_of_dead_ones_are_not_taken_for_them(device):
    row = noisy(1, device)[0]
    for patience in range(50):
        lanes, twin = (lanes_for({"patience": patience % 2}, device) for _ in range(2))
        for _ in range(3):
            torch.ops.torch_plateau.step_(*arguments_of(lanes, row))
            twin.step(row)
        assert_same(lanes, twin)


@pytest.mark.parametrize("kind", ["lanes", "copies"])
def test_autograd_is_told_of_what_the_operator_writes(kind, device):
    lanes = lanes_for({"patience": 0}, device)
    arguments = arguments_of(lanes, torch.ones(4, device=device))
    if kind == "copies":
        arguments[2] = [tensor.clone() for tensor in arguments[2]]
    rates = arguments[2][lanes._names.split().index("published")]
    torch.ops.torch_plateau.step_(*arguments)
    weight = torch.ones(4, device=device, requires_grad=True)
    loss = (weight * rates).sum()
    torch.ops.torch_plateau.step_(*arguments)  # cuts
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# -- compiled functions ---------------------------------------------------------------------------


@EACH
def test_a_compiled_step_decides_as_torchs_schedulers_do(keywords, device):
    lanes, oracle = lanes_for(keywords, device), torchs(keywords)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def validate(scores):
        lr = lanes.step(scores.T[0])  # strided
        return lr * 1, lanes.improved, lanes.reduced

    for row in noisy(12, device):
        lr, improved, reduced = validate(torch.stack([row, row + 1], 1))
        oracle.step(row.tolist())
        assert_same_state(lanes, oracle)
        assert torch.equal(lr, lanes.lr)
        assert torch.equal(improved, lanes.improved)
        assert torch.equal(reduced, lanes.reduced)
    assert lanes.num_steps == 12
    assert any(oracle.num_reductions)


def loss(weight, x, y):
    return ((x * weight).sum(1) - y).square().mean()


def train(weight, lr, x, y):
    """One step of gradient descent of stacked models, in place; return their losses before it."""
    losses = vmap(loss, in_dims=(0, None, None))(weight, x, y)
    weight.sub_(lr[:, None] * vmap(grad(loss), in_dims=(0, None, None))(weight, x, y))
    return losses


def batches(steps, device):
    for _ in range(steps):
        yield torch.rand(8, 3, device=device), torch.rand(8, device=device)


def test_training_and_stepping_compile_into_one_graph_that_is_not_compiled_again(device):
    lanes, twin = (lanes_for({"patience": [0, 1, 2, 3]}, device, lr=0.5) for _ in range(2))
    counter = CompileCounterWithBackend("inductor")
    weight = torch.rand(4, 3, device=device)

    @torch.compile(fullgraph=True, backend=counter)
    def epoch(x, y):
        losses = train(weight, lanes.lr, x, y)
        lanes.step(losses)
        return losses

    for step, (x, y) in enumerate(batches(30, device)):
        twin.step(epoch(x, y))
        assert_same(lanes, twin)
        if step % 10 == 5:
            lanes.lr[1] = twin.lr[1] = 0.25  # others may write rates
    assert lanes.num_reductions.sum() > 8
    assert counter.frame_count == 1


def test_rates_of_a_compiled_epoch_follow_the_metrics_it_is_given(device):
    lanes, twin = (lanes_for({"mode": "max", "patience": 0}, device) for _ in range(2))
    weight = torch.rand(4, 3, device=device)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def epoch(x, y, scores):
        before = weight.clone()
        train(weight, lanes.lr, x, y)
        lanes.step(scores)
        return before

    for (x, y), scores in zip(batches(10, device), noisy(10, device), strict=True):
        before = epoch(x, y, scores)
        train(before, twin.lr, x, y)  # by the rates before the step
        torch.testing.assert_close(weight, before)
        twin.step(scores)
        assert_same(lanes, twin)
    assert (twin.num_reductions > 0).any()


def test_compiled_code_sees_the_settings_of_a_loaded_state(device):
    lanes = lanes_for({"patience": 10, "cooldown": [0] * 4}, device)
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        compiled(torch.ones(4, device=device))
    assert lanes.num_reductions.tolist() == [0] * 4
    eager = lanes_for({"patience": 0, "cooldown": [0, 1, 2, 3]}, device)
    lanes.load_state_dict(eager.state_dict())
    for _ in range(4):
        compiled(torch.ones(4, device=device))
        eager.step(torch.ones(4, device=device))
        assert_same(lanes, eager)
    assert lanes.num_reductions.tolist() == [3, 2, 1, 1]


def test_metrics_of_a_wrong_shape_do_not_compile_and_change_nothing(device):
    lanes = lanes_for({}, device)
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    for metrics in (torch.rand(3), torch.rand(4, 1), torch.rand(())):
        with pytest.raises(RuntimeError, match=r"metrics: expected shape \(4,\), got"):
            compiled(metrics.to(device))
    assert_same(lanes, lanes_for({}, device))


def test_metrics_that_the_lanes_cannot_hold_are_refused_by_compiled_code(device):
    lanes = lanes_for({"dtype": torch.float32}, device)
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    with pytest.raises(TypeError, match=r"float32 lanes cannot hold torch\.float64"):
        compiled(torch.rand(4, device=device, dtype=torch.float64))
    assert_same(lanes, lanes_for({"dtype": torch.float32}, device))


def test_a_compiled_step_with_parts_and_masks_does_what_an_eager_one_does(device):
    keywords = {"window": 2, "nan": "skip", "max_reductions": 3, "patience": 0, "events": 4}
    lanes, twin = (lanes_for(keywords, device) for _ in range(2))
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    for row in noisy(30, device):
        active = torch.rand(4).to(device) < 0.7
        compiled(row, active)
        twin.step(row, active)
        assert_same(lanes, twin)
        assert torch.equal(lanes.finished, twin.finished)
    assert lanes.events() == twin.events()
    assert lanes.finished.any()


def test_a_refusal_by_the_core_is_told_in_compiled_code_too(device, monkeypatch):
    lanes = lanes_for({}, device)
    monkeypatch.setattr("torch_plateau.lanes.operator.readable", lambda metrics, *_: metrics[:3])
    compiled = torch.compile(lanes.step, fullgraph=True, backend="aot_eager")
    numbers = torch.complex(noisy(1, device)[0], noisy(1, device)[0])
    with pytest.raises(RuntimeError, match="cannot read these metrics"):
        compiled(numbers)
    assert_same(lanes, lanes_for({}, device))
