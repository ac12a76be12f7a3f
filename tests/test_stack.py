"""LaneStack: a stack against a list of separate models, each with its own optimizer and plateau."""

import copy
import pickle
import random
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

import spoiling
from test_bad_input import contents
from torch_plateau import LaneBest, LaneLR, LaneStack, PlateauLanes, save_atomically

NAN = float("nan")
SETTINGS = {"threshold": 0.0, "cooldown": 1, "min_lr": 1e-6}
OPTIMIZERS = {
    "SGD": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params, lr: torch.optim.Adam(params, lr=lr, weight_decay=0.01),
}


class Net(torch.nn.Module):
    """A linear model in float64 that counts what it saw, in two buffers."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, dtype=torch.float64)
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        return self.layer(x) * self.scale


def loss_of(answer, y):
    return (answer - y).square().mean()


class Alone:
    """One model, as people train one: torch's optimizer and plateau, and a copy of the best."""

    def __init__(self, net, kind, rate, patience, factor, limit, shared_step=None):
        self.net, self.kind, self.rate = net, kind, rate
        self.settings = {"patience": patience, "factor": factor}
        self.limit = limit
        self.begin(shared_step)

    def begin(self, shared_step):
        """A new optimizer; but Adam's count of steps is that of the stack it is in."""
        self.optimizer = OPTIMIZERS[self.kind](self.net.parameters(), self.rate)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, **self.settings, **SETTINGS
        )
        self.cuts = self.skipped = 0
        self.keep_best()
        if shared_step and self.kind == "Adam":
            for param in self.net.parameters():
                zeros = torch.zeros_like(param)
                self.optimizer.state[param] = {
                    "step": torch.tensor(float(shared_step)),
                    "exp_avg": zeros,
                    "exp_avg_sq": zeros.clone(),
                }

    def keep_best(self):
        self.best = copy.deepcopy(self.net.state_dict())

    @property
    def finished(self):
        return self.cuts >= self.limit

    def train(self, x, y, is_bad):
        loss = loss_of(self.net(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.net.mean += x.mean(0)
        self.net.count += 1
        if self.finished or is_bad:
            self.skipped += is_bad and not self.finished
            for state in self.optimizer.state.values():
                if "step" in state:
                    state["step"] += 1
        else:
            self.optimizer.step()

    def judge(self, metric):
        if self.finished:
            return
        best, rate = self.plateau.best, self.lr
        self.plateau.step(metric)
        self.cuts += self.lr < rate
        if self.plateau.best < best:
            self.keep_best()

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]


class Both:
    """A stack and a list of separate models, to which the same happens."""

    def __init__(self, kind, seed, device):
        self.random, self.kind, self.device = random.Random(seed), kind, device
        self.steps = 0
        self.alone = [self.newcomer() for _ in range(6)]
        self.stack = self.stacked(self.alone)

    def newcomer(self):
        pick = self.random.choice
        return Alone(
            Net(),
            self.kind,
            pick([0.1, 0.03, 0.01]),
            pick([0, 1, 3]),
            pick([0.5, 0.7]),
            pick([3, 6, 100]),
            self.steps,
        )

    def stacked(self, alone):
        """A stack of models that have not been trained."""
        params, buffers = self.models(alone)
        lanes = PlateauLanes(
            len(alone), [each.rate for each in alone], device=self.device, **self.settings(alone)
        )
        optimizer = OPTIMIZERS[self.kind](params.values(), 1.0)
        LaneLR(optimizer, lanes)
        best = LaneBest(lanes, {**params, **buffers})
        return LaneStack(lanes, optimizer, params, buffers, best)

    def models(self, alone):
        params, buffers = stack_module_state([each.net for each in alone])
        params = {
            name: each.detach().to(self.device).requires_grad_() for name, each in params.items()
        }
        return params, {name: each.to(self.device) for name, each in buffers.items()}

    def settings(self, alone):
        own = {name: [each.settings[name] for each in alone] for name in ("patience", "factor")}
        return {**own, **SETTINGS, "max_reductions": [each.limit for each in alone]}

    def some(self, most=None):
        size = self.random.randint(0, len(self.alone) if most is None else most)
        return self.random.sample(range(len(self.alone)), size)

    def written(self, numbers):
        """Lane numbers in one of the ways that a caller may write them."""
        ways = [list, lambda v: torch.tensor(v, dtype=torch.int64, device=self.device)]
        if len(numbers) == 1:
            ways.append(lambda v: v[0])
        return self.random.choice(ways)(numbers)

    def mask(self, numbers):
        flags = [i in numbers for i in range(len(self.alone))]
        return torch.tensor(flags, device=self.device)

    # -- what may happen --------------------------------------------------------------------------

    def step(self):
        n, x = len(self.alone), torch.randn(8, 3, dtype=torch.float64)
        y = torch.randn(8, 2, dtype=torch.float64)
        bad = [self.random.random() < 0.05 for _ in range(n)]
        metrics = [self.random.random() for _ in range(n)]
        for each, is_bad, metric in zip(self.alone, bad, metrics, strict=True):
            each.train(x, y, is_bad)
            each.judge(metric)
        self.steps += 1
        stack, x, y = self.stack, x.to(self.device), y.to(self.device)
        net = Net().to(self.device)
        gradients = vmap(grad(lambda params: loss_of(functional_call(net, params, (x,)), y)))
        with torch.no_grad():
            found = gradients(stack.params)
        for name, gradient in found.items():
            gradient[self.mask([i for i in range(n) if bad[i]])] = NAN
            stack.params[name].grad = gradient
        stack.buffers["mean"] += x.mean(0)
        stack.buffers["count"] += 1
        stack.step()
        stack.lanes.step(torch.tensor(metrics, dtype=torch.float64, device=self.device))
        stack.best.update()

    def copy(self):
        dst = self.some()
        src = [self.random.randrange(len(self.alone)) for _ in dst]
        if dst and self.random.random() < 0.3:
            dst.append(dst[0])  # the last counts
            src.append(self.random.randrange(len(self.alone)))
        self.stack.copy(self.written(src), self.written(dst))
        before = [copy.deepcopy(each) for each in self.alone]
        for come_from, to in zip(src, dst, strict=True):
            self.alone[to] = copy.deepcopy(before[come_from])

    def keep(self):
        if len(self.alone) < 4:
            return self.append()
        gone = self.some(2)
        numbers = [i for i in range(len(self.alone)) if i not in gone]
        found = self.stack.keep(self.random.choice([self.mask, self.written])(numbers))
        assert found.tolist() == numbers
        self.alone = [self.alone[i] for i in numbers]
        return None

    def append(self):
        if len(self.alone) > 9:
            return
        added = [self.newcomer() for _ in range(self.random.randint(0, 2))]
        self.alone += added
        if added:
            params, buffers = self.models(added)
            rates, settings = [each.rate for each in added], self.settings(added)
            self.stack.append(len(added), rates, params, buffers, **settings)

    def refill(self):
        numbers = self.some()
        if not numbers:
            return
        nets = [Net() for _ in numbers]
        for number, net in zip(numbers, nets, strict=True):
            self.alone[number].net = net
            self.alone[number].begin(self.steps)
        if self.random.random() < 0.5:
            self.stack.refill(self.written(numbers), *self.models([self.alone[i] for i in numbers]))
        else:  # a mask takes rows for all
            self.stack.refill(self.mask(numbers), *self.models(self.alone))

    def reset(self):
        numbers = self.some()
        self.stack.reset(self.random.choice([self.mask, self.written])(numbers))
        for number in numbers:
            self.alone[number].begin(self.steps)

    # -- comparing --------------------------------------------------------------------------------

    def assert_equal(self):
        stack, alone = self.stack, self.alone
        assert len(stack) == len(stack.lanes) == len(alone)
        for name, rows in {**stack.params, **stack.buffers}.items():
            close(rows, [each.net.state_dict()[name] for each in alone])
            close(stack.best.best[name], [each.best[name] for each in alone])
        for name, param in stack.params.items():
            for key, rows in stack.optimizer.state[param].items():
                states = [
                    each.optimizer.state[dict(each.net.named_parameters())[name]].get(key)
                    for each in alone
                ]
                if rows.ndim == 0:
                    assert all(state == rows for state in states)
                else:
                    close(
                        rows,
                        [rows.new_zeros(rows.shape[1:]).cpu() if s is None else s for s in states],
                    )
        assert stack.lanes.lr_master.tolist() == [each.lr for each in alone]
        assert stack.lanes.best.tolist() == [each.plateau.best for each in alone]
        assert stack.lanes.finished.tolist() == [each.finished for each in alone]
        assert stack.lanes.num_reductions.tolist() == [each.cuts for each in alone]
        bad = [each.plateau.num_bad_epochs for each in alone]
        assert stack.lanes.num_bad_epochs.tolist() == bad
        assert stack.skipped.tolist() == [each.skipped for each in alone]


def close(rows, separate):
    assert (rows.detach().cpu() - torch.stack(separate).detach()).abs().max() <= 1e-12


OPERATIONS = ["step"] * 12 + ["copy", "keep", "refill", "append", "reset"]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_400_random_operations_give_what_separate_models_give(kind, device, tmp_path):
    both = Both(kind, 3, device)
    tensors = [*both.stack.params.values(), *both.stack.buffers.values()]
    done = dict.fromkeys(OPERATIONS, 0)
    cuts = skipped = finished = 0
    resumed = False
    for turn in range(400):
        name = both.random.choice(OPERATIONS)
        getattr(both, name)()
        done[name] += 1
        both.assert_equal()
        cuts += int(both.stack.lanes.reduced.sum()) if name == "step" else 0
        finished += int(both.stack.lanes.finished.sum())
        skipped += int(both.stack.skipped.sum())
        now = [*both.stack.params.values(), *both.stack.buffers.values()]
        assert resumed or all(a is b for a, b in zip(now, tensors, strict=True))
        if turn >= 200 and not resumed and both.stack.skipped.any():  # from a file, elsewhere
            resumed = True
            save_atomically(both.stack.state_dict(), tmp_path / "stack.pt")
            strangers = [both.newcomer() for _ in both.alone]
            both.stack = both.stacked(strangers)
            both.stack.load_state_dict(torch.load(tmp_path / "stack.pt", weights_only=True))
            both.assert_equal()
    assert resumed
    assert min(done.values()) > 10
    assert min(cuts, finished, skipped) > 50


# -- one bad lane harms no other ------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("asks_host", [True, False])
def test_a_lane_fed_nan_harms_none_of_the_fifteen_others(kind, asks_host, device, monkeypatch):
    monkeypatch.setattr(LaneStack, "_asks_host", lambda _: asks_host and device == "cpu")
    n, bad = 16, 5
    both = Both(kind, 1, "cpu")
    both.device = device
    both.alone = [both.newcomer() for _ in range(n)]
    for each in both.alone:
        each.limit = 1000
    both.stack = stack = both.stacked(both.alone)
    net = Net().to(device)
    for step in range(60):
        fed_nan = 20 <= step < 40
        x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
        metrics = torch.rand(n, dtype=torch.float64)
        if fed_nan:
            metrics[bad] = NAN
        for number, each in enumerate(both.alone):
            each.train(x, y, fed_nan and number == bad)
            each.judge(float(metrics[number]))
        x, y = x.to(device), y.to(device)

        def loss(params, x=x, y=y):
            return loss_of(functional_call(net, params, (x,)), y)

        with torch.no_grad():
            gradients = vmap(grad(loss))(stack.params)
        for name, gradient in gradients.items():
            if fed_nan:
                gradient[bad] = NAN
            stack.params[name].grad = gradient
        stack.buffers["mean"] += x.mean(0)
        stack.buffers["count"] += 1
        stack.step()
        stack.lanes.step(metrics.to(device))
        stack.best.update()
        both.assert_equal()  # of the bad one too: it stood still for 20 steps
    assert stack.skipped.tolist() == [20 * (number == bad) for number in range(n)]
    assert stack.lanes.num_reductions.min() > 1


def small(device, n=3, kind="Adam", trained=True):
    both = Both(kind, 0, device)
    both.alone = both.alone[:n]
    both.stack = both.stacked(both.alone)
    if trained:
        both.step()
    return both.stack


def test_a_first_step_that_is_bad_leaves_a_new_optimizer_for_the_lane(device):
    for kind, optimizer_of in OPTIMIZERS.items():
        stack = small(device, kind=kind, trained=False)
        for param in stack.params.values():
            param.grad = torch.ones_like(param)
            param.grad[1] = NAN
        start = {name: param.detach().clone() for name, param in stack.params.items()}
        stack.step()
        for name, param in stack.params.items():
            alone = start[name].clone().requires_grad_()
            alone.grad = torch.ones_like(alone)
            optimizer_of([alone], 1.0).step()
            moved = alone.detach() - start[name]
            rate = stack.lanes.lr_master.view(-1, *[1] * (param.ndim - 1))
            expected = start[name] + moved * rate
            expected[1] = start[name][1]
            assert torch.allclose(param.detach(), expected, rtol=0, atol=1e-12)
            rows = [rows for rows in stack.optimizer.state[param].values() if rows.ndim]
            assert all((row[1] == 0).all() and (row[0] != 0).all() for row in rows)


# -- one lane as a module -------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [False, True])
def test_an_unstacked_module_is_an_ordinary_one_of_that_lane(meta, device):
    stack = small(device)
    pattern = Net().to("meta") if meta else Net()
    before = contents(dict(pattern.state_dict())) if not meta else None
    x = torch.randn(4, 3, dtype=torch.float64, device=device)
    for lane in range(3):
        module = stack.unstack(lane, pattern)
        rows = {name: each[lane] for name, each in {**stack.params, **stack.buffers}.items()}
        assert torch.equal(module(x), functional_call(Net().to(device), rows, (x,)))
        assert isinstance(module.layer.weight, torch.nn.Parameter)
        assert contents(dict(module.state_dict())) == contents(
            {name: rows[name].detach() for name in module.state_dict()}
        )
        with torch.no_grad():
            module.layer.weight.zero_()
        assert (stack.params["layer.weight"][lane] != 0).all()
    assert meta or contents(dict(pattern.state_dict())) == before


# -- copies, and optimizers with rows of their own ------------------------------------------------


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_of_a_stack_trains_on_as_it_does_and_apart_from_it(twin, device):
    stack = small(device)
    other = twin(stack)
    for each in (stack, other):
        for param in each.params.values():
            param.grad = torch.ones_like(param)
        each.step()
        assert contents(other.params) == contents(stack.params) or each is stack
    assert contents(other.state_dict()) == contents(stack.state_dict())
    other.keep([0])
    assert len(stack) == 3
    assert other.lanes is other.best.lanes


class OwnRates(torch.optim.Optimizer):
    """A rate, a decay and a count per lane; as an optimizer made for lanes has them."""

    def __init__(self, params, lanes, decays, pair):
        super().__init__(params, {"decay": decays, "pair": pair})
        self.lanes = lanes

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state["step"] = torch.zeros(len(param), device=param.device)
                state["step"] += 1
                param -= (self.lanes.lr_master * group["decay"] * state["step"]).view(-1, 1)


def test_options_and_counts_of_each_lane_move_with_it(device):
    decays = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, device=device)
    pair = (0.9, decays * 10)
    weight = torch.zeros(3, 1, dtype=torch.float64, device=device)
    lanes = PlateauLanes(3, [0.1, 0.2, 0.4], device=device)
    optimizer = OwnRates([weight], lanes, decays, pair)
    stack = LaneStack(lanes, optimizer, [weight])
    stack.step()
    stack.copy([2], [0])
    stack.refill([1], [torch.full((1, 1), 7.0, dtype=torch.float64, device=device)])
    assert decays.tolist() == [3, 2, 3]
    assert pair[1].tolist() == [30, 20, 30]
    count = optimizer.state[weight]["step"]
    assert count.tolist() == [1, 0, 1]
    stack.append(2, 1.0, {"0": torch.ones(2, 1, dtype=torch.float64, device=device)})
    assert decays.tolist() == [3, 2, 3, 3, 3]
    assert count.tolist() == [1, 0, 1, 0, 0]
    stack.keep([1, 4])
    assert (decays.tolist(), pair[1].tolist(), count.tolist()) == ([2, 3], [20, 30], [0, 0])
    stack.step()
    assert weight.flatten().tolist() == [7 - 0.2 * 2, 1 - 3]


