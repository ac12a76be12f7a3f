"""Spoil saved states at random and load them: ``python tests/fuzz_states.py --states 20000``.

A state that is refused must be refused with a documented error and leave everything as it was; one
that is taken must leave something that steps, saves, and goes on from its own state as a fresh
object does. What was not so is counted:

- crashes: the process died, or a state took half a minute of its time, or ten of anybody's
- changed: something was different after a load that raised
- broken: after a load that did not raise, a step raised or did what it never may
- undocumented: a load raised something else than KeyError, TypeError or ValueError

States are numbered, and each follows from the seed and its number alone; children take them in
chunks, so that one that dies is known. The exit code is 1 if anything was counted.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import copy
import itertools
import json
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from spoiling import spoilt
from torch_plateau import (
    BatchedReduceLROnPlateau,
    LaneBest,
    LaneLR,
    LaneStack,
    PlateauLanes,
    ReduceLROnPlateau,
    compose,
)

COUNTS = ("crashes", "changed", "broken", "undocumented")
DOCUMENTED = (KeyError, TypeError, ValueError)
STEPS = 20
CHUNK = 500
SECONDS = 30  # of the processor, for one state
# A state that asks for more gets an error; a flipped bit can make pickle itself ask for billions.
MEMORY = 4 << 30


# -- what states are loaded into ------------------------------------------------------------------


def sgd(*rates, tensors=False):
    return SGD(
        [
            {"params": [torch.ones(2)], "lr": torch.tensor(rate) if tensors else rate}
            for rate in rates
        ],
        lr=1.0,
    )


class Subject:
    """A thing that loads states, with what belongs to it."""

    def __init__(self, thing, *parts, lanes=1, step=None, falling=None):
        self.thing = thing
        self.parts = parts  # that have states of their own: optimizers, lanes
        self.lanes = lanes
        self._step = step or (lambda row: thing.step(row if lanes > 1 else row[0]))
        self._falling = falling or (lambda: self.rates())

    def step(self, row):
        self._step(row)

    def optimizers(self):
        return [part for part in self.parts if isinstance(part, SGD)]

    def rates(self):
        """The rates that are trained with."""
        if not self.optimizers():
            lanes = self.thing if isinstance(self.thing, PlateauLanes) else self.thing.lanes
            return lanes.lr.tolist()
        return [float(g["lr"]) for each in self.optimizers() for g in each.param_groups]

    def falling(self):
        """Numbers that never rise."""
        return self._falling()

    def save(self):
        return self.thing.state_dict()

    def load(self, state):
        self.thing.load_state_dict(state)

    def become(self, other):
        """Take over what is not in the state of the thing."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.load_state_dict(copy.deepcopy(theirs.state_dict()))

    def everything(self):
        """What must be as it was after a load that was refused."""
        return [self.save(), self.rates(), [part.state_dict() for part in self.parts]]

    def live(self):
        """The objects that must be the same ones after any load."""
        lanes = self.thing if isinstance(self.thing, PlateauLanes) else None
        lanes = getattr(self.thing, "lanes", lanes)
        tensors = [lanes.lr, lanes.best] if isinstance(lanes, PlateauLanes) else []
        groups = [g for each in self.optimizers() for g in each.param_groups]
        return [*tensors, *(g["lr"] for g in groups if isinstance(g["lr"], torch.Tensor))]


PARTS = {
    "nan": "skip",
    "threshold_mode": "rel_safe",
    "atol": 0.01,
    "counting": "keras",
    "initial_patience": 2,
    "smoothing": 0.3,
    "accumulate": 2,
    "window": 3,
    "max_reductions": 9,
    "patience_at_min": 4,
    "warmup_steps": 5,
    "warmup_start_factor": 0.1,
    "events": 6,
}


def lanes_of(n, rate=0.5, **settings):
    lanes = PlateauLanes(n, rate, **{"patience": 1, "factor": 0.5, "min_lr": 1e-3, **settings})

    def step(row):
        lanes.step(torch.tensor(row, dtype=lanes.dtype))

    return Subject(lanes, lanes=n, step=step, falling=lambda: lanes.lr_master.tolist())


def drop_in(tensors=False, **settings):
    optimizer = sgd(0.5, 0.25, tensors=tensors)
    scheduler = ReduceLROnPlateau(optimizer, patience=1, factor=0.5, cooldown=1, **settings)
    return Subject(scheduler, optimizer)


def batched(publish):
    optimizers = [sgd(0.5), sgd(0.25, 0.125)]
    scheduler = BatchedReduceLROnPlateau(
        optimizers, patience=[1, 2], factor=0.5, publish=publish, window=2
    )
    return Subject(scheduler, *optimizers, lanes=2)


