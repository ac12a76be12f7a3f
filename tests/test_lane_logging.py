"""What LaneLog wrote, read back with TensorBoard's reader, csv and our own reader of histories."""

import csv

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from oracle import TorchLanes
from torch_plateau import PlateauLanes
from torch_plateau.histories.files import read_histories
from torch_plateau.integrations.logging import LaneLog
from torch_plateau.lanes.table import STOP_REASONS

STEPS = 12
RATES = [0.1, 0.2, 0.4]
NAN = float("nan")


def run(folder, n, few=16, device="cpu", names=None):
    """Lanes of which each is cut and stopped at another time, with torch's own beside them."""
    settings = [{"patience": i % 3, "factor": 0.5} for i in range(n)]
    rates = [RATES[i % 3] for i in range(n)]
    lanes = PlateauLanes(
        n,
        rates,
        patience=[each["patience"] for each in settings],
        factor=0.5,
        max_steps=[STEPS if i % 4 else 5 for i in range(n)],
        device=device,
    )
    oracle = TorchLanes([[rate] for rate in rates], settings)
    seen = []
    with SummaryWriter(folder / "events") as writer:
        log = LaneLog(lanes, writer, folder / "lanes.csv", few=few)
        for step in range(STEPS):
            metrics = torch.rand(n, dtype=torch.float64)
            oracle_metrics = metrics.tolist()
            if step < 5:
                oracle.step(oracle_metrics)
            else:
                keep_stopped(oracle, oracle_metrics)
            lanes.step(metrics.to(device))
            log.write(step, metrics.to(device), names)
            seen.append((list(oracle.rates), list(oracle.num_reductions), oracle_metrics))
    events = EventAccumulator(str(folder / "events"), {"scalars": 0, "histograms": 0})
    events.Reload()
    with (folder / "lanes.csv").open(newline="") as file:
        return events, list(csv.DictReader(file)), seen


def keep_stopped(oracle, metrics):
    """Step those only that were not stopped after five steps."""
    for lane, scheduler in enumerate(oracle.schedulers):
        if lane % 4:
            before = oracle.rates_of(lane)
            scheduler.step(metrics[lane])
            oracle.num_reductions[lane] += oracle.rates_of(lane) != before


def scalars(events, tag):
    found = events.Scalars(f"lanes/{tag}")
    assert [each.step for each in found] == list(range(STEPS))[-len(found) :]
    return [each.value for each in found]


def single(values):
    """As TensorBoard keeps them."""
    return torch.tensor(values, dtype=torch.float32).tolist()


def test_few_lanes_are_logged_each_with_the_rates_of_torch(tmp_path, device):
    events, rows, seen = run(tmp_path, 5, device=device)
    for lane in range(5):
        rates, cuts, metrics = ([each[i][lane] for each in seen] for i in range(3))
        mine = [row for row in rows if row["lane"] == str(lane)]
        assert [int(row["step"]) for row in mine] == list(range(STEPS))
        assert [float(row["lr"]) for row in mine] == rates
        assert [int(row["cuts"]) for row in mine] == cuts
        assert [float(row["metric"]) for row in mine] == metrics
        ends = 4 if lane % 4 == 0 else STEPS - 1
        stops = ["" if step < ends else "max_steps" for step in range(STEPS)]
        assert [row["stop"] for row in mine] == stops
        assert scalars(events, f"lr/{lane}") == single(rates)
        assert scalars(events, f"cuts/{lane}") == cuts
        assert scalars(events, f"metric/{lane}") == single(metrics)
        assert scalars(events, f"stop/{lane}") == [STOP_REASONS.index(s or "none") for s in stops]
    assert len(rows) == 5 * STEPS
    assert scalars(events, "stopped") == [0] * 4 + [2] * 7 + [5]
    assert scalars(events, "stopped/max_steps") == [2] * 7 + [5]
    assert not events.Tags()["histograms"]
    assert sum(seen[-1][1]) > 5


