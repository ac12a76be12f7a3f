"""Lanes spread over ranks live as the same lanes in one process, and so do stacks with them.

Run as a script this file is one rank. Ranks that are not in a mesh wait for the others.
"""

import os
import resource
import shutil
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.optim import AdamW, lr_scheduler

from ranks import begin, done, run_ranks
from torch_plateau import LaneBest, LaneLR, LaneStack, PlateauLanes
from torch_plateau.distributed import LaneShard

SIZES = [0, 1, 3, 10, 1000]
RANKS = 4
STEPS = 30


# -- what one process does ------------------------------------------------------------------------


def metrics_of(n, steps=STEPS, seed=0):
    """Metrics with ties, NaN and infinities."""
    random = torch.Generator().manual_seed(seed)
    metrics = (torch.rand(steps, n, generator=random, dtype=torch.float64) * 16).round() / 16
    odd = torch.rand(steps, n, generator=random)
    metrics[odd < 0.02] = torch.nan
    metrics[odd > 0.99] = torch.inf
    return metrics


def settings_of(n, numbers):
    """Settings of the lanes of these numbers, of n: some for all, some for each."""
    at = slice(numbers.start, numbers.stop)
    patience = (torch.arange(n) % 4)[at]
    factor = (0.5 + torch.arange(n, dtype=torch.float64) / (2 * n + 2))[at]
    rates = torch.logspace(-3, 0, n, dtype=torch.float64)[at] if n else torch.zeros(0)
    options = {"nan": "skip", "window": 3, "max_reductions": 6, "smoothing": 0.25, "noise_from": 9}
    return {"lr": rates, "patience": patience, "factor": factor, "cooldown": 1, **options}


def lanes_of(n, numbers=None, **others):
    numbers = range(n) if numbers is None else numbers
    settings = settings_of(n, numbers) | others
    return PlateauLanes(len(numbers), process_group=False, **settings)


