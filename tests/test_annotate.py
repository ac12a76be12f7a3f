"""The annotated epochs of a replay: every word of a textbook history, and what torch says."""

import io
import math
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from rich.console import Console

from features import EXAMPLES, FEATURES, SEEDS
from torch_plateau import replay
from torch_plateau.cli.annotate import annotate
from torch_plateau.cli.epoch_table import show

TEXTBOOK = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
NAN, INF = math.nan, math.inf


def rows_of(history, lane=0, **keywords):
    metric = torch.tensor(history, dtype=torch.float64)
    return annotate(metric, replay(metric, record="all", **{"lr": 0.1, **keywords}), lane)


def words_of(history, **keywords):
    return [row.words for row in rows_of(history, **keywords)]


def printed(rows, title="A lane", width=80, **keywords):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    show(console, rows, title, **keywords)
    return console.file.getvalue()


def test_the_textbook_history_is_told_as_in_a_textbook():
    rows = rows_of(TEXTBOOK, patience=3)
    assert [row.words for row in rows] == [
        "first value",
        "better: new best",
        "better: new best",
        "plateau starts: bad 1 of 3",
        "bad 2 of 3",
        "better: new best",
        "plateau starts: bad 1 of 3",
        "bad 2 of 3",
        "bad 3 of 3",
        "bad 4 > patience 3: cut 0.1 -> 0.01",
    ]
    assert [row.epoch for row in rows] == list(range(1, 11))
    assert [row.metric for row in rows] == [row.value for row in rows] == TEXTBOOK
    assert [row.best for row in rows] == [0.5, 0.45, 0.44, 0.44, 0.44, *[0.43] * 5]
    assert [row.bad for row in rows] == [0, 0, 0, 1, 2, 0, 1, 2, 3, 0]
    assert [row.lr for row in rows] == pytest.approx([0.1] * 9 + [0.01])
    gates = [best * (1 - 1e-4) for best in (0.5, 0.45, 0.44, 0.44, 0.44, *[0.43] * 4)]
    assert [row.gate for row in rows] == [INF, *gates]
    assert [row.event for row in rows] == ["better"] * 3 + ["", "", "better", "", "", "", "cut"]