def test_gradients_move_with_their_rows(device):
    stack = small(device)
    grads = {}
    for name, param in stack.params.items():
        param.grad = torch.randn_like(param)
        grads[name] = param.grad.clone()
    stack.copy(0, 2)
    stack.refill(
        [1],
        {name: each[:1] for name, each in stack.params.items()},
        {name: each[:1] for name, each in stack.buffers.items()},
    )
    for name, param in stack.params.items():
        first = grads[name][0]
        assert torch.equal(param.grad, torch.stack([first, torch.zeros_like(first), first]))
    stack.keep([0])
    assert all(param.grad.shape == param.shape for param in stack.params.values())


# -- what is refused ------------------------------------------------------------------------------


def parts_of(device="cpu", n=3):
    weight = torch.randn(n, 2, device=device, requires_grad=True)
    lanes = PlateauLanes(n, 0.1, device=device)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    LaneLR(optimizer, lanes)
    return SimpleNamespace(lanes=lanes, optimizer=optimizer, params=[weight])


BUILT = {
    "lanes": (
        lambda p: (3, p.optimizer, p.params),
        TypeError,
        "lanes: expected PlateauLanes, got int",
    ),
    "optimizer": (lambda p: (p.lanes, None, p.params), TypeError, "optimizer: .*got None"),
    "no rates": (
        lambda p: (p.lanes, torch.optim.SGD(p.params, lr=1.0), p.params),
        ValueError,
        "takes its rates from these lanes, got SGD; make LaneLR",
    ),
    "other lanes": (
        lambda p: (PlateauLanes(3, 0.1), p.optimizer, p.params),
        ValueError,
        "takes its rates from these lanes",
    ),
    "unknown params": (
        lambda p: (p.lanes, p.optimizer, [torch.zeros(3)]),
        ValueError,
        r"params: expected all that the optimizer has, got none of shape \(3, 2\)",
    ),
    "too few rows": (
        lambda p: (p.lanes, p.optimizer, [*p.params, torch.zeros(2, 1)]),
        ValueError,
        r"params\['1'\]: expected shape \[3, ...\], got \(2, 1\)",
    ),
    "buffers": (
        lambda p: (p.lanes, p.optimizer, p.params, {"b": 3}),
        TypeError,
        r"buffers\['b'\]: expected a tensor, got int",
    ),
    "best": (
        lambda p: (p.lanes, p.optimizer, p.params, None, p.params),
        TypeError,
        "best: .*got list",
    ),
    "best of other lanes": (
        lambda p: (p.lanes, p.optimizer, p.params, None, LaneBest(PlateauLanes(3, 0.1), p.params)),
        ValueError,
        "best: expected a LaneBest of these lanes",
    ),
    "best of others": (
        lambda p: (p.lanes, p.optimizer, p.params, None, LaneBest(p.lanes, [torch.zeros(3)])),
        ValueError,
        "best: expected tensors of this stack, got another as '0'",
    ),
}