def test_many_lanes_are_logged_in_short_with_histograms(tmp_path, device):
    n = 40
    events, rows, seen = run(tmp_path, n, device=device)
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    for i, name in enumerate(("lr", "cuts", "metric")):
        ordered = [sorted(each[i]) for each in seen]
        for short, at in (("min", 0), ("median", (n - 1) // 2), ("max", -1)):
            values = [each[at] for each in ordered]
            assert [float(row[f"{name}_{short}"]) for row in rows] == values
            assert scalars(events, f"{name}/{short}") == single(values)
        histograms = events.Histograms(f"lanes/{name}")
        assert [each.step for each in histograms] == list(range(STEPS))
        for histogram, values in zip(histograms, ordered, strict=True):
            found = histogram.histogram_value
            assert (found.num, found.min, found.max) == (n, values[0], values[-1])
            assert sum(found.bucket) == n
            assert found.sum == pytest.approx(sum(values))
    assert [int(row["stopped"]) for row in rows] == [0] * 4 + [10] * 7 + [40]
    assert f"lanes/lr/{n - 1}" not in events.Tags()["scalars"]


def test_our_own_reader_reads_both_files(tmp_path):
    _, _, seen = run(tmp_path, 3)
    csvs = read_histories([tmp_path / "lanes.csv"], "metric", lr="lr", by="lane")
    assert len(csvs) == 3
    for lane, history in enumerate(csvs):
        assert list(history.metric) == [each[2][lane] for each in seen]
        assert list(history.lr) == [each[0][lane] for each in seen]
        (events,) = read_histories(
            [tmp_path / "events"], f"lanes/metric/{lane}", lr=f"lanes/lr/{lane}"
        )
        assert list(events.lr) == single(list(history.lr))


def test_lanes_have_the_names_that_they_are_given(tmp_path):
    events, rows, _ = run(tmp_path, 2, names=["first", 7])
    assert {row["lane"] for row in rows} == {"first", "7"}
    assert {"lanes/lr/first", "lanes/stop/7"} <= set(events.Tags()["scalars"])


def test_each_rate_of_a_lane_is_logged(tmp_path):
    lanes = PlateauLanes(2, [0.1, 0.2, 0.3], groups=[1, 2])
    log = LaneLog(lanes, None, tmp_path / "lanes.csv")
    log.write(0)
    found = [row.split(",") for row in (tmp_path / "lanes.csv").read_text().split()[1:]]
    assert found == [
        ["0", "0", "0", "0.1", "0", "", ""],
        ["0", "1", "0", "0.2", "0", "", ""],
        ["0", "1", "1", "0.3", "0", "", ""],
    ]
    with SummaryWriter(tmp_path) as writer:
        LaneLog(lanes, writer).write(0)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = {tag for tag in events.Tags()["scalars"] if "/lr/" in tag}
    assert tags == {"lanes/lr/0", "lanes/lr/1", "lanes/lr/1.1"}


def test_a_rate_in_a_warm_up_is_the_one_that_is_published(tmp_path):
    lanes = PlateauLanes(1, 0.1, warmup_steps=4, warmup_start_factor=0.5)
    log = LaneLog(lanes, None, tmp_path / "lanes.csv")
    published = []
    for step in range(6):
        lanes.step([1.0 - step])
        published.append(lanes.lr.item())
        log.write(step)
    with (tmp_path / "lanes.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert single(rates) == published
    assert (rates[0] < 0.1, rates[-1]) == (True, 0.1)


def test_metrics_that_are_nan_are_left_out_of_what_is_said_in_short(tmp_path):
    lanes = PlateauLanes(4, 0.1)
    with SummaryWriter(tmp_path) as writer:
        log = LaneLog(lanes, writer, tmp_path / "lanes.csv", few=0)
        log.write(0, [NAN, 3.0, 1.0, NAN])
        log.write(1, [NAN] * 4)
    with (tmp_path / "lanes.csv").open(newline="") as file:
        rows = [
            [row[f"metric_{s}"] for s in ("min", "median", "max")] for row in csv.DictReader(file)
        ]
    assert rows == [["1.0", "1.0", "3.0"], ["", "", ""]]


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path):
    lanes = PlateauLanes(2, 0.1)
    for step in range(3):
        LaneLog(lanes, path=tmp_path / "lanes.csv").write(step)
    lines = (tmp_path / "lanes.csv").read_text().splitlines()
    assert lines[0] == "step,lane,group,lr,cuts,metric,stop"
    assert [line[:3] for line in lines[1:]] == [f"{s},{i}" for s in range(3) for i in range(2)]


def test_lanes_may_come_and_go(tmp_path):
    lanes = PlateauLanes(3, 0.1)
    log = LaneLog(lanes, path=tmp_path / "lanes.csv")
    lanes.remove([0])
    log.write(0, names="bc")
    lanes.append(20, 0.1)
    log.write(1)
    lines = (tmp_path / "lanes.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 + 22
    assert lines[1].startswith("0,b,0,0.1")


@pytest.mark.parametrize("few", [0, 16])
def test_a_call_brings_all_to_the_host_at_once(few, tmp_path, monkeypatch):
    lanes = PlateauLanes(8, 0.1)
    with SummaryWriter(tmp_path) as writer:
        log = LaneLog(lanes, writer, tmp_path / "lanes.csv", few=few)
        brought, cpu = [], torch.Tensor.cpu
        monkeypatch.setattr(torch.Tensor, "cpu", lambda t: (brought.append(t.shape), cpu(t))[1])
        log._read([1.0] * 8)
        monkeypatch.undo()
        log.write(0, [1.0] * 8)
    assert brought == [(4 * 8,)]


REFUSED = {
    "no lanes": (lambda _: LaneLog(3), TypeError, "lanes: expected PlateauLanes, got 3"),
    "half": (lambda _: LaneLog(PlateauLanes(1, 0.1), few=0.5), ValueError, "few: expected"),
    "another file": (
        lambda path: LaneLog(PlateauLanes(1, 0.1), path=path, few=0),
        ValueError,
        r"path: expected a file of \['step', 'lr_min'.* got one of \['step', 'lane'",
    ),
    "a name too many": (
        lambda path: LaneLog(PlateauLanes(1, 0.1), path=path).write(0, names="ab"),
        ValueError,
        "names: expected 1, got 2",
    ),
    "a metric too many": (
        lambda path: LaneLog(PlateauLanes(1, 0.1), path=path).write(0, [1.0, 2.0]),
        ValueError,
        "metrics: expected shape",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_logged_is_refused_and_nothing_written(call, error, words, tmp_path):
    path = tmp_path / "lanes.csv"
    LaneLog(PlateauLanes(1, 0.1), path=path).write(0)
    before = path.read_text()
    with pytest.raises(error, match=words):
        call(path)
    assert path.read_text() == before