@pytest.mark.parametrize(
    ("history", "keywords", "words"),
    [
        ([1, 1, 1], {"patience": 0}, ["first value", *["bad 1 > patience 0: cut {}"] * 2]),
        (
            [1, 1, 1, 2, 0.5],
            {"patience": 0, "cooldown": 2},
            [
                "first value",
                "bad 1 > patience 0: cut {}",
                "cooldown: ignored, 1 left",
                "cooldown: ignored, the last",
                "better: new best",
            ],
        ),
        (
            [1, 1, 0.5],
            {"patience": 0, "cooldown": 2},
            ["first value", "bad 1 > patience 0: cut {}", "better, cooling, 1 left"],
        ),
        (
            [1, 1, 1, 1],
            {"patience": 2, "counting": "optax"},
            [
                "first value",
                "plateau starts: bad 1 of 2",
                "bad 2 = patience 2: cut {}",
                "plateau starts: bad 1 of 2",
            ],
        ),
        (
            [1, 1, 1, 1],
            {"patience": 1, "cooldown": 2, "counting": "keras"},
            [
                "first value",
                "bad 1 = patience 1: cut {}",
                "cooldown: ignored, 1 left",
                "bad 1 = patience 1: cut {}",
            ],
        ),
        (
            [1, 1, 1, 1],
            {"patience": 0, "initial_patience": 1},
            [
                "first value",
                "plateau starts: bad 1 of 1",
                "bad 2 > first patience 1: cut {}",
                "bad 1 > patience 0: cut {}",
            ],
        ),
        (
            [1, 0.99999, NAN, INF, 2],
            {"patience": 9},
            [
                "first value",
                "gain too small: bad 1 of 9",
                "NaN: bad 2 of 9",
                "infinite: bad 3 of 9",
                "bad 4 of 9",
            ],
        ),
        (
            [1, NAN, 1],
            {"patience": 9, "nan": "skip"},
            ["first value", "NaN: skipped", "plateau starts: bad 1 of 9"],
        ),
        ([1, NAN, 1], {"nan": "freeze"}, ["first value", "NaN, finished (nan)", "finished"]),
        (
            [1, 1, 3, 1],
            {"patience": 9, "diverge_at": 2},
            [
                "first value",
                "plateau starts: bad 1 of 9",
                "past the bound, finished (diverged)",
                "finished",
            ],
        ),
        ([NAN, 1], {"diverge_at": 2}, ["NaN, finished (diverged)", "finished"]),
        ([INF, 1], {"diverge_at": 2}, ["infinite, finished (diverged)", "finished"]),
        ([1, 1], {"stop_at": 1.5}, ["first value, finished (target)", "finished"]),
        (
            [1, 1, 1, 1],
            {"patience": 9, "stop_patience": 2},
            [
                "first value",
                "plateau starts: bad 1 of 9",
                "bad 2 of 9, finished (patience)",
                "finished",
            ],
        ),
        ([1, 2], {"max_steps": 1}, ["first value, finished (max_steps)", "finished"]),
        (
            [1, NAN, NAN],
            {"nan": "cut", "min_lr": 0.01},
            ["first value", "NaN: cut {}", "NaN: cut due, rate at its floor"],
        ),
        (
            [1, 1, 1, 1],
            {"patience": 0, "min_lr": 0.1, "patience_at_min": 2},
            [
                "first value",
                "cut due, rate at its floor",
                "cut due, rate at its floor, finished (floor)",
                "finished",
            ],
        ),
        (
            [1, 1, 1],
            {"patience": 0, "max_reductions": 1},
            ["first value", "bad 1 > patience 0: cut {}, finished (max_reductions)", "finished"],
        ),
        (
            [1, 2, 1, 2],
            {"patience": 5, "accumulate": 2},
            [
                "collecting: 1 of 2",
                "first value",
                "collecting: 1 of 2",
                "plateau starts: bad 1 of 5",
            ],
        ),
        (
            [2, 1, 3, 3],
            {"patience": 5, "warmup_steps": 3},
            [
                "warm-up 1 of 3, new best",
                "warm-up 2 of 3, new best",
                "warm-up 3 of 3",
                "plateau starts: bad 1 of 5",
            ],
        ),
        (
            [3, 1, NAN, 0.1, 0.1, 0],
            {"rule": "band", "target": 1, "growth": 10, "max_lr": 0.1},
            [
                "above the band: cut {}",
                "within the band",
                "NaN",
                "below the band: raised 0.01 -> 0.1",
                "below the band: raise due, rate at its ceiling",
                "within the band",
            ],
        ),
        (
            [3, 0.1, 3],
            {"rule": "band", "target": 1, "min_steps": 3, "min_lr": 0.1},
            ["above the band", "below the band", "above: cut due, rate at its floor"],
        ),
        (
            [3, 2, 1, 1, 0.5, 0.4],
            {"rule": "greedy", "patience": 1, "max_lr": 1, "raise_cooldown": 1},
            [
                "better: good 1 of 1",
                "good 2 > patience 1: raised 0.1 -> 1",
                "cooldown: ignored, the last",
                "better: good 1 of 1",
                "good 2 > patience 1: raise due, rate at its ceiling",
                "cooldown: ignored, the last",
            ],
        ),
        (
            [NAN, NAN, NAN],
            {"rule": "greedy", "patience": 0, "min_lr": 0.02, "reset_at_min": 2},
            [
                "bad 1 > patience 0: cut 0.1 -> 0.02",
                "cut 2 at the floor: begun anew, raised 0.02 -> 0.1",
                "bad 1 > patience 0: cut 0.1 -> 0.02",
            ],
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_every_part_has_its_words(history, keywords, words):
    rates = iter(["0.1 -> 0.01", "0.01 -> 0.001"])
    assert words_of(history, **keywords) == [
        each.format(next(rates)) if "{}" in each else each for each in words
    ]


def test_gates_are_those_of_the_mode_and_the_threshold_mode():
    def gate(**keywords):
        return rows_of([-2.0, -2.0], threshold=0.1, **keywords)[1].gate

    assert gate(threshold_mode="rel") == pytest.approx(-1.8)  # torch's rule
    assert gate(threshold_mode="abs") == pytest.approx(-2.1)
    assert gate(threshold_mode="abs", atol=1.0) == pytest.approx(-3.1)
    assert gate(threshold_mode="rel_safe") == pytest.approx(-2.2)
    assert gate(mode="max", threshold_mode="rel_safe") == pytest.approx(-1.8)
    assert rows_of([1.0], mode="max")[0].gate == -INF
    assert rows_of([1.0], threshold_mode="rel_safe")[0].gate == INF


@settings(EXAMPLES, max_examples=60)
@given(SEEDS)
def test_rows_say_what_a_torch_scheduler_does(seed):
    r = random.Random(seed)
    keywords = {
        "mode": r.choice(["min", "max"]),
        "patience": r.randrange(4),
        "cooldown": r.randrange(3),
        "threshold": r.choice([0.0, 1e-4, 0.2]),
        "threshold_mode": r.choice(["rel", "abs"]),
        "min_lr": r.choice([0.0, 0.01]),
    }
    history = [r.choice([NAN, 1.0, 0.9, 0.99999, 2.0, r.random()]) for _ in range(40)]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **keywords)
    for row, value in zip(rows_of(history, **keywords), history, strict=True):
        before, old = scheduler.best, optimizer.param_groups[0]["lr"]
        scheduler.step(value)
        beaten = value > row.gate if keywords["mode"] == "max" else value < row.gate
        assert beaten == (scheduler.best != before)
        assert (row.best, row.bad) == (scheduler.best, scheduler.num_bad_epochs)
        assert row.cooldown == scheduler.cooldown_counter
        assert row.lr == pytest.approx(optimizer.param_groups[0]["lr"])
        assert (row.event == "cut") == (optimizer.param_groups[0]["lr"] < old)
        assert ("better" in row.words or row.words == "first value") == beaten
        if row.bad:
            assert row.words.endswith(f"bad {row.bad} of {keywords['patience']}")


@settings(EXAMPLES, max_examples=60)
@given(SEEDS)
def test_words_of_optional_parts_fit_the_record(seed):
    r = random.Random(seed)
    keywords = {"patience": r.randrange(3), "min_lr": r.choice([0.0, 0.05])}
    for name in r.sample([name for name in FEATURES if name not in ("mask", "events")], 3):
        keywords |= FEATURES[name](r)
    history = torch.tensor([r.choice([NAN, INF, 1.0, 2.0, r.random()]) for _ in range(40)]).double()
    result = replay(history, lr=0.1, record="all", **keywords)
    epochs, again = (
        annotate(history, result),
        annotate(history, replay(history, lr=0.1, **keywords)),
    )
    rows, bad = list(epochs), 0
    assert repr(list(again)) == repr(rows), "as if all had been recorded"
    for kind in ("better", "cut", "raised", "due", "finished"):
        assert epochs.at(kind).tolist() == [i for i, row in enumerate(rows) if row.event == kind]
    assert again.at("NaN").tolist() == [i for i, row in enumerate(rows) if "NaN" in row.words]
    improved, reduced, raised, fired = (
        getattr(result, name)[:, 0].tolist() for name in ("improved", "reduced", "raised", "fired")
    )
    for i, row in enumerate(rows):
        assert (row.event == "raised") == raised[i]
        assert (row.event == "cut") == reduced[i]
        assert (row.event in ("cut", "raised", "due")) == fired[i]
        if keywords.get("rule") != "band":  # which asks for no best
            assert (row.event == "better") == (improved[i] and not fired[i])
        if " of " in row.words and "bad" in row.words:
            assert row.bad == bad + 1 == int(row.words.split("bad ")[1].split()[0])
        elif row.bad > bad:  # Keras goes on counting where nothing was lowered
            assert row.event == "due"
        bad = row.bad
    assert ("finished" in rows[-1].words) == bool(result.lanes.finished[0])
    ends = [row.words for row in rows if "finished" in row.words]
    assert all(words == "finished" for words in ends[1:])


def test_a_lane_of_several_has_its_own_settings_metrics_and_rates():
    metric = torch.tensor([[1.0, 3.0], [1.0, 2.0], [1.0, 2.0]])
    keywords = {"patience": [0, 9], "mode": ["max", "min"], "groups": [1, 2], "lr": [0.1, 0.2, 0.3]}
    result = replay(metric, record="all", **keywords)
    first, second = annotate(metric, result, 0), annotate(metric, result, 1)
    assert first[1].words == "bad 1 > patience 0: cut 0.1 -> 0.01"
    assert [row.metric for row in second] == [3, 2, 2]
    assert [row.lr for row in second] == pytest.approx([0.2] * 3)
    assert second[2].words == "plateau starts: bad 1 of 9"
    result = replay(metric, record="all", **{**keywords, "patience": 0})
    assert annotate(metric, result, 1)[2].words == "bad 1 > patience 0: cut 2 of 2 rates"


def test_what_does_not_fit_the_replay_is_refused():
    metric = torch.ones(4)
    result = replay(metric, record="all")
    with pytest.raises(ValueError, match="metric: expected 4 epochs, got 3"):
        annotate(metric[:3], result)
    with pytest.raises(ValueError, match="lane: expected one from 0 to 0, got 1"):
        annotate(metric, result, 1)
    with pytest.raises(AttributeError, match="not recorded"):
        annotate(metric, replay(metric, record=("lr",)))


def test_the_table_of_the_textbook_history_aligns_its_numbers():
    lines = printed(rows_of(TEXTBOOK, patience=3), "A [file].csv").splitlines()
    assert lines[0].strip() == "A [file].csv"
    assert lines[2].split() == ["epoch", "metric", "best", "gate", "bad", "rate", "words"]
    assert lines[4].split() == ["1", "0.50", "0.50", "-", "0", "0.1", "first", "value"]
    assert lines[5].split()[:6] == ["2", "0.45", "0.45", "0.499950", "0", "0.1"]
    assert lines[13].endswith("bad 4 > patience 3: cut 0.1 -> 0.01 ")
    assert len({line.index("0.4") for line in lines[5:9]}) == 1


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, -1.0, 1e5, 1e12])
def test_tables_of_every_scale_fit_eighty_columns(scale):
    history = [x * scale for x in (*TEXTBOOK, NAN, INF)]
    text = printed(rows_of(history, patience=1, cooldown=1, smoothing=0.3))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    heads = text.splitlines()[2].split()
    assert "value" in heads
    assert ("gate" in heads) == (0.01 < abs(scale) < 1e6), "as long as there is room"


