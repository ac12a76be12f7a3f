"""A sweep: every combination of settings on every history, as a lane of its own would go."""

import io
import itertools
import sys

import pytest
import torch
from rich.console import Console

from oracle import OneLane, same_bits
from torch_plateau import PlateauLanes, sweep
from torch_plateau.histories.progress import LateBar

AXES = {
    "patience": range(4),
    "threshold": [0.0, 0.05, 0.2],
    "mode": ["min", "max"],
    "smoothing": torch.tensor([0.0, 0.7], dtype=torch.float64),
}


@pytest.fixture
def histories():
    return {"a": torch.rand(30).double(), "b": torch.rand(17).double().cumsum(0)}


def outcome_of(history, rate, settings):
    """Cuts, first cut, wasted steps and final rate of one lane, by tests/oracle.py."""
    lane = OneLane([rate], **settings)
    cuts, first, improved = 0, 0, 0
    for step, metric in enumerate(history.tolist(), start=1):
        lane.step(metric)
        cuts += lane.reduced
        improved += lane.improved and not first
        first = first or (step if lane.reduced else 0)
    return cuts, first, (first or len(history)) - improved, lane.rates[0]


def test_each_result_is_that_of_a_lane_with_these_settings(histories, monkeypatch):
    monkeypatch.setattr(
        sys.modules["torch_plateau.histories.sweep"], "CHUNK", 7
    )  # cuts across the axes
    result = sweep(histories, lr=0.3, cooldown=1, **AXES)
    assert result.num_reductions.shape == (2, 4, 3, 2, 2)
    values = [v.tolist() if isinstance(v, torch.Tensor) else list(v) for v in AXES.values()]
    assert result.axes == dict(zip(AXES, values, strict=True))
    seen = set()
    for row, history in enumerate(histories.values()):
        for at in itertools.product(*(range(len(each)) for each in values)):
            settings = {name: each[i] for name, each, i in zip(AXES, values, at, strict=True)}
            cuts, first, wasted, rate = outcome_of(history, 0.3, {"cooldown": 1, **settings})
            seen.add(cuts)
            assert int(result.num_reductions[(row, *at)]) == cuts
            assert int(result.first_cut[(row, *at)]) == first
            assert int(result.wasted[(row, *at)]) == wasted
            assert same_bits([float(result.final_lr[(row, *at)])], [rate])
    assert len(seen) > 4


def test_a_sweep_equals_stepping_many_lanes(histories, device):
    result = sweep(histories["a"], device=device, patience=range(3), factor=[0.1, 0.5])
    patience, factor = zip(*itertools.product(range(3), [0.1, 0.5]), strict=True)
    lanes = PlateauLanes(6, 1.0, patience=patience, factor=factor)
    for metric in histories["a"].tolist():
        lanes.step([metric] * 6)
    assert torch.equal(result.num_reductions.flatten(), lanes.num_reductions)
    assert same_bits(result.final_lr.flatten(), lanes.lr_master)


def test_no_axis_is_one_setting():
    result = sweep([3.0, 2.0, 2.0, 2.0], patience=1)
    assert (result.num_reductions.tolist(), result.first_cut.tolist()) == ([1], [4])
    assert result.table()["final_lr"] == [0.1]
    assert len(result) == 1


def test_an_axis_without_values_gives_no_results():
    result = sweep([3.0, 2.0], patience=[])
    assert result.final_lr.shape == (1, 0)
    assert result.table()["patience"] == []


def test_histories_come_in_many_shapes():
    rows = torch.rand(9, 3)
    columns = sweep(rows, patience=[0, 1])
    listed = sweep([rows[:, i] for i in range(3)], patience=[0, 1])
    assert torch.equal(columns.num_reductions, listed.num_reductions)
    assert columns.names == ["0", "1", "2"]
    assert sweep(rows[:, 0].tolist(), patience=[0, 1]).names == ["0"]
    assert sweep({"seed 7": rows[:, 0]}, patience=0).names == ["seed 7"]


def test_settings_agree_where_all_histories_are_cut_alike():
    flat, later = [1.0] * 10, [2.0] + [1.0] * 9
    result = sweep({"flat": flat, "later": later}, patience=[2, 8, 20], eps=1e-30)
    assert result.num_reductions.tolist() == [[3, 1, 0], [2, 0, 0]]
    assert result.agreeing(100).tolist() == [False, False, False]
    both = sweep({"flat": flat, "later": later}, patience=[3, 4, 20])
    assert both.first_cut.tolist() == [[5, 6, 0], [6, 7, 0]]
    assert both.num_reductions.tolist() == [[2, 1, 0], [2, 1, 0]]
    assert both.agreeing().tolist() == [False, False, False]
    assert both.agreeing(within=1).tolist() == [True, True, False]


def test_a_setting_is_found_by_its_place(histories):
    result = sweep(histories, **AXES)
    values = [v.tolist() if isinstance(v, torch.Tensor) else list(v) for v in AXES.values()]
    for place, expected in enumerate(itertools.product(*values)):
        assert result.setting_at(place) == dict(zip(AXES, expected, strict=True))


def test_the_table_has_a_row_for_each_result(histories):
    result = sweep(histories, patience=[1, 2], factor=[0.1, 0.5, 0.9])
    frame = result.to_pandas()
    assert frame["history"].tolist() == ["a"] * 6 + ["b"] * 6
    assert frame["patience"].tolist() == [1, 1, 1, 2, 2, 2] * 2
    row = frame[(frame.history == "b") & (frame.patience == 2) & (frame.factor == 0.5)]
    assert row.num_reductions.tolist() == [int(result.num_reductions[1, 1, 1])]
    assert row.final_lr.tolist() == [float(result.final_lr[1, 1, 1])]


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"patient": 3}, TypeError, r"sweep: expected lr or settings, got \['patient'\]"),
        ({"groups": [1]}, TypeError, r"sweep: expected lr or settings, got \['groups'\]"),
        ({"patience": [1, -1]}, ValueError, "patience: expected an integer from 0 .* at index 1"),
        ({"patience": range(3), "factor": 2.0}, ValueError, "factor: expected above 0"),
        ({"mode": ["min", "most"]}, ValueError, "mode: expected 'min' or 'max'"),
        ({"threshold": torch.zeros(2, 2)}, ValueError, r"threshold: expected .*shape \(2, 2\)"),
        ({"lr": ["x"]}, TypeError, "lr: expected"),
        ({"device": "gpu"}, RuntimeError, "device: expected 'cpu' or 'cuda', got 'gpu'"),
        ({"threads": 0}, ValueError, "threads: expected"),
    ],
)
def test_bad_settings_are_refused_by_name(keywords, error, words):
    with pytest.raises(error, match=words):
        sweep([1.0, 2.0], **keywords)


def test_histories_of_two_dimensions_in_a_mapping_are_refused():
    with pytest.raises(ValueError, match=r"histories: .* got shape \(2, 2\) for 'x'"):
        sweep({"x": torch.zeros(2, 2)}, patience=1)


def test_the_bar_appears_late_and_only_in_a_terminal(monkeypatch):
    def shown(terminal, after):
        monkeypatch.setattr(LateBar, "AFTER", after)
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal)
        with LateBar("Sweeping", 10, console=console) as bar:
            bar.advance(4)
            bar.advance(6)
        return out.getvalue()

    assert "Sweeping" in shown(terminal=True, after=0.0)
    assert shown(terminal=True, after=3600.0) == ""
    assert shown(terminal=False, after=0.0) == ""
