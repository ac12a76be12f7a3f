"""The commands on recorded histories: what they print, draw, write, refuse and exit with."""

import csv
import io
import json
import math
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import time

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

from torch_plateau.cli import annotate, app, commands, pictures, report
from torch_plateau.cli.bench.steps import Steps
from torch_plateau.cli.demo import training
from torch_plateau.cli.printed import print_findings
from torch_plateau.histories import files, sweep
from torch_plateau.histories.diagnose import Finding
from torch_plateau.histories.files import quick
from torch_plateau.histories.progress import LateBar
from torch_plateau.lanes.table import SETTINGS

ENV = {"COLUMNS": "100", "FORCE_COLOR": None}
HISTORIES = pathlib.Path(__file__).parent / "data" / "histories"
QUICK_START = pathlib.Path(__file__).parent.parent / "docs" / "quick_start.md"
CLEAN = str(HISTORIES / "clean.csv")
TEN = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner(env=ENV).invoke(app, [str(word) for word in words])


@pytest.fixture
def ten(tmp_path):
    """The textbook history, in a folder of its own."""
    folder = tmp_path / "histories"
    folder.mkdir()
    path = folder / "ten.csv"
    path.write_text("val_loss\n" + "\n".join(map(str, TEN)) + "\n")
    return path


def made_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def size_of(png):
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def row_of(output, epoch):
    return next(line.split() for line in output.splitlines() if line.split()[:1] == [str(epoch)])


def test_the_textbook_history_is_annotated_epoch_by_epoch(run, ten, tmp_path):
    result = run("replay", ten, "--patience", "3", "--lr", "0.1")
    assert result.exit_code == 0, result.output
    printed = {line.strip() for line in result.stdout.splitlines()}
    shown = QUICK_START.read_text().partition("```none\n")[2].partition("```")[0]
    assert {line.strip() for line in shown.splitlines()} <= printed
    said = {epoch: " ".join(row_of(result.stdout, epoch)) for epoch in range(1, 11)}
    assert said[1].endswith("first value")
    assert [epoch for epoch, words in said.items() if "new best" in words] == [2, 3, 6]
    assert [epoch for epoch, words in said.items() if "plateau starts" in words] == [4, 7]
    assert [epoch for epoch, words in said.items() if "cut 0.1 -> 0.01" in words] == [10]
    assert made_in(tmp_path) == ["torch-plateau-replay.png"]
    assert min(size_of(tmp_path / "torch-plateau-replay.png")) > 500


def test_several_values_have_a_table_each_and_a_summary(run, ten):
    result = run("replay", ten, "--patience", "1,3,9", "--factor", "0.5")
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if "val_loss of ten.csv" in line]
    assert [title.split("patience ")[1].split()[0] for title in titles] == ["1", "3", "9"]
    summary = result.stdout.partition("In short")[2].splitlines()
    rows = [line.split() for line in summary if line.split() and line.split()[0] in "139"]
    assert [row[1:] for row in rows] == [
        ["3", "5", "2", "0.125"],
        ["1", "10", "6", "0.5"],
        ["0", "never", "6", "1"],
    ]


def test_a_sweep_names_the_settings_that_agree_across_seeds(run, tmp_path):
    result = run("sweep", CLEAN, "--by", "seed", "--patience", "2..12", "--threshold", "1e-4,0.01")
    assert result.exit_code == 0, result.output
    assert "22 settings, 5 runs of 60 epochs." in result.stdout
    assert "cut all 5 runs equally often" in result.stdout
    assert made_in(tmp_path) == ["torch-plateau-sweep.png"]


def test_what_a_sweep_names_is_what_torchs_class_does_on_every_seed(run):
    import torch

    runs = {}
    with open(CLEAN, newline="") as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["seed"], []).append(float(row["val_loss"]))
    alike = 0
    for patience in range(2, 13):
        outcomes = []
        for losses in runs.values():
            optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience)
            cuts = []
            for epoch, loss in enumerate(losses, start=1):
                before = optimizer.param_groups[0]["lr"]
                scheduler.step(loss)
                if optimizer.param_groups[0]["lr"] < before:
                    cuts.append(epoch)
            outcomes.append(cuts)
        counts, first = {len(cuts) for cuts in outcomes}, [c[0] for c in outcomes if c]
        alike += len(counts) == 1 and counts != {0} and max(first) - min(first) <= 20
    result = run(
        "sweep", CLEAN, "--by", "seed", "--patience", "2..12", "--threshold", "1e-4",
        "--within", "20",
    )  # fmt: skip
    assert f"{alike} of 11 settings cut all 5 runs" in result.stdout


