"""Training that is killed again and again ends as if it never was.

Run as a script this file is the training: it imports torch once, forks a process for each start,
and kills it with SIGKILL at random moments. Steps and saves take turns, so many of the kills come
while a checkpoint is being written.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneBest,
    LaneLR,
    LaneStack,
    PlateauLanes,
    compose,
    save_atomically,
)

KILLS = 20
STEPS = 400
RATES = [0.3, 0.1, 0.03]


def train_models(directory, progress=None):
    """Train three models, from the checkpoint if there is one, and save after every step."""
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 1)) for _ in RATES]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
        for model, rate in zip(models, RATES, strict=True)
    ]
    schedules = [CosineAnnealingWarmRestarts(each, 50, eta_min=0.01) for each in optimizers]
    plateau = BatchedReduceLROnPlateau(optimizers, patience=3, factor=0.8, cooldown=[0, 1, 2])
    scheduler = compose(schedules, plateau)
    parts = [*models, *optimizers, scheduler]
    trace, path = [], directory / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        trace = saved["trace"]
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
    for step in range(len(trace), STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 8, generator=generator)
        y = x.sum(1, keepdim=True) + torch.randn(16, 1, generator=generator)
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
        scheduler.step_schedule()
        scheduler.step(torch.stack(losses))
        trace.append([group["lr"] for each in optimizers for group in each.param_groups])
        save_atomically({"parts": [part.state_dict() for part in parts], "trace": trace}, path)
        if progress is not None:
            os.write(progress, b".")


def train_stack(directory, progress=None):
    """The same of a stack in which lanes are copied, refilled and reset."""
    torch.manual_seed(0)
    n = len(RATES)
    params = {"w": torch.randn(n, 8, 16), "v": torch.randn(n, 16)}
    buffers = {"seen": torch.zeros(n, dtype=torch.int64)}
    for param in params.values():
        param.requires_grad_()
    lanes = PlateauLanes(n, RATES, patience=3, factor=0.8, cooldown=[0, 1, 2], events=5)
    optimizer = torch.optim.Adam(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    stack = LaneStack(lanes, optimizer, params, buffers, LaneBest(lanes, params))
    trace, path = [], directory / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        trace = saved["trace"]
        stack.load_state_dict(saved["parts"][0])
    for step in range(len(trace), STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 8, generator=generator)
        y = x.sum(1) + torch.randn(16, generator=generator)
        optimizer.zero_grad()
        hidden = (x @ params["w"]).tanh()
        losses = ((hidden * params["v"][:, None]).sum(2) - y).square().mean(1)
        losses.sum().backward()
        if step % 10 == 3:
            params["v"].grad[step % n] = torch.nan
        buffers["seen"] += 1
        stack.step()
        lanes.step(losses.detach())
        stack.best.update()
        if step % 40 == 10:
            stack.copy([0], [2])
        elif step % 40 == 20:
            shapes = {name: (1, *each.shape[1:]) for name, each in params.items()}
            new = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
            stack.refill([1], new, {"seen": torch.zeros(1, dtype=torch.int64)})
        elif step % 40 == 30:
            stack.reset([0])
        trace.append(lanes.lr_master.tolist())
        save_atomically({"parts": [stack.state_dict()], "trace": trace}, path)
        if progress is not None:
            os.write(progress, b".")


TRAININGS = {"models": train_models, "stack": train_stack}


def start(train, directory):
    """Fork a process that trains; return its number, and a pipe with a byte for every step."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            train(directory, write)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(write)
    return child, read


def crash_until_done(train, directory):
    """Kill the training ``KILLS`` times, let it end, and say what happened."""
    moments = random.Random(0)
    kills = torn = 0
    while True:
        child, steps = start(train, directory)
        if kills < KILLS:
            # few enough steps that all the kills come before the training ends
            wanted = moments.randrange(STEPS // (2 * KILLS))
            for _ in range(wanted):
                os.read(steps, 1)
            time.sleep(moments.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(steps)
        kills += status == -signal.SIGKILL
        torn += (directory / "checkpoint.pt.tmp").exists()
        if status != -signal.SIGKILL:
            return {"kills": kills, "torn": torn, "exit": status}


@pytest.fixture(scope="module", params=TRAININGS)
def runs(request, tmp_path_factory):
    """The directories of a straight run and of one that was killed, and a report on the latter."""
    straight, killed = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, __file__, request.param, straight, killed],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return straight, killed, json.loads(done.stdout)


def load(directory):
    return torch.load(directory / "checkpoint.pt", weights_only=True)


def leaves(state):
    """The numbers and words of a state in order, those of tensors with their type."""
    if isinstance(state, dict):
        return [leaf for name in state for leaf in (name, *leaves(state[name]))]
    if isinstance(state, (list, tuple)):
        return [leaf for each in state for leaf in leaves(each)]
    return [(state.dtype, state.tolist())] if isinstance(state, torch.Tensor) else [state]


def test_the_training_was_killed_often_and_in_the_middle_of_saves(runs):
    *_, report = runs
    assert report["kills"] == KILLS
    assert report["torn"] > 0
    assert report["exit"] == 0


def test_the_trace_of_rates_equals_that_of_the_straight_run(runs):
    straight, killed, _ = runs
    assert load(killed)["trace"] == load(straight)["trace"]
    assert len(load(killed)["trace"]) == STEPS


def test_every_state_equals_that_of_the_straight_run_bit_for_bit(runs):
    straight, killed, _ = runs
    *_, last = load(straight)["parts"]
    lanes = last["lanes"] if "lanes" in last else last["plateau"]["lanes"]
    assert lanes["num_reductions"].sum() > 8
    assert leaves(load(killed)) == leaves(load(straight))


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_atomically({"step": 1}, path)
    with pytest.raises(AttributeError, match="pickle"):
        save_atomically({"step": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_save_takes_a_name_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_atomically([1, 2], "checkpoint.pt")
    assert torch.load("checkpoint.pt", weights_only=True) == [1, 2]


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.SGD([torch.ones(1)])  # the first optimizer imports much that forks then share
    training = TRAININGS[sys.argv[1]]
    straight_run, killed_run = map(Path, sys.argv[2:])
    process, _ = start(training, straight_run)
    assert os.waitpid(process, 0)[1] == 0
    sys.stdout.write(json.dumps(crash_until_done(training, killed_run)))
