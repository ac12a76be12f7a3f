"""The page on torch's optimizers says what they do with a rate that is a tensor.

Which of them wait for one on a GPU is shown in test_tensor_rates.py, for every way to set them.
"""

import contextlib
import functools
import importlib.util
import inspect
import pathlib
import re

import pytest
import torch
from torch import optim
from torch.utils._python_dispatch import TorchDispatchMode

from torch_plateau import BatchedReduceLROnPlateau

ROOT = pathlib.Path(__file__).parent.parent
PATH = ROOT / "docs" / "generate_optimizers.py"
SPEC = importlib.util.spec_from_file_location("generate_optimizers", PATH)
table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(table)

CELLS = [(kind, option) for kind in table.KINDS for option in table.OPTIONS]
ANSWERS = {cell: table.answer(*cell)[0] for cell in CELLS}
# before 2.13; see the note in the table
NO_FUSED_ADAGRAD = "cuda_unsupported=True" in inspect.getsource(optim.Adagrad)


def runs_on(device, kind, option):
    """Whether torch has this there at all."""
    if device == "cpu":
        return option != "capturable"
    return not (NO_FUSED_ADAGRAD and kind is optim.Adagrad and option == "fused")


def cells(*answers):
    """Each cell of the table with one of these answers, on each device that has it."""
    found = [
        pytest.param(kind, option, device, id=f"{kind.__name__}-{option or 'as it is'}-{device}")
        for (kind, option), answer in ANSWERS.items()
        for device in ("cpu", "cuda")
        if answer in answers and runs_on(device, kind, option)
    ]
    return pytest.mark.parametrize(("kind", "option", "device"), found)


def rows_of(text):
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): [cell.strip() for cell in row] for name, *row in rows}


def built(kind, option, device):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3).to(device))
    return weight, kind([weight], lr=0.5, **({option: True} if option else {}))


def trained(kind, option, device, publish=None):
    """The weights after each of six steps, with cuts after the fourth and the sixth.

    With torch's scheduler, unless told how the rates of ours are published.
    """
    weight, optimizer = built(kind, option, device)
    warned = contextlib.nullcontext()
    if publish == "tensor" and device == "cuda" and ANSWERS[kind, option] == "waits":
        warned = pytest.warns(UserWarning, match="waits for its rate at every step")
    with warned:  # any other warning is an error
        if publish is None:
            plateau = optim.lr_scheduler.ReduceLROnPlateau
        else:
            plateau = functools.partial(BatchedReduceLROnPlateau, publish=publish)
        scheduler = plateau(optimizer, factor=0.25, patience=1)
    seen = []
    for metric in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0):

        def closure():
            weight.grad = (weight.detach() - 1).sin()
            if kind is optim.SparseAdam:
                weight.grad = weight.grad.to_sparse(1)
            return weight.detach().cos().sum()

        closure()
        optimizer.step(closure if kind is optim.LBFGS else None)
        scheduler.step(metric)
        seen.append((weight.detach().clone(), float(optimizer.param_groups[0]["lr"])))
    assert [rate for _, rate in seen] == [0.5] * 3 + [0.125] * 2 + [0.03125]
    return torch.stack([weights for weights, _ in seen])


def test_the_page_is_the_one_that_is_generated_with_the_torch_that_it_names():
    text = table.PAGE.read_text(encoding="utf-8")
    release = re.search(r"with torch ([\d.]+);", text)[1]
    assert text == table.page(release)
    assert f"torch=={release}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"| {release} | CPU | passed | passed" in text  # as was written by hand
    assert table.RELEASE in table.page()


def test_every_optimizer_of_torch_is_in_the_table():
    every = {
        kind
        for kind in vars(optim).values()
        if inspect.isclass(kind) and issubclass(kind, optim.Optimizer)
    }
    assert every - {optim.Optimizer} == set(table.KINDS)
    rows = rows_of(table.page())
    for kind in table.KINDS:
        assert rows[kind.__name__][:4] == [ANSWERS[kind, option] for option in table.OPTIONS]


@cells("works", "waits", "refuses")
def test_a_float_rate_works_with_all_of_them_as_with_torch_s_scheduler(kind, option, device):
    ours, torchs = trained(kind, option, device, "float"), trained(kind, option, device)
    assert torch.equal(ours, torchs)


@cells("works", "waits")
def test_a_tensor_rate_is_right_wherever_it_is_not_refused(kind, option, device):
    ours, torchs = trained(kind, option, device, "tensor"), trained(kind, option, device)
    assert torch.allclose(ours, torchs, rtol=1e-5, atol=1e-6)


@cells("refuses")
def test_a_tensor_rate_is_refused_with_a_cure_where_the_table_says_so(kind, option, device):
    with pytest.raises(ValueError, match="publish: expected 'float'"):
        BatchedReduceLROnPlateau([built(kind, option, device)[1]], publish="tensor")
    cures = rows_of(table.page())[kind.__name__][4]
    assert "leave foreach unset" in cures or '`publish="float"`' in cures


def test_adagrad_is_fused_on_a_gpu_from_the_torch_that_is_said_on():
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert (release < (2, 13)) == NO_FUSED_ADAGRAD
    assert "torch 2.13 and newer" in table.NOTES[optim.Adagrad]


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU is waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("foreach", [None, True])
def test_rprop_reads_its_rate_in_the_first_step_only(foreach):
    ends = []
    for later in (0.5, 1e-6):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = optim.Rprop([weight], lr=0.5, foreach=foreach)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
        reads = []
        for _ in range(3):
            weight.grad = torch.ones(3)
            with Reads() as counted:
                optimizer.step()
            reads.append(counted.count)
            optimizer.param_groups[0]["lr"].fill_(later)
        assert reads[1:] == [reads[0] - 1] * 2
        ends.append(weight.detach().clone())
    assert torch.equal(*ends)
