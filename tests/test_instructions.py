"""The guard of instruction counts, with made-up ones: what it lets pass, and what it refuses."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "instructions"


@pytest.fixture(scope="module")
def guard():
    spec = importlib.util.spec_from_file_location("count_instructions", FOLDER / "count.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts(compiler="GNU 12", **instructions):
    return {"made_by": {"compiler": compiler, "vectors": "v3"}, "instructions": instructions}


@pytest.mark.parametrize("now", [951, 1000, 1049])
def test_a_count_within_the_tolerance_passes_without_a_word(guard, now):
    assert guard.compare(counts(step=1000), counts(step=now)) == ([], [])


def test_a_count_above_it_fails_and_says_by_how_much(guard):
    wrong, notes = guard.compare(counts(step=1000, cut=10), counts(step=1051, cut=10))
    assert wrong == ["step: 1,051 instructions, +5.1% of 1,000"]
    assert notes == []


def test_a_count_far_below_is_a_note(guard):
    wrong, notes = guard.compare(counts(step=1000), counts(step=900))
    assert wrong == []
    assert notes == ["step: 900 instructions, -10.0% of 1,000"]


def test_counts_of_another_compiler_are_refused_even_if_they_are_equal(guard):
    wrong, notes = guard.compare(counts(step=1000), counts("GNU 13", step=1000))
    assert wrong == ["cannot be compared: compiler was GNU 12, is GNU 13"]
    assert notes == []


def test_a_case_that_is_only_on_one_side_fails(guard):
    wrong, _ = guard.compare(counts(old=1), counts(new=1))
    assert wrong == ["old: recorded, not counted", "new: counted, not recorded"]


def test_a_dump_of_callgrind_is_read_as_one_call(guard):
    dump = "desc: Trigger: Client Request: step, a cut/1000\nevents: Ir\ntotals: 2211499\n"
    assert guard.read(dump) == ("step, a cut", 2211)
    assert guard.read(dump.replace("/1000", "")) == ("step, a cut", 2211499)
    with pytest.raises(ValueError, match="no dump"):
        guard.read("totals: 5\n")


def test_no_valgrind_is_an_error_that_says_how_to_get_it():
    command = [sys.executable, str(FOLDER / "count.py")]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "valgrind: not found; on Debian: apt-get install valgrind\n"


def test_what_is_recorded_says_what_it_was_made_by():
    recorded = json.loads((FOLDER / "counts.json").read_text())
    assert {kind: list(of["made_by"]) for kind, of in recorded.items()} == {
        "loops": ["compiler", "vectors"],
        "calls": ["core", "python", "torch", "vectors"],
    }
    for of in recorded.values():
        assert min(of["instructions"].values()) > 0