def moves(n, step):
    """Which lanes become which at a step, and whether the worse half is finished."""
    if n < 2 or step % 7 != 6:
        return None
    random = torch.Generator().manual_seed(step)
    count = min(n // 2 + 1, 8)
    src = torch.randint(n, (count,), generator=random)
    dst = torch.randint(n, (count,), generator=random)  # some overlap, some come twice
    return src, dst, step == 20


def lived(lanes, n, steps=range(STEPS), seed=0):
    """Lanes in one process: the oracle."""
    metrics = metrics_of(n, max(steps.stop, 1), seed)
    for step in steps:
        lanes.step(metrics[step])
        if move := moves(n, step):
            src, dst, halve = move
            lanes.copy_lanes(src, dst)
            if halve:
                lanes.halve(metrics[step], keep=0.7)
    return lanes


def seen(lanes):
    """What decides, by name, a row for each lane."""
    state = lanes.state_dict()
    names = ("best", "lr", "num_bad_epochs", "cooldown_counter", "num_reductions", "improved")
    found = {name: state[name] for name in names} | state["options"]
    found["recent"] = found["recent"].view(-1 if len(lanes) else 3, len(lanes)).T
    found |= {name: lanes._state.setting(name).expand(len(lanes)) + 0 for name in lanes.settings}
    return {name: each for name, each in found.items() if isinstance(each, torch.Tensor)}


# -- what a rank does -----------------------------------------------------------------------------


def shard_on(mesh, n, **others):
    mine = LaneShard.numbers_of(n, mesh)
    return LaneShard(lanes_of(n, mine, **others), n, mesh)


def lived_apart(shard, steps=range(STEPS), seed=0):
    n, mine = len(shard), slice(shard.numbers.start, shard.numbers.stop)
    metrics = metrics_of(n, max(steps.stop, 1), seed)
    for step in steps:
        shard.lanes.step(metrics[step, mine])
        if move := moves(n, step):
            src, dst, halve = move
            shard.copy(src, dst)
            if halve:
                shard.halve(metrics[step, mine], keep=0.7)
    return shard


def differs(shard, whole):
    """The first name under which this rank's lanes are not those of one process; None for none."""
    at = slice(shard.numbers.start, shard.numbers.stop)
    ours, theirs = seen(shard.lanes), seen(whole)
    assert ours.keys() == theirs.keys()
    for name, each in ours.items():
        if not torch.equal(each.nan_to_num(nan=7.5), theirs[name][at].nan_to_num(nan=7.5)):
            return name
    return None


def message_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def lanes_on(rank, meshes, folder):
    """Lanes of each size on each number of ranks: lived, saved, loaded by each, lived on."""
    found = {}
    for count, mesh in meshes.items():
        for n in SIZES:
            if rank < count:
                shard = lived_apart(shard_on(mesh, n))
                found["lived", count, n] = differs(shard, lived(lanes_of(n), n))
                shard.save(folder / f"{count} ranks, {n} lanes")
    dist.barrier()
    later = range(STEPS, STEPS + 50)
    for count, mesh in meshes.items():
        for n in SIZES if rank < count else ():
            whole = lived(lanes_of(n), n)
            before, after = seen(whole), lived(whole, n, later)
            for saved in meshes:
                shard = shard_on(mesh, n, patience=9)
                shard.load(folder / f"{saved} ranks, {n} lanes")
                at = slice(shard.numbers.start, shard.numbers.stop)
                same = all(
                    torch.equal(each.nan_to_num(nan=7.5), before[name][at].nan_to_num(nan=7.5))
                    for name, each in seen(shard.lanes).items()
                )
                lived_apart(shard, later)
                found["loaded", saved, count, n] = differs(shard, after) if same else "state"
    return found


def others(rank, meshes, folder):
    """Of ten lanes: what is told of another number, kinds of settings, events, what is where."""
    mesh, found = meshes[RANKS], {}
    shard = shard_on(mesh, 10, events=100)
    twin = lanes_of(10, events=100)
    for row in metrics_of(10):
        shard.lanes.step(row[shard.numbers.start : shard.numbers.stop])
        twin.step(row)
    found["numbers"] = list(shard.numbers)
    found["events"] = [tuple(cut) for cut in shard.events().cuts]
    found["all events"] = sorted(tuple(cut) for cut in twin.events().cuts)
    found["gathered"] = shard.gather(shard.lanes.lr_master)
    found["rates"] = twin.lr_master
    before = seen(shard.lanes)
    found["another"] = message_of(lambda: shard.load(folder / "3 ranks, 3 lanes"))
    found["none"] = message_of(lambda: shard.load(folder / "nothing"))
    found["key"] = message_of(lambda: shard.load(folder / "3 ranks, 10 lanes", key="lanes"))
    found["unchanged"] = all(
        torch.equal(a, b) for a, b in zip(before.values(), seen(shard.lanes).values(), strict=True)
    )
    state = shard.state_dict()
    found["placed"] = {
        (type(each) is DTensor, each.placements == (Shard(0),), each.shape[0])
        for each in state["rows"].values()
    }
    # a setting that one rank has for each lane
    if rank == 0:
        shard.lanes.set_lanes(0, cooldown=5)
    shard.copy([0, 1], [9, 5])
    shard.copy([], [])
    shard.copy(0, [9, 9])
    found["cooldown"] = shard.gather(
        shard.lanes._state.setting("cooldown").expand(len(shard.numbers))
    )
    found["bad"] = [
        message_of(lambda: shard.copy([0], [10])),
        message_of(lambda: shard.copy([0, 1], [1, 2, 3])),
        message_of(lambda: shard.halve(torch.zeros(len(shard.numbers)), keep=0)),
        message_of(lambda: shard.gather(torch.zeros(7))),
    ]
    return found


# -- stacks ---------------------------------------------------------------------------------------

MODELS = 5


def stack_of(numbers):
    """Lines ``y = w x + b``, a model a lane, by elements alone: equal in any batch."""
    at = slice(numbers.start, numbers.stop)
    weight = torch.linspace(-1, 1, MODELS, dtype=torch.float64)[at].clone()
    params = {"w": nn.Parameter(weight[:, None] * torch.ones(3)), "b": nn.Parameter(weight.clone())}
    lanes = PlateauLanes(
        len(numbers),
        torch.logspace(-2, -1, MODELS, dtype=torch.float64)[at],
        patience=1,
        factor=0.5,
        process_group=False,
    )
    optimizer = AdamW(params.values(), lr=1.0)
    LaneLR(optimizer, lanes)
    best = LaneBest(lanes, params)
    return LaneStack(lanes, optimizer, params, best=best)


def trained(stack, numbers, steps):
    """Train on points of their own; lanes see the loss in float64."""
    for step in steps:
        x = torch.sin(torch.arange(3, dtype=torch.float64) + step)
        target = torch.arange(MODELS, dtype=torch.float64)[numbers.start : numbers.stop]
        stack.optimizer.zero_grad()
        w, b = stack.params["w"], stack.params["b"]
        error = w * x + b[:, None] - target[:, None]
        loss = (error * error).sum(1)
        loss.sum().backward()
        stack.step()
        stack.lanes.step(loss.detach())
        stack.best.update()


def rows_of(stack):
    stack.optimizer.zero_grad()  # gradients are not saved
    return [each.detach().clone() for each in stack._rows()] + [stack.lanes.lr_master]


def stacks_on(rank, meshes, folder):
    whole = stack_of(range(MODELS))
    trained(whole, range(MODELS), range(6))
    whole.copy([4, 0], [1, 3])
    trained(whole, range(MODELS), range(6, 12))
    middle = rows_of(whole)
    trained(whole, range(MODELS), range(12, 20))
    end, found = rows_of(whole), {}

    def same(stack, numbers, rows):
        ours = rows_of(stack)
        pairs = zip(ours, rows, strict=True)
        return all(torch.equal(a, b[numbers.start : numbers.stop]) for a, b in pairs)

    for count, mesh in meshes.items():
        if rank < count:
            mine = LaneShard.numbers_of(MODELS, mesh)
            stack = stack_of(mine)
            shard = LaneShard(stack, MODELS, mesh)
            trained(stack, mine, range(6))
            shard.copy([4, 0], [1, 3])
            trained(stack, mine, range(6, 12))
            found["trained", count] = same(stack, mine, middle)
            shard.save(folder / f"stack of {count}")
    dist.barrier()
    for count, mesh in meshes.items():
        for saved in meshes if rank < count else ():
            mine = LaneShard.numbers_of(MODELS, mesh)
            stack = stack_of(mine)
            LaneShard(stack, MODELS, mesh).load(folder / f"stack of {saved}")
            loaded = same(stack, mine, middle) if mine else True
            trained(stack, mine, range(12, 20))
            found["loaded", saved, count] = loaded and (not mine or same(stack, mine, end))
    if rank < 2:
        mine = LaneShard.numbers_of(MODELS, meshes[2])
        stack = stack_of(mine)
        if rank == 0:
            trained(stack, mine, range(1))
        shard = LaneShard(stack, MODELS, meshes[2])
        found["one has stepped"] = message_of(lambda: shard.copy([0], [4]))
    return found


def killed(rank, folder):
    """A save after another, in which rank 1 dies when half of its files are written."""
    mesh = init_device_mesh("cpu", (2,))
    shard = shard_on(mesh, 10)
    for row in metrics_of(10)[:10]:
        shard.lanes.step(row[shard.numbers.start : shard.numbers.stop])
    shard.save(folder / "run")
    saved = shard.gather(shard.lanes.lr_master)
    for row in metrics_of(10)[10:]:
        shard.lanes.step(row[shard.numbers.start : shard.numbers.stop])
    if rank == 1:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter

        written = FileSystemWriter.write_data

        def write_data(*given):
            written(*given)
            os._exit(7)

        FileSystemWriter.write_data = write_data
    return saved, message_of(lambda: shard.save(folder / "run"))


# -- what is true of it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_ranks(__file__, RANKS, tmp_path_factory.mktemp("shard"), "all")


@pytest.mark.parametrize("n", SIZES)
def test_lanes_on_any_number_of_ranks_live_as_in_one_process(found, n):
    for rank, each in enumerate(found):
        here = {
            key: name for key, name in each["lanes"].items() if key[0] == "lived" and key[2] == n
        }
        assert here == {("lived", count, n): None for count in range(rank + 1, RANKS + 1)}


@pytest.mark.parametrize("n", SIZES)
def test_what_some_ranks_save_any_others_load_and_decide_alike(found, n):
    for rank, each in enumerate(found):
        here = {
            key: name for key, name in each["lanes"].items() if key[0] == "loaded" and key[3] == n
        }
        counts = range(rank + 1, RANKS + 1)
        saved = range(1, RANKS + 1)
        assert here == {("loaded", s, count, n): None for s in saved for count in counts}


def test_torchs_class_agrees_where_lanes_are_plain():
    """The oracle of this file is our own class in one process; here it is held to torch's."""
    lanes, row = PlateauLanes(4, 0.1, patience=1, factor=0.5), metrics_of(4, 40, seed=3)
    optimizers = [AdamW([nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(4)]
    theirs = [lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5) for o in optimizers]
    for metrics in row:
        lanes.step(metrics)
        for scheduler, metric in zip(theirs, metrics.tolist(), strict=True):
            scheduler.step(metric)
        assert lanes.lr_master.tolist() == [o.param_groups[0]["lr"] for o in optimizers]


def test_lanes_have_their_numbers_among_all(found):
    assert [each["others"]["numbers"] for each in found] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9],
    ]
    cuts = [cut for each in found for cut in each["others"]["events"]]
    assert sorted(cuts) == found[0]["others"]["all events"]
    assert len(cuts) > 10
    for each in found:
        assert torch.equal(each["others"]["gathered"], found[0]["others"]["rates"])


