"""Ranks that agree: replicated lanes decide alike, as one process with the metrics of all would.

Run as a script this file is one rank.
"""

import copy
import math
import os
import pickle
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import SGD, lr_scheduler
from torch.profiler import ProfilerActivity, profile

from cuda_lanes import sync_debug_mode
from ranks import begin, done, run_ranks
from torch_plateau import BatchedReduceLROnPlateau, PlateauLanes, ReduceLROnPlateau, compose
from torch_plateau.distributed import Agreement

THEIRS = lr_scheduler.ReduceLROnPlateau
SETTINGS = {"factor": 0.5, "patience": 1, "cooldown": 1, "threshold": 0.01}
REDUCTIONS = ("mean", "max", "min", "ratio")
LANES, STEPS = 500, 125  # in four ways, with and without a mask, 2 and 4 ranks: a million steps
SUM = {"mean": np.mean, "max": np.max, "min": np.min}


# -- what each rank has: anyone can make the metrics of all ---------------------------------------


def metrics_of(rank, reduction, rows=STEPS, lanes=LANES):
    """Metrics of a rank and its mask; multiples of 1/64, so that sums in any order are exact."""
    random = np.random.default_rng([rank, REDUCTIONS.index(reduction)])
    metrics = random.integers(0, 2**14, (rows, lanes)) / 64 + 2**9 / (1 + np.arange(rows))[:, None]
    metrics = np.floor(metrics * 64) / 64
    metrics[random.random(metrics.shape) < 0.01] = math.nan
    metrics[random.random(metrics.shape) < 0.005] = math.inf
    active = random.random(metrics.shape) < 0.6
    if reduction == "ratio":  # shards of unequal size, some of them empty
        metrics = np.stack([metrics, random.integers(0, 50, metrics.shape) * 1.0], axis=1)
    return torch.from_numpy(metrics), torch.from_numpy(active)


def agreed(reduction, ranks, masked):
    """The metrics and masks of all ranks, by plain numpy."""
    every = [metrics_of(rank, reduction) for rank in range(ranks)]
    metrics = np.stack([each.numpy() for each, _ in every])
    active = np.stack([mask.numpy() for _, mask in every])
    if not masked:
        active = np.ones_like(active)
    with np.errstate(all="ignore"):
        if reduction == "ratio":
            kept = np.where(active[:, :, None], metrics, 0.0).sum(0)
            return kept[:, 0] / kept[:, 1], active.any(0)
        if reduction == "mean":
            return np.where(active, metrics, 0.0).sum(0) / active.sum(0), active.any(0)
        rest = -math.inf if reduction == "max" else math.inf
        return SUM[reduction](np.where(active, metrics, rest), axis=0), active.any(0)


# -- what a rank does -----------------------------------------------------------------------------


def stepped(rank, reduction, masked, dtype=torch.float64):
    lanes = PlateauLanes(
        LANES, 0.1, dtype=dtype, process_group=Agreement(None, reduction), **SETTINGS
    )
    metrics, active = metrics_of(rank, reduction)
    rates = []
    for row, mask in zip(metrics.to(dtype), active, strict=True):
        lanes.step(row, active=mask if masked else None)
        rates.append(lanes.lr_master)
    return torch.stack(rates)


def models(n):
    return [SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(n)]


def warmed_up(optimizer, plateau):
    return compose(lr_scheduler.LinearLR(optimizer, 0.5, total_iters=3), plateau)


def schedulers(rank):
    """A model, several models, param groups, a warm-up: rates after steps by metrics of a rank."""
    metrics = metrics_of(rank, "mean", 30, 3)[0]
    world, found = dist.group.WORLD, {}
    one = ReduceLROnPlateau(*models(1), process_group=world, **SETTINGS)
    three = BatchedReduceLROnPlateau(models(3), process_group=world, **SETTINGS)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp",))
    by_mesh = ReduceLROnPlateau(*models(1), process_group=mesh, **SETTINGS)
    [optimizer] = models(1)
    plateau = ReduceLROnPlateau(optimizer, process_group=world, **SETTINGS)
    composed = warmed_up(optimizer, plateau)
    alone = ReduceLROnPlateau(*models(1), process_group=False, **SETTINGS)
    for row in metrics:
        one.step(float(row[0]))
        by_mesh.step(row[0])
        three.step(row)
        composed.step(row[0])
        alone.step(row[0])
        each = {"one": one, "mesh": by_mesh, "three": three, "composed": composed, "alone": alone}
        for name, scheduler in each.items():
            found.setdefault(name, []).append(list(scheduler.get_last_lr()))
    return found


