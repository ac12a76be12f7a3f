"""The examples for torchrun, run by it: ranks that agree, and a population that loses a rank."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture
def start(tmp_path):
    """Start torchrun in an empty folder; what is left of it is killed."""
    path = os.pathsep.join(each for each in sys.path if each)
    started = []

    def begin(*options):
        path_of_log = tmp_path / f"{len(started)}.log"
        with path_of_log.open("w") as log:
            run = subprocess.Popen(
                [*TORCHRUN, *options],
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(run)
        return run, path_of_log

    yield begin
    for run in started:
        for pid in [*workers_of(run), run.pid]:
            kill(pid)
        run.wait()


def workers_of(run):
    """The processes that an agent of torchrun has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
        if parent == run.pid:
            found.append(int(stat.parent.name))
    return found


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(says, *logs, seconds=120):
    ends = time.monotonic() + seconds
    while not any(says in log.read_text() for log in logs):
        assert time.monotonic() < ends, [log.read_text() for log in logs]
        time.sleep(0.1)


def epochs_in(*logs):
    """The best and the median accuracy of each epoch, of the last time that it was said."""
    found = {}
    for log in logs:
        for line in re.findall(r"epoch (\d+): best ([\d.]+), median ([\d.]+)", log.read_text()):
            found[int(line[0])] = (float(line[1]), float(line[2]))
    return found


def test_data_parallel_ranks_end_with_one_rate(start):
    run, log = start("--standalone", "--nproc-per-node", "2", EXAMPLES / "ddp_plateau.py")
    assert run.wait(120) == 0, log.read_text()
    said = log.read_text()
    accuracy = float(re.findall(r"accuracy ([\d.]+)", said)[-1])
    [rates] = re.findall(r"2 ranks, their rates at the end: \[([\d.e-]+)\]", said)
    assert accuracy > 0.95
    assert float(rates) < 0.3  # there were cuts


def test_an_ensemble_over_ranks_is_better_than_its_members(start):
    run, log = start("--standalone", "--nproc-per-node", "2", EXAMPLES / "sharded_ensemble.py")
    assert run.wait(120) == 0, log.read_text()
    said = r"12 members on 2 ranks: ([\d.]+) each, ([\d.]+) together"
    [(each, together)] = re.findall(said, log.read_text())
    assert 0.9 < float(each) < float(together)


def test_a_population_of_which_a_rank_is_killed_goes_on_from_its_checkpoint_with_the_others(start):
    script = EXAMPLES / "sharded_population.py"
    options = ["--epochs", "9", "--checkpoint", "whole"]
    whole, whole_log = start("--standalone", "--nproc-per-node", "4", script, *options)
    assert whole.wait(120) == 0, whole_log.read_text()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "1:2", "--max-restarts", "3", "--monitor-interval", "0.2"]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "1"]
    quick = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3,is_host="
    task = [script, "--epochs", "9"]
    _, log = start(*options, "--rdzv-conf", f"{quick}1", *task)
    second, other = start(*options, "--rdzv-conf", f"{quick}0", *task)
    wait_for("epoch 4", log, other)
    for pid in [*workers_of(second), second.pid]:
        kill(pid)
    wait_for("epoch 9", log)
    assert "Traceback" in log.read_text()  # the rank that was left was told, and began again
    lived, never = epochs_in(other, log), epochs_in(whole_log)
    assert list(never) == list(range(1, 10))
    assert lived.keys() == never.keys()
    for epoch, values in lived.items():
        # one sample of 597 may fall on the other side by rounding in batches of another size
        assert values == pytest.approx(never[epoch], abs=2.5 / 597), epoch
    assert never[9][0] > 0.9