@pytest.mark.parametrize(("given", "error", "words"), BUILT.values(), ids=BUILT.keys())
def test_a_stack_of_other_things_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        LaneStack(*given(parts_of()))


def rows_for(stack, k):
    return (
        {name: each[:1].expand(k, *each.shape[1:]) for name, each in stack.params.items()},
        {name: each[:1].expand(k, *each.shape[1:]) for name, each in stack.buffers.items()},
    )


CHANGES = {
    "copy out of range": (lambda s: s.copy([0], [3]), IndexError, "dst: .*got 3"),
    "copy of two onto one": (lambda s: s.copy([0, 1], [2]), ValueError, "src: expected 1 or 1"),
    "keep of others": (lambda s: s.keep([7]), IndexError, "lanes: .*got 7"),
    "reset of others": (lambda s: s.reset([True]), ValueError, r"lanes: .*shape \(3,\)"),
    "refill of others": (lambda s: s.refill([5], *rows_for(s, 1)), IndexError, "lanes: .*got 5"),
    "refill without buffers": (
        lambda s: s.refill([1], rows_for(s, 1)[0]),
        KeyError,
        "buffers: missing or unknown keys",
    ),
    "refill of one for two": (
        lambda s: s.refill([0, 1], *rows_for(s, 1)),
        ValueError,
        r"params\['.*'\]: expected torch.float64 of shape \(2.*got torch.float64 \(1",
    ),
    "refill in float32": (
        lambda s: s.refill([0], {n: p.float() for n, p in rows_for(s, 1)[0].items()}, {}),
        ValueError,
        "expected torch.float64 of shape .* got torch.float32",
    ),
    "append of a bad setting": (
        lambda s: s.append(1, 0.1, *rows_for(s, 1), factor=2.0, max_reductions=3),
        ValueError,
        "factor: expected above 0 and below 1",
    ),
    "append of None for some": (
        lambda s: s.append(1, 0.1, *rows_for(s, 1), max_reductions=None),
        ValueError,
        "max_reductions: expected it for all lanes or for none",
    ),
    "append of half a lane": (
        lambda s: s.append(0.5, 0.1, *rows_for(s, 1)),
        ValueError,
        "k: expected an integer",
    ),
    "unstack of another lane": (lambda s: s.unstack(3, Net()), IndexError, "lane: .*got 3"),
    "unstack into another model": (
        lambda s: s.unstack(0, torch.nn.Linear(3, 2)),
        KeyError,
        "module: missing or unknown keys",
    ),
    "unstack into float32": (
        lambda s: s.unstack(0, Net().float()),
        ValueError,
        r"module\['.*'\]: expected torch.float64",
    ),
}


