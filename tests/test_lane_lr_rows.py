"""LaneLR where lanes are not the first dimension, or own several rows, or the step is one's own."""

import copy
import pickle

import pytest
import torch
from torch.optim import SGD, Adam

from torch_plateau import LaneLR, PlateauLanes

RATES = [1e-3, 0.02, 0.3]
N = len(RATES)


def adam(params, lr):
    return Adam(params, lr=lr, weight_decay=0.01)


def parameter(*shape, device):
    return torch.randn(*shape, dtype=torch.float64).to(device).requires_grad_()


def train_beside(stacked, one, parts_of, make=adam, steps=50):
    """Train ``stacked`` by ``one``, and what ``parts_of`` takes of it by an optimizer a lane."""
    values = [param.detach() for param in stacked]
    apart = [[part.clone() for part in parts_of(lane, values)] for lane in range(N)]
    many = [make(params, rate) for params, rate in zip(apart, RATES, strict=True)]
    for _ in range(steps):
        gradients = [torch.randn_like(param) for param in stacked]
        for param, gradient in zip(stacked, gradients, strict=True):
            param.grad = gradient.clone()
        one.step()
        for lane, (params, optimizer) in enumerate(zip(apart, many, strict=True)):
            for param, gradient in zip(params, parts_of(lane, gradients), strict=True):
                param.grad = gradient.clone()
            optimizer.step()
    for lane, params in enumerate(apart):
        for ours, separate in zip(parts_of(lane, values), params, strict=True):
            assert (ours - separate).abs().max() <= 1e-12


# -- dim ------------------------------------------------------------------------------------------

SHAPES = {0: (N, 4, 2), 1: (4, N, 2), 2: (4, 2, N)}


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_lanes_may_be_any_dimension(dim, device):
    stacked = [parameter(*SHAPES[dim % 3], device=device)]
    one = adam(stacked, 1.0)
    LaneLR(one, PlateauLanes(N, RATES, device=device), dim=dim)
    train_beside(stacked, one, lambda lane, ts: [t.select(dim, lane) for t in ts])


DIMS = {
    "a mapping": lambda weight: {weight: 1},
    "a function": lambda _: lambda param: 1 if param.ndim == 3 else 0,
}


@pytest.mark.parametrize("dim_of", DIMS.values(), ids=DIMS.keys())
def test_lanes_may_be_another_dimension_of_each_parameter(dim_of, device):
    weight, bias = parameter(4, N, 2, device=device), parameter(N, device=device)
    one = adam([weight, bias], 1.0)
    LaneLR(one, PlateauLanes(N, RATES, device=device), dim=dim_of(weight))
    train_beside([weight, bias], one, lambda lane, ts: [ts[0][:, lane], ts[1][lane]])


def test_a_copy_finds_the_lanes_of_its_own_parameters(device):
    weight, bias = parameter(4, N, 2, device=device), parameter(N, device=device)
    first = adam([weight, bias], 1.0)
    lanes = PlateauLanes(N, RATES, device=device)
    LaneLR(first, lanes, dim={weight: 1}, lane_of={bias: [0, 1, 2]})
    for twin in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        one = twin(first)
        stacked = one.param_groups[0]["params"]
        train_beside(stacked, one, lambda lane, ts: [ts[0][:, lane], ts[1][lane]])


# -- lane_of --------------------------------------------------------------------------------------

ROWS = [2, 0, 0, 1, 2, 0, 2]  # of lanes 0, 1 and 2: three, one and three


def rows_of(lane):
    return [row for row, owner in enumerate(ROWS) if owner == lane]


INDEX = {
    "a list": lambda _: ROWS,
    "a tensor": lambda device: torch.tensor(ROWS, device=device),
    "int32": lambda device: torch.tensor(ROWS, dtype=torch.int32, device=device),
}


@pytest.mark.parametrize("index", INDEX.values(), ids=INDEX.keys())
def test_a_lane_may_own_several_rows(index, device):
    stacked = [parameter(len(ROWS), 3, device=device), parameter(len(ROWS), device=device)]
    one = adam(stacked, 1.0)
    LaneLR(one, PlateauLanes(N, RATES, device=device), lane_of=index(device))
    train_beside(stacked, one, lambda lane, ts: [t[rows_of(lane)] for t in ts])


