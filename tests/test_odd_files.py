"""Broken and odd files through the commands: a line that names file and place, or an answer."""

import io
import json
import os
import random
import struct
import sys

import pyarrow
import pyarrow.parquet
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from typer.testing import CliRunner

from torch_plateau.cli import app, pictures

COMMANDS = ["replay", "sweep", "inspect"]
VALUES = [0.5, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
TABLE = "val_loss\n" + "".join(f"{value}\n" for value in VALUES)


def parquet(values, name="val_loss"):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: values}), file)
    return file.getvalue()


def events(values, tag="val_loss"):
    """What TensorBoard writes: length, checksum, event, checksum."""
    whole = b""
    for step, value in enumerate(values):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        data = Event(step=step, wall_time=float(step), summary=summary).SerializeToString()
        length = struct.pack("<Q", len(data))
        whole += length + struct.pack("<I", masked_crc32c(length))
        whole += data + struct.pack("<I", masked_crc32c(data))
    return whole


def lines(values):
    return "".join(json.dumps({"val_loss": value}) + "\n" for value in values)


# Name, content, and what is said after the name.
BROKEN = [
    ("empty.csv", "", ": an empty file"),
    ("blank.csv", "\n \n\n", ":2: no column 'val_loss'"),
    ("header.csv", "val_loss\n", ": a header, but no rows"),
    ("mark.csv", "\ufeff", ": an empty file"),
    ("other.csv", "loss\n1\n", ":1: no column 'val_loss'; did you mean 'loss'?"),
    ("twice.csv", "val_loss,val_loss\n1,2\n", ":1: column 'val_loss' is there twice"),
    ("semicolons.csv", "epoch;val_loss\n1;0,5\n", ":1: no column 'val_loss'"),
    ("short.csv", "val_loss,x\n1,2\n3\n", ":3: expected 2 cells"),
    ("long.csv", TABLE + "1,2\n", ":12: expected 1 cells"),
    ("word.csv", TABLE + "low\n", ":12: column 'val_loss': expected a number, got 'low'"),
    ("comma.csv", 'val_loss\n"0,5"\n', ":2: column 'val_loss': expected a number, got '0,5'"),
    ("hex.csv", "val_loss\n0x10\n", ":2: column 'val_loss': expected a number, got '0x10'"),
    ("percent.csv", "val_loss\n50%\n", ":2: column 'val_loss': expected a number, got '50%'"),
    ("formula.csv", "val_loss\n=1+1\n", ":2: column 'val_loss': expected a number, got '=1+1'"),
    ("hole.csv", "val_loss,x\n1,1\n,2\n", ":3: column 'val_loss': no value; --missing drop"),
    ("quote.csv", 'val_loss\n1\n"2\n3\n', ":4: not a table"),
    ("mac.csv", "val_loss\r1\r2\r", ":1: not a table: a carriage return"),
    ("nul.csv", b"val_loss\n1\n\0\n", ":3: expected text, got a NUL byte"),
    ("latin.csv", b"val_loss,n\n1,\xe4\n", ":2: expected UTF-8 text, got byte 0xe4"),
    ("utf16.csv", TABLE.encode("utf-16"), ":1: expected UTF-8 text, got byte 0xff"),
    ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ":1: expected UTF-8 text, got byte 0x89"),
    ("zipped.csv", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", ":1: expected UTF-8 text, got byte 0x8b"),
    (
        "escape.csv",
        "val_loss\n\x1b[2J\x07\n",
        ":2: column 'val_loss': expected a number, got '\\x1b",
    ),
    ("page.csv", "<!DOCTYPE html>\n<p>not found\n", ":1: no column 'val_loss'"),
    ("wide.csv", ",".join("x" * 50 for _ in range(99)) + "\n1\n", ":1: column 'xxxxx"),
    ("cell.csv", f"val_loss\n{'1' * 200_000}\n", ":2: not a table: field larger"),
    ("empty.jsonl", "", ": an empty file"),
    ("array.json", json.dumps([{"val_loss": 1}]), ":1: expected a JSON object, got [{'val_loss'"),
    ("pretty.json", json.dumps({"val_loss": 1}, indent=1), ":1: expected a JSON object, got '{'"),
    ("half.jsonl", lines(VALUES)[:-5], ":10: expected a JSON object"),
    ("null.jsonl", lines([0.5, None]), ":2: column 'val_loss': no value"),
    ("text.jsonl", lines([0.5, "low"]), ":2: column 'val_loss': expected a number, got 'low'"),
    ("true.jsonl", lines([0.5, True]), ":2: column 'val_loss': expected a number, got True"),
    ("nested.jsonl", lines([0.5, [0.4]]), ":2: column 'val_loss': expected a number, got [0.4]"),
    ("deep.jsonl", "[" * 100_000, ":1: expected a JSON object, got one that is too big or too"),
    ("other.jsonl", '{"loss": 1}\n', ": no key 'val_loss'; did you mean 'loss'?"),
    ("empty.parquet", "", ": not a Parquet file"),
    ("text.parquet", TABLE, ": not a Parquet file"),
    ("half.parquet", parquet(VALUES)[:-9], ": not a Parquet file"),
    ("none.parquet", parquet(pyarrow.array([], "double")), ": columns, but no rows"),
    ("other.parquet", parquet(VALUES, "loss"), ": no column 'val_loss'; did you mean 'loss'?"),
    (
        "words.parquet",
        parquet(["a", "b"]),
        ": row 1: column 'val_loss': expected a number, got 'a'",
    ),
    ("hole.parquet", parquet([0.5, None]), ": row 2: column 'val_loss': no value"),
    ("events.out.tfevents.none", "", ": no TensorBoard scalars in it"),
    ("events.out.tfevents.text", TABLE, ": no TensorBoard event file"),
    ("events.out.tfevents.tag", events(VALUES, "loss"), ": no scalar tag 'val_loss'"),
    ("events.out.tfevents.bit", events(VALUES)[:-2] + b"xx", ": event 10 is damaged"),
    ("notes.txt", TABLE, ": what is read is .csv"),
    ("no_ending", TABLE, ": what is read is .csv"),
    ("a b'c\"d$[red]%s.csv", "val_loss\nx\n", ":2: column 'val_loss': expected a number, got 'x'"),
]
READ = {
    "one.csv": "val_loss\n1\n",
    "nan.csv": "val_loss\nnan\nnan\n",
    "infinite.csv": "val_loss\ninf\n-inf\n1e999\n0\n",
    "sizes.csv": "val_loss\n1e308\n-1e308\n5e-324\n0\n-0\n",
    "same.csv": "val_loss\n" + "0\n" * 70,
    "crlf.csv": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "no_end.tsv": TABLE.strip().replace("val_loss", "epoch\tval_loss").replace("\n0", "\n1\t0"),
    "digits.jsonl": f'{{"val_loss": {"9" * 400}}}\n\n{{"val_loss": "1_0"}}\n',
    "integers.parquet": parquet([3, 2, 2, 2]),
    "cut.tfevents": events(VALUES)[:-3],
    "$x$ [b]_^{%s.csv": TABLE,
    "\x1b[2J\n\u202efdp.csv": TABLE,
}
if sys.platform == "linux":  # elsewhere names are Unicode
    READ[os.fsdecode(b"\xff.csv")] = TABLE


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(result, name):
    """What is said of a file, in one line, where a command ended as it should."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.isprintable()
    start = f"torch-plateau: {name}"
    assert line.startswith(start)
    return line.removeprefix(start)


@pytest.mark.parametrize("command", COMMANDS)
def test_of_a_broken_file_a_line_names_the_place(run, tmp_path, command):
    for name, content, says in BROKEN:
        path = put(tmp_path, name, content)
        assert refused(run(command, name), name).startswith(says), name
        path.unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", READ)
def test_an_odd_file_is_read_and_drawn(run, tmp_path, monkeypatch, name):
    put(tmp_path, name, READ[name])
    monkeypatch.setattr(pictures, "draw_sweep", lambda *_: None)
    for command in COMMANDS:
        result = run(command, name)
        assert result.exit_code in ((0, 1) if command == "inspect" else (0,)), result.output
        assert result.stderr == ""
        assert result.stdout.replace("\n", "").isprintable()
    made = {"torch-plateau-replay.png", "torch-plateau-sweep.png", name}
    assert {path.name for path in tmp_path.iterdir()} == made


WHOLE = {
    "run.csv": TABLE.encode(),
    "run.jsonl": lines(VALUES).encode(),
    "run.parquet": parquet(VALUES),
    "run.tfevents": events(VALUES),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_spoilt_file_is_read_or_refused_in_a_line(run, tmp_path, monkeypatch, name):
    for draw in ("draw_replay", "draw_sweep"):
        monkeypatch.setattr(pictures, draw, lambda *_: None)
    draw, ends = random.Random(name), set()
    for i in range(30):
        whole = WHOLE[name]
        start, size = draw.randrange(len(whole)), draw.choice([0, 1, 1, 8, len(whole)])
        spoilt = whole[:start] + draw.randbytes(draw.choice([0, 1, 1, 8])) + whole[start + size :]
        put(tmp_path, name, spoilt)
        result = run(COMMANDS[i % 3], name)
        ends.add(result.exit_code)
        if result.exit_code == 2:
            assert refused(result, name).startswith(":"), spoilt
        else:
            assert result.exit_code in ((0, 1) if i % 3 == 2 else (0,)), (result.output, spoilt)
            assert result.stderr == ""
    assert {0, 2} <= ends
