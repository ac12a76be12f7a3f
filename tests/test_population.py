"""The population example: a round of exploit and explore, retirement, and a short run."""

import importlib.util
import pathlib

import pytest
import torch

PATH = pathlib.Path(__file__).parent.parent / "examples" / "population_digits.py"
MEMBERS = 16


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("population_digits", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are so small that two threads would mostly wait
    yield
    torch.set_num_threads(before)


@pytest.fixture
def population(example):
    """Members after two epochs, with plateaus that differ."""
    data = example.digits(torch.Generator().manual_seed(7))
    members = example.Population(data, MEMBERS, seed=7, has_plateau=True)
    for _ in range(2):
        members.epoch()
    return members


def learnt(population):
    """All that a member has learnt, as rows: weights and the optimizer's averages."""
    params, optimizer = population.stack.params, population.stack.optimizer
    rows = {name: each.detach().clone() for name, each in params.items()}
    for name, param in params.items():
        for key in ("exp_avg", "exp_avg_sq"):
            rows[f"{name} {key}"] = optimizer.state[param][key].clone()
    return rows


def lane_state(lanes):
    """State and hyper-parameters of each lane, without what a round explores."""
    state = {
        name: getattr(lanes, name).tolist()
        for name in ("best", "num_bad_epochs", "num_reductions", "finished")
    }
    state["min_lr"] = lanes.settings["min_lr"].tolist()
    return state


def explored(lanes):
    """Rates and the two settings that a round explores, as lists."""
    patience, factor = (lanes.settings[name].tolist() for name in ("patience", "factor"))
    return lanes.lr_master.tolist(), patience, factor


def test_the_worst_fourth_become_copies_of_the_best_fourth_that_explore(example, population):
    rows, state = learnt(population), lane_state(population.lanes)
    old_lr, old_patience, old_factor = explored(population.lanes)
    losses = population.losses.tolist()

    src, dst = (each.tolist() for each in population.exploit_and_explore())

    ranking = sorted(range(MEMBERS), key=lambda member: losses[member])
    assert sorted(dst) == sorted(ranking[-MEMBERS // 4 :])
    assert set(src) <= set(ranking[: MEMBERS // 4])
    origin = list(range(MEMBERS))
    for parent, child in zip(src, dst, strict=True):
        origin[child] = parent
    for name, now in learnt(population).items():
        for member in range(MEMBERS):
            assert torch.equal(now[member], rows[name][origin[member]]), (name, member)
    for name, now in lane_state(population.lanes).items():
        assert now == [state[name][parent] for parent in origin], name

    lr, patience, factor = explored(population.lanes)
    (fewest, most), (low, high) = example.PATIENCES, example.FACTORS
    for member, parent in enumerate(origin):
        if member not in dst:
            assert lr[member] == old_lr[member]
            assert patience[member] == old_patience[member]
            assert factor[member] == old_factor[member]
            continue
        assert lr[member] in [old_lr[parent] * by for by in (0.8, 1.25)]
        moved = [old_patience[parent] + by for by in (-1, 1)]
        assert patience[member] in [min(max(each, fewest), most) for each in moved]
        moved = [old_factor[parent] * by for by in (0.8, 1.25)]
        assert factor[member] in [min(max(each, low), high) for each in moved]


def test_copies_train_on_as_members_of_their_own(population):
    src, dst = population.exploit_and_explore()
    population.epoch()
    weights = population.stack.params["0.weight"]
    for parent, child in zip(src.tolist(), dst.tolist(), strict=True):
        assert not torch.equal(weights[parent], weights[child])  # another rate


def test_retired_members_do_not_change_while_others_train(population):
    retire = torch.tensor([3, 8])
    population.lanes.set_lanes(retire, lr=1e-6, min_lr=1e-6, patience_at_min=1)
    population.lanes.best[retire] = 0.0  # no loss is better
    population.epoch()
    assert population.lanes.finished.nonzero().flatten().tolist() == retire.tolist()
    rows, losses, best = learnt(population), population.losses, population.lanes.best.clone()
    cuts, trained = population.lanes.num_reductions.clone(), population.trained

    for _ in range(3):
        population.epoch()

    for name in population.stack.params:
        same = (population.stack.params[name] == rows[name]).flatten(1).all(1)
        assert same.nonzero().flatten().tolist() == retire.tolist(), name
    assert torch.equal(population.losses[retire], losses[retire])
    assert torch.equal(population.lanes.best[retire], best[retire])
    assert torch.equal(population.lanes.num_reductions[retire], cuts[retire])
    assert population.trained == trained + 3 * (MEMBERS - len(retire))


def test_a_retired_member_is_no_parent_but_may_be_replaced(population):
    ranking = population.losses.argsort()
    retired = torch.stack([ranking[0], ranking[1], ranking[-1]])
    population.lanes.set_lanes(retired, lr=1e-6, min_lr=1e-6, patience_at_min=1)
    population.lanes.best[retired] = 0.0
    population.lanes.step(population.losses)
    assert population.lanes.finished.sum() == 3

    src, dst = population.exploit_and_explore()

    assert set(src.tolist()) <= set(ranking[2 : MEMBERS // 4].tolist())
    assert ranking[-1] in dst
    assert not population.lanes.finished[ranking[-1]]
    assert population.lanes.finished[ranking[:2]].all()


def test_a_round_without_a_living_parent_changes_nothing(population):
    population.lanes.set_lanes(range(MEMBERS), lr=1e-6, min_lr=1e-6, patience_at_min=1)
    population.lanes.best.zero_()
    population.lanes.step(population.losses)
    assert population.lanes.finished.all()
    rows, settings = learnt(population), explored(population.lanes)

    src, dst = population.exploit_and_explore()

    assert len(src) == len(dst) == 0
    assert explored(population.lanes) == settings
    for name, now in learnt(population).items():
        assert torch.equal(now, rows[name]), name


def test_all_ways_start_alike_and_see_the_same_batches(example):
    data = example.digits(torch.Generator().manual_seed(7))
    pair = [example.Population(data, MEMBERS, 7, has_plateau) for has_plateau in (True, False)]
    assert torch.equal(pair[0].lanes.lr, pair[1].lanes.lr)
    torch.rand(5, generator=pair[0].chance)  # what a round draws must not move the batches
    for each in pair:
        each.epoch()  # one metric is no plateau: both still train alike
    for name, ours in pair[0].stack.params.items():
        assert torch.equal(ours, pair[1].stack.params[name])


def test_a_short_run_prints_three_rows_and_draws_them(example, capsys, tmp_path):
    out = tmp_path / "picture.png"
    size = ["--members", "16", "--epochs", "8", "--seeds", "2"]
    example.main([*size, "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    for name in example.WAYS:
        row = next(line for line in lines if line.startswith(name))
        assert row.count("±") == 2
        assert 50 < float(row.removeprefix(name).split()[3]) <= 100  # mean on test images
    ours, *others = example.WAYS
    for name in others:
        assert any(line.startswith(f"{ours} minus {name}, test: ") for line in lines)
    assert lines[-1] == f"Picture: {out}"
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--members", "3"], "expected 4 members"),
        (["--seeds", "1"], "2 seeds at least"),
        (["--out", "no/such/folder.png"], "a folder for --out"),
    ],
)
def test_bad_arguments_are_refused_before_training(example, capsys, arguments, message):
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert message in capsys.readouterr().err
