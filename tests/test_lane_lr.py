"""LaneLR: stacked parameters with one optimizer, against a separate optimizer for every lane."""

import copy
import pickle

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from torch_plateau import LaneLR, PlateauLanes

N = 8
RATES = torch.logspace(-4, 0, N, dtype=torch.float64)

OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {}),
    "SGD momentum": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}),
    "SGD nesterov decay": (
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "SGD maximize": (torch.optim.SGD, {"maximize": True}),
    "Adam": (torch.optim.Adam, {"weight_decay": 0.01}),
    "Adam amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "AdamW fused": (torch.optim.AdamW, {"fused": True}),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.01}),
    "Adagrad": (torch.optim.Adagrad, {"lr_decay": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"weight_decay": 0.01}),
    "NAdam": (torch.optim.NAdam, {"decoupled_weight_decay": True, "weight_decay": 0.01}),
    "RAdam": (torch.optim.RAdam, {"weight_decay": 0.01}),
    "Adamax": (torch.optim.Adamax, {"weight_decay": 0.01}),
}


@pytest.fixture(params=OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def optimizer_of(request):
    kind, keywords = request.param
    return lambda params, lr: kind(params, lr=lr, **keywords)


def test_stacked_parameters_take_the_steps_of_separate_optimizers(optimizer_of, device):
    starts = [torch.randn(shape, dtype=torch.float64).to(device) for shape in ((N, 5, 3), (N,))]
    stacked = [start.clone().requires_grad_() for start in starts]
    lanes = PlateauLanes(N, RATES, device=device)
    one = optimizer_of(stacked, 1.0)
    LaneLR(one, lanes)
    apart = [[start[i].clone().requires_grad_() for start in starts] for i in range(N)]
    many = [optimizer_of(params, float(RATES[i])) for i, params in enumerate(apart)]
    for step in range(100):
        if step == 50:  # a cut in the middle of training, of every other lane
            cut = lanes.lr_master
            cut[::2] *= 0.5
            lanes.load_state_dict({**lanes.state_dict(), "lr": cut})
            for i, optimizer in enumerate(many):
                optimizer.param_groups[0]["lr"] = float(cut[i])
        for p, parts in zip(stacked, zip(*apart, strict=True), strict=True):
            p.grad = torch.randn(p.shape, dtype=p.dtype).to(device)
            for i, part in enumerate(parts):
                part.grad = p.grad[i].clone()
        one.step()
        for optimizer in many:
            optimizer.step()
    for p, start, parts in zip(stacked, starts, zip(*apart, strict=True), strict=True):
        separate = torch.stack([part.detach() for part in parts])
        assert (p.detach() - separate).abs().max() <= 1e-12
        assert ((p.detach() - start).abs().amax(0) > 0).all()


def make_models():
    torch.manual_seed(1)
    return [
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        for _ in range(N)
    ]


def test_an_ensemble_trains_as_separate_models_with_torch_schedulers_do(device):
    x = torch.randn(64, 4, dtype=torch.float64)
    y = x.sum(1, keepdim=True).sin()
    settings = {"patience": 1, "factor": 0.5, "threshold": 0.05, "cooldown": 1}
    x, y = x.to(device), y.to(device)
    models = [model.to(device) for model in make_models()]
    base = copy.deepcopy(models[0])
    params, buffers = stack_module_state(models)

    def loss_of(one, one_buffers, inputs, targets):
        return (functional_call(base, (one, one_buffers), (inputs,)) - targets).square().mean()

    lanes = PlateauLanes(N, RATES / 10, device=device, **settings)
    optimizer = torch.optim.AdamW(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)

    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=float(lr))
        for model, lr in zip(models, RATES / 10, strict=True)
    ]
    schedulers = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(each, **settings) for each in optimizers
    ]
    gradients = vmap(grad(loss_of), in_dims=(0, 0, None, None))
    losses = vmap(loss_of, in_dims=(0, 0, None, None))
    cuts = 0
    for _ in range(40):
        for name, gradient in gradients(params, buffers, x, y).items():
            params[name].grad = gradient
        optimizer.step()
        with torch.no_grad():
            lanes.step(losses(params, buffers, x, y))
        for model, each, scheduler in zip(models, optimizers, schedulers, strict=True):
            each.zero_grad()
            (model(x) - y).square().mean().backward()
            each.step()
            with torch.no_grad():
                scheduler.step((model(x) - y).square().mean())
        assert lanes.lr_master.tolist() == [each.param_groups[0]["lr"] for each in optimizers]
        cuts += int(lanes.reduced.sum())
    assert cuts > N  # the comparison of rates above was worth something
    for name, stacked in params.items():
        separate = torch.stack([dict(model.named_parameters())[name] for model in models])
        assert torch.allclose(stacked, separate, rtol=0, atol=1e-10)