def composed(schedule, kind):
    optimizers = [sgd(0.5, 0.25, tensors=kind == "tensor")]
    if kind == "one":
        plateau = ReduceLROnPlateau(optimizers[0], patience=1, factor=0.5, min_lr=[0.01, 0.0])
    else:
        optimizers.append(sgd(0.125))
        plateau = BatchedReduceLROnPlateau(optimizers, patience=1, factor=0.5, publish=kind)
    schedules = [schedule(each) for each in optimizers]
    both = compose(schedules if kind != "one" else schedules[0], plateau)

    def step(row):
        for each in optimizers:
            each.step()
        both.step_schedule()
        both.step(row if kind != "one" else row[0])

    def scales():
        return both.scale.tolist() if kind != "one" else [both.scale]

    return Subject(both, *optimizers, lanes=len(optimizers), step=step, falling=scales)


def linear(optimizer):
    return LinearLR(optimizer, 0.1, total_iters=15)


def cosine(optimizer):
    return CosineAnnealingLR(optimizer, 12, eta_min=1e-3)


class BestSubject(Subject):
    """LaneBest over parameters that change at every step."""

    def __init__(self, followed, *parts, **keywords):
        self.params = {"w": torch.linspace(0, 1, 6).view(2, 3), "n": torch.arange(2)}
        best = LaneBest(followed, self.params, on_cut="rollback")
        super().__init__(best, *parts, **keywords, falling=lambda: [0.0])
        self.followed = followed

    def step(self, row):
        for param in self.params.values():
            param += 1
        self.followed.step(row if self.lanes > 1 else row[0])
        self.thing.update()

    def become(self, other):
        super().become(other)
        for name, param in self.params.items():
            param.copy_(other.params[name])

    def everything(self):
        return [*super().everything(), self.params]

    def live(self):
        return [*super().live(), *self.thing.best.values(), *self.params.values()]


def best_of_lanes():
    lanes = PlateauLanes(2, 0.5, patience=0)
    return BestSubject(lanes, lanes, lanes=2)


def best_of_scheduler(tensors=False):
    optimizer = sgd(0.5, tensors=tensors)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    return BestSubject(scheduler, optimizer, scheduler)


class StackSubject(Subject):
    """A stack, all of whose state is spoilt but the optimizer's: torch loads that unchecked."""

    def __init__(self):
        params = {name: torch.linspace(0, 1, 6).view(2, 3) for name in ("w", "v")}
        buffers = {"n": torch.arange(2)}
        lanes = PlateauLanes(2, 0.5, patience=0, max_reductions=5)
        optimizer = SGD(params.values(), lr=1.0, momentum=0.9)
        LaneLR(optimizer, lanes)
        stack = LaneStack(lanes, optimizer, params, buffers, LaneBest(lanes, {**params, **buffers}))
        super().__init__(stack, lanes=2, falling=lambda: lanes.lr_master.tolist())

    def step(self, row):
        for param in self.thing.params.values():
            param.grad = torch.ones_like(param)
        self.thing.step()
        self.thing.lanes.step(row)
        self.thing.best.update()

    def save(self):
        state = self.thing.state_dict()
        del state["optimizer"]
        return state

    def load(self, state):
        if hasattr(state, "keys"):
            state = {**state, "optimizer": self.thing.optimizer.state_dict()}
        self.thing.load_state_dict(state)

    def become(self, other):
        self.thing.optimizer.load_state_dict(copy.deepcopy(other.thing.optimizer.state_dict()))

    def live(self):
        best = self.thing.best
        return [*super().live(), *best.best.values(), *best.params.values()]