def test_one_run_is_told_that_several_are_needed_to_agree(run, ten):
    result = run("sweep", ten, "--patience", "0..3")
    assert result.exit_code == 0, result.output
    assert "One run: give several" in result.stdout


def test_inspect_says_what_is_wrong_and_exits_with_1(run):
    result = run(
        "inspect", HISTORIES / "overfitting.csv", "--by", "seed", "--train-metric", "train_loss",
        "--lr-column", "lr", "--patience", "4", "--factor", "0.5",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert result.stdout.count("problem (overfitting)") == 5
    assert "lower rate alone" in result.stdout


def test_inspect_exits_with_0_where_there_is_no_problem(run, tmp_path):
    result = run("inspect", CLEAN, "--by", "seed", "--run", "1", "--patience", "4")
    assert result.exit_code == 0, result.output
    assert "problem" not in result.stdout
    assert made_in(tmp_path) == []


def test_inspect_prints_json_for_scripts(run):
    result = run(
        "inspect", HISTORIES / "wrong_mode.csv", "--metric", "val_accuracy", "--by", "seed",
        "--run", "0", "--json",
    )  # fmt: skip
    assert result.exit_code == 1
    (only,) = json.loads(result.stdout)["runs"]
    assert (only["name"], only["epochs"]) == ("wrong_mode.csv seed=0", 60)
    codes = {each["code"]: each for each in only["findings"]}
    assert codes["mode-reversed"]["level"] == "problem"
    assert set(codes["mode-reversed"]) == {"code", "level", "text", "numbers"}


@pytest.mark.parametrize("options", [["--train-metric"], ["--train-metric", "--lr-column"]])
def test_inspect_takes_hardly_longer_for_an_epoch_of_a_long_history(run, tmp_path, options):
    draw = random.Random(0)
    words = [word for option in options for word in (option, option[2:-7])]

    def seconds(epochs):
        with (tmp_path / "run.csv").open("w") as file:
            print("val_loss,train,lr", file=file)
            for i in range(epochs):
                spike = 0.5 * (draw.random() < 0.02)
                loss = 0.2 + math.exp(-20 * i / epochs) + 0.05 * draw.gauss(0, 1) + spike
                print(loss, 0.01 + math.exp(-30 * i / epochs), 0.9 ** (i // 25), sep=",", file=file)
        begin = time.process_time()
        result = run("inspect", "run.csv", *words, "--patience", "4", "--factor", "0.9")
        assert result.exit_code in (0, 1), result.output
        return time.process_time() - begin

    seconds(100)  # what is loaded once
    few = min(seconds(2000) for _ in range(3))
    assert seconds(16000) < 3 * 8 * few, "as many times as long would be 8, and 64 the square"


@pytest.mark.parametrize("command", ["replay", "sweep", "inspect"])
def test_every_setting_of_the_table_is_an_option(run, command):
    shown = run(command, "--help").stdout
    assert [name for name in SETTINGS if f"--{name.replace('_', '-')} " not in shown] == []
    assert ". ." not in shown, "a default that is an option's own is not told twice"
    words = {name: row.words[-1] for name, row in SETTINGS.items() if row.words}
    halves = dict.fromkeys(["factor", "smoothing", "warmup_start_factor", "noise_pct"], "0.5")
    given = {**dict.fromkeys(SETTINGS, "2"), **halves, **words}
    flags = [word for name, text in given.items() for word in (f"--{name.replace('_', '-')}", text)]
    seeds = [] if command == "sweep" else ["--run", "0"]
    result = run(command, CLEAN, "--by", "seed", *seeds, *flags)
    assert result.exit_code in (0, 1), result.output


def test_settings_that_are_none_unless_told_are_told(run, ten):
    told = run("replay", ten, "--initial-patience", "1", "--max-reductions", "1").stdout
    assert "bad 2 > first patience 1:" in told
    assert "cut 1 -> 0.1, finished (max_reductions)" in told
    several = run("replay", ten, "--initial-patience", "0..2", "--max-reductions", "1").stdout
    titles = [line for line in several.splitlines() if "val_loss of ten.csv" in line]
    assert [title.split(": ")[1].strip() for title in titles] == [
        f"initial_patience {i}" for i in range(3)
    ]


@pytest.mark.parametrize("command", ["replay", "sweep", "inspect"])
def test_a_report_is_one_html_file(run, command, tmp_path):
    picture = [] if command == "inspect" else ["--out", "p.png"]
    seeds = [] if command == "sweep" else ["--run", "0"]
    result = run(command, CLEAN, "--by", "seed", *seeds, *picture, "--html", "r.html")
    assert result.exit_code in (0, 1), result.output
    assert made_in(tmp_path) == ["p.png", "r.html"][command == "inspect" :]
    page = (tmp_path / "r.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "val_loss" in page


@pytest.mark.parametrize("command", ["replay", "sweep", "inspect"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.csv"], "nothing.csv: No such file or directory"),
        ([CLEAN, "--metric", "loss"], "clean.csv:1: no column 'loss'"),
        ([CLEAN, "--mode", "most"], "mode: expected 'min' or 'max', got 'most'"),
        ([CLEAN, "--patience", "x"], "--patience: expected integers like 2,5,10 or 0..20, got 'x'"),
        ([CLEAN, "--patience", "5..2"], "--patience: expected a range like 0..20, got '5..2'"),
        ([CLEAN, "--threshold", "1e-3,"], "--threshold: expected numbers like 0.1,0.5, got ''"),
        ([CLEAN, "--patience", "-1"], "patience: expected an integer from 0"),
        ([CLEAN, "--factor", "2"], "factor: expected above 0 and below 1, got 2"),
        ([CLEAN, "--html", "no/such/r.html"], "--html: No such file or directory"),
    ],
)
def test_bad_input_is_refused_with_2_and_nothing_is_written(run, command, words, message, tmp_path):
    result = run(command, *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert made_in(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay", CLEAN, "--by", "seed"], "expected one run, got 5: clean.csv seed=0, "),
        (["replay", CLEAN, "--run", "1"], "--run: expected --by too"),
        (["replay", CLEAN, "--by", "seed", "--run", "9"], "--run: no seed=9 among 5 runs"),
        (["replay", CLEAN, CLEAN], "expected one run, got 2: clean.csv, clean.csv; give one file"),
        (["replay", CLEAN, "--patience", "0..9"], "at most 8 combinations of settings, got 10"),
        (["replay", CLEAN, "--out", "p.html"], "--out: expected a name that ends in .png"),
        (["sweep", CLEAN, "--out", "no/p.png"], "--out: No such file or directory"),
        (["inspect", CLEAN, "--patience", "1,2"], "--patience: expected one value, got 2"),
    ],
)
def test_what_one_command_refuses(run, words, message, tmp_path):
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert made_in(tmp_path) == []


def test_a_broken_line_is_named_by_its_number(run, tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("val_loss\n0.5\nn/a\n")
    assert "run.csv:3: column 'val_loss': expected a number, got 'n/a'" in run(
        "sweep", "run.csv"
    ).stderr.replace("\n", " ")
    path.write_text("val_loss,lr\n0.5,1\n,1\n0.4,1\n")
    assert "run.csv:3: column 'val_loss': no value" in run("inspect", "run.csv").stderr
    assert run("inspect", "run.csv", "--missing", "drop").exit_code == 0
    assert made_in(tmp_path) == ["run.csv"]


def test_an_old_picture_survives_a_refusal_and_a_failed_drawing(run, ten, tmp_path, monkeypatch):

    old = tmp_path / "p.png"
    old.write_bytes(b"old")
    assert run("replay", ten, "--factor", "3", "--out", "p.png").exit_code == 2

    def fail(*arguments):
        arguments[3].write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "draw_replay", fail)
    result = run("replay", ten, "--out", "p.png")
    assert result.exit_code == 2
    assert "--out: No space left on device: 'p.png'" in result.stderr
    assert old.read_bytes() == b"old"
    assert made_in(tmp_path) == ["p.png"]


def started(*words, **pipes):
    """Run a command in a process of its own."""
    script = "from torch_plateau.cli import app; app()"
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **pipes)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    "words",
    [
        ["replay", CLEAN, "--by", "seed", "--run", "0"],
        ["sweep", CLEAN],
        ["inspect", CLEAN, "--by", "seed"],
        ["inspect", CLEAN, "--json"],
        ["inspect", "--help"],
        ["--help"],
    ],
    ids=lambda words: " ".join(word for word in words if word != CLEAN),
)
def test_a_full_stdout_is_no_problem_in_a_run(words, tmp_path):
    with open("/dev/full", "w") as full:
        process = started(*words, stdout=full, cwd=tmp_path)
        message = process.communicate()[1]
    assert process.returncode == 2
    assert message == "torch-plateau: stdout: No space left on device\n"
    assert made_in(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ["replay", CLEAN, "--by", "seed", "--run", "0"],
        ["inspect", "--help"],
    ],
    ids=lambda words: " ".join(word for word in words if word != CLEAN),
)
def test_a_reader_that_leaves_ends_a_command_quietly(tmp_path, words):
    with started(*words, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.close()
        message = process.stderr.read()
    assert process.returncode == 141
    assert message == ""
    assert made_in(tmp_path) == []


def test_what_goes_wrong_has_its_code_where_stderr_takes_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        script = "from torch_plateau.cli import app; app()"
        command = [sys.executable, "-c", script, "inspect", "nothing.csv"]
        assert subprocess.run(command, stderr=full, cwd=tmp_path).returncode == 2


def test_ctrl_c_ends_a_command_with_a_line(tmp_path):
    os.mkfifo(tmp_path / "run.csv")
    process = started("replay", "run.csv", stdout=subprocess.PIPE, cwd=tmp_path)
    with open(tmp_path / "run.csv", "w"):  # which waits until it is read
        process.send_signal(signal.SIGINT)
        said, message = process.communicate()
    assert (process.returncode, said, message) == (130, "", "torch-plateau: stopped\n")
    assert made_in(tmp_path) == []


def test_of_a_finding_only_its_level_is_bold():
    screen = Console(force_terminal=True, color_system="standard", width=100, file=io.StringIO())
    print_findings(screen, {"run": [Finding("code", "problem", "What it says.", {})]})
    line = screen.file.getvalue().splitlines()[1]
    assert line.rstrip() == "  \x1b[1;31mproblem \x1b[0m(code): What it says.".rstrip()


STOPPED_AT = """
import os, signal, sys
from _torch_plateau_command import main

class Stop:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop)
main()
"""


@pytest.mark.parametrize("name", ["torch", "torch.nn", "torch_plateau.cli"])
def test_ctrl_c_ends_the_command_line_with_a_line_while_it_is_imported(name):
    command = [sys.executable, "-c", STOPPED_AT, name]
    done = subprocess.run(command, capture_output=True, text=True)
    said = (done.returncode, done.stdout, done.stderr)
    assert said == (130, "", "torch-plateau: stopped\n")


def test_the_command_line_ends_as_its_command_does(tmp_path):
    command = [sys.executable, "-c", "from _torch_plateau_command import main; main()"]
    done = subprocess.run([*command, "inspect", "nothing.csv"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["replay", CLEAN, "--by", "seed", "--run", "0"], (commands, "replay_history")),
        (["replay", CLEAN, "--by", "seed", "--run", "0"], (Figure, "savefig")),
        (["replay", CLEAN, "--by", "seed", "--run", "0", "--html", "r.html"], (report, "columns")),
        (["sweep", CLEAN, "--by", "seed"], (sweep, "replay")),
        (["sweep", CLEAN, "--by", "seed"], (Figure, "savefig")),
        (["inspect", CLEAN, "--by", "seed"], (commands, "diagnose")),
        (["demo", "--lanes", "2"], (training.Ensemble, "epoch")),
        (["demo", "--lanes", "2", "--epochs", "1"], (Figure, "savefig")),
        (["bench", "--quick"], (Steps, "check")),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value[1],
)
def test_ctrl_c_at_any_place_leaves_no_half_file(run, tmp_path, monkeypatch, words, where):
    old = tmp_path / "torch-plateau-replay.png"
    old.write_bytes(b"old")

    def stop(*arguments, **_):
        for each in arguments:
            if hasattr(each, "write"):
                each.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(*where, stop)
    result = run(*words)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "torch-plateau: stopped"
    assert "Traceback" not in result.output
    assert made_in(tmp_path) == ["torch-plateau-replay.png"]
    drawn = "--html" in words  # the picture comes before the report
    assert (old.read_bytes() == b"old") != drawn


def test_a_long_history_is_told_and_drawn_as_a_short_one_is(run, tmp_path, monkeypatch):
    def made(piece):
        monkeypatch.setattr(annotate, "PIECE", piece)
        result = run("replay", CLEAN, "--by", "seed", "--run", "0", "--html", "r.html")
        picture = (tmp_path / "torch-plateau-replay.png").read_bytes()
        return result.stdout, picture, (tmp_path / "r.html").read_bytes()

    assert made(7) == made(1 << 20)


@pytest.mark.parametrize("name", ["run.csv", "run.jsonl"])
@pytest.mark.parametrize("terminal", [True, False])
def test_reading_for_long_shows_a_bar_in_a_terminal(run, tmp_path, monkeypatch, name, terminal):
    monkeypatch.setattr(LateBar, "AFTER", 0.0)
    monkeypatch.setattr(quick, "LEAST", 0)
    monkeypatch.setattr(files, "SHOWN", 1)
    lines = TEN if name == "run.csv" else [json.dumps({"val_loss": value}) for value in TEN]
    head = ["val_loss"] if name == "run.csv" else []
    (tmp_path / name).write_text("".join(f"{line}\n" for line in [*head, *lines]))
    if terminal:
        monkeypatch.setitem(ENV, "FORCE_COLOR", "1")
    result = run("inspect", name)
    assert result.exit_code == 0
    assert (f"Reading {name}" in result.stderr) == terminal
    assert "Reading" not in result.stdout
