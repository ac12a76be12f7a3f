"""The conformance run goes on where its record ends, and what it finds it names and makes small."""

import json

import pytest

from conformance.__main__ import RECORD, main
from conformance.check import difference
from conformance.plans import KINDS, drawn
from conformance.shrink import shrunk
from torch_plateau import PlateauLanes

RUNS = json.loads(RECORD.read_text())["runs"]


def test_the_record_has_a_billion_lane_steps_and_nothing_that_differs():
    assert sum(sum(run["lane_steps"].values()) for run in RUNS) >= 1_000_000_000
    assert all(run["differ"] == [] for run in RUNS)
    assert all(min(run["lane_steps"].values()) > 0 for run in RUNS)


@pytest.mark.parametrize("more", range(3 * len(KINDS)))
def test_lives_that_the_record_has_not_seen_are_those_of_the_oracles(more, device):
    first = max(run["plans"] for run in RUNS)
    assert difference(drawn(0, first + more), device) is None


def planted(monkeypatch):
    """A fault: a cooldown of more than two is read as two."""
    read = PlateauLanes.cooldown_counter.fget
    wrong = property(lambda lanes: read(lanes).clamp(max=2))
    monkeypatch.setattr(PlateauLanes, "cooldown_counter", wrong)


@pytest.mark.parametrize("kind", ["lanes", "parts"])
def test_a_fault_is_named_and_made_as_small_as_it_can_be(kind, monkeypatch):
    planted(monkeypatch)
    numbers = range(KINDS.index(kind), 400, len(KINDS))
    found = next(n for n in numbers if difference(drawn(0, n)) is not None)
    small = shrunk(drawn(0, found))
    assert "cooldown_counter[0] is 2, expected 3.0" in difference(small)
    assert (len(small.lanes), small.acts, small.active) == (1, [], None)
    assert len(small.metrics) <= small.lanes[0].settings.get("patience", 10) + 2
    monkeypatch.undo()
    assert difference(small) is None


def test_a_run_goes_on_where_the_one_before_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.plans.LONGEST", 25)
    in_two, at_once = tmp_path / "two.json", tmp_path / "one.json"

    def compare(record, steps):
        assert main(["--record", str(record), "--jobs", "0", "--lane-steps", str(steps)]) == 0
        return json.loads(record.read_text())["runs"][0]

    first = compare(in_two, 1)
    steps = sum(first["lane_steps"].values()) + 1
    runs = [compare(in_two, steps), compare(at_once, steps)]
    assert [run["plans"] for run in runs] == [2 * first["plans"]] * 2
    assert runs[0]["lane_steps"] == runs[1]["lane_steps"]


def test_a_run_that_finds_a_fault_says_so(tmp_path, monkeypatch, capsys):
    planted(monkeypatch)
    monkeypatch.setattr("conformance.plans.LONGEST", 40)
    monkeypatch.setattr("conformance.shrink.SECONDS", 0)
    record = tmp_path / "record.json"
    words = ["--record", str(record), "--jobs", "0", "--lane-steps", "1e9"]
    assert main(words) == 1
    run = json.loads(record.read_text())["runs"][0]
    assert len(run["differ"]) >= 5
    said = capsys.readouterr().out
    assert f"plan {run['differ'][0]} of seed 0 differs: after step" in said
    assert main(["--plan", str(run["differ"][0])]) == 1
