"""Training histories from Parquet files and TensorBoard's event files."""

import math
import os
import sys

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from torch.utils.tensorboard import SummaryWriter

from torch_plateau.histories import files as _files
from torch_plateau.histories.files import FileError, read_histories

CURE = "--missing drop leaves such rows out, --missing nan counts them as NaN"


def float32(value):
    """What a float32 scalar keeps of a number."""
    return float(np.float32(value))


def refusal(path, metric="loss", **options):
    """What is said of a file, without its path, which comes first."""
    with pytest.raises(FileError) as error:
        read_histories([path], metric, **options)
    says = str(error.value)
    assert says.startswith(f"{path}: ")
    assert "\n" not in says
    return says[len(str(path)) :]


@pytest.fixture
def table(tmp_path):
    """Write columns as a Parquet file and return its path."""

    def table(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "run.parquet", row_group_size=3)
        return tmp_path / "run.parquet"

    return table


@pytest.fixture
def events(tmp_path):
    """Write ``(tag, value, step, wall time)`` as an event file; return the folder."""

    def events(*scalars, folder=tmp_path / "run", suffix="", **options):
        with SummaryWriter(folder, filename_suffix=suffix) as writer:
            for tag, value, step, wall in scalars:
                writer.add_scalar(tag, value, step, walltime=wall, **options)
        return folder

    return events


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int8", "uint64", "string"])
def test_parquet_columns_of_any_numbers_are_read(table, kind):
    numbers = [3, 1, 2, 100, 0, 7, 5]
    texts = [str(number) for number in numbers]
    column = pyarrow.array(texts if kind == "string" else np.array(numbers, kind))
    [history] = read_histories([table(**{"val/loss.x": column})], "val/loss.x")
    assert history.name == "run.parquet"
    assert history.metric.dtype == torch.float64
    assert history.metric.tolist() == numbers


def test_parquet_rows_are_split_and_nulls_are_missing(table):
    path = table(seed=[1, 2, 1, 2], loss=[1.0, None, math.inf, 4.0], lr=[1.0, 2.0, 3.0, 4.0])
    assert refusal(path, by="seed") == f": row 2: column 'loss': no value; {CURE}"
    first, second = read_histories([path], "loss", by="seed", missing="drop")
    assert (first.name, second.name) == ("run.parquet seed=1", "run.parquet seed=2")
    assert first.metric.tolist() == [1, math.inf]
    assert second.metric.tolist() == [4]


def test_parquet_that_cannot_be_read_is_refused(table, tmp_path, monkeypatch):
    assert refusal(table(lr=[1.0])) == ": no column 'loss'. There are: 'lr'"
    assert refusal(table(loss=[True])) == ": row 1: column 'loss': expected a number, got True"
    assert refusal(table(loss=pyarrow.array([], "float64"))) == (": columns, but no rows")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no more")
    assert refusal(tmp_path / "no.parquet").startswith(": not a Parquet file: ")
    monkeypatch.setattr(_files, "MAX_ROWS", 3)
    assert refusal(table(loss=[1.0] * 5)) == ": row 4: expected at most 3 rows, got more"


@pytest.mark.parametrize(
    "options", [{}, {"new_style": True}, {"new_style": True, "double_precision": True}]
)
def test_scalars_are_read_in_the_order_of_their_steps(events, options):
    folder = events(
        ("loss", 0.2, 20, 1), ("other", 9, 5, 1), ("loss", 0.1, 10, 2), ("lr", 1, 10, 2),
        ("lr", 2, 20, 2), ("lr", 3, 30, 3), **options,
    )  # fmt: skip
    keep = float if "double_precision" in options else float32
    [file] = folder.iterdir()
    for path in (folder, file):
        [history] = read_histories([path], "loss", lr="lr")
        assert history.name == path.name
        assert history.metric.tolist() == [keep(0.1), keep(0.2)]
        assert history.lr.tolist() == [1, 2]


