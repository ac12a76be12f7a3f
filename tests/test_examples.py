"""The examples run as they stand and print what they promise."""

import pathlib
import runpy

import torch

from oracle import TorchLanes, assert_same_state

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


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
