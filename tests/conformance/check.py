"""Live a plan twice, with ours and with the oracle, and say where they first differ."""

import copy
import io
import random

import numpy as np
import torch

from torch_plateau import BatchedReduceLROnPlateau, PlateauLanes, ReduceLROnPlateau, replay

from .oracles import COMMON, PartsLane, TorchLane, optimizer_of
from .plans import Act

COPIED = ("lanes", "parts")  # the others have optimizers, which cost as much as the oracle does
WHOLE = ("rule",)  # settings that have no value per lane


MOST = 200_000  # lane-steps that are held to be compared together


def difference(plan, device="cpu", copies=1):
    """Where ours first differs from the oracle, in words; None if nowhere.

    With ``copies`` ours has each lane of the plan so many times, shuffled, and the oracle once.
    """
    life = LIVES[plan.kind](plan, device, copies)
    at, acts = 0, [*plan.acts, *_births(plan)]
    for until in sorted({act.at for act in acts} | {len(plan.metrics)}):
        while at < until:
            begin, at = at, min(at + max(MOST // (len(life.there) + 1), 1), until)
            found = life.live(begin, at)
            if found:
                return found
        for act in acts:
            if act.at == at:
                getattr(life, act.do)(*act_arguments(act))
    return life.at_the_end()


def act_arguments(act):
    """What the method of an act takes."""
    return {"save": [], "copy": [act.lanes, act.value], "set": [act.lanes, act.value]}.get(
        act.do, [act.lanes]
    )


def _births(plan):
    """The lanes that come later, as acts."""
    times = sorted({lane.born for lane in plan.lanes} - {0})
    return [
        Act(at, "append", [i for i, lane in enumerate(plan.lanes) if lane.born == at])
        for at in times
    ]


def arguments(lanes, shared):
    """Rates and keyword arguments of PlateauLanes for these lanes."""
    counts = [len(lane.rates) for lane in lanes]
    first = lanes[0].settings
    keywords = {name: [lane.settings[name] for lane in lanes] for name in first}
    for name in {"max_lr", "min_lr"} & set(first):  # per group, as a plan has no other values there
        each = [
            value if isinstance(value, list) else [value] * count
            for value, count in zip(keywords[name], counts, strict=True)
        ]
        keywords[name] = [value for values in each for value in values]
    if shared:
        floor = keywords["min_lr"] if isinstance(first["min_lr"], list) else first["min_lr"]
        keywords = {**first, "min_lr": floor}
    keywords |= {name: first[name] for name in WHOLE if name in first}
    return [rate for lane in lanes for rate in lane.rates], keywords, counts


class Lanes:
    """PlateauLanes beside an oracle for each lane of the plan."""

    def __init__(self, plan, device, copies):
        self.plan, self.device = plan, device
        self.copies = copies if plan.kind in COPIED else 1
        self.dtype = getattr(torch, plan.dtype)
        metrics = torch.tensor(plan.metrics).to(getattr(torch, plan.metric_dtype))
        self.metrics = metrics.to(device)
        self.seen = metrics.to(self.dtype).double().numpy()
        self.active = None if plan.active is None else torch.tensor(plan.active, device=device)
        first = [i for i, lane in enumerate(plan.lanes) if not lane.born]
        self.there = self.several(first)  # which lane of the plan each of ours is
        self.oracle = PartsLane if plan.kind == "parts" else TorchLane
        self.fields = self.oracle.fields
        self.oracles = {lane: self.oracle_of(lane) for lane in first}
        self.counts = {len(lane.rates) for lane in plan.lanes}
        self.traced = []
        self.build()

    def several(self, lanes):
        lanes = lanes * self.copies
        if self.copies > 1:
            random.Random(self.plan.number).shuffle(lanes)
        return lanes

    def oracle_of(self, lane):
        plan, tensors = self.plan.lanes[lane], self.plan.publish == "tensor"
        if self.plan.kind == "one" and tensors:
            return self.oracle(plan.rates, plan.settings, tensors=True)
        return self.oracle(plan.rates, plan.settings)

    def build(self):
        plan = self.plan
        rates, keywords, counts = arguments([plan.lanes[i] for i in self.there], plan.shared)
        self.grouped = self.counts != {1}
        self.lanes = PlateauLanes(
            len(self.there),
            rates,
            groups=counts if self.grouped else None,
            dtype=self.dtype,
            device=self.device,
            events=plan.events,
            **keywords,
        )

    # -- steps ------------------------------------------------------------------------------------

    def live(self, begin, end):
        """Take all lanes through some steps; then compare."""
        if begin == end or not self.there:
            return None
        ours = [self.stepped(step) for step in range(begin, end)]
        ours = {name: torch.stack([each[name] for each in ours]).cpu() for name in ours[0]}
        theirs = self.expected(begin, end)
        self.traced.append(theirs)
        for name, expected in theirs.items():
            found = compared(ours[name], expected)
            if found is not None:
                step, column, got = found
                says = f"{name}[{column}] is {got!r}, expected {float(expected[step, column])!r}"
                return f"after step {begin + step} {says}"
        return None

    def mask(self, step):
        return None if self.active is None else self.active[step, self.there]

    def stepped(self, step):
        """Take one step, and clone what can be read after it."""
        self.lanes.step(self.metrics[step, self.there], self.mask(step))
        return self.read()

    def read(self):
        names = (*self.fields, "lr_master", "lr")
        return {name: getattr(self.lanes, name).clone() for name in names}

    def expected(self, begin, end):
        """Each field of the oracles, [steps, lanes]; rates by group."""
        traces, active = {}, self.plan.active
        for lane, oracle in self.oracles.items():
            which = None if active is None else active[begin:end, lane].tolist()
            traces[lane] = oracle.trace(self.seen[begin:end, lane].tolist(), which)
        fields, rates, published = zip(*[traces[lane] for lane in self.there], strict=True)
        fields = np.stack(fields, axis=1)
        found = {name: fields[:, :, i] for i, name in enumerate(self.fields)}
        found["lr_master"] = np.concatenate(rates, axis=1)
        with np.errstate(over="ignore"):
            found["lr"] = np.concatenate(published, axis=1).astype(np.float32)
        return found

    def at_the_end(self):
        """What costs much to ask: compared once, after the last step."""
        plan = self.plan
        if plan.kind == "parts":
            oracles = [self.oracles[lane].lane for lane in self.there]
            reasons = [oracle.stop_reason for oracle in oracles]
            if self.lanes.stop_reasons() != reasons:
                return f"stop_reasons are {self.lanes.stop_reasons()}, expected {reasons}"
            ends = [oracle.at_min_lr for oracle in oracles]
            if self.lanes.at_min_lr.tolist() != ends:
                return f"at_min_lr is {self.lanes.at_min_lr.tolist()}, expected {ends}"
        steady = not _births(plan) and not plan.acts and plan.active is None
        if steady and len(self.there) * len(plan.metrics) < 10 * MOST:
            return self.replayed()
        return None

    def replayed(self):
        """The same life in one pass."""
        plan = self.plan
        rates, keywords, counts = arguments([plan.lanes[i] for i in self.there], plan.shared)
        names = ("lr", "improved", "reduced", "best", "num_bad_epochs", "cooldown_counter")
        result = replay(
            self.metrics[:, self.there].to(self.dtype),
            lr=rates,
            groups=counts if self.grouped else None,
            dtype=self.dtype,
            record=names,
            **keywords,
        )
        for name in names:
            theirs = np.concatenate([each[name] for each in self.traced])
            found = compared(getattr(result, name).cpu(), theirs)
            if found is not None:
                step, column, got = found
                expected = float(theirs[step, column])
                return f"replayed: after step {step} {name}[{column}] is {got}, expected {expected}"
        return None

    # -- acts -------------------------------------------------------------------------------------

    def places(self, lanes):
        """Which of these are there, and at which positions."""
        there = {lane for lane in lanes if lane in self.oracles}
        return there, [place for place, lane in enumerate(self.there) if lane in there]

    def save(self):
        file = io.BytesIO()
        torch.save(self.lanes.state_dict(), file)
        file.seek(0)
        n, groups, device = len(self.lanes), self.lanes.groups, self.device
        loaded = PlateauLanes(
            *(n, 0.7), groups=groups, dtype=self.dtype, device=device, events=self.plan.events
        )
        loaded.load_state_dict(torch.load(file, weights_only=True))
        self.lanes = copy.deepcopy(loaded)

    def reset(self, lanes):
        there, places = self.places(lanes)
        self.lanes.reset(places)
        for lane in there:
            self.oracles[lane] = self.oracles[lane].fresh()

    def copy(self, lanes, sources):
        pairs = [
            (to, source)
            for to, source in zip(lanes, sources, strict=True)
            if to in self.oracles and source in self.oracles
        ]
        if len(self.counts) > 1:
            return
        places = [
            (self.there.index(source), place)
            for to, source in pairs
            for place in self.places([to])[1]
        ]
        self.lanes.copy_lanes([source for source, _ in places], [place for _, place in places])
        copies = [(to, self.oracles[source].copied()) for to, source in pairs]
        self.oracles.update(copies)

    def set(self, lanes, changes):
        there, places = self.places(lanes)
        if not there:
            return
        for name, values in changes.items():
            value_of = dict(zip(lanes, values, strict=True))
            given = [value_of[self.there[place]] for place in places]
            self.lanes.set_lanes(places, **{name: given})
            for lane in there:
                self.oracles[lane].change(name, value_of[lane])

    def remove(self, lanes):
        there, places = self.places(lanes)
        self.lanes.remove(places)
        self.there = [lane for lane in self.there if lane not in there]
        for lane in there:
            del self.oracles[lane]

    def append(self, lanes):
        added = self.several(lanes)
        rates, keywords, counts = arguments([self.plan.lanes[lane] for lane in added], False)
        keywords = {name: each for name, each in keywords.items() if name not in WHOLE}
        self.lanes.append(len(added), rates, groups=counts if self.grouped else None, **keywords)
        self.oracles |= {lane: self.oracle_of(lane) for lane in lanes}
        self.there += added


class Batched(Lanes):
    """The batched scheduler; rates are read from its optimizers too."""

    def build(self):
        plan, self.grouped = self.plan, True
        lanes = [plan.lanes[i] for i in self.there]
        _, keywords, _ = arguments(lanes, plan.shared)
        self.scheduler = self.over([lane.rates for lane in lanes], **keywords)

    def mask(self, step):
        mask = super().mask(step)
        return mask if mask is None else mask.to(self.lanes.device)

    def over(self, rates, **keywords):
        publish = self.plan.publish
        self.optimizers = [optimizer_of(each, publish == "tensor") for each in rates]
        if publish == "tensor":
            keywords["device"] = self.device
        return BatchedReduceLROnPlateau(
            self.optimizers, publish=publish, dtype=self.dtype, **keywords
        )

    @property
    def lanes(self):
        return self.scheduler.lanes

    def stepped(self, step):
        self.scheduler.step(self.metrics[step, self.there], active=self.mask(step))
        rates = [group["lr"] for each in self.optimizers for group in each.param_groups]
        tensors = self.plan.publish == "tensor"
        rates = torch.stack(rates) if tensors else torch.tensor(rates, dtype=torch.float64)
        return {**self.read(), "group_lr": rates.double()}

    def expected(self, begin, end):
        found = super().expected(begin, end)
        source = found["lr_master" if self.plan.publish == "float" else "lr"]
        return {**found, "group_lr": source.astype(np.float64)}

    def save(self):
        states = [each.state_dict() for each in self.optimizers]
        state = self.scheduler.state_dict()
        lanes = [self.plan.lanes[i] for i in self.there]
        self.scheduler = self.over([[0.7] * len(lane.rates) for lane in lanes])
        for each, saved in zip(self.optimizers, states, strict=True):
            each.load_state_dict(saved)
        self.scheduler.load_state_dict(state)

    def at_the_end(self):
        return None


class Ones(Lanes):
    """The drop-in, once for each lane; its metrics are numbers and tensors in turn."""

    def build(self):
        self.fields = COMMON[:3]
        tensors = self.plan.publish == "tensor"
        self.schedulers = [
            ReduceLROnPlateau(optimizer_of(lane.rates, tensors), **lane.settings)
            for lane in self.plan.lanes
        ]

    def stepped(self, step):
        row = self.metrics[step]
        metrics = [row.tolist(), row, self.seen[step]][step % 3]
        for scheduler, metric in zip(self.schedulers, metrics, strict=True):
            scheduler.step(metric)
        rates = [float(rate) for each in self.schedulers for rate in each.get_last_lr()]
        found = {
            name: torch.tensor([getattr(each, name) for each in self.schedulers])
            for name in self.fields
        }
        return {**found, "lr_master": torch.tensor(rates, dtype=torch.float64)}

    def expected(self, begin, end):
        found = super().expected(begin, end)
        return {name: found[name] for name in (*self.fields, "lr_master")}

    def save(self):
        """By way of torch's own class."""
        for i, ours in enumerate(self.schedulers):
            between = torch.optim.lr_scheduler.ReduceLROnPlateau(ours.optimizer)
            between.load_state_dict(ours.state_dict())
            self.schedulers[i] = ReduceLROnPlateau(ours.optimizer)
            self.schedulers[i].load_state_dict(between.state_dict())

    def at_the_end(self):
        return None


def compared(ours, theirs):
    """The first place where two tables differ, and what ours has there; floats bit for bit."""
    if ours.dtype.is_floating_point:
        theirs = torch.from_numpy(theirs).to(ours.dtype)
        whole = torch.int64 if ours.dtype == torch.float64 else torch.int32
        differ = ours.view(whole) != theirs.view(whole)
        differ &= ~(ours.isnan() & theirs.isnan())
    else:
        differ = ours.double() != torch.from_numpy(theirs)
    if not differ.any():
        return None
    step, column = differ.nonzero()[0].tolist()
    return step, column, ours[step, column].item()


LIVES = {"lanes": Lanes, "parts": Lanes, "one": Ones, "batched": Batched}
