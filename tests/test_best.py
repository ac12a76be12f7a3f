"""LaneBest: the best parameters, as copies of every model at its best metric would have them."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim import SGD, AdamW, lr_scheduler

from test_bad_input import assert_refused, contents
from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneBest,
    LaneLR,
    PlateauLanes,
    ReduceLROnPlateau,
)

SETTINGS = {"patience": 1, "factor": 0.5, "cooldown": 1}


class Stacked:
    """A few small models in stacked parameters, and a buffer of whole numbers."""

    def __init__(self, n, device):
        self.n, self.device = n, device
        self.params = {
            "weight": torch.randn(n, 3, 2, device=device, requires_grad=True),
            "bias": torch.randn(n, device=device, dtype=torch.float64, requires_grad=True),
            "count": torch.zeros(n, 2, device=device, dtype=torch.int64),
        }
        self.lanes = PlateauLanes(n, 0.1, device=device, **SETTINGS)
        trained = [self.params["weight"], self.params["bias"]]
        self.optimizer = AdamW(trained, lr=1.0)
        self.rates = LaneLR(self.optimizer, self.lanes)

    def train(self):
        self.optimizer.zero_grad()
        loss = self.params["weight"].square().sum() + self.params["bias"].square().sum()
        loss.backward()
        self.optimizer.step()
        self.params["count"] += torch.arange(self.n, device=self.device)[:, None]

    def rows(self, lane):
        return {name: param[lane].tolist() for name, param in self.params.items()}


def rows_of(tensors, lane):
    return {name: tensor[lane].tolist() for name, tensor in tensors.items()}


def noisy(n):
    return (torch.rand(n) * 8).round() / 8


@pytest.mark.parametrize("on_cut", ["keep", "rollback"])
@pytest.mark.parametrize("n", [1, 7])
def test_stacked_models_keep_what_a_copy_at_each_best_metric_keeps(n, on_cut, device):
    models = Stacked(n, device)
    best = LaneBest(models.lanes, models.params, on_cut=on_cut)
    kept = [copy.deepcopy(models.rows(lane)) for lane in range(n)]
    rolled_back = 0
    for _ in range(60):
        models.train()
        active = torch.rand(n, device=device) < 0.8
        models.lanes.step(noisy(n).to(device), active=active)
        trained = [models.rows(lane) for lane in range(n)]
        best.update()
        improved, reduced = models.lanes.improved.tolist(), models.lanes.reduced.tolist()
        for lane in range(n):
            back = on_cut == "rollback" and reduced[lane]
            rolled_back += back
            if improved[lane]:
                kept[lane] = trained[lane]
            assert models.rows(lane) == (kept[lane] if back else trained[lane])
            assert rows_of(best.best, lane) == kept[lane]
    assert (rolled_back > 0) == (on_cut == "rollback")


def test_chosen_lanes_or_all_are_restored_in_place(device):
    models = Stacked(4, device)
    best = LaneBest(models.lanes, models.params)
    start = [models.rows(lane) for lane in range(4)]
    tensors = list(models.params.values())
    models.train()
    trained = [models.rows(lane) for lane in range(4)]
    mask = torch.tensor([True, False, False, False], device=device)
    for chosen, numbers in (([2], [2]), (mask, [0, 2]), (1, [0, 1, 2]), (None, range(4))):
        best.restore(chosen)
        for lane in range(4):
            assert models.rows(lane) == (start if lane in numbers else trained)[lane]
    assert all(a is b for a, b in zip(models.params.values(), tensors, strict=True))
    assert models.params["weight"].requires_grad
    assert models.params["weight"].is_leaf


def test_the_best_of_chosen_lanes_or_all_begins_anew(device):
    models = Stacked(4, device)
    best = LaneBest(models.lanes, models.params)
    start = [models.rows(lane) for lane in range(4)]
    models.train()
    trained = [models.rows(lane) for lane in range(4)]
    for chosen, numbers in (([2], [2]), (1, [1, 2]), (None, range(4))):
        best.reset(chosen)
        for lane in range(4):
            assert rows_of(best.best, lane) == (trained if lane in numbers else start)[lane]
    with pytest.raises(IndexError, match=r"lanes: expected lanes from 0 to 3, got 4"):
        best.reset(4)


@pytest.mark.parametrize("kind", [ReduceLROnPlateau, lr_scheduler.ReduceLROnPlateau])
@pytest.mark.parametrize("on_cut", ["keep", "rollback"])
def test_one_ordinary_model_keeps_what_a_copy_at_its_best_metric_keeps(kind, on_cut):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = kind(optimizer, min_lr=1e-3, **SETTINGS)
    best = LaneBest(scheduler, model.state_dict(), on_cut=on_cut)
    kept, rolled_back, at_floor = copy.deepcopy(model.state_dict()), 0, 0
    for step in range(120):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        before, rate = scheduler.best, optimizer.param_groups[0]["lr"]
        scheduler.step(float(noisy(1)) + 1 / (step + 1) if step < 60 else 3.0)
        trained = copy.deepcopy(model.state_dict())
        best.update()
        best.update()  # without a step between, nothing more
        if scheduler.best < before:
            kept = trained
        reduced = optimizer.param_groups[0]["lr"] < rate
        back = reduced and on_cut == "rollback"
        rolled_back += back
        at_floor += rate == 1e-3 and scheduler.cooldown_counter == 1
        assert contents(dict(best.best)) == contents(dict(kept))
        assert contents(dict(model.state_dict())) == contents(dict(kept if back else trained))
    assert (rolled_back > 3) == (on_cut == "rollback")
    assert at_floor > 3
    best.restore()
    assert contents(dict(model.state_dict())) == contents(dict(kept))


def test_one_model_with_a_tensor_rate_rolls_back_when_that_is_cut():
    param = torch.ones(2)
    optimizer = SGD([param], lr=torch.tensor(0.5))
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    best = LaneBest(scheduler, [param], on_cut="rollback")
    for metric, value, expected in ((1.0, 2.0, 2.0), (0.5, 3.0, 3.0), (0.7, 4.0, 3.0)):
        param.fill_(value)
        scheduler.step(metric)
        best.update()
        assert param.tolist() == [expected] * 2
    assert best.best["0"].tolist() == [3.0, 3.0]


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_stacked_models_go_on_from_a_saved_state(device):
    models, others = Stacked(5, device), Stacked(5, device)
    best = LaneBest(models.lanes, models.params)
    loaded = LaneBest(others.lanes, others.params)
    stored = list(loaded.best.values())
    for step in range(30):
        if step == 15:
            others.lanes.load_state_dict(saved(models.lanes.state_dict()))
            loaded.load_state_dict(saved(best.state_dict()))
        metrics = noisy(5).to(device)
        models.train()
        models.lanes.step(metrics)
        best.update()
        if step >= 15:
            with torch.no_grad():
                for name, param in others.params.items():
                    param.copy_(models.params[name])
            others.lanes.step(metrics)
            loaded.update()
            assert contents(loaded.best) == contents(best.best)
    assert all(a is b for a, b in zip(loaded.best.values(), stored, strict=True))


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_one_model_goes_on_from_a_saved_state(scheduler_first):
    param = torch.ones(2)
    scheduler = ReduceLROnPlateau(SGD([param], lr=0.5), patience=0)
    best = LaneBest(scheduler, {"weight": param}, on_cut="rollback")
    scheduler.step(0.25)
    best.update()
    states = [saved(scheduler.state_dict()), saved(best.state_dict())]
    other = torch.full((2,), 7.0)
    resumed = ReduceLROnPlateau(SGD([other], lr=0.5), patience=0)
    again = LaneBest(resumed, {"weight": other}, on_cut="rollback")
    loads = [(resumed, states[0]), (again, states[1])]
    for thing, state in loads if scheduler_first else loads[::-1]:
        thing.load_state_dict(state)
    resumed.step(0.5)  # a cut, and no improvement
    again.update()
    assert other.tolist() == again.best["weight"].tolist() == [1.0, 1.0]


FOLLOWED = {
    "lanes": lambda device: PlateauLanes(3, 0.5, device=device, **SETTINGS),
    "one model": lambda _: ReduceLROnPlateau(SGD([torch.ones(1)], lr=0.5), **SETTINGS),
}
TWINS = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.mark.parametrize("follow", FOLLOWED.values(), ids=FOLLOWED.keys())
@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS.keys())
def test_a_copy_goes_on_as_the_original_and_by_itself(twin, follow, device):
    followed, params = follow(device), {"w": torch.zeros(3, 2, device=device)}
    best = LaneBest(followed, params, on_cut="rollback")

    def advance(followed, params, best, row):
        params["w"] += 1
        followed.step(row.to(device) if isinstance(followed, PlateauLanes) else row[0])
        best.update()

    rows = torch.rand(60, 3)
    for row in rows[:20]:
        advance(followed, params, best, row)
    copied = twin((followed, params, best))
    assert copied[2].lanes is copied[0]
    middle = contents([best.best, params])
    seen = []
    for row in rows[20:]:
        advance(*copied, row)
        seen.append(contents([copied[2].best, copied[1]]))
    assert contents([best.best, params]) == middle != seen[-1]
    for row, expected in zip(rows[20:], seen, strict=True):
        advance(followed, params, best, row)
        assert contents([best.best, params]) == expected


# -- refusals -------------------------------------------------------------------------------------

LANES = PlateauLanes(2, 0.1)
GOOD = torch.zeros(2, 3)
WRONG = {
    "optimizer": ((SGD([GOOD], lr=0.1), [GOOD]), {}, TypeError, "lanes: expected PlateauLanes or"),
    "batched": (
        (BatchedReduceLROnPlateau([SGD([GOOD], lr=0.1)]), [GOOD]),
        *({}, TypeError, "lanes: .*got BatchedReduceLROnPlateau; pass its lanes"),
    ),
    "on_cut": ((LANES, [GOOD]), {"on_cut": "undo"}, ValueError, "on_cut: .*got 'undo'"),
    "one tensor": ((LANES, GOOD), {}, TypeError, "params: expected tensors or a mapping"),
    "none": ((LANES, []), {}, ValueError, "params: expected at least one tensor, got none"),
    "None": ((LANES, None), {}, TypeError, "params: .*got NoneType|params: .*got None"),
    "numbers": (
        (LANES, [GOOD, 1.0]),
        {},
        TypeError,
        r"params\['1'\]: expected a tensor, got float",
    ),
    "names": ((LANES, {0: GOOD}), {}, TypeError, "params: expected names that are strings, got 0"),
    "shape": ((LANES, {"w": GOOD.T}), {}, ValueError, r"params\['w'\]: .*\[2, ...\], got \(3, 2\)"),
    "0-d": ((LANES, [torch.ones(())]), {}, ValueError, r"expected shape \[2, ...\], got \(\)"),
    "meta": ((LANES, [GOOD.to("meta")]), {}, ValueError, r"params\['0'\]: .*device meta"),
    "expanded": (
        (LANES, [torch.zeros(1, 3).expand(2, 3)]),
        *({}, ValueError, r"params\['0'\]: .*got an expanded tensor"),
    ),
    "sparse": ((LANES, [GOOD.to_sparse()]), {}, TypeError, r"params\['0'\]: expected a dense"),
}


@pytest.mark.parametrize(("given", "keywords", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_lanes_and_parameters_are_refused(given, keywords, error, words):
    with pytest.raises(error, match=words):
        LaneBest(*given, **keywords)


def edited(state, **changes):
    return {**state, "best": {**state["best"], **changes}}


def without(state):
    return {"best": state["best"]}


WRONG_STATES = {
    "list": (lambda _: [], TypeError, "state_dict: expected a mapping, got list"),
    "no seen": (without, KeyError, "state_dict: missing or unknown keys .*seen"),
    "a name more": (lambda s: edited(s, b=GOOD), KeyError, r"state_dict\['best'\]: .*\['b'\]"),
    "list for tensor": (
        *(lambda s: edited(s, w=[1]), TypeError, r"state_dict\['best'\]\['w'\]: expected a tensor"),
    ),
    "shape": (lambda s: edited(s, w=GOOD.T.clone()), ValueError, r"shape \(2, 3\), got .*\(3, 2\)"),
    "type": (lambda s: edited(s, w=GOOD.int()), ValueError, "float32 of .*got torch.int32"),
    "best is no mapping": (
        *(lambda s: {**s, "best": 3}, TypeError),
        r"state_dict\['best'\]: expected a mapping, got int",
    ),
    "the last of two": (
        lambda s: edited(s, v=GOOD),
        ValueError,
        r"\['v'\]: expected .*shape \(2,\)",
    ),
    "scheduler's": (lambda s: {**s, "seen": {"best": 1.0}}, ValueError, "expected None for lanes"),
}


@pytest.mark.parametrize(("edit", "error", "words"), WRONG_STATES.values(), ids=WRONG_STATES.keys())
def test_a_wrong_state_is_refused(edit, error, words):
    weight = torch.randn(2, 3)
    best = LaneBest(PlateauLanes(2, 0.1), {"w": weight, "v": torch.randn(2)})
    weight.zero_()
    bad = edit(best.state_dict())
    assert_refused(best.load_state_dict, bad, error, words, best.best, weight)


def test_a_state_of_lanes_is_refused_for_one_model():
    param = torch.ones(2)
    scheduler = ReduceLROnPlateau(SGD([param], lr=0.1))
    best = LaneBest(scheduler, [param])
    bad = {**best.state_dict(), "seen": None}
    words = r"state_dict\['seen'\]: expected a mapping"
    assert_refused(best.load_state_dict, bad, TypeError, words, best.best, param)
    words = "lanes: expected None for one model, got list"
    assert_refused(best.restore, [0], TypeError, words, best.best, param)


WRONG_SEEN = {
    "best a word": ("best", "x", TypeError, "expected one number, got 'x'"),
    "rates a number": ("rates", 0.1, TypeError, "expected a list, got float"),
    "a rate of NaN": ("rates", [float("nan")], ValueError, "got nan"),
    "a negative count": ("num_bad_epochs", -1, ValueError, "got -1"),
    "an epoch out of range": ("last_epoch", 2**63, ValueError, "got 9"),
}


@pytest.mark.parametrize(
    ("name", "bad", "error", "words"), WRONG_SEEN.values(), ids=WRONG_SEEN.keys()
)
def test_wrong_numbers_of_a_scheduler_are_refused(name, bad, error, words):
    param = torch.zeros(2)
    best = LaneBest(ReduceLROnPlateau(SGD([param], lr=0.1)), [param])
    state = best.state_dict()
    param.fill_(1.0)
    state["best"]["0"].fill_(5.0)
    state["seen"][name] = bad
    words = rf"state_dict\['seen'\]\['{name}'\].*{words}"
    assert_refused(best.load_state_dict, state, error, words, best.best, param, best._seen)


def test_lanes_that_were_added_or_are_not_there_are_refused():
    weight = torch.randn(2, 3)
    lanes = PlateauLanes(2, 0.1)
    best = LaneBest(lanes, [weight], on_cut="rollback")
    weight.zero_()
    assert_refused(best.restore, [2], IndexError, "lanes from 0 to 1, got 2", best.best, weight)
    lanes.append(1, 0.1)
    words = r"params\['0'\]: expected shape \[3, ...\], got \(2, 3\)"
    assert_refused(lambda _: best.update(), 0, ValueError, words, best.best, weight)
    assert_refused(best.restore, None, ValueError, words, best.best, weight)