def halved(rank):
    lanes = PlateauLanes(4, 0.1, process_group=dist.group.WORLD)
    mine = [4.0, 1.0, 3.0, 2.0] if rank == 0 else [0.0, 1.0, 9.0, 2.0]
    return lanes.halve(torch.tensor(mine))


def message_of(call):
    try:
        call()
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    return None


def differences(rank):
    """What ranks are told that do not hold the same."""

    def changed(change, groups=None):
        agreement = Agreement(check_every=2)
        lanes = PlateauLanes(3, 0.1, groups=groups, process_group=agreement, **SETTINGS)
        for _ in range(2):
            lanes.step([1.0, 1.0, 1.0])
        if rank == 1:
            change(lanes)
        told = message_of(lambda: lanes.step([3.0] * len(lanes)))
        assert lanes.num_steps == (3 if told is None else 2)
        return told

    def drop_in(change):
        agreement = Agreement(check_every=1)
        scheduler = ReduceLROnPlateau(*models(1), process_group=agreement, **SETTINGS)
        scheduler.step(1.0)
        if rank == 1:
            change(scheduler)
        told = message_of(lambda: scheduler.step(3.0))
        assert scheduler.last_epoch == 1
        return told

    return {
        "nothing": changed(lambda _: None),
        "patience": changed(lambda lanes: lanes.set_lanes(2, patience=7)),
        "same": changed(lambda lanes: lanes.set_lanes(2, patience=SETTINGS["patience"])),
        "rate": changed(lambda lanes: lanes.set_lanes(1, lr=0.3), groups=[1, 2, 1]),
        "best": changed(lambda lanes: lanes.best.__setitem__(0, 0.25)),
        "lanes": changed(lambda lanes: lanes.append(1, 0.1)),
        "drop-in": drop_in(lambda scheduler: setattr(scheduler, "patience", 4)),
        "group": drop_in(lambda scheduler: scheduler.optimizer.param_groups[0].update(lr=0.7)),
    }


def collectives():
    """The collectives of a step and how many values each sends, of plain, masked, and one model."""
    world, found = dist.group.WORLD, {}
    lanes = PlateauLanes(50, 0.1, process_group=world)
    one = ReduceLROnPlateau(*models(1), process_group=world)
    mask = torch.ones(50, dtype=torch.bool)
    for name, call in {
        "plain": lambda: lanes.step(torch.ones(50)),
        "masked": lambda: lanes.step(torch.ones(50), active=mask),
        "one": lambda: one.step(1.0),
    }.items():
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as measured:
            call()
        found[name] = [
            math.prod(each.input_shapes[0])
            for each in measured.events()
            if each.name.startswith("gloo:")
        ]
    return found