def test_a_long_table_folds_its_quiet_stretches_and_keeps_the_cuts():
    history = [*(1 / t for t in range(1, 101)), *[0.009] * 200]
    rows = rows_of(history, patience=50)
    text = printed(rows)
    assert len(text.splitlines()) < 50
    shown = [int(line.split()[0]) for line in text.splitlines()[4:] if line[:6].strip().isdigit()]
    cuts = [row.epoch for row in rows if row.event == "cut"]
    assert cuts == [152, 203, 254]
    assert {1, 101, 300, *cuts} <= set(shown)
    assert "97 epochs: 97 better, bad up to 0" in " ".join(text.split())
    folded = sum(int(part.split()[-1]) for part in text.split(" epochs:")[:-1])
    assert folded + len(shown) == 300
    assert printed(rows, every=True).count("\n") > 300


def test_no_epochs_are_a_table_without_rows():
    assert "epoch" in printed(rows_of([]))


def test_many_epochs_are_told_without_a_row_for_each():
    random = torch.Generator().manual_seed(0)
    history = torch.linspace(1.0, 0.5, 100_000, dtype=torch.float64)
    history += 0.1 * torch.rand(len(history), generator=random, dtype=torch.float64)
    history[70_000:70_003] = math.nan
    rows = annotate(history, replay(history, record="all", lr=0.1, patience=3_000))
    few = [rows[i] for i in (0, 70_000, 99_999)]
    assert [row.epoch for row in few] == [1, 70_001, 100_000]
    assert printed(rows).count("\n") < 200
    every = list(rows)  # all of them, one after another
    assert [row.epoch for row in every] == list(range(1, 100_001))
    for kind in ("better", "cut"):
        assert rows.at(kind).tolist() == [i for i, row in enumerate(every) if row.event == kind]
    again = annotate(history, replay(history, lr=0.1, patience=3_000))
    assert printed(again) == printed(rows)
    assert any("70001" in line for line in printed(rows).splitlines())  # the first NaN is shown


