"""Training histories from files: what is read, and what is said of files that cannot be."""

import csv
import json
import math
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_plateau.histories import files as _files
from torch_plateau.histories.files import FileError, quick, read_histories
from torch_plateau.histories.files import rows as readers

NAN, INF = math.nan, math.inf
CURE = "--missing drop leaves such rows out, --missing nan counts them as NaN"

# Two epochs as Lightning's CSVLogger writes them: training and validation on rows of their own.
LIGHTNING = """\
epoch,lr-SGD,step,train_loss,val_loss
0,,49,2.25,
0,,49,,2.5
1,,99,1.75,
1,,99,,1.5
"""


@pytest.fixture
def write(tmp_path):
    """Write a file, of text or bytes, and return its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def values(tensor):
    """A tensor's numbers, NaN equal to NaN, after checks of what every column is."""
    assert tensor.dtype == torch.float64
    assert tensor.device.type == "cpu"
    assert tensor.ndim == 1
    return ["nan" if math.isnan(value) else value for value in tensor.tolist()]


def metric_of(path, metric="loss", **options):
    [history] = read_histories([path], metric, **options)
    return values(history.metric)


def refusal(path, metric="loss", **options):
    """What is said of a file, without its path, which comes first."""
    with pytest.raises(FileError) as error:
        read_histories([path], metric, **options)
    says = str(error.value)
    assert says.startswith(f"{path}:")
    assert "\n" not in says
    return says[len(str(path)) :]


@pytest.mark.parametrize("suffix", ["csv", "CSV", "tsv"])
def test_a_table_is_read_as_the_csv_module_wrote_it(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    rows = [(i, 1 / (i + 1), 10.0**-i, 'a "quoted",\t\nnote') for i in range(20)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if suffix == "tsv" else ",")
        writer.writerow(["epoch", "val loss", "lr", "note"])
        writer.writerows(rows)
    [history] = read_histories([path], "val loss", train="epoch", lr="lr")
    assert history.name == path.name
    assert values(history.metric) == [row[1] for row in rows]
    assert values(history.train) == [row[0] for row in rows]
    assert values(history.lr) == [row[2] for row in rows]


def test_what_was_not_asked_for_is_none(write):
    [history] = read_histories([write("run.csv", "loss,other\n1,x\n")], "loss")
    assert history.train is None
    assert history.lr is None


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json"])
def test_json_lines_are_read_as_the_json_module_wrote_them(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    losses = [0.1, 2, NAN, INF, -INF, 1e-310, -0.0]
    rows = [json.dumps({"loss": loss, "tags": [{}]}) for loss in losses]
    path.write_text("\n\n".join(rows))
    assert metric_of(path) == [0.1, 2, "nan", INF, -INF, 1e-310, -0.0]


def test_several_files_follow_one_another(write):
    paths = [write("b.csv", "loss\n2\n"), write("a.jsonl", '{"loss": 1}\n')]
    histories = read_histories(paths, "loss")
    assert [history.name for history in histories] == ["b.csv", "a.jsonl"]
    assert [values(history.metric) for history in histories] == [[2], [1]]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        (" 2.5 ", 2.5),
        ("1e-3", 1e-3),
        ("nan", "nan"),
        ("NaN", "nan"),
        ("inf", INF),
        ("-Infinity", -INF),
        ("9" * 400, INF),
    ],
)
@pytest.mark.parametrize("name", ["run.csv", "run.jsonl"])
def test_numbers_are_those_of_pythons_float(write, name, cell, value):
    text = f"loss\n{cell}\n" if name == "run.csv" else json.dumps({"loss": cell})
    assert metric_of(write(name, text)) == [value]


def test_a_json_integer_beyond_all_floats_is_infinite_as_its_text_is(write):
    assert metric_of(write("run.jsonl", f'{{"loss": {"9" * 400}}}\n{{"loss": -1{"0" * 400}}}')) == [
        float("9" * 400),
        float("-1" + "0" * 400),
    ]


def test_a_byte_order_mark_crlf_spaces_and_blank_lines_do_no_harm(write):
    path = write("run.csv", "\ufeffloss , lr\r\n\r\n1, 2\r\n\r\n3, 4")
    [history] = read_histories([path], "loss", lr="lr")
    assert values(history.metric) == [1, 3]
    assert values(history.lr) == [2, 4]


def test_a_column_that_splits_makes_a_history_of_each_value_in_order_of_appearance(write):
    path = write("runs.csv", "seed,loss\nb,1\n3,2\nb,3\n 3,4\nb,5\n")
    histories = read_histories([path], "loss", by="seed")
    assert [history.name for history in histories] == ["runs.csv seed=b", "runs.csv seed=3"]
    assert [values(history.metric) for history in histories] == [[1, 3, 5], [2, 4]]


def test_a_json_value_splits_by_its_text(write):
    path = write("r.jsonl", '{"s": 3, "loss": 1}\n{"s": "3", "loss": 2}\n{"s": "\\n", "loss": 3}')
    assert refusal(path, by="s") == ":3: column 's': no value to split rows by"
    path = write("r.jsonl", '{"s": 3, "loss": 1}\n{"s": "3", "loss": 2}\n{"s": "a\\nb", "loss": 3}')
    histories = read_histories([path], "loss", by="s")
    assert [history.name for history in histories] == ["r.jsonl s=3", r"r.jsonl s='a\nb'"]
    assert [values(history.metric) for history in histories] == [[1, 2], [3]]