def everything(stack):
    return [
        stack.state_dict(),
        [id(each) for each in (*stack.params.values(), *stack.buffers.values())],
        list(stack.params.values()),
    ]


@pytest.mark.parametrize(("change", "error", "words"), CHANGES.values(), ids=CHANGES.keys())
def test_a_refused_change_changes_nothing(change, error, words, device):
    stack = small(device)
    before = contents(everything(stack))
    with pytest.raises(error, match=f"(?s){words}"):
        change(stack)
    assert contents(everything(stack)) == before


def test_a_state_of_the_optimizer_that_is_nobody_s_is_refused(device):
    stack = small(device)
    state = stack.optimizer.state[next(iter(stack.params.values()))]
    state["odd"] = torch.zeros(3, 7, device=device)
    before = contents(stack.lanes)
    with pytest.raises(ValueError, match=r"optimizer: .*got 'odd' of shape \(3, 7\)"):
        stack.copy([0], [1])
    assert contents(stack.lanes) == before


def spoilt(state, path, value):
    """A state in which what stands at ``path`` is something else; nothing, to leave it out."""
    state = copy.deepcopy(state)
    *way, last = path
    place = state
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return state


SPOILT = {
    "no lanes": (("lanes",), None),
    "no best of the lanes": (("lanes", "best"), None),
    "a patience of -1": (("lanes", "settings", "patience"), -1),
    "a parameter less": (("params", "scale"), None),
    "a parameter more": (("params", "more"), torch.zeros(3)),
    "a number for a parameter": (("params", "scale"), 3),
    "a parameter of two lanes": (("params", "scale"), torch.zeros(2, dtype=torch.float64)),
    "a buffer in another type": (("buffers", "count"), torch.zeros(3)),
    "params that are a list": (("params",), [1, 2]),
    "no best at all": (("best",), 3),
    "a best of two lanes": (("best", "best", "scale"), torch.zeros(2, dtype=torch.float64)),
    "counts below 0": (("skipped",), torch.tensor([-1, 0, 0])),
    "counts of two": (("skipped",), torch.tensor([1, 2])),
    "an optimizer that is a word": (("optimizer",), "Adam"),
    "no groups": (("optimizer", "param_groups"), []),
    "a group that is a number": (("optimizer", "param_groups"), [3]),
    "a group without params": (("optimizer", "param_groups", 0, "params"), None),
    "params that are no list": (("optimizer", "param_groups", 0, "params"), 7),
    "a state that is a list": (("optimizer", "state"), [1]),
    "averages of two lanes": (
        ("optimizer", "state", 0, "exp_avg"),
        torch.zeros(2, dtype=torch.float64),
    ),
    "averages on meta": (("optimizer", "state", 0, "exp_avg"), torch.zeros(3, device="meta")),
    "another key": (("more",), 1),
}


