"""The doctor says what is there and what is missing, and the help of each command is a page."""

import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import torch_plateau
from _torch_plateau_command import main
from foreign import PROVIDED
from torch_plateau.cli import ENDS, app, doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
COMMANDS = {command.__name__: end[0] for command, end in ENDS.items()}


def run(*words):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "100"}, catch_exceptions=False)


def test_it_says_what_was_built_and_which_torch_there_is():
    said = run("doctor").output
    assert f"torch-plateau {torch_plateau.__version__}" in said
    assert f"torch {torch.__version__}" in said
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in said


@pytest.mark.parametrize(
    ("cuda", "torchs", "devices", "said"),
    [
        ("", "13.0", 1, "no: no kernels were built (TORCH_PLATEAU_CUDA was AUTO)"),
        ("13.0", None, 0, "this torch was built without CUDA"),
        ("13.0", "13.0", 0, "sees no device"),
        ("13.0", "13.0", 1, "A GPU; kernels of CUDA 13.0 for 9.0"),
    ],
)
def test_it_says_what_stands_between_lanes_and_a_gpu(cuda, torchs, devices, said, monkeypatch):
    info = {"cuda": cuda, "cuda_architectures": ["9.0"], "cuda_option": "AUTO"}
    monkeypatch.setattr(torch.version, "cuda", torchs)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    assert said in doctor.gpu(info)


def test_what_is_missing_is_named_with_its_cure(monkeypatch):
    gone = {"plotly", "sklearn", "jax"}
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in gone else name)
    said = {line.strip() for line in run("doctor").output.splitlines()}
    assert "no   --html: no plotly; pip install 'torch-plateau[report]'" in said
    assert "no   demo: no sklearn; pip install 'torch-plateau[demo]'" in said
    assert "no   bench beside JAX: no jax; pip install jax" in said
    assert "yes  Parquet files" in said


def test_it_looks_for_every_package_that_an_extra_brings():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for name in {need.extra for need in doctor.NEEDS} - {None}:
        brought = {re.match(r"[\w-]+", each).group() for each in extras[name]}
        if "torch-plateau" in brought:  # an extra within another
            brought = brought - {"torch-plateau"} | {"matplotlib", "rich", "typer"}
        asked = {module for need in doctor.NEEDS if need.extra == name for module in need.modules}
        assert asked == {PROVIDED.get(each, each) for each in brought}, name


def test_the_help_names_every_command():
    said = run("--help").output
    assert set(COMMANDS) == {"demo", "replay", "sweep", "inspect", "bench", "doctor"}
    assert all(re.search(rf"^│ {name}\b", said, re.MULTILINE) for name in COMMANDS)
    assert "--show-completion" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_says_what_is_written_and_how_it_exits(name):
    said = " ".join(run(name, "--help").output.split())
    assert f"Example: {COMMANDS[name]}" in said
    assert "Prints" in said
    assert "Exits with 0" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_one_that_it_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{epoch},{1 / (1 + epoch)},{1 / (2 + epoch)},0.1\n" for epoch in range(30))
    for file in ("history.csv", "seed0.csv", "seed1.csv"):
        Path(file).write_text("epoch,val_loss,train_loss,lr\n" + rows)
    words = shlex.split(COMMANDS[name])[2:]
    if name in ("demo", "bench"):  # which take long
        command = typer.main.get_command(app).commands[name]
        assert command.make_context(name, words)
    else:
        assert run(name, *words).exit_code == 0


def test_the_command_is_installed_under_its_name():
    (script,) = metadata.entry_points(group="console_scripts", name="torch-plateau")
    assert script.load() is main