def test_state_is_dtensors_of_which_each_rank_has_its_rows(found):
    for each in found:
        assert each["others"]["placed"] == {(True, True, 10)}


def test_another_checkpoint_is_refused_on_every_rank_in_words_of_ours(found):
    for each in found:
        told = each["others"]
        assert told["another"] == "ValueError: n: expected a checkpoint of 10 lanes, got one of 3"
        assert told["none"].startswith("FileNotFoundError: path: expected a checkpoint, got none")
        assert told["key"].startswith("ValueError: key: expected one of a LaneShard in the checkp")
        assert told["unchanged"]


def test_a_setting_that_one_rank_changed_goes_with_its_lane(found):
    for each in found:
        assert each["others"]["cooldown"].tolist() == [5, 1, 1, 1, 1, 1, 1, 1, 1, 5]


def test_bad_arguments_are_refused_alike_on_every_rank(found):
    for each in found:
        here = len(each["others"]["numbers"])
        says = f"ValueError: values: expected {here} rows, one for each lane here, got shape (7,)"
        assert each["others"]["bad"] == [
            "IndexError: dst: expected lanes from 0 to 9, got 10",
            "ValueError: src: expected 1 or 3 lanes, as in dst, got 2",
            "ValueError: keep: expected above 0 and at most 1, got 0",
            says,
        ]