STATES = {
    "lanes": lambda: lanes_of(3, cooldown=1),
    "lanes in float32": lambda: lanes_of(3, dtype=torch.float32),
    "lanes with settings of each": lambda: lanes_of(
        2, mode=["min", "max"], patience=[0, 2], threshold=[0.0, 0.1], min_lr=[0.0, 0.01]
    ),
    "lanes with all parts": lambda: lanes_of(3, **PARTS),
    "lanes with all parts of each": lambda: lanes_of(
        2,
        **{
            **{name: [value] * 2 for name, value in PARTS.items() if name != "events"},
            "window": [3, 1],
            "events": 6,
        },
    ),
    "lanes with groups": lambda: lanes_of(3, groups=[1, 0, 2], events=2, cooldown=1),
    "drop-in": drop_in,
    "drop-in with tensors": lambda: drop_in(True, min_lr=[0.1, 0.0], mode="max"),
    "batched floats": lambda: batched("float"),
    "batched tensors": lambda: batched("tensor"),
    "linear times one": lambda: composed(linear, "one"),
    "cosine times one": lambda: composed(cosine, "one"),
    "linear times floats": lambda: composed(linear, "float"),
    "cosine times tensors": lambda: composed(cosine, "tensor"),
    "best of lanes": best_of_lanes,
    "best of a scheduler": best_of_scheduler,
    "best of a scheduler with tensors": lambda: best_of_scheduler(True),
    "stack": StackSubject,
}
PICKLES = {
    f"pickled {name}": STATES[name]
    for name in (
        *("lanes", "lanes with all parts", "lanes with groups", "drop-in", "batched floats"),
        *("batched tensors", "linear times one", "cosine times tensors", "best of lanes"),
        "best of a scheduler",
    )
}
FLIPPED = {
    f"flipped {name}": make for name, make in STATES.items() if not name.startswith("lanes ")
}
KINDS = {**STATES, **PICKLES, **FLIPPED}


# -- what must be so ------------------------------------------------------------------------------


def same(a, b):
    """Whether two states are equal: NaN is NaN, and types count."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
            and torch.equal(a.isnan(), b.isnan())
            and torch.equal(a[~a.isnan()], b[~b.isnan()])
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


class Broken(Exception):  # noqa: N818
    """What something did that it never may."""


def check(good, what):
    if not good:
        raise Broken(what)


def rows(r, lanes):
    return [[r.choice([0.25, 0.5, 1.0, 2.0, r.random()]) for _ in range(lanes)] for _ in range(99)]


def step_and_check(r, subject, twin=None):
    """Step a subject, and a twin that must agree with it."""
    before = subject.falling()
    for row in itertools.islice(rows(r, subject.lanes), STEPS):
        subject.step(row)
        rates, now = subject.rates(), subject.falling()
        check(all(math.isfinite(x) and x >= 0 for x in [*rates, *now]), f"rates {rates}, {now}")
        check(all(x <= y for x, y in zip(now, before, strict=True)), f"{before} rose to {now}")
        before = now
        if twin is not None:
            twin.step(row)
            check(same(rates, twin.rates()), f"a fresh one has rates {twin.rates()}, not {rates}")
            check(same(subject.save(), twin.save()), "a fresh one has another state")


def fresh_twin(make, subject):
    twin = make()
    twin.become(subject)
    state = subject.save()
    twin.load(copy.deepcopy(state))
    check(same(twin.save(), state), "a fresh one that loaded its state has another")
    return twin


def try_state(r, make):
    """Load a spoilt state; return what went wrong as (count, words), or None."""
    subject, other = make(), make()
    for each in (subject, other):
        for row in itertools.islice(rows(r, each.lanes), r.randrange(12)):
            each.step(row)
    state = spoilt(r, copy.deepcopy(other.save()))
    before, live = copy.deepcopy(subject.everything()), subject.live()
    try:
        subject.load(state)
    except DOCUMENTED as error:
        if not same(subject.everything(), before) or not identical(live, subject.live()):
            return "changed", f"{type(error).__name__}: {error}"
        try:
            step_and_check(r, subject)
        except Exception as later:
            return "changed", f"{type(error).__name__}: {error}; and then {later!r}"
        return None
    except Exception as error:
        return "undocumented", f"{type(error).__name__}: {error}"
    try:
        check(identical(live, subject.live()), "live tensors were replaced")
        step_and_check(r, subject, fresh_twin(make, subject))
        fresh_twin(make, subject)
    except Exception as error:
        return "broken", words_of(error)
    return None


def identical(some, others):
    return len(some) == len(others) and all(map(lambda a, b: a is b, some, others))


def words_of(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"


def try_pickle(r, make):
    """The same for what unpickling hands over; there is nothing that could be changed."""
    subject = make()
    for row in itertools.islice(rows(r, subject.lanes), r.randrange(12)):
        subject.step(row)
    thing = copy.deepcopy(subject.thing)
    kind = type(thing)
    state = thing.__getstate__()
    state = spoilt(r, {**state, **{k: list(v) for k, v in state.items() if type(v) is list}})
    made = kind.__new__(kind)
    try:
        made.__setstate__(state)
    except DOCUMENTED:
        return None
    except RuntimeError as error:  # of a device, as constructors raise it
        return None if str(error).startswith("device: ") else ("undocumented", words_of(error))
    except Exception as error:
        return "undocumented", words_of(error)
    try:
        for row in itertools.islice(rows(r, subject.lanes), STEPS):
            step_alone(made, row)
    except Exception as error:
        return "broken", words_of(error)
    return None


def step_alone(thing, row):
    if isinstance(thing, LaneStack):
        thing.step()
        step_alone(thing.best, row)
        return
    if isinstance(thing, LaneBest):
        step_alone(thing.lanes, row)
        thing.update()
        return
    if hasattr(thing, "step_schedule"):
        for each in thing._optimizers:
            each.step()
        thing.step_schedule()
    lanes = thing if isinstance(thing, PlateauLanes) else getattr(thing, "lanes", None)
    thing.step(row[0] if lanes is None else torch.tensor((row * 9)[: len(lanes)]).to(lanes.dtype))


def try_flipped(r, make):
    """Flip a bit of a pickle. Whatever it raises is an answer: only the process must live."""
    subject = make()
    for row in itertools.islice(rows(r, subject.lanes), r.randrange(12)):
        subject.step(row)
    pickled = bytearray(pickle.dumps(subject.thing))
    pickled[r.randrange(len(pickled))] ^= 1 << r.randrange(8)
    with contextlib.suppress(Exception):
        thing = pickle.loads(bytes(pickled))
        for row in itertools.islice(rows(r, subject.lanes), STEPS):
            step_alone(thing, row)
        getattr(thing, "state_dict", dict)()


def try_number(seed, number):
    """Try the state of this number; return its kind and what went wrong."""
    r = random.Random(f"{seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    torch.manual_seed(0)
    how = try_state if kind in STATES else try_pickle if kind in PICKLES else try_flipped
    return kind, how(r, KINDS[kind])


# -- children -------------------------------------------------------------------------------------


def child(seed, first, last, place):
    """Try states, writing the number of each to a file before it is tried."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(place, "r+b", buffering=0) as file:
        for number in range(first, last):
            os.pwrite(file.fileno(), b"%012d" % number, 0)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # which a busy machine does not use up
            signal.alarm(20 * SECONDS)
            kind, wrong = try_number(seed, number)
            if wrong is not None:
                sys.stdout.write(json.dumps([number, kind, *wrong]) + "\n")
                sys.stdout.flush()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)


