"""What ranks send is what the formulas say: simulated, counted in a short run, told on the page."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def page_ranks(monkeypatch):
    """The module with the formulas and the page's parts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import page_ranks

    return page_ranks


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What a short run with two ranks writes."""
    out = tmp_path_factory.mktemp("ranks") / "ranks.json"
    command = [sys.executable, BENCHMARKS / "ranks.py", "--quick", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def ring(ranks, n):
    """An all_reduce in a ring: the bytes that all send, and the messages that follow one another.

    A rank's values are parts; first each part goes round and is added to, then round as it is.
    """
    vectors = np.random.default_rng(n).integers(0, 100, (ranks, n)).astype(np.float64)
    expected = vectors.sum(0)
    parts = np.array_split(np.arange(n), ranks)
    sent = turns = 0
    for goes in range(2 * (ranks - 1)):
        moves = [(rank, (rank + 1) % ranks, parts[(rank - goes) % ranks]) for rank in range(ranks)]
        if goes >= ranks - 1:
            moves = [(r, to, parts[(r + 1 - (goes - ranks + 1)) % ranks]) for r, to, _ in moves]
        read = [vectors[rank, part] for rank, _, part in moves]
        for (_, to, part), values in zip(moves, read, strict=True):
            vectors[to, part] = values + (vectors[to, part] if goes < ranks - 1 else 0)
            sent += values.nbytes
        turns += 1
    assert (vectors == expected).all()
    return sent, turns


def tree(ranks, n):
    """An all_reduce by halves, with partners ever nearer and then ever farther, as a tree."""
    vectors = np.random.default_rng(n).integers(0, 100, (ranks, n)).astype(np.float64)
    expected = vectors.sum(0)
    mine = [slice(0, n)] * ranks
    sent = turns = 0
    distances = [2**k for k in range(ranks.bit_length() - 1)]
    for apart in reversed(distances):
        before = vectors.copy()
        for rank in range(ranks):
            first, last = mine[rank].start, mine[rank].stop
            half = (first + last) // 2
            mine[rank] = slice(half, last) if rank & apart else slice(first, half)
            vectors[rank, mine[rank]] += before[rank ^ apart, mine[rank]]
            sent += before[rank ^ apart, mine[rank]].nbytes
        turns += 1
    for apart in distances:
        before, had = vectors.copy(), list(mine)
        for rank in range(ranks):
            theirs = had[rank ^ apart]
            vectors[rank, theirs] = before[rank ^ apart, theirs]
            sent += before[rank ^ apart, theirs].nbytes
            mine[rank] = slice(min(had[rank].start, theirs.start), max(had[rank].stop, theirs.stop))
        turns += 1
    assert (vectors == expected).all()
    return sent, turns


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8, 100])
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_a_simulated_ring_sends_what_the_formula_says(page_ranks, ranks, n):
    assert ring(ranks, n) == (
        page_ranks.sent("all_reduce", ranks, n),
        page_ranks.messages(ranks, "ring"),
    )


@pytest.mark.parametrize("ranks", [2, 4, 8, 64])
def test_a_simulated_tree_sends_as_many_bytes_in_fewer_messages(page_ranks, ranks):
    assert tree(ranks, 1024) == (
        page_ranks.sent("all_reduce", ranks, 1024),
        page_ranks.messages(ranks, "tree"),
    )


def test_latency_and_bytes_are_even_where_the_page_says(page_ranks):
    for how in ("ring", "tree"):
        n = round(page_ranks.even_at(1000, how))
        seconds = page_ranks.sent("all_reduce", 1000, n) / 1000 / page_ranks.SPEED
        assert seconds == pytest.approx(page_ranks.messages(1000, how) * page_ranks.LATENCY, 1e-4)


def test_rows_count_as_sent_where_they_leave_a_rank(page_ranks):
    assert page_ranks.rows_sent(10, 2, [0, 1, 2], [4, 5, 9]) == 2


def test_a_short_run_writes_rows_of_every_call(report, page_ranks):
    assert report["lane_steps_equal"] == 3 * 20 * 100
    assert [each["lanes"] for each in report["rows"]] == [100] * 9
    keys = {"ranks", "lanes", "call", "collectives", "formula_bytes", "crowded", "median_us", "n"}
    assert all(keys <= each.keys() for each in report["rows"])
    found = {each["call"]: each for each in report["rows"]}
    for call in ("step, mean", "step, mean, mask", "step, max", "all_reduce", "gather"):
        assert found[call]["collectives"] == 1
        assert found[call]["formula_bytes"] > 0
    for call in ("step, no group", "step, lanes spread"):
        assert (found[call]["collectives"], found[call]["formula_bytes"]) == (0, 0)
    assert found["save"]["checkpoint_bytes"] > 100 * found["save"]["bytes_of_a_lane"]
    assert page_ranks.sent("all_reduce", 2, 100) == found["step, mean"]["formula_bytes"] == 1600


def test_packets_of_few_lanes_grow_as_the_messages_of_the_formula(page_ranks):
    rows = json.loads((BENCHMARKS / "results" / "ranks.json").read_text())["rows"]
    few = [each for each in rows if each["call"] == "step, mean" and each["lanes"] < 10**6]
    assert {each["ranks"] for each in few} == {2, 4, 8}
    for each in few:  # the values, what announces them, acknowledgements
        assert page_ranks.packets_of(each) == pytest.approx(3.8, rel=0.1), each


def test_what_was_counted_for_many_lanes_is_what_the_formula_says():
    """Of the committed run: 8 MB a vector, of which headers are little."""
    rows = json.loads((BENCHMARKS / "results" / "ranks.json").read_text())["rows"]
    many = [each for each in rows if each["lanes"] == 10**6 and each["collectives"] == 1]
    assert {each["ranks"] for each in many} == {2, 4, 8}
    for each in many:
        assert each["bytes"] == pytest.approx(each["formula_bytes"], rel=0.02), each
    silent = [each["bytes"] for each in rows if each["collectives"] == 0]
    assert max(silent) < 1000  # by which barriers differ


def test_the_page_says_what_the_results_hold(page_ranks):
    page = (ROOT / "docs" / "ranks.md").read_text()
    assert page_ranks.page_of(page) == page
    assert len(page.splitlines()) <= 80
