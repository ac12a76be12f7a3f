"""Optimizers with a rate per lane: saving, copies, GradScaler, groups, and what they refuse."""

import copy
import io
import pickle
import re

import pytest
import torch

from torch_plateau import LaneAdam, LaneAdamW, LaneSGD, PlateauLanes

N = 3


def params_on(device, dtype=torch.float32, shapes=((N, 4, 2), (N,))):
    return [torch.randn(shape, dtype=dtype).to(device).requires_grad_() for shape in shapes]


def give(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p)


def train(optimizer, steps):
    for seed in steps:
        give(optimizer.param_groups[0]["params"], seed)
        optimizer.step()


def equal(ours, theirs):
    return all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


MADE = {
    "AdamW": lambda params, lanes: LaneAdamW(
        params, lanes, betas=([0.9, 0.5, 0.0], 0.99), weight_decay=[0.1, 0.0, 1.0], amsgrad=True
    ),
    "SGD": lambda params, lanes: LaneSGD(params, lanes, momentum=[0.9, 0.5, 0.0], dampening=0.1),
    "plain SGD": lambda params, lanes: LaneSGD(params, lanes, weight_decay=0.1),
}


@pytest.fixture(params=MADE.values(), ids=MADE.keys())
def made(request):
    return request.param


# -- saving and copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_run_that_is_resumed_from_a_file_goes_on_bit_for_bit(made, dtype, device):
    params = params_on(device, dtype)
    lanes = PlateauLanes(N, [0.1, 0.01, 0.2], device=device)
    one = made(params, lanes)
    train(one, range(5))
    one.reset_lanes(1)
    train(one, range(5, 7))
    file = io.BytesIO()
    torch.save({"optimizer": one.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = made([p.detach().clone().requires_grad_() for p in saved["params"]], lanes)
    other.load_state_dict(saved["optimizer"])
    for each in (one, other):
        train(each, range(7, 12))
    assert equal(params, other.param_groups[0]["params"])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_has_lanes_of_its_own_and_goes_on_alike(made, twin, device):
    params = params_on(device)
    one = made(params, PlateauLanes(N, [0.1, 0.01, 0.2], device=device))
    train(one, range(3))
    other = twin(one)
    assert other.lanes is not one.lanes
    copied = other.param_groups[0]["params"]
    other.lanes.lr.zero_()
    train(one, range(3, 5))
    assert not equal(params, copied)
    other.lanes.lr.copy_(one.lanes.lr)
    other.lanes.set_lanes(range(N), lr=[0.1, 0.01, 0.2])
    train(other, range(3, 5))
    assert equal(params, copied)
    assert other._step_supports_amp_scaling


def test_a_copy_of_lanes_and_optimizer_together_stays_together(device):
    lanes = PlateauLanes(N, 0.1, device=device)
    other, its_lanes = copy.deepcopy((LaneSGD(params_on(device), lanes), lanes))
    assert other.lanes is its_lanes


# -- GradScaler -----------------------------------------------------------------------------------


def test_under_a_grad_scaler_it_equals_torchs_fused_one(device):
    params = params_on(device)
    same = [p.detach().clone().requires_grad_() for p in params]
    pairs = [
        (LaneAdamW(params, PlateauLanes(N, 0.01, device=device)), params),
        (torch.optim.AdamW(same, lr=0.01, fused=True), same),
    ]
    scalers = [torch.amp.GradScaler(device, init_scale=2.0**10, growth_interval=3) for _ in pairs]
    for step in range(12):
        for (optimizer, mine), scaler in zip(pairs, scalers, strict=True):
            optimizer.zero_grad()
            scaler.scale(sum((p - 0.1 * step).square().sum() for p in mine)).backward()
            if step == 5:
                mine[0].grad[0, 0, 0] = torch.inf
            if step == 8:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(mine, 1.0)
            scaler.step(optimizer)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale()
    assert pairs[0][0].state[params[0]]["step"].tolist() == [11.0] * N
    for p, q in zip(params, same, strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-6)


# -- what is stepped ------------------------------------------------------------------------------


def test_a_closure_sees_gradients_made_inside_the_step(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    optimizer = LaneSGD([p], PlateauLanes(2, [0.5, 0.25], device=device))

    def closure():
        optimizer.zero_grad()
        loss = p.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    assert p.flatten().tolist() == [0.5, 0.75]


def test_parameters_without_a_gradient_or_without_elements_stay(device):
    p, q, empty = params_on(device, shapes=((N, 2), (N, 2), (N, 0)))
    optimizer = LaneAdamW([p, q, empty], PlateauLanes(N, 0.1, device=device))
    before = q.detach().clone()
    p.grad, empty.grad = torch.ones_like(p), torch.ones_like(empty)
    optimizer.step()
    assert torch.equal(q, before)
    assert list(optimizer.state) == [p]


def test_gradients_of_any_strides_are_read(made, device):
    params, same = params_on(device), params_on(device)
    lanes = PlateauLanes(N, 0.1, device=device)
    for p, q in zip(params, same, strict=True):
        q.data.copy_(p.data)
        grad = torch.randn(p.shape).to(device)
        p.grad = torch.empty_strided(p.shape, [2 * s for s in p.stride()], device=device)
        p.grad.copy_(grad)
        q.grad = grad * 8
    one, other = made(params, lanes), made(same, lanes)
    other.grad_scale = torch.tensor(8.0, device=device)
    one.step()
    other.step()
    assert equal(params, same)
    one.grad_scale = torch.tensor(2.0, device=device)
    before = [p.grad.clone() for p in params]
    one.step()
    assert all(torch.equal(p.grad * 2, g) for p, g in zip(params, before, strict=True))


def test_groups_have_settings_of_their_own_and_may_come_later(device):
    p, q = params_on(device, torch.float64, ((2, 1), (2, 1)))
    lanes = PlateauLanes(2, [0.5, 0.25], device=device)
    optimizer = LaneSGD([{"params": [p], "lr": 2.0}], lanes)
    optimizer.add_param_group({"params": [q], "weight_decay": [0.0, 1.0]})
    with torch.no_grad():
        for each in (p, q):
            each.fill_(1.0)
            each.grad = torch.ones_like(each)
    optimizer.step()
    assert p.flatten().tolist() == [0.0, 0.5]
    assert q.flatten().tolist() == [0.5, 0.5]


def test_autograd_refuses_a_value_from_before_the_step(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    optimizer = LaneSGD([p], PlateauLanes(2, 0.5, device=device))
    loss = p.square().sum()
    p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# -- on a GPU -----------------------------------------------------------------------------------


# torch says so where the mode is set
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_a_captured_step_is_replayed_as_the_cpu_steps_and_nothing_waits(made, cuda_devices):
    params = params_on(cuda_devices[0], torch.float64)
    same = [p.detach().cpu().requires_grad_() for p in params]
    rates = [0.1, 0.01, 0.2]
    one = made(params, PlateauLanes(N, rates, device=cuda_devices[0]))
    other = made(same, PlateauLanes(N, rates))
    for each in (one, other):
        train(each, range(1))  # states are made
    graph = torch.cuda.CUDAGraph()
    mask = torch.tensor([False, True, False], device=cuda_devices[0])
    with torch.cuda.graph(graph):
        one.step()
    for seed in range(1, 6):
        give(same, seed)
        for p, q in zip(params, same, strict=True):
            p.grad.copy_(q.grad)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            graph.replay()
            if seed == 3:
                one.reset_lanes(mask)
            one.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        other.step()
        if seed == 3:
            other.reset_lanes(1)
        other.step()
    for p, q in zip(params, same, strict=True):
        assert (p.detach().cpu() - q.detach()).abs().max() <= 1e-12


# -- refusals -------------------------------------------------------------------------------------


def lanes_of(n=N, **keywords):
    return PlateauLanes(n, 0.1, **keywords)


REFUSED = {
    "lanes": (lambda p: LaneAdam([p], 0.1), TypeError, "lanes: expected PlateauLanes, got float"),
    "groups": (
        lambda p: LaneAdam([p], lanes_of(groups=[1, 2, 1])),
        ValueError,
        "lanes: expected one rate per lane, got 4 groups",
    ),
    "rows": (
        lambda p: LaneAdam([p], lanes_of(4)),
        ValueError,
        "param_groups[0]: expected parameters [4, ...], a row for each lane, got shape (3, 2)",
    ),
    "strides": (
        lambda p: LaneAdam([p.detach().t().contiguous().t()], lanes_of()),
        ValueError,
        "param_groups[0]: expected parameters contiguous, got strides (1, 3)",
    ),
    "complex": (
        lambda p: LaneAdam([p.detach() * 1j], lanes_of()),
        ValueError,
        "param_groups[0]: expected parameters float64, float32, bfloat16 or float16, got "
        "torch.complex64",
    ),
    "beta": (
        lambda p: LaneAdam([p], lanes_of(), betas=(0.9, 1.0)),
        ValueError,
        "betas[1]: expected at least 0 and below 1, got 1",
    ),
    "betas": (lambda p: LaneAdam([p], lanes_of(), betas=0.9), ValueError, "betas: expected two"),
    "decay": (
        lambda p: LaneSGD([p], lanes_of(), weight_decay=[0.1, 0.2]),
        ValueError,
        "weight_decay: expected one number or shape (3,), got shape (2,)",
    ),
    "momentum": (
        lambda p: LaneSGD([p], lanes_of(), momentum=[0.1, -0.2, 0.0]),
        ValueError,
        "momentum: expected finite and not negative, got -0.2 at index 1",
    ),
    "word": (lambda p: LaneSGD([p], lanes_of(), lr="fast"), TypeError, "lr: expected one number"),
    "nesterov": (
        lambda p: LaneSGD([p], lanes_of(), nesterov=True),
        ValueError,
        "nesterov: expected momentum above 0 and dampening 0",
    ),
}


@pytest.mark.parametrize(("build", "error", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_built_is_named(build, error, says):
    with pytest.raises(error, match=re.escape(says)):
        build(torch.zeros(N, 2, requires_grad=True))


def test_a_group_that_is_refused_is_not_added(device):
    p, q = params_on(device, shapes=((N, 2), (N + 1, 2)))
    optimizer = LaneSGD([p], lanes_of(device=device))
    with pytest.raises(ValueError, match=r"param_groups\[1\]: expected parameters \[3, ...\]"):
        optimizer.add_param_group({"params": [q]})
    assert len(optimizer.param_groups) == 1


def spoil_gradient(p, _):
    p.grad = torch.ones_like(p).to_sparse()


def spoil_setting(_, optimizer):
    optimizer.param_groups[1]["weight_decay"] = torch.zeros(N)


def spoil_lanes(_, optimizer):
    optimizer.lanes.append(1, 0.1)


def spoil_state(p, optimizer):
    optimizer.state[p]["momentum_buffer"] = torch.zeros(N, 3)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (spoil_gradient, RuntimeError, "expected dense gradients, got torch.sparse_coo"),
        (spoil_setting, ValueError, "weight_decay: expected float64, got another dtype"),
        (spoil_lanes, ValueError, "expected parameters [4, ...]"),
        (spoil_state, ValueError, "state: expected the size of the parameter"),
    ],
)
def test_a_step_that_is_refused_changes_nothing(spoil, error, says):
    p, q = params_on("cpu", shapes=((N, 2), (N, 4)))
    optimizer = LaneSGD([{"params": [p]}, {"params": [q]}], lanes_of(), momentum=0.9)
    give([p, q], 0)
    optimizer.step()
    before = [t.detach().clone() for t in (p, q, *optimizer.state[p].values())]
    spoil(q, optimizer)
    with pytest.raises(error, match=re.escape(says)):
        optimizer.step()
    assert equal(before, (p, q, *optimizer.state[p].values()))


def drop_step(saved):
    del saved["state"][0]["step"]


def share_step(saved):
    saved["state"][0]["step"] = torch.tensor(5.0)


def cut_average(saved):
    saved["state"][1]["exp_avg"] = torch.zeros(N, 2)


def raise_beta(saved):
    saved["param_groups"][0]["betas"] = (2.0, 0.9)


def drop_decay(saved):
    del saved["param_groups"][0]["weight_decay"]


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (drop_step, KeyError, "state[0]: missing or unknown keys ['step']"),
        (share_step, ValueError, "state[0]['step']: expected torch.float32 of shape (3,)"),
        (cut_average, ValueError, "state[1]['exp_avg']: expected torch.float32 of shape (3,)"),
        (raise_beta, ValueError, "betas[0]: expected at least 0 and below 1, got 2"),
        (drop_decay, KeyError, "expected 'weight_decay'"),
    ],
)
def test_a_state_that_is_refused_changes_nothing(spoil, error, says):
    params = params_on("cpu")
    optimizer = LaneAdamW(params, lanes_of())
    train(optimizer, range(2))
    saved, before = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    spoil(saved)
    with pytest.raises(error, match=re.escape(says)):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for key, state in before["state"].items():
        assert equal(state.values(), after["state"][key].values())


def test_lanes_that_do_not_exist_are_not_reset():
    optimizer = LaneAdamW(params_on("cpu"), lanes_of())
    train(optimizer, range(2))
    with pytest.raises(IndexError, match="lanes: expected lanes from 0 to 2, got 3"):
        optimizer.reset_lanes([0, 3])
    assert all((state["step"] == 2).all() for state in optimizer.state.values())
