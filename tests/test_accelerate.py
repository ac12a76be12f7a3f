"""Plateaus under Accelerate, against torch's class in a loop.

Run as a script this file is one of several processes, or a training that is killed with SIGKILL.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.optim import SGD, lr_scheduler

from ranks import in_two_processes
from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes, ReduceLROnPlateau
from torch_plateau.integrations.accelerate import AcceleratedPlateau

THEIRS = lr_scheduler.ReduceLROnPlateau
SETTINGS = {"factor": 0.5, "patience": 1, "threshold": 0.05}
EPOCHS, KILLED_IN = 12, 5
BOTH = pytest.mark.parametrize("policy", [THEIRS, ReduceLROnPlateau], ids=["torch's", "ours"])


@pytest.fixture(autouse=True)
def _alone():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def data():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=random)
    y = x.sum(1, keepdim=True) + torch.randn(64, 1, generator=random)
    return list(zip(x[:48].split(12), y[:48].split(12), strict=True)), (x[48:], y[48:])


def line():
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def plain_loop():
    """The rates and the model of a training with torch alone."""
    model, (train, (x, y)), rates = line(), data(), []
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    scheduler = THEIRS(optimizer, **SETTINGS)
    for _ in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        for inputs, targets in train:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        with torch.no_grad():
            scheduler.step(nn.functional.mse_loss(model(x), y))
    return rates, model


def trained(policy, folder=None, epochs=EPOCHS, killed_in=None):
    """The same under Accelerate; a folder has the state after each epoch, and is gone on from."""
    accelerator = Accelerator(cpu=True)
    model, (train, (x, y)), rates = line(), data(), []
    optimizer = SGD(model.parameters(), lr=0.2, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    plateau = AcceleratedPlateau(accelerator, policy(optimizer, **SETTINGS))
    done = Path(folder, "done") if folder else None
    first = 0
    if done and done.exists():
        first = int(done.read_text())
        accelerator.load_state(str(folder / str(first)))
    for epoch in range(first, epochs):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        for inputs, targets in train:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(model(inputs), targets))
            optimizer.step()
            if epoch == killed_in:
                os.kill(os.getpid(), signal.SIGKILL)
        with torch.no_grad():
            plateau.step(nn.functional.mse_loss(model(x), y))
        if done:
            accelerator.save_state(str(folder / str(epoch + 1)))
            done.write_text(str(epoch + 1))
    return rates, model


def assert_same(one, other):
    assert one[0] == other[0]
    assert len(set(one[0])) > 2  # there were cuts
    for mine, theirs in zip(one[1].parameters(), other[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def batched(optimizer, **settings):
    return BatchedReduceLROnPlateau([optimizer], **settings)


@pytest.mark.parametrize("policy", [THEIRS, ReduceLROnPlateau, batched])
def test_a_training_is_a_loop_with_torchs_class(policy):
    assert_same(trained(policy), plain_loop())


@BOTH
def test_a_run_that_is_killed_and_resumed_is_the_uninterrupted_one(policy, tmp_path):
    name = "theirs" if policy is THEIRS else "ours"
    command = [sys.executable, __file__, name, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    rates, model = trained(policy, tmp_path)
    assert len(rates) == EPOCHS - KILLED_IN
    whole = plain_loop()
    assert_same((whole[0][:KILLED_IN] + rates, model), whole)


@BOTH
def test_accumulation_drops_validations_of_a_scheduler_that_is_prepared_and_none_of_ours(policy):
    def steps(prepared, **options):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3, **options)
        model, (train, _) = line(), data()
        model, optimizer = accelerator.prepare(model, SGD(model.parameters(), lr=0.1))
        scheduler = policy(optimizer, patience=100)
        if prepared:
            plateau = accelerator.prepare(scheduler)
        else:
            plateau = AcceleratedPlateau(accelerator, scheduler)
        for _ in range(8):
            for inputs, targets in train:  # four batches
                with accelerator.accumulate(model):
                    accelerator.backward(nn.functional.mse_loss(model(inputs), targets))
                    optimizer.step()
                    optimizer.zero_grad()
            plateau.step(1.0)
        return scheduler.num_bad_epochs + 1  # the first is the best

    assert steps(prepared=True) == 2
    assert steps(prepared=True, step_scheduler_with_optimizer=False) == 8
    assert steps(prepared=False) == 8


def in_a_process():
    """What one of two processes does: twelve validations whose metrics differ between ranks."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    rank, found = accelerator.process_index, {}
    metrics = [[1.0 / (epoch // 3 + 1), 2.0 - rank] for epoch in range(12)]
    for name, policy in (("theirs", THEIRS), ("ours", ReduceLROnPlateau)):
        for way in ("prepared", "prepared, by its own steps", "wrapped"):
            optimizer = accelerator.prepare(SGD(line().parameters(), lr=0.1))
            scheduler = policy(optimizer, patience=100)
            accelerator.step_scheduler_with_optimizer = way == "prepared"
            if way == "wrapped":
                plateau = AcceleratedPlateau(accelerator, scheduler)
            else:
                plateau = accelerator.prepare(scheduler)
            for _ in metrics:
                plateau.step(1.0)
            found[f"{name}, {way}"] = scheduler.num_bad_epochs + 1
    # of rank 0 and 1, whose mean decides; the second of one rank is NaN for a while
    lanes = PlateauLanes(2, 0.1, patience=1, factor=0.5)
    plateau, rates = AcceleratedPlateau(accelerator, lanes), []
    for epoch, row in enumerate(metrics):
        mine = torch.tensor(row, dtype=torch.float64) * (1 + rank)
        if rank == 1 and 3 <= epoch < 5:
            mine[1] = torch.nan
        plateau.step(mine)
        rates.append(lanes.lr_master.tolist())
    sys.stdout.write(json.dumps({"steps": found, "rates": rates}) + "\n")


def test_two_processes_count_a_validation_once_and_agree():
    first, second = in_two_processes(__file__, "rank")
    assert first == second
    assert first["steps"] == {
        "theirs, prepared": 24,
        "theirs, prepared, by its own steps": 12,
        "theirs, wrapped": 12,
        "ours, prepared": 24,
        "ours, prepared, by its own steps": 12,
        "ours, wrapped": 12,
    }
    optimizers = [SGD([torch.zeros(1)], lr=0.1) for _ in range(2)]
    oracle = [THEIRS(each, patience=1, factor=0.5) for each in optimizers]
    for epoch, rates in enumerate(first["rates"]):
        # (a * 1 + a * 2) / 2 of ranks 0 and 1
        means = [1.0 / (epoch // 3 + 1) * 1.5, (2.0 * 1 + 1.0 * 2) / 2]
        if 3 <= epoch < 5:
            means[1] = float("nan")
        for scheduler, mean in zip(oracle, means, strict=True):
            scheduler.step(mean)
        assert rates == [each.param_groups[0]["lr"] for each in optimizers]
    assert len({tuple(each) for each in first["rates"]}) > 3


def test_a_vector_of_metrics_cuts_each_lane_of_a_prepared_optimizer_as_in_a_run_of_its_own(
    device,
):
    accelerator = Accelerator(cpu=device == "cpu")
    train, (x, y) = data()
    random = torch.Generator().manual_seed(2)
    drawn = torch.randn(3, 4, 1, generator=random, dtype=torch.float64)
    weight = nn.Parameter(drawn.to(device))
    begun, start = weight.detach().clone(), [0.4, 0.2, 0.1]
    lanes = PlateauLanes(3, start, device=device, **SETTINGS)
    optimizer = accelerator.prepare(SGD([weight], lr=1.0))
    LaneLR(optimizer, lanes)
    plateau, rates = AcceleratedPlateau(accelerator, lanes), []

    def losses(x, y, weight):
        x, y = (each.to(device, torch.float64) for each in (x, y))
        return (x @ weight - y).square().mean((-2, -1))

    for _ in range(EPOCHS):
        rates.append(lanes.lr_master.tolist())
        for inputs, targets in train:
            optimizer.zero_grad()
            accelerator.backward(losses(inputs, targets, weight).sum())
            optimizer.step()
        plateau.step(losses(x, y, weight).detach())
    for i, rate in enumerate(start):
        alone = nn.Parameter(begun[i].clone())
        single, expected = SGD([alone], lr=rate), []
        scheduler = THEIRS(single, **SETTINGS)
        for _ in range(EPOCHS):
            expected.append(single.param_groups[0]["lr"])
            for inputs, targets in train:
                single.zero_grad()
                losses(inputs, targets, alone).backward()
                single.step()
            scheduler.step(losses(x, y, alone).detach())
        assert [each[i] for each in rates] == expected
        torch.testing.assert_close(weight[i], alone, rtol=1e-9, atol=1e-12)
    assert len({tuple(each) for each in rates}) > 3


def test_what_is_no_plateau_and_another_reduction_are_refused():
    accelerator = Accelerator(cpu=True)
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    prepared = accelerator.prepare(ReduceLROnPlateau(optimizer))
    with pytest.raises(TypeError, match="before it is prepared, got AcceleratedScheduler"):
        AcceleratedPlateau(accelerator, prepared)
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'sum', got 'max'"):
        AcceleratedPlateau(accelerator, ReduceLROnPlateau(optimizer), "max")


def test_the_example_cuts_the_rate(capsys):
    example = Path(__file__).parent.parent / "examples" / "accelerate_plateau.py"
    runpy.run_path(str(example), run_name="__main__")
    rates = [float(row.split()[-1]) for row in capsys.readouterr().out.splitlines()]
    assert len(rates) == 12
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "rank":
        in_a_process()
    else:
        kind = THEIRS if sys.argv[1] == "theirs" else ReduceLROnPlateau
        trained(kind, Path(sys.argv[2]), killed_in=KILLED_IN)
