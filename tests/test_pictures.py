"""The pictures of replays and sweeps: what their axes hold, and that odd histories can be drawn."""

import math
import struct
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from torch_plateau import replay
from torch_plateau.cli import pictures
from torch_plateau.cli.pictures import draw_replay, draw_sweep
from torch_plateau.cli.sweep_picture import grid_of

TEXTBOOK = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
NAN, INF = math.nan, math.inf


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], Figure.savefig

    def spy(figure, *args, **keywords):
        figures.append(figure)
        save(figure, *args, **keywords)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def draw(history, out, labels=("run",), title="run.csv", **keywords):
    metric = torch.tensor(history, dtype=torch.float64)
    result = replay(metric, record="all", **{"lr": 0.1, **keywords})
    draw_replay(metric, result, list(labels), out, title)


def size_of(png):
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def curve(panel, label):
    return next(line for line in panel.lines if line.get_label() == label)


def test_a_replay_is_drawn_as_it_was(drawn, tmp_path):
    draw(TEXTBOOK, tmp_path / "p.png", patience=3)
    above, below = drawn[0].axes
    assert curve(above, "metric").get_ydata().tolist() == TEXTBOOK
    best = [0.5, 0.45, 0.44, 0.44, 0.44, *[0.43] * 5]
    assert curve(above, "best").get_ydata().tolist() == best
    gate = curve(above, "gate").get_ydata().tolist()
    assert math.isnan(gate[0])
    assert gate[1:] == [each * (1 - 1e-4) for each in best[:-1]]
    [cuts] = [each for each in above.collections if each.get_label() == "cuts: 1"]
    assert [line[:, 0].tolist() for line in cuts.get_segments()] == [[10, 10]]
    assert curve(below, "run").get_ydata() == pytest.approx([0.1] * 9 + [0.01])
    assert below.get_yscale() == "log"
    assert above.get_title(loc="left") == "run.csv"
    assert size_of(tmp_path / "p.png") == (1080, 720)


def test_lanes_have_a_row_of_cuts_each_and_share_the_best_that_they_have_in_common(drawn, tmp_path):
    history = [1.0] * 20
    labels = ["two", "five", "$ten$"]
    draw(history, tmp_path / "p.png", labels, patience=[2, 5, 10])
    above, marks, below = drawn[0].axes
    assert [line.get_label() for line in above.lines] == ["metric", "best (two)", "gate (two)"]
    cuts = [line.get_xdata().tolist() for line in marks.lines]
    assert cuts == [[4, 7, 10, 13, 16, 19], [7, 13, 19], [12]]
    names = [text.get_text() for text in marks.get_yticklabels()]
    assert names == ["two: 6", "five: 3", r"\$ten\$: 1"]
    assert len(below.lines) == 3
    looks = {(line.get_color(), str(line.get_linestyle())) for line in below.lines}
    assert len(looks) == 3


def test_the_first_six_of_many_lanes_are_drawn_and_the_rest_counted(drawn, tmp_path):
    draw(TEXTBOOK, tmp_path / "p.png", [str(i) for i in range(9)], patience=list(range(9)))
    assert len(drawn[0].axes[1].lines) == 6
    assert drawn[0].get_supxlabel() == "6 of 9 lanes are shown"


def test_a_history_each_is_drawn_for_each_lane(drawn, tmp_path):
    draw([[1.0, 5.0], [2.0, 4.0]], tmp_path / "p.png", ["a", "b"])
    above = drawn[0].axes[0]
    assert curve(above, "metric (a)").get_ydata().tolist() == [1, 2]
    assert curve(above, "metric (b)").get_ydata().tolist() == [5, 4]


def test_values_that_are_no_numbers_are_crosses_on_the_axis(drawn, tmp_path):
    draw([1.0, NAN, INF, 0.5], tmp_path / "p.png")
    above = drawn[0].axes[0]
    assert curve(above, "NaN or infinite: 2").get_xdata().tolist() == [2, 3]


@pytest.mark.parametrize(
    ("history", "scale"),
    [([1.0, 0.01], "log"), ([1.0, 0.5], "linear"), ([100.0, 0.0], "linear")],
)
def test_steep_positive_histories_get_a_log_axis(drawn, tmp_path, history, scale):
    draw(history, tmp_path / "p.png")
    assert drawn[0].axes[0].get_yscale() == scale


@pytest.mark.parametrize(
    ("history", "keywords"),
    [
        ([], {}),
        ([1.0], {}),
        ([1.0] * 5000, {"patience": 10, "factor": 0.9}),
        ([NAN] * 9, {"patience": 1}),
        ([-INF, INF, NAN, -INF], {"mode": "max"}),
        ([-1.0, -2.0, -3.0], {"smoothing": 0.5}),
        ([1e308, -1e308, 1e-308, 0.0], {"patience": 0}),
        ([1.0, 2.0], {"lr": 0.0, "patience": 0}),
    ],
    ids=["none", "one", "long", "NaN", "infinite", "negative", "huge", "rate of zero"],
)
def test_odd_histories_are_drawn_without_a_warning(tmp_path, history, keywords):
    draw(history, tmp_path / "p.png", **keywords)
    assert size_of(tmp_path / "p.png") == (1080, 720)


def test_an_open_file_is_drawn_into(tmp_path):
    with (tmp_path / "p.png").open("wb") as file:
        draw(TEXTBOOK, file)
    with (tmp_path / "q.png").open("wb") as file:
        draw_sweep(sweep_of([[1, 2]], patience=[1, 2]), file)
    assert size_of(tmp_path / "p.png") == (1080, 720)
    assert size_of(tmp_path / "q.png") == (1080, 600)


def test_labels_must_fit_the_lanes(tmp_path):
    with pytest.raises(ValueError, match="labels: expected 2, one per lane, got 1"):
        draw(TEXTBOOK, tmp_path / "p.png", patience=[1, 2])