ALL_OF_IT = """
import io, resource, sys, torch
from rich.console import Console
from torch_plateau import diagnose, replay
from torch_plateau.cli.annotate import annotate
from torch_plateau.cli.epoch_table import show
from torch_plateau.cli.pictures import draw_replay

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.set_num_threads(1)
for epochs in 100_000, 2_000_000:
    before = peak()
    metric = torch.rand(epochs, dtype=torch.float64)
    result = replay(metric, patience=0)
    show(Console(file=io.StringIO(), width=100), annotate(metric, result), "long")
    draw_replay(metric, result, ["long"], io.BytesIO())
    diagnose(metric)
print((peak() - before) / (8 * epochs))
"""


if sys.platform != "win32":  # which tells no peak

    def test_a_long_history_is_shown_drawn_and_judged_in_few_times_its_memory():
        done = subprocess.run([sys.executable, "-c", ALL_OF_IT], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) < 6  # 24 where all was recorded or kept


def test_of_very_many_cuts_the_first_and_last_are_shown():
    history = torch.tensor([0.1, 9.0]).repeat(3_000).double()  # out of the band, either way
    rows = annotate(
        history, replay(history, rule="band", target=1.0, max_lr=1.0, lr=0.1, record="all")
    )
    assert len(rows.at("cut", "raised")) > 2_000
    lines = printed(rows).splitlines()
    assert len(lines) < 1_200
    (folded,) = [line for line in lines if "epochs:" in line]
    count = int(folded.split("epochs:")[0].split()[-1])
    shown = {
        int(line.split()[0]) for line in lines if line.split()[:1] and line.split()[0].isdigit()
    }
    assert count + len(shown) == len(rows)
