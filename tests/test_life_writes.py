"""Changes of some lanes are written into the tensors that there are, as a loop would write them."""

import math

import pytest
import torch

from torch_plateau import PlateauLanes, _core

N = 300
SETTINGS = {
    "plain": {},
    "several rates": {"groups": [3] * N},
    "a window": {"window": 4},
    "settings per lane": {"patience": list(range(N)), "min_lr": [0.001 * i for i in range(N)]},
}
each_kind = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def stepped(settings, device):
    random = torch.Generator().manual_seed(3)
    lanes = PlateauLanes(N, 0.5, device=device, **{"patience": 0, "factor": 0.5, **settings})
    for _ in range(5):
        lanes.step(torch.rand(N, generator=random, dtype=torch.float64).to(device))
    return lanes


def by_lane(lanes):
    """What each lane is, in one row."""
    state, n = lanes.state_dict(), len(lanes)
    rows = [
        state[name].double().view(n, -1)
        for name in ("best", "num_bad_epochs", "num_reductions", "lr", "start_lr")
    ]
    rows += [each.double().view(n, -1) for each in state["options"].values() if len(each) == n]
    if "recent" in state["options"]:
        rows.append(state["options"]["recent"].view(-1, n).T)
    rows += [
        each.double().view(n, -1)
        for each in state["settings"].values()
        if isinstance(each, torch.Tensor)
    ]
    return torch.cat(rows, 1).cpu()


@each_kind
@pytest.mark.parametrize("count", [2, 40, 250], ids=lambda count: f"{count} lanes")
def test_lanes_are_copied_as_one_after_the_other_from_what_was_before(settings, count, device):
    lanes = stepped(settings, device)
    random = torch.Generator().manual_seed(count)
    src, dst = (torch.randint(N, (count,), generator=random) for _ in range(2))  # some come twice
    before = by_lane(lanes)
    expected = before.clone()
    for come_from, to in zip(src.tolist(), dst.tolist(), strict=True):
        expected[to] = before[come_from]
    lr, best = lanes.lr, lanes.best
    lanes.copy_lanes(src.to(device), dst.to(device))
    assert torch.equal(by_lane(lanes), expected)
    assert lanes.lr is lr
    assert lanes.best is best


@each_kind
def test_lanes_that_are_reset_are_as_they_were_built_and_others_as_they_were(settings, device):
    lanes = stepped(settings, device)
    fresh = PlateauLanes(N, 0.5, device=device, **{"patience": 0, "factor": 0.5, **settings})
    before = lanes.state_dict()
    lanes.reset(range(0, N, 3))
    after, new = lanes.state_dict(), fresh.state_dict()
    for name in ("best", "num_bad_epochs", "num_reductions", "lr"):
        rows = [state[name].view(N, -1) for state in (after, new, before)]
        assert torch.equal(rows[0][::3], rows[1][::3]), name
        assert torch.equal(rows[0][1::3], rows[2][1::3]), name


def test_rates_that_are_set_are_written_where_optimizers_read_them(device):
    lanes = stepped({}, device)
    lr, others = lanes.lr, lanes.lr[5:].clone()
    lanes.set_lanes(range(5), lr=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert lanes.lr is lr
    assert lr[:5].tolist() == torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).tolist()
    assert lanes.lr_master[:5].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert torch.equal(lr[5:], others)


CHANGES = {
    "reset": lambda lanes: lanes.reset([0]),
    "copy_lanes": lambda lanes: lanes.copy_lanes([1], [0]),
    "set_lanes": lambda lanes: lanes.set_lanes([0], lr=0.25),
    "load_state_dict": lambda lanes: lanes.load_state_dict(lanes.state_dict()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_gradient_that_needs_rates_from_before_a_change_is_refused(change, device):
    lanes = stepped({}, device)
    weight = torch.ones(N, device=device, requires_grad=True)
    loss = (weight * lanes.lr).sum()
    change(lanes)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at", [0, 511, 512, 1029])
def test_the_first_number_out_of_range_is_found_wherever_it_is(dtype, at):
    values = torch.ones(1030, dtype=dtype)
    assert _core.first_outside(values, 0, 1, True, False, True) == -1
    values[at:] = 2
    assert _core.first_outside(values, 0, 1, True, False, True) == at
    values[at:] = 0
    assert _core.first_outside(values, 0, 1, True, False, True) == at
    assert _core.first_outside(values, 0, 1, False, False, True) == -1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.5])
def test_nan_infinities_and_halves_are_no_whole_numbers(bad):
    values = torch.tensor([1.0, bad], dtype=torch.float64)
    assert _core.first_outside(values, -math.inf, math.inf, True, True, True) == 1
    expected = 1 if bad != 0.5 else -1
    assert _core.first_outside(values, -math.inf, math.inf, True, True, False) == expected
