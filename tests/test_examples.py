"""The examples run as they stand and print what they promise."""

import ast
import pathlib
import runpy

import pytest
import torch

from foreign import foreign_modules
from oracle import TorchLanes, assert_same_state

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_says_what_to_install_where_it_needs_more_than_the_package(path):
    code = path.read_text(encoding="utf-8")
    assert not foreign_modules(code) or "pip install" in ast.get_docstring(ast.parse(code))


def test_cross_validation_cuts_each_fold_for_itself(capsys):
    runpy.run_path(str(EXAMPLES / "cross_validation.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    cuts = [line for line in lines if "cut in folds" in line]
    assert any(line.count(",") < 4 for line in cuts)  # not all folds at once
    folds = [line for line in lines if line.startswith("fold ")]
    assert len(folds) == 5
    for line in folds:
        assert float(line.split("accuracy ")[1].split("%")[0]) > 90


def test_cuda_graph_ensemble_steps_each_lane_as_torch_does(capsys, device):
    lanes, epochs = 16, 30
    main = runpy.run_path(str(EXAMPLES / "cuda_graph_ensemble.py"))["main"]
    trained = main(["--lanes", str(lanes), "--epochs", str(epochs), "--device", str(device)])
    lines = capsys.readouterr().out.splitlines()

    start = torch.logspace(-4, 0, lanes, dtype=torch.float64).tolist()
    all_cuts = []
    for ensemble in trained:
        losses, rates = ensemble.losses.cpu(), ensemble.rates.cpu()
        assert losses.shape == (epochs, lanes)
        oracle = TorchLanes([[rate] for rate in start], [{"patience": 3, "factor": 0.5}] * lanes)
        for epoch in range(epochs):
            oracle.step(losses[epoch].tolist())
            theirs = torch.tensor(oracle.rates, dtype=torch.float64).float()
            assert torch.equal(rates[epoch + 1], theirs)
        assert ensemble.lanes.num_steps == epochs
        assert_same_state(ensemble.lanes.to("cpu"), oracle)
        assert losses[-1].median() < losses[0].median() / 2  # it learns
        all_cuts.append(oracle.num_reductions)
    assert len(set(all_cuts[0])) > 2  # lanes differ

    table = [line.split() for line in lines[1:6]]
    assert [int(row[0]) for row in table] == [1, 7, 15, 22, 30]
    assert int(table[-1][-1]) == sum(all_cuts[0])
    if torch.device(device).type == "cuda":
        assert len(trained) == 2
        assert "learning rates of graph and eager: the same" in lines
    else:
        assert len(trained) == 1
        assert any(line.startswith("no CUDA graph was captured") for line in lines)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_lora_adapters_in_one_batch_are_cut_and_stop_as_each_does_alone(capsys, tmp_path):
    out = tmp_path / "picture.png"
    main = runpy.run_path(str(EXAMPLES / "lora_adapters.py"))["main"]
    together, alone = main(["--quick", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()

    for ours, theirs in zip(together, alone, strict=True):
        assert ours.task == theirs.task
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-9)
        assert (ours.rates, ours.cuts, ours.stop) == (theirs.rates, theirs.cuts, theirs.stop)
        settings = {"factor": 0.3, "patience": ours.task.patience}
        oracle = TorchLanes([[ours.task.lr]], [settings])
        cuts, lowest = [], 0
        for epoch, (loss, rate) in enumerate(zip(ours.losses, ours.rates, strict=True)):
            oracle.step([loss])
            assert rate == oracle.rates[0]
            cuts += [epoch + 1] * oracle.reduced[0]
            lowest = epoch if loss < ours.losses[lowest] else lowest
            assert (epoch - lowest == ours.task.stop_patience) == (epoch + 1 == len(ours.losses))
        assert cuts == ours.cuts != []
        assert min(ours.losses) < ours.losses[0] - 0.2  # it learns
        assert min(ours.losses) > ours.entropy  # and has no way to see what comes next
    assert len({tuple(each.cuts) for each in together}) == len(together)  # all differ

    *first, last = together
    assert [each.slot for each in first] == [0, 1, 2]
    assert last.began == min(each.steps[-1] for each in first) == first[last.slot].steps[-1]
    assert [line.split("  ")[-1].startswith("the same") for line in lines[1:5]] == [True] * 4
    assert out.read_bytes().startswith(b"\x89PNG")
