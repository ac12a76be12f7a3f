"""lanes(x) == N of torch's schedulers(x), bit for bit, for all valid settings and metrics."""

import io
import math
import random

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from oracle import FIELDS, TorchLanes, assert_same_state, same_bits
from torch_plateau import PlateauLanes, ReduceLROnPlateau

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e308, -1e308, 1.0]
EXAMPLES = 100  # of Hypothesis, each time round


@st.composite
def lane_settings(draw, groups):
    """Keyword arguments for one torch scheduler."""
    floors = st.sampled_from([0.0, 1e-8, 1e-3, 0.05, 2.0])
    one_floor = draw(st.booleans())
    return {
        "mode": draw(st.sampled_from(["min", "max"])),
        "factor": draw(st.sampled_from([0.1, 0.5, 0.999, 1e-300]) | st.floats(0.001, 0.999)),
        "patience": draw(st.integers(0, 20) | st.integers(0, 2)),
        "threshold": draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0, 2.0, -0.01]) | st.floats(0, 0.5)),
        "threshold_mode": draw(st.sampled_from(["rel", "abs"])),
        "cooldown": draw(st.integers(0, 10)),
        "min_lr": draw(floors) if one_floor else [draw(floors) for _ in range(groups)],
        "eps": draw(st.sampled_from([0.0, 1e-8, 1e-3, 0.5])),
    }


@st.composite
def runs(draw):
    """Settings, starting rates and a history of metrics for a few lanes."""
    n = draw(st.integers(1, 6))
    uniform = draw(st.booleans())
    groups = [draw(st.integers(1, 5)) if draw(st.booleans()) else 1 for _ in range(n)]
    if uniform:
        groups = [groups[0]] * n
        lanes = [draw(lane_settings(groups[0]))] * n
    else:
        lanes = [draw(lane_settings(count)) for count in groups]
    copies = draw(st.integers(1, 12))  # of the same settings, each with metrics of its own
    n, groups, lanes = n * copies, groups * copies, lanes * copies
    rate = st.sampled_from([0.1, 1.0, 1e-3, 0.0, 1e-7]) | st.floats(1e-9, 10.0)
    few = [draw(rate) for _ in range(5)]
    rates = [few[-count:] for count in groups]
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    numbers = st.sampled_from(SPECIAL) | st.floats(-2, 2) | st.floats(width=32)
    alphabet = draw(st.lists(numbers, min_size=1, max_size=6))
    steps = draw(st.integers(1, 120))
    noise = random.Random(draw(st.integers(0, 2**32)))
    history = [
        [metric_for(lanes[lane], alphabet, noise) for lane in range(n)] for _ in range(steps)
    ]
    if dtype == torch.float32:  # as float32 lanes will see them
        history = torch.tensor(history, dtype=dtype).tolist()
    return {
        "lanes": lanes,
        "rates": rates,
        "uniform": uniform,
        "dtype": dtype,
        "history": history,
        "resume_at": draw(st.integers(0, steps)),
    }


def metric_for(lane, alphabet, noise):
    """A value of the alphabet, or one that ties with it or with the gate that it sets."""
    x = noise.choice(alphabet)
    kind = noise.randrange(6)
    sign = 1.0 if lane["mode"] == "max" else -1.0
    if kind == 0:
        x *= 1.0 + sign * lane["threshold"]
    elif kind == 1:
        x += sign * lane["threshold"]
    elif kind == 2:
        x = math.nextafter(x, sign * math.inf)
    elif kind == 3:
        x += noise.uniform(-0.01, 0.01)
    return x


def build(run, device):
    """The same lanes as PlateauLanes: settings uniform where they are, else one per lane."""
    lanes = run["lanes"]
    names = [name for name in lanes[0] if name != "min_lr"]
    if run["uniform"]:
        keywords = {name: lanes[0][name] for name in names}
    else:
        keywords = {name: [lane[name] for lane in lanes] for name in names}
    counts = [len(rates) for rates in run["rates"]]
    floors = []
    for lane, count in zip(lanes, counts, strict=True):
        floor = lane["min_lr"]
        floors += floor if isinstance(floor, list) else [floor] * count
    if run["uniform"] and not isinstance(lanes[0]["min_lr"], list):
        floors = lanes[0]["min_lr"]
    return PlateauLanes(
        len(lanes),
        [rate for rates in run["rates"] for rate in rates],
        groups=None if set(counts) == {1} else counts,
        min_lr=floors,
        dtype=run["dtype"],
        device=device,
        **keywords,
    )


def check_lanes(run, device):
    lanes, oracle = build(run, device), TorchLanes(run["rates"], run["lanes"])
    for step, row in enumerate(run["history"]):
        if step == run["resume_at"]:
            lanes = resumed(lanes, run, device)
        lanes.step(torch.tensor(row, dtype=run["dtype"], device=device))
        oracle.step(row)
        assert_same_state(lanes, oracle)
    assert lanes.num_steps == len(run["history"])


def resumed(lanes, run, device):
    """The same lanes by way of a file, into a PlateauLanes that was built with other settings."""
    file = io.BytesIO()
    torch.save(lanes.state_dict(), file)
    file.seek(0)
    counts = [len(rates) for rates in run["rates"]]
    groups = None if set(counts) == {1} else counts
    other = PlateauLanes(len(lanes), 0.7, groups=groups, dtype=run["dtype"], device=device)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def check_drop_in(run, device):
    """The drop-in against torch's class, lane by lane, resumed by way of torch's class.

    Every other metric is a tensor on ``device``.
    """
    oracle = TorchLanes(run["rates"], run["lanes"])
    twin = TorchLanes(run["rates"], run["lanes"])
    for lane, keywords in enumerate(run["lanes"]):
        ours = ReduceLROnPlateau(twin.schedulers[lane].optimizer, **keywords)
        theirs = oracle.schedulers[lane]
        for step, row in enumerate(run["history"]):
            if step == run["resume_at"]:
                between = torch.optim.lr_scheduler.ReduceLROnPlateau(ours.optimizer)
                between.load_state_dict(ours.state_dict())
                ours = ReduceLROnPlateau(ours.optimizer)
                ours.load_state_dict(between.state_dict())
            metric = torch.tensor(row[lane], dtype=torch.float64, device=device)
            ours.step(row[lane] if step % 2 else metric)
            theirs.step(row[lane])
            assert same_bits([ours.best], [theirs.best])
            for field in (*FIELDS[1:], "last_epoch", "in_cooldown"):
                assert getattr(ours, field) == getattr(theirs, field)
            assert same_bits(ours.get_last_lr(), theirs.get_last_lr())


def drive(check, lane_steps):
    """Run ``check`` on Hypothesis' examples, round after round, for at least ``lane_steps``."""
    done = 0

    def count(run):
        nonlocal done
        done += len(run["lanes"]) * len(run["history"])
        check(run)

    rounds = 0
    while done < lane_steps:
        options = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        seed(rounds)(options(given(runs())(count)))()
        rounds += 1
    return done


def test_lanes_decide_as_torch_schedulers_do_bit_for_bit(device, request):
    asked = request.config.getoption("--lane-steps")
    assert drive(lambda run: check_lanes(run, device), asked) >= asked


def test_the_drop_in_decides_as_torch_does_bit_for_bit(device, request):
    asked = request.config.getoption("--lane-steps") // 2
    assert drive(lambda run: check_drop_in(run, device), asked) >= asked
