"""``torch-plateau bench``: what it compares, prints, draws, writes and refuses."""

import io
import json
import math
import pathlib
import re
import struct
import subprocess
import sys
from functools import partial

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from torch_plateau.bench import vectorised
from torch_plateau.bench.figures import times, us
from torch_plateau.cli import app
from torch_plateau.cli.bench import epochs, report
from torch_plateau.cli.threads import torch_threads

ENV = {"COLUMNS": "80", "FORCE_COLOR": None}
SMALL = ["bench", "--quick", "--lanes", "200,3", "--networks", "3,2"]
ROOT = pathlib.Path(__file__).parent.parent
RIVALS = ["torch-plateau", "N torch schedulers", "torch.where", "torch.compile", "optax"]


@pytest.fixture(scope="module", autouse=True)
def _no_compiler():
    """Graphs run as they are: what a C++ compiler makes of them is not for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorised.torch, "compile", partial(torch.compile, backend="eager"))
        yield


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a small ``torch-plateau bench`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: CliRunner(env=ENV).invoke(app, [*SMALL, *map(str, options)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What a small run left: its folder, what it printed, its JSON."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner(env=ENV).invoke(app, [*SMALL, "--json", "rows.json"])
    assert result.exit_code == 0, result.output
    return folder, result, json.loads((folder / "rows.json").read_text())


def in_a_line(text):
    return " ".join(text.split())


def test_it_draws_the_picture_and_writes_the_rows(done):
    folder, result, _ = done
    assert sorted(path.name for path in folder.iterdir()) == [
        "rows.json",
        "torch-plateau-bench.png",
    ]
    head = (folder / "torch-plateau-bench.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (1320, 660)
    assert result.stdout.endswith("Picture: torch-plateau-bench.png\nRows: rows.json\n")


def test_equality_comes_before_any_time(done):
    said = in_a_line(done[1].stdout)
    assert 0 < said.index("Equal, bit for bit") < said.index("A step in which 1% of the lanes")
    assert done[2]["checks"]["lane_steps"] == 3 * 64 * 80, "64 lanes, 80 steps, three calls"
    assert done[2]["checks"]["cuts_of_networks"] > 5


def test_tables_fit_eighty_columns_and_progress_is_apart(done):
    assert "…" not in done[1].stdout
    assert max(map(len, done[1].stdout.splitlines())) <= 80
    assert "Timing" in done[1].stderr
    assert "Timing" not in done[1].stdout


def test_the_json_says_what_was_run(done):
    said = done[2]
    assert (said["device"], said["settings"], said["quick"]) == ("cpu", "uniform", True)
    assert said["not_run"] == []
    assert said["seconds"] >= 0


def test_every_competitor_has_a_row_at_every_size(done):
    rows = done[2]["steps"]
    assert {row["scenario"] for row in rows} == {"mixed"}
    for n in (3, 200):
        some = [row for row in rows if row["lanes"] == n]
        assert list(dict.fromkeys(row["rival"] for row in some)) == RIVALS
        for row in some:
            assert row["p25_us"] <= row["median_us"] <= row["p75_us"]
            assert row["ratio_p25"] <= row["ratio"] <= row["ratio_p75"]
            assert row["n"] >= 5
        assert [row["ratio"] for row in some if row["rival"] == RIVALS[0]] == [1.0]


def test_the_roof_is_the_bytes_of_a_step_at_the_speed_of_a_copy(done):
    for row in done[2]["bandwidth"]:
        nanoseconds = row["lanes"] * row["bytes_a_lane"] / row["gb_per_s"]
        assert row["least_us"] == pytest.approx(nanoseconds / 1000, rel=1e-3)
    assert [row["bytes_a_lane"] for row in done[2]["bandwidth"]] == [4 + 8 + 8 + 1] * 2


def test_epochs_have_the_share_of_the_scheduler(done):
    rows = done[2]["epochs"]
    assert [(row["networks"], row["way"]) for row in rows] == [
        (n, way) for n in (2, 3) for way in ("separate", "stack, LaneLR", "stack, LaneAdamW")
    ]
    for row in rows:
        assert row["share"] == pytest.approx(row["scheduler_us"] * 1e-6 / row["median_s"], rel=0.01)
        assert 0 < row["share"] < 1


def test_the_machine_is_named_without_its_host_or_a_path(done):
    assert {"date", "cpu", "cores", "threads", "torch", "load_at_start"} <= set(done[2]["machine"])
    text = json.dumps(done[2]["machine"])
    assert str(pathlib.Path.home()) not in text
    assert done[2]["machine"]["threads"] == 1


def test_nothing_of_the_process_is_left_changed(run):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    few = ("--lanes", 3, "--networks", 1, "--threads", 1)
    result = run("--settings", "per-lane", *few, "--json", "rows.json")
    assert result.exit_code == 0, result.output
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.get_num_threads() == threads
    rows = json.loads(pathlib.Path("rows.json").read_text())
    assert rows["machine"]["threads"] == 1
    assert {row["settings"] for row in rows["steps"]} == {"per lane"}
    assert {row["rival"] for row in rows["steps"]} == set(RIVALS[:4])
    assert "optax, everything: its settings are constants" in in_a_line(result.stdout)


@pytest.mark.parametrize("device", ["cuda"])
def test_it_times_host_and_device_of_a_gpu(run, device):
    result = run("--device", device, "--json", "rows.json")
    assert result.exit_code == 0, result.output
    rows = json.loads(pathlib.Path("rows.json").read_text())
    assert all(row["host_us"] > 0 and row["median_us"] > 0 for row in rows["steps"])
    assert rows["machine"]["gpu"] in result.stdout
    assert "optax, everything: it is timed on the CPU only" in in_a_line(result.stdout)


# -- what is not equal, and what is not there -----------------------------------------------------


def refused_with(result, code, folder):
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert list(folder.iterdir()) == []
    return in_a_line(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.stderr))


def test_a_rival_that_decides_otherwise_is_named_and_nothing_is_timed(run, monkeypatch, tmp_path):
    def plain(self, metrics):
        better = metrics < self.best  # by any gain
        self.best = torch.where(better, metrics, self.best)

    monkeypatch.setattr(vectorised.Where, "_plain", plain)
    result = run()
    assert re.search(
        r"not equal: torch.where plain decides otherwise than N torch schedulers list of floats: "
        r"clock of lane \d+ is 0.0, not 1.0",
        refused_with(result, 1, tmp_path),
    )
    assert "A step" not in result.stdout


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (lambda *_: epochs.Separate(*_), None),
        (
            lambda given, settings: epochs.Separate(given, {**settings, "factor": 0.4}),
            "stack, LaneLR: other rates than of separate models, in epoch",
        ),
        (
            lambda given, settings: epochs.Separate(
                given._replace(weights={k: w * 1.1 for k, w in given.weights.items()}), settings
            ),
            "stack, LaneLR: w1 differs by",
        ),
    ],
    ids=["the same", "another factor", "other weights"],
)
def test_networks_that_are_trained_otherwise_are_named(way, says, run, monkeypatch, tmp_path):
    monkeypatch.setitem(epochs.WAYS, "stack, LaneLR", way)
    if says is None:
        with torch_threads(1):
            assert epochs.check(3, torch.device("cpu")) > 0
    else:
        assert says in refused_with(run(), 1, tmp_path)


def test_a_missing_compiler_and_a_missing_optax_are_said(run, monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(vectorised.torch, "compile", no_compiler)
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.setitem(sys.modules, "optax.contrib", None)
    result = run("--lanes", 3, "--networks", 1)
    assert result.exit_code == 0, result.output
    said = in_a_line(result.stdout)
    assert "torch.compile, everything: RuntimeError: No working C++ compiler found." in said
    assert "optax, everything: not installed (pip install jax optax)." in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--lanes", "0"], "--lanes: expected sizes from 1 to 100,000,000 like 16,4096, got '0'"),
        (["--lanes", "16,x"], "--lanes: expected sizes from 1"),
        (["--lanes", ""], "--lanes: expected sizes from 1"),
        (["--lanes", "1000000000"], "--lanes: expected sizes from 1"),
        (["--networks", "-4"], "--networks: expected sizes from 1"),
        (["--device", "abacus"], "--device: "),
        (["--device", "cuda:99"], "--device: device: got 'cuda:99', but"),
        (["--settings", "mixed"], "'mixed' is not one of 'uniform', 'per-lane'"),
        (["--threads", "0"], "--threads"),
        (["--out", "picture.pdf"], "--out: expected a name that ends in .png"),
        (["--out", "no/picture.png"], "--out: No such file or directory"),
        (["--json", "no/rows.json"], "--json: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_before_the_work(run, tmp_path, options, says):
    result = run(*options)
    assert says in refused_with(result, 2, tmp_path)
    assert result.stdout == ""


# -- what is printed of figures -------------------------------------------------------------------


def step(rival, ratio, spread=0.02):
    figures = {"ratio": ratio, "ratio_p25": ratio * (1 - spread), "ratio_p75": ratio * (1 + spread)}
    where = {"lanes": 7, "scenario": "mixed", "rival": rival, "variant": ""}
    return {**where, "median_us": 10 * ratio, **figures}


def test_a_losing_row_says_so():
    console = Console(width=80, file=io.StringIO())
    rows = [step("torch-plateau", 1), step("a", 0.5), step("b", 1.01), step("c", 40)]
    report.print_steps(console, rows)
    lines = console.file.getvalue().splitlines()
    words = {
        line.split()[0]: line.split()[-1] for line in lines if line.split()[:1] and "us" in line
    }
    assert words["a"] == "SLOWER"
    assert words["b"] == "even"
    assert words["c"] == "faster"


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.5, "0.50x"), (1.314, "1.31x"), (2.26, "2.3x"), (1234.5, "1,234x")]
)
def test_ratios_have_as_many_digits_as_say_something(ratio, text):
    assert times(ratio) == text


def test_times_are_in_the_unit_that_fits():
    assert [us(each) for each in (0.2345, 12.34, 1234.5, math.pi * 1e6)] == [
        "0.234 us",
        "12.3 us",
        "1.23 ms",
        "3.14 s",
    ]


# -- benchmarks/ ----------------------------------------------------------------------------------


def test_the_cases_can_stand_beside_an_older_version_of_the_package():
    script = (
        "import sys; sys.path.append(sys.argv[1]); from bench import cases, machine, rivals\n"
        "assert rivals.__name__ == 'bench.rivals'\n"
        "rule, start, metrics = cases.scenario('mixed', 5, 'f32')\n"
        "rivals.Ours(rule, start).step(metrics); machine.machine()"
    )
    package = str(ROOT / "python" / "torch_plateau")
    done = subprocess.run([sys.executable, "-c", script, package], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tables(monkeypatch):
    """The script that writes the pages, and its modules."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tables

    return tables


def test_all_pages_say_what_the_results_hold(tables):
    results = {path.stem: json.loads(path.read_text()) for path in tables.RESULTS.glob("*.json")}
    page = tables.results(results["cpu"], results["gpu"])
    assert page == (ROOT / "docs" / "results.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert tables.insert(readme, tables.headline(results["cpu"])) == readme
    choose = (ROOT / "docs" / "choose.md").read_text()
    assert tables.insert(choose, tables.costs(results["cpu"])) == choose


def test_every_result_has_a_place_on_the_page(tables):
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    names = [path.stem for path in tables.RESULTS.glob("*.json")]
    assert names
    assert [name for name in names if f'report_of("{name}")' not in sources] == []