def try_chunk(script, seed, first, last):
    """Try states in children; return what went wrong as (number, kind, count, words)."""
    found = []
    while first < last:
        with tempfile.NamedTemporaryFile() as place:
            place.write(b"%012d" % first)
            place.flush()
            command = [sys.executable, "-X", "faulthandler", script, "--child", place.name]
            command += ["--seed", str(seed), "--range", str(first), str(last)]
            done = subprocess.run(command, capture_output=True, text=True)
            found += [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["]
            if done.returncode == 0:
                break
            with open(place.name, "rb") as file:
                number = int(file.read())
            kind = list(KINDS)[number % len(KINDS)]
            where = [line.strip() for line in done.stderr.splitlines() if line[:7] == "  File "]
            how = f"exit status {done.returncode}: " + " | ".join(where[:8])
            found.append([number, kind, "crashes", how])
            first = number + 1
    return found


def fuzz(states, seed, workers, script=__file__):
    """Try so many states, in children that run ``script``; return what went wrong."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        chunks = [
            pool.submit(try_chunk, script, seed, first, min(first + CHUNK, states))
            for first in range(0, states, CHUNK)
        ]
        return [each for chunk in chunks for each in chunk.result()]


def table(found, states):
    """The counts of every kind, as text."""
    counts = collections.Counter((kind, count) for _, kind, count, _ in found)
    width = max(map(len, KINDS))
    lines = ["  ".join([f"{'':{width}}", "states", *(f"{name:>12}" for name in COUNTS)])]
    for i, kind in enumerate([*KINDS, "all"]):
        tried = states if kind == "all" else len(range(i, states, len(KINDS)))
        row = [
            sum(n for (k, c), n in counts.items() if c == name and kind in (k, "all"))
            for name in COUNTS
        ]
        lines.append("  ".join([f"{kind:{width}}", f"{tried:6}", *(f"{n:12}" for n in row)]))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="try the state of this number here, and say")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--range", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.seed, *given.range, given.child)
        return 0
    if given.only is not None:
        warnings.simplefilter("ignore")
        sys.stdout.write(f"{try_number(given.seed, given.only)}\n")
        return 0
    found = fuzz(given.states, given.seed, given.workers, sys.argv[0])
    for number, kind, count, words in found:
        sys.stdout.write(f"{count}: --seed {given.seed} --only {number} ({kind}): {words}\n")
    sys.stdout.write(table(found, given.states) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
