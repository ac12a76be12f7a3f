"""A thousand spoilt states, and proof that the fuzz that loads them counts what goes wrong.

Run as a script this file is the fuzz with subjects at fault, one for each of its counts.
"""

import os
import re
import subprocess
import sys

import fuzz_states


def die(_):
    os.abort()


def change_and_refuse(subject):
    subject.thing.set_lanes([0], patience=7)
    raise ValueError("too late")


def break_steps(subject):
    subject._step = None


def raise_another_error(_):
    raise RuntimeError("undocumented")


def at_fault(load):
    """A maker of lanes that do this where they should load a state."""

    def make():
        subject = fuzz_states.lanes_of(2)
        subject.load = lambda _: load(subject)
        return subject

    return make


AT_FAULT = {
    "crashes": at_fault(die),
    "changed": at_fault(change_and_refuse),
    "broken": at_fault(break_steps),
    "undocumented": at_fault(raise_another_error),
}


def test_a_thousand_spoilt_states_are_refused_whole_or_taken_whole():
    assert fuzz_states.fuzz(states=1000, seed=0, workers=2) == []


def test_the_fuzz_counts_what_goes_wrong_and_fails():
    command = [sys.executable, __file__, "--states", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^crashes: --seed 0 --only 0 .*exit status -6: .* in die", done.stdout, re.M)
    rows = {line.split()[0]: line.split()[2:] for line in done.stdout.splitlines()[-5:]}
    assert rows == {
        "crashes": ["1", "0", "0", "0"],
        "changed": ["0", "1", "0", "0"],
        "broken": ["0", "0", "1", "0"],
        "undocumented": ["0", "0", "0", "1"],
        "all": ["1", "1", "1", "1"],
    }


if __name__ == "__main__":
    fuzz_states.STATES = fuzz_states.KINDS = AT_FAULT
    sys.exit(fuzz_states.main())
