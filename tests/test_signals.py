"""Ctrl-C at random moments of long calls: all done or not begun, and soon.

``python tests/test_signals.py TIMES`` interrupts each call so many times.
"""

import json
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh

from injected import Interrupt, plain
from torch_plateau import PlateauLanes, replay, sweep
from torch_plateau.distributed import LaneShard

N, FEW = 50_000, 1000


@pytest.fixture(autouse=True)
def alone():
    """One thread of torch's: others would wait by spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lanes_of(n=N):
    lanes = PlateauLanes(n, 0.1, patience=0, nan="skip")
    lanes.step(torch.linspace(0, 1, n))
    lanes.step(torch.linspace(1, 0, n))
    return lanes


def steps_on(lanes):
    """Whether another thread gets its turn."""
    thread = threading.Thread(target=lambda: lanes.step(torch.ones(len(lanes))), daemon=True)
    thread.start()
    thread.join(60)
    return not thread.is_alive()


def halved(lanes):
    lanes.halve(torch.linspace(2, 1, len(lanes)))


CHANGES = {
    "append": lambda lanes: lanes.append(N, 0.5, patience=[3] * N),
    "remove": lambda lanes: lanes.remove(range(0, N, 2)),
    "set_lanes": lambda lanes: lanes.set_lanes(list(range(N)), lr=0.3, patience=[4] * N),
    "halve": halved,
    "load_state_dict": lambda lanes: lanes.load_state_dict(OTHER),
}
OTHER = PlateauLanes(N, 0.7, patience=[1] * N, nan="skip").state_dict()


def same(one, other):
    """Whether states are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, torch.Tensor):
        bits = torch.uint8
        return one.shape == other.shape and torch.equal(
            one.contiguous().view(bits) if one.ndim else one,
            other.contiguous().view(bits) if other.ndim else other,
        )
    return plain(one) == plain(other)


# Timers, the signals that they send, and their clocks: of the day, which is finer, and of the
# processor's time in this process, which other work on the machine does not change.
DAY = signal.ITIMER_REAL, signal.SIGALRM, time.perf_counter
WORK = signal.ITIMER_VIRTUAL, signal.SIGVTALRM, time.process_time


def took(call, clock):
    """Time of a call."""
    *_, now = clock
    start = now()
    call()
    return now() - start


def interrupted(call, after, clock):
    """Call with Ctrl-C after a time; return whether it came, and the time taken."""
    timer, number, now = clock
    before = signal.signal(number, signal.default_int_handler)
    start, came = now(), False
    try:
        signal.setitimer(timer, max(after, 1e-6))
        call()
        signal.setitimer(timer, 0)
    except KeyboardInterrupt:
        came = True
    signal.signal(number, before)
    return came, now() - start


def torn(times, full, attempt):
    """Interrupt so often, at random moments; return those after which something was not whole."""
    moments, left, bad = random.Random(0), times, []
    for _ in range(20 * times):
        after = moments.uniform(0, full)
        came, whole = attempt(after)
        left -= came
        bad += [] if whole else [after]
        if not left:
            return bad
    raise AssertionError(f"{left} of {times} interruptions did not come")


def torn_changes(change, times):
    """Interrupt a change of lanes."""
    change(lanes_of())  # what is made once
    done = lanes_of()
    full = took(lambda: change(done), DAY)
    ways = [lanes_of().state_dict(), done.state_dict()]

    def attempt(after):
        lanes = lanes_of()
        came, _ = interrupted(lambda: change(lanes), after, DAY)
        now = lanes.state_dict()
        return came, any(same(now, way) for way in ways[not came :]) and steps_on(lanes)

    return torn(times, full, attempt)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_many_lanes_is_done_or_not_begun(change):
    assert torn_changes(change, 2) == []


HISTORY = torch.rand(20_000, dtype=torch.float64)
LONG = {
    "replay": lambda: replay(HISTORY, patience=range(30_000), threads=1),
    "replay on two threads": lambda: replay(HISTORY, patience=range(60_000), threads=2),
    "sweep": lambda: sweep(HISTORY, patience=range(200), factor=[i / 300 for i in range(1, 200)]),
}


@pytest.mark.parametrize("call", LONG.values(), ids=LONG)
def test_a_long_call_ends_soon_after_ctrl_c(call):
    full = took(call, WORK)
    came, spent = interrupted(call, full / 10, WORK)
    assert came
    assert spent < 0.7 * full


@contextmanager
def one_rank():
    """A mesh of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def torn_saves(path, most):
    """Interrupt saves of a shard at points of ours, of which the file must be the old or the new.

    Not in torch's writer of files: that may end the process, later, when it is collected.
    """
    with one_rank() as mesh:
        shard, other = (LaneShard(lanes_of(FEW), FEW, mesh) for _ in range(2))
        shard.save(path)
        with Interrupt(10**9) as endless:
            shard.save(path)
        points, bad = 10**9 - endless.left, []
        for k in range(points - 1, -1, -max(points // most, 1)):
            old = shard.lanes.state_dict()
            shard.lanes.step(torch.rand(FEW))
            with Interrupt(k), suppress(KeyboardInterrupt):
                shard.save(path)
            other.load(path)
            found = other.lanes.state_dict()
            if not (same(found, shard.lanes.state_dict()) or same(found, old)):
                bad.append(k)
            shard.save(path)
        return points, bad


def test_a_save_of_a_shard_leaves_one_that_is_whole(tmp_path):
    points, bad = torn_saves(tmp_path / "shard", 10)
    assert points > 100
    assert bad == []


def test_ctrl_c_in_a_save_or_load_of_a_shard_is_no_failure_to_do_so(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with one_rank() as mesh:
        shard = LaneShard(lanes_of(FEW), FEW, mesh)
        shard.save(tmp_path / "shard")
        monkeypatch.setattr(FileSystemWriter, "write_data", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shard.save(tmp_path / "shard")
        monkeypatch.setattr(FileSystemReader, "read_data", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shard.load(tmp_path / "shard")
        monkeypatch.undo()
        shard.load(tmp_path / "shard")


if __name__ == "__main__":
    torch.set_num_threads(1)
    number = int(sys.argv[1])
    wrong = {each: torn_changes(CHANGES[each], number) for each in CHANGES}
    sys.stdout.write(json.dumps({"interrupted": number, "torn": wrong}) + "\n")
    with tempfile.TemporaryDirectory() as made:
        count, bad_saves = torn_saves(Path(made, "shard"), number)
    sys.stdout.write(json.dumps({"call": "save", "points": count, "torn": bad_saves}) + "\n")
    sys.exit(any(wrong.values()) or bool(bad_saves))
