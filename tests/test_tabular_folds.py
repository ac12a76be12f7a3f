"""The example of folds: a stack of lanes does what a loop over modules with torch's parts does."""

import pathlib
import runpy

import pytest
import torch

PATH = pathlib.Path(__file__).parent.parent / "examples" / "tabular_folds.py"
EXAMPLE = runpy.run_path(str(PATH))
FOLDS, SEEDS = 4, 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run in float64, in which rounding decides nothing: stack, loop and picture."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    out = tmp_path_factory.mktemp("folds") / "folds.png"
    ours, theirs = EXAMPLE["main"](["--quick", "--double", "--out", str(out)])
    torch.set_num_threads(before)
    return ours, theirs, out


def test_each_lane_has_the_losses_of_a_module_that_is_trained_alone(trained):
    ours, theirs, _ = trained
    assert ours.losses.shape == (40, FOLDS * SEEDS)
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-7, atol=0, equal_nan=True)
    torch.testing.assert_close(ours.accuracy, theirs.accuracy)
    assert ours.accuracy.min() > 0.9


def test_each_lane_is_cut_and_stops_when_torchs_scheduler_and_early_stopping_say(trained):
    ours, theirs, _ = trained
    assert torch.equal(ours.rates.isnan(), theirs.rates.isnan())
    assert torch.equal(ours.rates.nan_to_num(), theirs.rates.nan_to_num())
    cuts = (theirs.rates[1:] < theirs.rates[:-1]).sum(0)
    stops = theirs.rates.isfinite().sum(0)
    assert cuts.min() > 0
    assert len(stops.unique()) > 2  # lanes differ


def test_lanes_that_are_done_leave_the_batch(trained):
    ours, theirs, _ = trained
    learning = theirs.losses.isfinite().sum(1)[: len(ours.widths)].tolist()
    assert ours.widths[0] == FOLDS * SEEDS
    assert ours.widths == sorted(ours.widths, reverse=True)
    for width, still in zip(ours.widths, learning, strict=True):
        assert still <= width <= still / EXAMPLE["CROWDED"] + 1


def test_no_row_is_learnt_from_and_tested_on_in_the_same_lane():
    (x, _), *others = EXAMPLE["deal"]("breast_cancer", FOLDS, SEEDS, torch.float64)
    assert len(x) == FOLDS * SEEDS
    for lane in range(len(x)):
        parts = [x[lane], *(part[lane] for part, _ in others)]
        rows = torch.cat(parts)  # of one table, with a scale of its own in each lane
        assert len(rows.unique(dim=0)) == len(rows) == 569 // FOLDS * FOLDS
        assert [len(part) for part in parts] == [284, 142, 142]
        torch.testing.assert_close(parts[0].mean(0), torch.zeros_like(rows[0]), rtol=0, atol=1e-9)


def test_a_picture_is_drawn(trained):
    assert trained[2].read_bytes().startswith(b"\x89PNG")