@pytest.mark.parametrize(("path", "value"), SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_state_is_refused_and_changes_nothing(path, value, device):
    stack = small(device)
    stack.refill([0], *rows_for(stack, 1))
    state = spoilt(small(device).state_dict(), path, value)
    before = contents(everything(stack))
    with pytest.raises((KeyError, TypeError, ValueError)):
        stack.load_state_dict(state)
    assert contents(everything(stack)) == before


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_spoilt_a_refused_state_changes_nothing():
    state = small("cpu").state_dict()
    taken = 0
    for number in range(100):
        r = random.Random(number)
        stack = small("cpu")
        before = contents(everything(stack))
        try:
            stack.load_state_dict(spoiling.spoilt(r, copy.deepcopy(state)))
        except (KeyError, TypeError, ValueError):
            assert contents(everything(stack)) == before
        else:
            taken += 1
    assert 5 < taken < 50


def test_a_state_with_a_best_does_not_load_into_a_stack_without_one():
    p = parts_of()
    stack = LaneStack(p.lanes, p.optimizer, p.params)
    state = stack.state_dict()
    best = LaneBest(p.lanes, p.params)
    with_best = LaneStack(p.lanes, p.optimizer, p.params, best=best)
    with pytest.raises(ValueError, match=r"\['best'\]: expected one, as this stack has"):
        with_best.load_state_dict(state)
    with pytest.raises(ValueError, match=r"\['best'\]: expected None, as this stack has"):
        stack.load_state_dict(with_best.state_dict())
