"""The demo: what it prints, draws and refuses."""

import io
import re
import struct
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from torch_plateau.cli import app
from torch_plateau.cli.demo import report as demo_report
from torch_plateau.cli.demo import training as demo

ENV = {"COLUMNS": "80", "FORCE_COLOR": None}
SMALL = ["demo", "--lanes", "6", "--epochs", "8"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``torch-plateau demo`` with a small ensemble in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: CliRunner(env=ENV).invoke(app, [*SMALL, *options])


@pytest.fixture(scope="module", params=[[], ["--imbalanced"]], ids=["all", "imbalanced"])
def scene(request):
    """The options of a scene."""
    return request.param


@pytest.fixture(scope="module")
def printed(scene, tmp_path_factory):
    """What a scene prints, run once for all tests that only read it."""
    out = str(tmp_path_factory.mktemp("demo") / "p.png")
    result = CliRunner(env=ENV).invoke(app, [*SMALL, *scene, "--out", out])
    assert result.exit_code == 0, result.output
    return result


def size_of(png):
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def test_it_prints_the_table_and_draws_the_picture(run, tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    result = run()
    assert result.exit_code == 0, result.output
    for words in ("best", "worst", "final rate", "cuts", "best quarter", "all lanes", "held-out"):
        assert words in result.stdout
    assert size_of(tmp_path / "torch-plateau-demo.png") == (1300, 910)
    assert [path.name for path in tmp_path.iterdir()] == ["torch-plateau-demo.png"]
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert torch.get_num_threads() == threads


def test_it_trains_on_the_device_that_is_named(run, device):
    result = run("--device", device)
    assert result.exit_code == 0
    assert "Picture: torch-plateau-demo.png" in result.stdout


def test_the_progress_is_apart_from_the_table(printed):
    assert "Training" in printed.stderr
    assert "Training" not in printed.stdout


def test_tables_fit_eighty_columns(printed):
    tables = printed.stdout.split("Picture:")[0]
    assert "…" not in tables
    assert max(map(len, tables.splitlines())) <= 80


def test_the_same_seed_gives_the_same_table_and_another_one_another(run, scene, printed):
    def tables(result):
        return result.stdout.split("Picture:")[0]

    assert tables(run(*scene)) == tables(printed)
    assert tables(run(*scene, "--seed", "1")) != tables(printed)


@pytest.mark.parametrize("scene", [["--imbalanced"]], indirect=True, ids=["imbalanced"])
def test_the_imbalanced_scene_names_what_looks_good_and_is_not(printed):
    never = next(line for line in printed.stdout.splitlines() if "always no" in line)
    assert "98.0%" in never
    assert "0.00" in never
    assert "not good: misses 74 of 74 positives" in never
    assert "2.0% are positive" in printed.stdout


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (["f1"], "Lanes by F1"),
        (["recall"], "Lanes by recall"),
        (["accuracy"], "Lanes by accuracy"),
        (["loss"], "Lanes by loss"),
        (["f1", "--imbalanced"], "watches F1"),
        (["recall", "--imbalanced"], "watches recall"),
        (["loss", "--imbalanced"], "watches loss"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_lanes_watch_the_metric_that_was_asked_for(run, tmp_path, metric, says):
    result = run("--out", "picture.png", "--metric", *metric)
    assert result.exit_code == 0, result.output
    assert says in result.stdout
    assert size_of(tmp_path / "picture.png") == (1300, 910)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--lanes", "0"], "--lanes"),
        (["--epochs", "0"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--metric", "auc"], "--metric"),
        (["--imbalanced", "--lanes", "3"], "--lanes: expected an even number"),
        (["--imbalanced", "--metric", "accuracy"], "--metric: one half watches accuracy already"),
        (["--device", "cuda:99"], "device: got 'cuda:99', but"),
        (["--device", "abacus"], "abacus"),
        (["--out", "nowhere/picture.png"], "--out: No such file or directory"),
        (["--out", "."], "--out: Is a directory"),
    ],
    ids=" ".join,
)
def test_what_cannot_work_is_refused_before_the_training(run, tmp_path, options, says):
    result = run(*options)
    assert result.exit_code == 2
    assert says in re.sub(r"\x1b\[[0-9;]*m", "", result.stderr)  # colours, where a CI forces them
    assert result.stdout == ""
    assert "Training" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_old_picture_is_kept_when_the_demo_is_refused(run, tmp_path):
    old = tmp_path / "picture.png"
    old.write_bytes(b"old")
    assert run("--out", "picture.png", "--device", "cuda:99").exit_code == 2
    assert old.read_bytes() == b"old"


def test_a_missing_extra_is_named_with_the_cure(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    result = run()
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "'rich.progress'" in result.stderr
    assert "pip install 'torch-plateau[demo]'" in result.stderr


def test_even_typer_may_be_missing():
    script = "import sys; sys.modules['typer'] = None; import torch_plateau.cli"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "torch-plateau: no module 'typer'; "
        "the command line needs its extra: pip install 'torch-plateau[cli]'"
    ]


def test_networks_learn_and_are_cut_as_by_a_torch_scheduler_of_their_own():
    ensemble = demo.Ensemble(demo.all_digits(0), 6, ["f1", "loss"], seed=0, device="cpu")
    for _ in range(12):
        ensemble.epoch()
    run = ensemble.result()
    assert run.metric[-1, :3].max() > 0.9
    assert run.cuts.any()
    for lane, name in enumerate(run.watched):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=float(run.first[lane]))
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="min" if name == "loss" else "max",
            factor=demo.FACTOR,
            patience=demo.PATIENCE,
        )
        for value in run.metric[:, lane].tolist():
            scheduler.step(value)
        assert float(run.last[lane]) == scheduler.get_last_lr()[0]


def rare_run(answers):
    """A run of lanes that gave these answers to the test images, the last one ranked first."""
    n = len(answers)
    rank, rates = torch.arange(n).expand(1, n) / n, torch.ones(1, n)
    return demo.Run(
        watched=["accuracy"] * (n // 2) + ["f1"] * (n // 2),
        first=rates[0],
        last=rates[0],
        metric=rank,
        scores={"accuracy": rank, "recall": rank},
        rates=rates,
        cuts=rates.bool(),
        logits=torch.nn.functional.one_hot(torch.stack(answers), 2).float(),
    )


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda y: y, "finds 74 of 74, errs on 0 of 406"),
        (lambda y: y * 0 + 1, "not good: alarm at 406 of 406 others"),
        (lambda y: y * 0, "not good: misses 74 of 74 positives"),
        (lambda y: y * (y.cumsum(0) > 40), "not good: misses 40 of 74 positives"),
        (lambda y: y * (y.cumsum(0) > 30), "finds 44 of 74, errs on 0 of 406"),
    ],
    ids=["right", "always yes", "always no", "misses most", "misses some"],
)
def test_verdicts_follow_the_numbers(answer, verdict):
    data = demo.rare_digits(0)
    y = data.test[1]
    console = Console(width=80, file=io.StringIO())
    demo_report.show_rare(console, rare_run([y, answer(y)]), data)
    lines = console.file.getvalue().splitlines()
    assert verdict in next(line for line in lines if line.strip().startswith("F1"))


@pytest.mark.parametrize("load", [demo.all_digits, demo.rare_digits])
def test_no_image_is_in_two_splits(load):
    data = load(0)
    seen = [
        {tuple(x.tolist()) for x in part[0]} for part in (data.train, data.validation, data.test)
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_two_percent_are_positive_in_every_split_of_the_imbalanced_scene():
    data = demo.rare_digits(0)
    for _, y in (data.train, data.validation, data.test):
        assert y.double().mean() == pytest.approx(0.02, abs=0.001)


def test_scores_are_those_of_each_lane_by_itself():
    logits, y = torch.randn(5, 200, 10), torch.randint(10, (200,))
    for name in ("f1", "recall", "accuracy", "loss"):
        together = demo.score(name, logits, y, torch.ones(10))
        apart = [demo.score(name, lane[None], y, torch.ones(10))[0] for lane in logits]
        torch.testing.assert_close(together, torch.stack(apart))
    torch.testing.assert_close(
        demo.score("accuracy", logits, y, torch.ones(10)),
        (logits.argmax(-1) == y).float().mean(1),
    )
    torch.testing.assert_close(
        demo.score("loss", logits, y, torch.ones(10))[0],
        torch.nn.functional.cross_entropy(logits[0], y),
    )