def test_stacks_train_copy_save_and_load_as_in_one_process(found):
    for rank, each in enumerate(found):
        told = dict(each["stacks"])
        message = told.pop("one has stepped", None)
        assert told.keys() == {
            *(("trained", count) for count in range(rank + 1, RANKS + 1)),
            *(("loaded", s, c) for s in range(1, RANKS + 1) for c in range(rank + 1, RANKS + 1)),
        }
        assert all(told.values()), told
        if rank < 2:
            assert message.startswith("RuntimeError: copy: expected stacks of the same tensors")


def test_a_checkpoint_that_is_killed_in_the_middle_leaves_the_one_before_it(tmp_path):
    (saved, told), second = run_ranks(__file__, 2, tmp_path, "killed")
    assert second is None  # it died
    assert told is not None
    (tmp_path / "store").unlink()
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        shard = shard_on(init_device_mesh("cpu", (1,)), 10)
        shard.load(tmp_path / "run")
        assert torch.equal(shard.lanes.lr_master, saved)
        shutil.move(tmp_path / "run", tmp_path / "run.old")  # killed between the two renames
        shard.load(tmp_path / "run")
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real/run")
        shard.save(tmp_path / "link")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as on a full disk
        try:
            with pytest.raises(RuntimeError, match=r"(?s)path: cannot save .*File too large"):
                shard.save(tmp_path / "link")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.readlink(tmp_path / "link") == "real/run"
        assert os.listdir(tmp_path / "real") == ["run"]
        shard.load(tmp_path / "link")
        assert torch.equal(shard.lanes.lr_master, saved)
        with pytest.raises(ValueError, match=r"^part: expected 10 lanes, which rank 0"):
            LaneShard(lanes_of(3), 10, shard.mesh)
        with pytest.raises(TypeError, match=r"^part: expected PlateauLanes or a Lane"):
            LaneShard([], 10, shard.mesh)
        with pytest.raises(TypeError, match=r"^mesh: expected a DeviceMesh of one dimen"):
            LaneShard(lanes_of(3), 3, None)
        agreeing = PlateauLanes(2, 0.1, process_group=dist.group.WORLD)
        with pytest.raises(ValueError, match=r"^part: expected lanes with process_group=False"):
            LaneShard(agreeing, 2, shard.mesh)
        uneven = PlateauLanes(2, 0.1, groups=[1, 2], process_group=False)
        with pytest.raises(ValueError, match=r"^part: expected lanes of equally many rates"):
            LaneShard(uneven, 2, shard.mesh)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    rank, ranks, folder, [what] = begin(timeout=20.0 if sys.argv[-1] == "killed" else 120.0)
    if what == "killed":
        done(killed(rank, folder), rank, folder)
    else:
        meshes = {count: DeviceMesh("cpu", list(range(count))) for count in range(1, ranks + 1)}
        all_of_it = {"lanes": lanes_on, "others": others, "stacks": stacks_on}
        done({name: call(rank, meshes, folder) for name, call in all_of_it.items()}, rank, folder)