@dataclass
class Stand:
    """As much of a sweep as a picture needs."""

    names: list
    axes: dict
    first_cut: torch.Tensor

    @property
    def num_reductions(self):
        return (self.first_cut > 0).int()


def sweep_of(first_cut, **axes):
    first_cut = torch.tensor(first_cut, dtype=torch.int32)
    names = [f"seed {i}" for i in range(len(first_cut))]
    return Stand(names, {name: list(values) for name, values in axes.items()}, first_cut)


def test_maps_hold_medians_by_patience_and_threshold(drawn, tmp_path):
    # histories x factor x threshold x patience
    first = [[[[s + 1, 2], [0, 4]], [[9, 9], [9, 9]]] for s in (0, 1, 5)]
    sweep = sweep_of(first, factor=[0.1, 0.5], threshold=[1e-4, 0.1], patience=[2, 5])
    draw_sweep(sweep, tmp_path / "p.png")
    cuts, firsts = drawn[0].axes[:2]
    assert cuts.images[0].get_array().tolist() == [[1, 1], [0, 1]]
    assert firsts.images[0].get_array().tolist() == [[2, 2], [None, 4]]
    assert (firsts.get_xlabel(), firsts.get_ylabel()) == ("patience", "threshold")
    assert drawn[0].get_suptitle() == "median of 3 histories, factor 0.1"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["never cut"]
    assert size_of(tmp_path / "p.png") == (1080, 600)


def test_a_cell_is_never_cut_where_most_histories_are_not():
    sweep = sweep_of([[[0]], [[0]], [[7]]], patience=[1], threshold=[0.1])
    assert np.isinf(grid_of(sweep).first).all()


def test_the_axis_order_of_the_sweep_does_not_matter():
    first = torch.arange(1, 7).reshape(1, 2, 3)
    one = grid_of(sweep_of(first.tolist(), threshold=[0, 1], patience=[1, 2, 3]))
    other = grid_of(sweep_of(first.mT.tolist(), patience=[1, 2, 3], threshold=[0, 1]))
    assert (one.x, one.y) == (other.x, other.y) == ("patience", "threshold")
    assert one.first.tolist() == other.first.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_without_patience_and_threshold_the_longest_axes_are_drawn():
    sweep = sweep_of(torch.ones(1, 1, 2, 3).tolist(), mode=["min"], factor=[1, 2], cooldown=[1] * 3)
    assert grid_of(sweep)[:2] == ("cooldown", "factor")
    assert grid_of(sweep).note == "mode min"


def test_one_axis_and_one_history_give_bars(drawn, tmp_path):
    draw_sweep(sweep_of([[3, 0, 5]], patience=[1, 2, 3]), tmp_path / "p.png")
    firsts = drawn[0].axes[1]
    bars = [(bar.get_x() + 0.4, bar.get_height()) for bar in firsts.patches if not bar.get_hatch()]
    assert bars == [(0, 3), (2, 5)]
    assert [bar.get_x() + 0.4 for bar in firsts.patches if bar.get_hatch()] == [1]


def test_one_axis_and_several_histories_give_a_map_with_a_row_for_each(drawn, tmp_path):
    sweep = sweep_of([[3, 0], [4, 5]], patience=[1, 2])
    sweep.names[1] = "runs of a long name seed=1"
    draw_sweep(sweep, tmp_path / "p.png")
    firsts = drawn[0].axes[1]
    assert firsts.images[0].get_array().tolist() == [[3, None], [4, 5]]
    shown = [label.get_text() for label in firsts.get_yticklabels()]
    assert shown == ["seed 0", "...ong name seed=1"]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1,), {}),
        ((2, 1, 1), {"patience": [1], "threshold": [0.1]}),
        ((1, 60, 40), {"patience": range(60), "threshold": [i / 7 for i in range(40)]}),
    ],
    ids=["no axis", "one cell", "many cells"],
)
@pytest.mark.parametrize("value", [0, 3], ids=["never", "cut"])
def test_sweeps_of_any_size_are_drawn_without_a_warning(tmp_path, shape, axes, value):
    draw_sweep(sweep_of(torch.full(shape, value).tolist(), **axes), tmp_path / "p.png")
    assert size_of(tmp_path / "p.png") == (1080, 600)


def test_of_a_hundred_thousand_settings_the_highest_of_each_stretch_is_drawn(drawn, tmp_path):
    first = [i % 1_000 + 1 if i < 60_000 else 0 for i in range(100_000)]
    draw_sweep(sweep_of([first], patience=range(100_000)), tmp_path / "p.png")
    for panel in drawn[0].axes[:2]:
        assert len(panel.patches) <= 400
    bars = [bar for bar in drawn[0].axes[1].patches if not bar.get_hatch()]
    never = [bar for bar in drawn[0].axes[1].patches if bar.get_hatch()]
    assert max(bar.get_height() for bar in bars) == 1_000
    assert max(bar.get_x() for bar in bars) < 60_000 <= min(bar.get_x() for bar in never)


def test_a_curve_of_many_epochs_keeps_its_lowest_and_highest(monkeypatch):
    monkeypatch.setattr(pictures, "PIECE", 7)
    values = torch.rand(1_000_003, dtype=torch.float64)
    values[123_456], values[654_321], values[-1], values[77] = 2.0, -1.0, 1.5, math.nan
    x, y = pictures.curve(values)
    assert len(x) < 3 * pictures.POINTS
    assert (values[torch.from_numpy(x) - 1].numpy() == y)[~np.isnan(y)].all()
    assert (np.diff(x) > 0).all()
    assert (x[y.argmax()], x[y.argmin()], x[-1]) == (123_457, 654_322, len(values))