def warned():
    """How many warnings schedulers give here that are told nothing of ranks, and that are told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            ReduceLROnPlateau(*models(1))
        alone = [(each.filename, str(each.message)) for each in caught]
        caught.clear()
        BatchedReduceLROnPlateau(models(2))
        PlateauLanes(2, 0.1)
        others = [(each.filename, str(each.message)) for each in caught]
        caught.clear()
        for told in (False, dist.group.WORLD, Agreement()):
            ReduceLROnPlateau(*models(1), process_group=told)
            BatchedReduceLROnPlateau(models(2), process_group=told)
            PlateauLanes(2, 0.1, process_group=told)
        assert not caught
    return alone, others


def copies(rank):
    """The rates of a copy, which agrees as the original does, and what pickling says."""
    scheduler = ReduceLROnPlateau(*models(1), process_group=dist.group.WORLD, **SETTINGS)
    lanes = PlateauLanes(2, 0.1, process_group=Agreement(None, "max"), **SETTINGS)
    told = [message_of(lambda each=each: pickle.dumps(each)) for each in (scheduler, lanes)]
    scheduler, lanes = copy.deepcopy((scheduler, lanes))
    for step in range(6):
        scheduler.step(float(step * rank))
        lanes.step([float(step * rank), 1.0])
    return scheduler.get_last_lr(), lanes.lr_master, scheduler.best, lanes.best, told


def all_of_it(rank):
    return {
        "stepped": {
            f"{reduction}, {'masked' if masked else 'all'}": stepped(rank, reduction, masked)
            for reduction in REDUCTIONS
            for masked in (False, True)
        },
        "float32": stepped(rank, "mean", masked=True, dtype=torch.float32),
        "schedulers": schedulers(rank),
        "halved": halved(rank),
        "differences": differences(rank),
        "collectives": collectives(),
        "warned": warned(),
        "copies": copies(rank),
    }


# -- what is true of all of it --------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 4], ids="{} ranks".format)
def found(request, tmp_path_factory):
    return run_ranks(__file__, request.param, tmp_path_factory.mktemp("ranks"), "all")


def torchs_rates(metrics, active):
    """The rates of torch's own class, a scheduler a lane, after each step."""
    optimizers = models(metrics.shape[1])
    oracle = [THEIRS(optimizer, **SETTINGS) for optimizer in optimizers]
    rates = []
    for row, mask in zip(metrics.tolist(), active.tolist(), strict=True):
        for scheduler, metric, here in zip(oracle, row, mask, strict=True):
            if here:
                scheduler.step(metric)
        rates.append([each.param_groups[0]["lr"] for each in optimizers])
    return torch.tensor(rates, dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ranks_decide_as_one_process_with_the_metrics_of_all(found, reduction, masked):
    rates = [each["stepped"][f"{reduction}, {'masked' if masked else 'all'}"] for each in found]
    assert all(torch.equal(each, rates[0]) for each in rates)
    assert torch.equal(rates[0], torchs_rates(*agreed(reduction, len(found), masked)))
    assert len(rates[0].unique()) > 5


def test_lanes_of_float32_take_the_mean_rounded(found):
    metrics, active = agreed("mean", len(found), masked=True)
    rounded = torchs_rates(torch.from_numpy(metrics).float(), active)
    assert all(torch.equal(each["float32"], rounded) for each in found)


def test_every_scheduler_decides_by_the_mean_of_the_ranks(found):
    every = [metrics_of(rank, "mean", 30, 3)[0].numpy() for rank in range(len(found))]
    mean = np.mean(every, axis=0)
    rates = torchs_rates(mean, np.ones_like(mean, dtype=bool))
    for rank, each in enumerate(found):
        schedulers = each["schedulers"]
        assert schedulers["one"] == schedulers["mesh"] == rates[:, :1].tolist()
        assert schedulers["three"] == rates.tolist()
        own = torchs_rates(every[rank][:, :1], np.ones((30, 1), dtype=bool))
        assert schedulers["alone"] == own.tolist()
    [optimizer] = models(1)
    composed, last = warmed_up(optimizer, ReduceLROnPlateau(optimizer, **SETTINGS)), []
    for row in mean:
        composed.step(row[0])
        last.append(composed.get_last_lr())
    assert all(each["schedulers"]["composed"] == last for each in found)
    # without a group the same schedulers drift apart
    assert found[0]["schedulers"]["alone"] != found[1]["schedulers"]["alone"]


def test_halving_finishes_the_same_lanes_everywhere(found):
    # the means are 4 / ranks, 1, 6 or more, 2; of equal ones the first is kept
    assert all(each["halved"].tolist() == [False, False, True, True] for each in found)


def test_what_differs_is_named_on_every_rank_and_none_steps(found):
    told = found[0]["differences"]
    assert all(each["differences"] == told for each in found)
    begins = "process_group: rank 1 differs from rank 0 before step 3: "
    assert told == {
        "nothing": None,
        "same": None,
        "patience": begins + "patience of lane 2 is 7, 1 there",
        "rate": begins + "rate of lane 1 is 0.3, 0.1 there",
        "best": begins + "best of lane 0 is 0.25, 1.0 there",
        "lanes": begins + "best has 4 values of torch.float64, 3 values of torch.float64 there",
        "drop-in": begins.replace("3", "2") + "patience is 4.0, 1.0 there",
        "group": begins.replace("3", "2") + "lr[0] is 0.7, 0.1 there",
    }


def test_a_step_is_one_collective_of_as_many_values_as_lanes(found):
    for each in found:
        assert each["collectives"] == {"plain": [50], "masked": [100], "one": [1]}


def test_who_is_told_nothing_of_ranks_is_warned_once_where_it_is_built(found):
    for each in found:
        alone, others = each["warned"]
        assert len(alone) == 1
        assert len(others) == 2
        assert {name for name, _ in [*alone, *others]} == {__file__}
        assert alone[0][1].startswith(f"process_group: {len(found)} ranks step by metrics of their")


def test_a_copy_keeps_its_group_and_a_pickle_is_refused(found):
    for each in found:
        rates, lanes, best, best_of_lanes, told = each["copies"]
        assert rates == found[0]["copies"][0]
        assert torch.equal(lanes, found[0]["copies"][1])
        assert best == 0.0
        assert best_of_lanes.tolist() == [0.0, 1.0]
        assert (
            told
            == [
                "process_group: cannot be pickled, as it is of this process; save "
                "state_dict() and load it into a scheduler that is built with one"
            ]
            * 2
        )


# -- ranks that are not there ---------------------------------------------------------------------


def missing(rank):
    """What the others are told, and after how long, when rank 1 raises, hangs, dies."""
    told = {}
    for what in ("raises", "hangs", "dies"):
        group = dist.new_group(timeout=timedelta(seconds=4))  # a busy machine may take one
        lanes = PlateauLanes(2, 0.1, process_group=group, **SETTINGS)
        lanes.step([1.0, 1.0])
        began = time.monotonic()
        if rank != 1:
            told[what] = (message_of(lambda each=lanes: each.step([2.0, 2.0])),)
            told[what] += (time.monotonic() - began,)
            assert (lanes.num_steps, lanes.best.tolist()) == (1, [1.0, 1.0])
        elif what == "raises":
            told[what] = message_of(lambda each=lanes: each.step([2.0]))
        elif what == "hangs":
            time.sleep(6)
        else:
            os._exit(7)
        if what != "dies":
            time.sleep(max(0.0, began + 9 - time.monotonic()))
    return told


def test_a_rank_that_raises_hangs_or_dies_is_an_error_for_the_others_and_none_steps(tmp_path):
    first, second, third = run_ranks(__file__, 3, tmp_path, "missing")
    assert second is None  # it died
    for told in (first, third):
        assert set(told) == {"raises", "hangs", "dies"}
        for message, seconds in told.values():
            assert message.startswith("process_group: rank ")
            assert "could not agree on metrics with the others, and has not stepped" in message
            assert seconds < 30  # of a timeout of four


# -- one process ----------------------------------------------------------------------------------


@contextmanager
def one_rank(folder, backend="gloo"):
    dist.init_process_group(backend, f"file://{folder / 'store'}", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture
def world(tmp_path):
    with one_rank(tmp_path) as group:
        yield group


@pytest.fixture
def world_of(tmp_path, device):
    with one_rank(tmp_path, "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl") as group:
        yield group


def test_without_ranks_there_is_nothing_to_agree_on():
    with pytest.raises(
        RuntimeError, match=r"^process_group: expected torch.distributed to be init"
    ):
        PlateauLanes(2, 0.1, process_group=Agreement())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_rank_alone_steps_as_without_a_group_and_waits_for_no_device(
    world_of, device, reduction
):
    lanes = PlateauLanes(
        50, 0.1, device=device, process_group=Agreement(world_of, reduction), **SETTINGS
    )
    plain = PlateauLanes(50, 0.1, device=device, **SETTINGS)  # one rank is not warned of
    metrics, active = (each.to(device) for each in metrics_of(0, reduction, 20, 50))
    alone = metrics if reduction != "ratio" else metrics[:, 0] / metrics[:, 1]
    lanes.step(metrics[0])  # NCCL waits once
    plain.step(alone[0])
    with sync_debug_mode("error", device):
        for row, one, mask in zip(metrics, alone, active, strict=True):
            lanes.step(row)
            lanes.step(row, active=mask)
            plain.step(one)
            plain.step(one, active=mask)
    assert torch.equal(lanes.lr_master, plain.lr_master)
    assert torch.equal(lanes.best, plain.best)
    assert torch.equal(lanes.num_bad_epochs, plain.num_bad_epochs)


@pytest.mark.parametrize("device", ["cuda"])
def test_a_captured_step_agrees_in_every_replay(world_of, device):
    lanes = PlateauLanes(50, 0.1, device=device, process_group=world_of, **SETTINGS)
    plain = PlateauLanes(50, 0.1, device=device, **SETTINGS)
    metrics = metrics_of(0, "mean", 20, 50)[0].to(device)
    row = metrics[0].clone()
    lanes.step(row)
    plain.step(row)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        lanes.step(row)
    for each in metrics:
        row.copy_(each)
        graph.replay()
        plain.step(each)
    assert torch.equal(lanes.lr_master, plain.lr_master)


def test_the_drop_in_agrees_on_tensors_where_they_are(world_of, device):
    scheduler = ReduceLROnPlateau(*models(1), process_group=world_of, **SETTINGS)
    plain = ReduceLROnPlateau(*models(1), **SETTINGS)
    for metric in metrics_of(0, "mean", 20, 1)[0]:
        scheduler.step(metric.to(device))
        plain.step(metric)
    assert scheduler.state_dict() == plain.state_dict()


@pytest.mark.filterwarnings("ignore::UserWarning")  # the graph breaks there, as torch says
def test_a_compiled_function_with_a_step_in_it_agrees_too(world):
    lanes = PlateauLanes(3, 0.1, process_group=Agreement(world, "ratio"), **SETTINGS)
    plain = PlateauLanes(3, 0.1, **SETTINGS)

    @torch.compile(backend="eager")
    def step(metrics):
        return lanes.step(metrics * 2.0)

    for row in metrics_of(0, "ratio", 10, 3)[0]:
        step(row)
        plain.step(row[0] / row[1])
    assert torch.equal(lanes.lr_master, plain.lr_master)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Agreement(reduction="sum"), ValueError, "reduction: expected one of"),
        (lambda: Agreement(reduction=["mean"]), ValueError, "reduction: expected one of"),
        (lambda: Agreement(check_every=-1), ValueError, "check_every: expected an integer of 0"),
        (lambda: Agreement(check_every=True), ValueError, "check_every: expected an integer of 0"),
        (lambda: Agreement(3), TypeError, "process_group: expected a ProcessGroup that this rank"),
        (
            lambda: ReduceLROnPlateau(*models(1), process_group="world"),
            TypeError,
            "process_group: expected a ProcessGroup that this rank is in, a DeviceMesh, an",
        ),
        (
            lambda: Agreement(init_device_mesh("cpu", (1, 1), mesh_dim_names=("dp", "tp"))),
            ValueError,
            r"process_group: expected a mesh of one dimension, got 2; pass one of",
        ),
    ],
)
@pytest.mark.usefixtures("world")
def test_bad_arguments_are_refused(call, error, says):
    with pytest.raises(error, match=f"^{says}"):
        call()


