"""Memory of C++ and of Python that ends in the middle of a call: all of it done, or nothing."""

import pytest

from scarce import hunted

# of each kind of call one or two; `nox -s faults` has all of them
CALLS = "plain lanes, append", "lanes, to", "tensors, step", "stack adamw, refill", "LaneSGD, step"
MADE = "new lanes, with parts", "new batched float", "new composed Reduce", "new LaneLR"


@pytest.fixture(scope="module")
def found():
    return hunted(8, *CALLS, *MADE)


@pytest.mark.parametrize(("kind", "least"), [("new", 20), ("python", 100)])
def test_a_call_for_which_there_is_no_memory_is_all_done_or_not_begun(found, kind, least):
    found = [each for each in found if each["kind"] == kind]
    assert {each["call"]: each["torn"] for each in found if each["torn"]} == {}
    assert sum(each["tried"] for each in found) > least


def test_only_torch_and_pybind_which_makes_objects_may_end_the_process(found):
    ended = {(each["kind"], who) for each in found for who in each["ended"].values()}
    theirs = ("_core.", "libtorch")
    assert all(kind == "python" and any(t in who for t in theirs) for kind, who in ended), ended