def test_some_parameters_have_a_row_for_each_lane_and_others_have_more(device):
    """Atoms and cells of systems: positions have as many rows as there are atoms."""
    atoms, cells = parameter(len(ROWS), 3, device=device), parameter(N, 3, 3, device=device)
    lanes = PlateauLanes(N, RATES, device=device)
    for lane_of in ({atoms: ROWS}, lambda param: ROWS if param is atoms else None):
        one = adam([atoms, cells], 1.0)
        LaneLR(one, lanes, lane_of=lane_of)
        train_beside(
            [atoms, cells],
            one,
            lambda lane, ts: [ts[0][rows_of(lane)], ts[1][lane]],
        )


def test_rows_of_lanes_may_be_another_dimension_too(device):
    stacked = [parameter(2, len(ROWS), device=device)]
    one = adam(stacked, 1.0)
    LaneLR(one, PlateauLanes(N, RATES, device=device), dim=1, lane_of=ROWS)
    train_beside(stacked, one, lambda lane, ts: [t[:, rows_of(lane)] for t in ts])


def test_an_index_that_is_changed_afterwards_does_not_count(device):
    index = torch.tensor([0, 1, 0], device=device)
    p = torch.ones(3, device=device, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = SGD([p], lr=1.0)
    LaneLR(optimizer, PlateauLanes(2, [0.5, 0.25], device=device), lane_of=index)
    index.fill_(7)
    optimizer.step()
    assert p.tolist() == [0.5, 0.75, 0.5]


# -- lanes and parameters that change -------------------------------------------------------------


def ones_with_gradient(*shape, device):
    p = torch.ones(*shape, device=device, requires_grad=True)
    p.grad = torch.ones_like(p)
    return p


def test_rows_that_went_with_their_lanes_are_found_again(device):
    p = ones_with_gradient(3, 1, device=device)
    lanes = PlateauLanes(3, [0.5, 0.25, 0.125], device=device)
    optimizer = SGD([p], lr=1.0)
    LaneLR(optimizer, lanes)
    optimizer.step()
    lanes.remove([0])
    with pytest.raises(ValueError, match=r"expected parameters \[2, ...\], got shape \(3, 1\)"):
        optimizer.step()
    assert p.flatten().tolist() == [0.5, 0.75, 0.875]
    p.data, p.grad = p.detach()[1:].clone(), p.grad[1:].clone()
    optimizer.step()
    assert p.flatten().tolist() == [0.5, 0.75]


def test_an_index_of_lanes_that_are_gone_is_refused_before_anything_changes(device):
    p = ones_with_gradient(3, device=device)
    lanes = PlateauLanes(2, [0.5, 0.25], device=device)
    optimizer = SGD([p], lr=1.0)
    rates = LaneLR(optimizer, lanes, lane_of=[0, 1, 1])
    lanes.remove([1])
    with pytest.raises(ValueError, match=r"^lanes: expected 2 on .* lane_of was given, got 1 on"):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0, 1.0]
    rates.remove()
    LaneLR(optimizer, lanes, lane_of=[0, 0, 0])
    optimizer.step()
    assert p.tolist() == [0.5, 0.5, 0.5]


# -- optimizers of one's own ----------------------------------------------------------------------


class SignMomentum(torch.optim.Optimizer):
    """Lion's step: the sign of an average of gradients, and decay decoupled."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                sign = (0.9 * average + 0.1 * p.grad).sign()
                p.sub_(group["lr"] * (sign + 0.01 * p))
                average.lerp_(p.grad, 0.01)


def test_an_optimizer_of_ones_own_is_taken_if_one_says_that_it_is_linear(device):
    stacked = [parameter(N, 5, device=device)]
    one, lanes = SignMomentum(stacked, 1.0), PlateauLanes(N, RATES, device=device)
    with pytest.raises(
        TypeError, match=r"SignMomentum .* or pass linear=True if it is p - lr \* u"
    ):
        LaneLR(one, lanes)
    LaneLR(one, lanes, linear=True)
    train_beside(stacked, one, lambda lane, ts: [t[lane] for t in ts], SignMomentum)