def test_of_a_step_written_twice_the_later_wall_time_counts(events):
    events(("loss", 1, 1, 10), ("loss", 2, 2, 40), ("loss", 3, 2, 30), suffix=".a")
    folder = events(("loss", 4, 1, 20), ("loss", 5, 3, 5), suffix=".b")
    assert len(list(folder.iterdir())) == 2
    assert read_histories([folder], "loss")[0].metric.tolist() == [4, 2, 5]


def test_tags_of_other_steps_are_missing_or_dropped_each_by_itself(events):
    folder = events(("loss", 1, 1, 0), ("loss", 2, 3, 0), ("train", 5, 0, 0), ("train", 6, 3, 0))
    assert refusal(folder, train="train") == f": step 1: column 'train': no value; {CURE}"
    [history] = read_histories([folder], "loss", train="train", missing="nan")
    assert history.metric.tolist() == [1, 2]
    assert history.train.isnan().tolist() == [True, False]
    [history] = read_histories([folder], "loss", train="train", missing="drop")
    assert history.metric.tolist() == [1, 2]
    assert history.train.tolist() == [5, 6]


def test_what_is_no_scalar_is_no_column(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_text("words", "loss")
        writer.add_histogram("weights", torch.ones(3))
        writer.add_scalar("val_loss", 1, 0)
    says = refusal(tmp_path / "run")
    assert says == ": no scalar tag 'loss'; did you mean 'val_loss'? There are: 'val_loss'"


def test_a_run_that_was_killed_while_it_wrote_is_read_up_to_there(events):
    [file] = events(("loss", 1, 1, 0), ("loss", 2, 2, 0)).iterdir()
    os.truncate(file, file.stat().st_size - 5)
    assert read_histories([file], "loss")[0].metric.tolist() == [1]


def test_a_damaged_event_is_refused(events):
    [file] = events(("loss", 1, 1, 0), ("loss", 2, 2, 0)).iterdir()
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(data)
    assert refusal(file) == ": event 3 is damaged: it does not fit its checksum"


def test_events_that_cannot_be_read_are_refused(events, tmp_path, monkeypatch):
    folder = events(*[("loss", i, i, 0) for i in range(5)])
    assert refusal(folder, by="seed") == (
        ": expected columns to split by 'seed', got TensorBoard events; "
        "give a file or folder for each run"
    )
    assert refusal(tmp_path) == (
        ": a folder without TensorBoard event files (tfevents in the name); "
        f"there are some in {folder}"
    )
    (tmp_path / "tfevents").write_bytes(b"")
    assert refusal(tmp_path / "tfevents") == ": no TensorBoard scalars in it"
    (tmp_path / "tfevents").write_bytes(b"loss\n1\n2\n3\n4\n5\n")
    assert refusal(tmp_path / "tfevents").startswith(": no TensorBoard event file: ")
    monkeypatch.setattr(_files, "MAX_ROWS", 4)
    [file] = folder.iterdir()
    assert refusal(file) == ": expected at most 4 values, got more"


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("run.parquet", "pyarrow", "parquet"),
        ("tfevents", "tensorboard.compat.proto.event_pb2", "tensorboard"),
    ],
)
def test_a_missing_package_is_named_with_the_cure(tmp_path, monkeypatch, name, module, extra):
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    says = refusal(tmp_path / name)
    assert says.startswith(f": reading it needs {module.split('.')[0]} (")
    assert says.endswith(f": pip install 'torch-plateau[{extra}]'")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["parquet", "events"]))
def test_damaged_bytes_are_read_or_refused(table, tmp_path, data, kind):
    if kind == "parquet":
        whole = table(loss=[1.0, 2.0]).read_bytes()
    else:
        [file] = [*(tmp_path / "run").glob("*")] or [*written(tmp_path / "run")]
        whole = file.read_bytes()
    path = tmp_path / ("damaged.parquet" if kind == "parquet" else "tfevents")
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:])
    try:
        [history] = read_histories([path], "loss", missing="nan")
    except FileError:
        refusal(path, missing="nan")
    else:
        assert len(history.metric) > 0


def written(folder):
    with SummaryWriter(folder) as writer:
        writer.add_scalar("loss", 1, 1)
    return folder.iterdir()
