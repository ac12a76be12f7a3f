"""The recorder of histories: what it writes, and that the scenes are what they say."""

import csv
import pathlib
import runpy
from itertools import pairwise

ROOT = pathlib.Path(__file__).parent.parent
RECORDER = runpy.run_path(str(ROOT / "examples" / "record_histories.py"))


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_same_seeds_give_the_same_file(tmp_path):
    for name in ("a", "b"):
        RECORDER["main"](
            ["--scene", "noisy", "--seeds", "2", "--epochs", "3", "--out", str(tmp_path / name)]
        )
    assert (tmp_path / "a" / "noisy.csv").read_bytes() == (
        tmp_path / "b" / "noisy.csv"
    ).read_bytes()
    rows = rows_of(tmp_path / "a" / "noisy.csv")
    assert list(rows[0]) == ["seed", "epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [(row["seed"], row["epoch"]) for row in rows] == [
        (seed, epoch) for seed in "01" for epoch in "123"
    ]


def test_kept_histories_are_those_of_their_scenes():
    for name, scene in RECORDER["SCENES"].items():
        rows = rows_of(ROOT / "tests" / "data" / "histories" / f"{name}.csv")
        assert len(rows) == 5 * 60
        for seed in range(5):
            rates = [float(row["lr"]) for row in rows[seed * 60 : seed * 60 + 60]]
            assert abs(rates[0] / scene.lr - 1) < 1e-5
            steps = {round(b / a, 3) for a, b in pairwise(rates)}
            assert steps <= {1.0, scene.settings["factor"]}