def test_float32_parameters_get_the_published_rate_and_float64_the_master(device):
    lanes = PlateauLanes(2, [0.1, 0.3], device=device)
    for dtype, rates in ((torch.float32, lanes.lr), (torch.float64, lanes.lr_master)):
        p = torch.zeros(2, 3, dtype=dtype, device=device, requires_grad=True)
        optimizer = torch.optim.SGD([p], lr=1.0)
        LaneLR(optimizer, lanes)
        p.grad = -torch.ones_like(p)
        optimizer.step()
        assert p[:, 0].tolist() == rates.tolist()


def test_a_closure_sees_gradients_made_inside_the_step(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=1.0)
    LaneLR(optimizer, PlateauLanes(2, [0.5, 0.25], device=device))

    def closure():
        optimizer.zero_grad()
        loss = p.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert p.flatten().tolist() == [0.5, 0.75]


def test_parameters_without_a_gradient_stay(device):
    p, q = (torch.ones(2, 1, device=device, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([p, q], lr=1.0, weight_decay=0.1)
    LaneLR(optimizer, PlateauLanes(2, 0.5, device=device))
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert q.flatten().tolist() == [1.0, 1.0]
    assert p.flatten().tolist() == pytest.approx([0.45, 0.45])


def test_a_group_added_later_gets_the_rates_too_or_is_refused(device):
    p, q, wrong = (torch.ones(shape, device=device) for shape in ((2, 1), (2, 4), (3,)))
    for tensor in (p, q, wrong):
        tensor.requires_grad_().grad = torch.ones_like(tensor)
    optimizer = torch.optim.SGD([p], lr=1.0)
    LaneLR(optimizer, PlateauLanes(2, [0.5, 0.25], device=device))
    optimizer.add_param_group({"params": [q]})
    optimizer.step()
    assert q[:, 0].tolist() == [0.5, 0.75]
    optimizer.add_param_group({"params": [wrong]})
    with pytest.raises(ValueError, match=r"param_groups\[2\]: expected parameters \[2, ...\]"):
        optimizer.step()
    assert q[:, 0].tolist() == [0.5, 0.75]


def test_the_rate_of_a_group_is_a_factor_of_its_parameters(device):
    p, q = (torch.ones(2, 1, device=device, requires_grad=True) for _ in range(2))
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer = torch.optim.SGD([{"params": [p], "lr": 0.5}, {"params": [q]}], lr=1.0)
    LaneLR(optimizer, PlateauLanes(2, [0.5, 0.25], device=device))
    optimizer.step()
    assert p.flatten().tolist() == [0.75, 0.875]
    assert q.flatten().tolist() == [0.5, 0.75]
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert p.flatten().tolist() == [0.75, 0.875]
    assert q.flatten().tolist() == [0.0, 0.5]


def test_a_default_rate_is_warned_of_and_a_rate_that_was_chosen_is_not(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    lanes = PlateauLanes(2, 0.5, device=device)
    words = r"param_groups\[0\]\['lr'\] is 0.001, the default of AdamW, and scales the rates"
    with pytest.warns(UserWarning, match=words) as caught:
        LaneLR(torch.optim.AdamW([p]), lanes)
    assert caught[0].filename == __file__
    for chosen in (torch.optim.AdamW([p], lr=0.5), torch.optim.Adadelta([p])):
        LaneLR(chosen, lanes)


def test_after_remove_the_optimizer_is_its_old_self(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = torch.optim.SGD([p], lr=1.0)
    LaneLR(optimizer, PlateauLanes(2, 0.5, device=device)).remove()
    optimizer.step()
    assert p.flatten().tolist() == [0.0, 0.0]


def test_a_second_lane_lr_on_one_optimizer_is_refused(device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=1.0)
    lanes = PlateauLanes(2, 0.5, device=device)
    first = LaneLR(optimizer, lanes)
    with pytest.raises(ValueError, match="optimizer: expected one without a LaneLR"):
        LaneLR(optimizer, lanes)
    first.remove()
    LaneLR(optimizer, lanes)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("removed", [False, True])
def test_a_copy_has_the_rates_of_its_own_lanes_on_its_own_optimizer(twin, removed, device):
    p = torch.ones(2, 1, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=1.0)
    lanes = PlateauLanes(2, [0.5, 0.25], device=device)
    rates = LaneLR(optimizer, lanes)
    if removed:
        rates.remove()
    other, its_lanes, its_rates = twin((optimizer, lanes, rates))
    assert its_rates.lanes is its_lanes
    its_lanes.set_lanes([0], lr=0.125)
    (q,) = other.param_groups[0]["params"]
    q.grad = torch.ones_like(q)
    other.step()
    assert q.flatten().tolist() == ([0.0, 0.0] if removed else [0.875, 0.75])
    assert p.flatten().tolist() == [1.0, 1.0]
