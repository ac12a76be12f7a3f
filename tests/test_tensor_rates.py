"""Which optimizers wait for a rate on a GPU: the table beside what torch really does, with no GPU.

torch's optimizers run on fake CUDA tensors, and each ``.item()`` of one is counted. Those that a
rate on the GPU adds to what the same run with a Python float makes are waits for the rate. Where
there is a GPU, what torch's own debug mode counts there is compared too.
"""

import inspect
import itertools
import re
import sys
import warnings
from unittest.mock import Mock

import pytest
import torch
from torch import optim
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from torch_plateau.optim.tensor_rates import check_takes_tensor_rate, sync_of

KINDS = [
    *(optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad, optim.Adadelta),
    *(optim.NAdam, optim.RAdam, optim.Adamax, optim.ASGD, optim.Adafactor, optim.Muon),
]
CHOICES = {
    "foreach": [None, True, False],
    "fused": [None, True, False],
    "capturable": [False, True],
}
STEPS = 2


def options_of(kind):
    """Every way to set the options of CHOICES that ``kind`` has."""
    names = [name for name in CHOICES if name in inspect.signature(kind).parameters]
    for values in itertools.product(*(CHOICES[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def on_cpu(kind, options):
    """Whether ``kind`` so set runs here on the CPU instead.

    SparseAdam calls sparse kernels, which have no fakes. ASGD with one tensor at a time copies
    across devices, for which torch built without CUDA asks for the driver.
    """
    return kind is optim.SparseAdam or (kind is optim.ASGD and options["foreach"] is False)


CASES, REFUSED = [], []  # kinds with options; those that refuse a tensor as the rate
for kind in [*KINDS, optim.SparseAdam]:
    for options in options_of(kind):
        foreach, fused, capturable = (options.get(name) for name in CHOICES)
        if foreach and fused:
            continue  # torch refuses both together
        if fused and "cuda_unsupported=True" in inspect.getsource(kind):
            continue  # torch refuses it on a GPU, as it did for Adagrad before 2.13
        refused = issubclass(kind, optim.Adam) and foreach and not capturable
        (REFUSED if refused else CASES).append((kind, options))


def each_of(cases):
    names = [f"{kind.__name__}-{'-'.join(map(str, how.values()))}" for kind, how in cases]
    return pytest.mark.parametrize(("kind", "options"), cases, ids=names)


class Syncs(TorchDispatchMode):
    """Counts ``.item()`` on a device. Fused kernels are not run: they take the rate as it is."""

    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += args[0].device.type == self.device
            return 0.5
        if "_fused_" in func.__name__:
            return None  # the float overload would have counted: Python's .item() comes first
        return func(*args, **(kwargs or {}))


def run(kind, options, device, tensor):
    """A few steps of ``kind`` on a device, with a tensor there or a float as the rate."""
    params = [torch.nn.Parameter(torch.ones(4, 4, device=device)) for _ in range(2)]
    optimizer = kind(params, lr=0.5, **options)
    if tensor:
        optimizer.param_groups[0]["lr"] = torch.full((), 0.5, device=device)
    for _ in range(STEPS):
        for param in params:
            param.grad = torch.ones_like(param)
            if kind is optim.SparseAdam:
                param.grad = param.grad.to_sparse(1)
        optimizer.step()


def syncs_of(kind, options, device, tensor):
    """How often such a run waits for the device."""
    with Syncs(device) as syncs:
        run(kind, options, device, tensor)
    return syncs.count


def waits_for_its_rate(kind, options):
    def count(tensor):
        if on_cpu(kind, options):
            return syncs_of(kind, options, "cpu", tensor)
        with FakeTensorMode():
            return syncs_of(kind, options, "cuda", tensor)

    extra = count(tensor=True) - count(tensor=False)
    assert extra >= 0
    return extra > 0


@pytest.fixture(autouse=True)
def _defaults_of_a_gpu(monkeypatch):
    """Let torch choose foreach for fake tensors as for real ones, and capturable on the CPU."""
    real = [torch.Tensor, torch.nn.Parameter]
    chooser, asgd = (sys.modules[f"torch.optim.{name}"] for name in ("optimizer", "asgd"))
    monkeypatch.setattr(chooser, "_foreach_supported_types", [*real, FakeTensor])
    monkeypatch.setattr(
        asgd, "_get_capturable_supported_devices", Mock(return_value=["cpu", "cuda"])
    )


def built(kind, options):
    return kind([torch.nn.Parameter(torch.ones(4, 4))], lr=0.5, **options)


def cured(options, cure):
    """The options after each of the alternatives that ``cure`` names."""
    for alternative in cure.removeprefix("set ").split(" or "):
        changed = dict.fromkeys(re.findall(r"(\w+)=True", alternative), True)
        changed |= dict.fromkeys(re.findall(r"leave (\w+) unset", alternative))
        assert changed
        yield {**options, **changed}


@each_of(CASES)
def test_an_optimizer_is_said_to_wait_exactly_when_torch_waits_for_the_rate(kind, options):
    optimizer = built(kind, options)
    check_takes_tensor_rate(optimizer)
    cure = sync_of(optimizer)
    assert (cure is not None) == waits_for_its_rate(kind, options)
    if cure is None or "publish='float'" in cure:
        return
    for better in cured(options, cure):
        assert sync_of(built(kind, better)) is None
        assert not waits_for_its_rate(kind, better)


@each_of(CASES)
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_a_gpu_waits_for_the_rate_where_an_optimizer_is_said_to(kind, options, cuda_devices):
    def count(tensor):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run(kind, options, cuda_devices[0], tensor)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(each.message) for each in caught)

    assert (sync_of(built(kind, options)) is not None) == (count(True) > count(False))


@each_of(REFUSED)
def test_an_optimizer_that_torch_gives_no_tensor_rate_is_refused(kind, options):
    with pytest.raises(RuntimeError, match="lr as a Tensor is not supported"):
        waits_for_its_rate(kind, options)
    with pytest.raises(ValueError, match="it refuses a tensor rate"):
        check_takes_tensor_rate(built(kind, options))


@pytest.mark.parametrize("kind", [optim.Adafactor, optim.Muon])
def test_no_option_frees_an_optimizer_that_is_told_to_use_floats(kind):
    assert sync_of(built(kind, {})) == "no option of it avoids that: use publish='float'"
    assert all(waits_for_its_rate(kind, options) for options in options_of(kind))


def test_one_group_that_waits_is_enough():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    groups[1]["capturable"] = True
    optimizer = optim.AdamW(groups, lr=0.5)
    assert sync_of(optimizer) == "set capturable=True or fused=True"
    optimizer.param_groups[0]["capturable"] = True
    assert sync_of(optimizer) is None


def test_a_subclass_is_taken_for_its_parent_and_a_stranger_for_one_that_does_not_wait():
    class Mine(optim.SGD):
        pass

    class Stranger(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

    assert sync_of(built(Mine, {})) == sync_of(built(optim.SGD, {}))
    assert sync_of(built(Stranger, {})) is None


def test_lbfgs_is_refused_since_it_keeps_a_reference_to_its_rate():
    with pytest.raises(ValueError, match="publish: expected 'float' for LBFGS"):
        check_takes_tensor_rate(built(optim.LBFGS, {}))