def test_lightnings_rows_need_drop(write):
    path = write("metrics.csv", LIGHTNING)
    says = refusal(path, "val_loss", train="train_loss")
    assert says == f":2: column 'val_loss': no value; {CURE}"
    [history] = read_histories([path], "val_loss", train="train_loss", missing="drop")
    assert values(history.metric) == [2.5, 1.5]
    assert values(history.train) == [2.25, 1.75]


@pytest.mark.parametrize("name", ["run.csv", "run.jsonl"])
def test_missing_values_are_refused_dropped_or_nan_as_told(write, name):
    lines = ["loss,x", "1,a", " ,b", "nan,c"]
    if name == "run.jsonl":
        lines = ["", '{"loss": 1}', '{"other": 2}', '{"loss": NaN}']
    path = write(name, "\n".join(lines))
    assert refusal(path) == f":3: column 'loss': no value; {CURE}"
    assert metric_of(path, missing="drop") == [1, "nan"]
    assert metric_of(path, missing="nan") == [1, "nan", "nan"]


def test_null_is_missing_and_a_key_of_later_lines_only_is_known(write):
    path = write("run.jsonl", '{"lr": 1}\n{"loss": null}\n{"loss": 3}\n')
    assert refusal(path) == f":1: column 'loss': no value; {CURE}"
    assert metric_of(path, missing="nan") == ["nan", "nan", 3]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("run.csv", "", ": an empty file"),
        ("run.csv", "\n\n", ": an empty file"),
        ("run.csv", "loss\n", ": a header, but no rows"),
        ("run.csv", "loss,x,loss\n1,2,3\n", ":1: column 'loss' is there twice"),
        ("run.csv", "loss,x\n1,2\n3\n", ":3: expected 2 cells, as in the header, got 1"),
        ("run.csv", "loss,x\n1,2\n3,4,5\n", ":3: expected 2 cells, as in the header, got 3"),
        ("run.csv", "loss\n1\nlow\n", ":3: column 'loss': expected a number, got 'low'"),
        ("run.csv", 'loss,x\n1,"a\nb"\n2,"c\nd"\n-,e\n', ":6: column 'loss': expected a number"),
        ("run.csv", f"loss\n{'x' * 99}\n", f"got '{'x' * 56}..."),
        ("run.csv", 'loss\n1\n"2\n3\n', ":4: not a table: unexpected end of data"),
        ("run.csv", f"loss\n{'1' * 140_000}\n", ":2: not a table: field larger than field limit"),
        ("run.csv", "loss\r1\r2\r", ":1: not a table: a carriage return inside a line"),
        ("run.csv", b"loss\n1\n\xff\n", ":3: expected UTF-8 text, got byte 0xff"),
        ("run.csv", "loss\n1\n".encode("utf-16"), ":1: expected UTF-8 text, got byte 0xff"),
        ("run.csv", b"loss\n1\n\0\n", ":3: expected text, got a NUL byte"),
        ("run.csv", "val_loss,lr\n1,2\n", ":1: no column 'loss'; did you mean 'val_loss'? There"),
        ("run.csv", "epoch,lr\n1,2\n", ":1: no column 'loss'. There are: 'epoch', 'lr'"),
        ("run.jsonl", "", ": an empty file"),
        ("run.jsonl", '{"loss": 1}\n{"loss": \n', ":2: expected a JSON object, got '{\"loss\":': "),
        ("run.jsonl", '{"loss": 1}\n[2]\n', ":2: expected a JSON object, got [2]"),
        ("run.json", '[\n{"loss": 1}\n]\n', ":1: expected a JSON object, got '[': Expecting value"),
        ("run.jsonl", "[" * 200_000, ":1: expected a JSON object, got one that is too big or too"),
        ("run.jsonl", f'{{"loss": {"1" * 5000}}}', "too big or too deep"),
        ("run.jsonl", '{"loss": true}', ":1: column 'loss': expected a number, got True"),
        ("run.jsonl", '{"loss": [1]}', ":1: column 'loss': expected a number, got [1]"),
        ("run.jsonl", '{"lr": 1}\n{"Loss": 2}', ": no key 'loss'; did you mean 'Loss'? There are:"),
        ("run.txt", "loss\n1\n", ": what is read is .csv, .tsv, .jsonl, .ndjson, .json (an obj"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_cannot_be_read_is_refused_with_its_line_and_reason(write, name, text, says):
    assert says in refusal(write(name, text))


def test_only_twelve_columns_are_listed(write):
    names = [f"c{i}" for i in range(30)]
    says = refusal(write("run.csv", f"{','.join(names)}\n{'1,' * 29}1\n"))
    assert "'c11' and 18 more" in says
    assert "'c12'" not in says


def test_columns_that_end_up_empty_or_unequal_are_refused(write):
    path = write("run.csv", "seed,loss,lr\n1,,1\n1,,2\n2,3,4\n2,5,\n")
    assert refusal(path, by="seed", missing="drop") == ": seed=1: no value in column 'loss'"
    path = write("run.csv", "loss,lr\n1,1\n2,\n3,\n")
    assert refusal(path, lr="lr", missing="drop") == (
        ": expected as many values in each column, got 3 in 'loss' and 1 in 'lr'"
    )


@pytest.mark.parametrize("name", ["gone.csv", "gone.jsonl", "gone.parquet", "gone", "tfevents.0"])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    assert refusal(tmp_path / name) == ": No such file or directory"


def test_a_file_that_may_not_be_read_is_refused(write, monkeypatch):
    path = write("run.csv", "loss\n1\n")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")  # a file's mode would not stop root

    monkeypatch.setattr(type(path), "open", refuse)
    assert refusal(path) == ": Permission denied"


def test_the_path_is_shown_as_it_was_given(write, tmp_path, monkeypatch):
    write("100%d.csv", "loss\nx\n")
    monkeypatch.chdir(tmp_path)
    path = type(tmp_path)("100%d.csv")
    assert refusal(path) == ":2: column 'loss': expected a number, got 'x'"


def test_more_rows_than_the_limit_are_refused_before_the_rest_is_read(write, monkeypatch):
    monkeypatch.setattr(_files, "MAX_ROWS", 3)
    path = write("run.csv", "loss\n1\n2\n3\n")
    assert metric_of(path) == [1, 2, 3]
    path = write("run.csv", "loss\n1\n2\n3\n4\nnever read\n")
    assert refusal(path) == ":5: expected at most 3 rows, got more"


def test_a_line_without_end_is_not_read_into_memory(write, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE", 10)
    path = write("run.jsonl", '{"loss":1}\n')
    assert refusal(path) == ":1: expected at most 10 bytes in a line, got more"


PIECES = ["loss", "1", "nan", "1e999", ",", '"', "\r", "\n", "\n", "\t", "\0", "{", "}", ":", "["]
PIECES += ['{"loss": 1}', '{"loss": null}', "\u2028", "\ufeff"]
LINES = st.lists(st.sampled_from(PIECES)).map("".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary() | LINES.map(str.encode) | LINES.map(lambda text: b"loss\n" + text.encode()),
    suffix=st.sampled_from(["csv", "tsv", "jsonl"]),
    missing=st.sampled_from(["error", "drop", "nan"]),
)
def test_any_bytes_are_read_or_refused(write, content, suffix, missing):
    path = write(f"run.{suffix}", content)
    try:
        [history] = read_histories([path], "loss", missing=missing)
    except FileError:
        refusal(path, missing=missing)
    else:
        assert len(values(history.metric)) > 0


def test_reading_text_imports_neither_pyarrow_nor_tensorboard(write, monkeypatch):
    for module in ("pyarrow", "pyarrow.parquet", "tensorboard", "tensorboard.compat"):
        monkeypatch.setitem(sys.modules, module, None)
    assert metric_of(write("run.csv", "loss\n1\n")) == [1]


ODD = {
    "a quote": ("0.25", '"0.25"'),
    "a NaN": ("0.25", "nan"),
    "spaces": ("0.25", " 0.25 "),
    "an underscore": ("0.25", "1_0.25"),
    "infinity": ("0.25", "-Infinity"),
    "a carriage return": ("0.25\n", "0.25\r"),
    "an empty cell": ("0.25", ""),
    "a cell more": ("0.25", "0.25,1"),
    "a cell less": (",0.25", ""),
    "words": ("0.25", "none"),
    "a NUL": ("0.25", "0\0"),
    "no UTF-8": ("0.25", "\xff"),
    "a blank line": ("0.25\n", "0.25\n\n"),
    "a byte order mark": ("epoch,", "\ufeffepoch,"),
    "CRLF": ("\n", "\r\n"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", ODD)
def test_long_tables_are_read_or_refused_as_short_ones_are(write, monkeypatch, name):
    random = torch.Generator().manual_seed(0)
    values = torch.rand(300, generator=random, dtype=torch.float64).tolist()
    values[200] = 0.25
    text = "epoch,val_loss\n" + "".join(f"{i},{value!r}\n" for i, value in enumerate(values))
    old, new = ODD[name]
    text = text.replace(old, new) if old else text
    path = write("long.csv", text.encode("latin-1" if name == "no UTF-8" else "utf-8"))

    def found():
        try:
            return read_histories([path], "val_loss", missing="nan")[0].metric
        except FileError as error:
            return str(error)

    slow, carefully, read = found(), _files._collect, []
    monkeypatch.setattr(quick, "LEAST", 0)
    monkeypatch.setattr(quick, "PIECE", 64)
    monkeypatch.setattr(_files, "_collect", lambda *given: read.append(1) or carefully(*given))
    fast = found()
    if isinstance(slow, str):
        assert fast == slow
    else:
        assert torch.equal(fast.view(torch.int64), slow.view(torch.int64))
    assert bool(read) == (name not in ("nothing", "CRLF", "a blank line", "a byte order mark"))