@pytest.mark.parametrize(
    ("reduction", "metrics", "error", "says"),
    [
        ("mean", [1.0], ValueError, r"metrics: expected shape \(2,\), got \(1,\)"),
        ("mean", "ab", TypeError, r"metrics: expected a tensor of shape \(2,\)"),
        ("ratio", [1.0, 2.0, 3.0], ValueError, "metrics: expected two rows for reduction='ratio'"),
        ("ratio", 1.0, ValueError, "metrics: expected two rows for reduction='ratio', numerators"),
        ("ratio", [[1.0], [2.0]], ValueError, r"metrics: expected shape \(2,\), got \(1,\)"),
    ],
)
def test_bad_metrics_are_refused_before_anything_is_sent(world, reduction, metrics, error, says):
    lanes = PlateauLanes(2, 0.1, process_group=Agreement(world, reduction))
    with pytest.raises(error, match=f"^{says}"):
        lanes.step(metrics)
    assert lanes.num_steps == 0


def test_one_model_takes_a_ratio_of_two_numbers_or_tensors(world):
    for metrics in ((3.0, 4.0), torch.tensor([3.0, 4.0]), (torch.tensor(3.0), 4)):
        scheduler = ReduceLROnPlateau(*models(1), process_group=Agreement(world, "ratio"))
        scheduler.step(metrics)
        assert scheduler.best == 0.75


if __name__ == "__main__":
    rank, _, folder, [what] = begin()
    done(all_of_it(rank) if what == "all" else missing(rank), rank, folder)
