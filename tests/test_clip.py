"""Clipping by lane, against torch's clip_grad_norm_ on separate models."""

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from torch_plateau import clip_lane_grad_norm_

N = 5
SHAPES = [(N, 4, 3), (N,), (N, 2)]


def stacked(device, dtype=torch.float64):
    params = {
        str(i): torch.zeros(shape, dtype=dtype, device=device) for i, shape in enumerate(SHAPES)
    }
    for param in params.values():
        param.grad = torch.randn(param.shape, dtype=dtype).to(device)
        param.grad *= 4.0 ** torch.arange(-2, 3, device=device).view(-1, *[1] * (param.ndim - 1))
    params["unused"] = torch.zeros(N, 9, device=device)
    return params


def separate(params, lane):
    found = []
    for param in params.values():
        if param.grad is not None:
            found.append(param[lane].clone())
            found[-1].grad = param.grad[lane].clone()
    return found


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 4.0, 1e6])
def test_each_lane_is_clipped_as_a_model_of_its_own(norm_type, max_norm, device):
    params = stacked(device)
    alone = [separate(params, lane) for lane in range(N)]
    norms = clip_lane_grad_norm_(params, max_norm, norm_type)
    for lane, own in enumerate(alone):
        norm = clip_grad_norm_(own, max_norm, norm_type)
        assert abs(norms[lane] / norm - 1) < 1e-12
        clipped = [param.grad for param in params.values() if param.grad is not None]
        for ours, theirs in zip(clipped, own, strict=True):
            assert torch.allclose(ours[lane], theirs.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_lane_that_is_not_finite_spoils_no_other(bad, device):
    params, others = stacked(device), stacked(device)
    for name, param in others.items():
        if param.grad is not None:
            param.grad.copy_(params[name].grad)
    params["0"].grad[2, 1, 1] = bad
    norms = clip_lane_grad_norm_(params.values(), 1.0)
    expected = clip_lane_grad_norm_(others, 1.0)
    fine = torch.arange(N, device=device) != 2
    assert torch.equal(norms[fine], expected[fine])
    assert not norms[2].isfinite()
    for name in "012":
        assert torch.equal(params[name].grad[fine], others[name].grad[fine])
        assert not params["0"].grad[2].isfinite().all()


def test_each_lane_may_have_a_largest_norm_of_its_own(device):
    params = stacked(device, torch.float32)
    largest = torch.tensor([0.1, 1.0, 2.0, 4.0, 8.0], device=device)
    before = clip_lane_grad_norm_(params, 1e9)
    clip_lane_grad_norm_(params, largest)
    after = clip_lane_grad_norm_(params, 1e9)
    assert torch.allclose(after, torch.minimum(before, largest), rtol=1e-4)


def test_without_gradients_the_norms_are_zero(device):
    norms = clip_lane_grad_norm_([torch.zeros(3, 2, device=device)], 1.0)
    assert norms.tolist() == [0.0, 0.0, 0.0]
    assert norms.device.type == torch.device(device).type


def with_sparse():
    param = torch.zeros(3, 2)
    param.grad = torch.zeros(3, 2).to_sparse()
    return param


@pytest.mark.parametrize(
    ("params", "max_norm", "error", "words"),
    [
        (list, 1.0, ValueError, "params: expected at least one tensor"),
        (lambda: torch.zeros(3), 1.0, TypeError, "params: expected tensors or a mapping"),
        (lambda: [torch.zeros(())], 1.0, ValueError, r"params\['0'\]: expected shape \[n, ...\]"),
        (lambda: [torch.zeros(3), torch.zeros(2)], 1.0, ValueError, "equally many rows"),
        (lambda: [with_sparse()], 1.0, ValueError, "dense gradients, got torch.sparse_coo"),
        (lambda: [torch.zeros(3)], torch.ones(2), ValueError, r"max_norm: .*got \(2,\)"),
    ],
)
def test_what_is_no_stack_is_refused(params, max_norm, error, words):
    with pytest.raises(error, match=words):
        clip_lane_grad_norm_(params(), max_norm)
