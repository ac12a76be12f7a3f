"""Plans: settings, rates, metrics, masks and events of a life, drawn from a seed and a number."""

import dataclasses
import random

import numpy as np
import torch

from features import AVERAGES, FEATURES, SPECIAL, plain_settings

KINDS = ("lanes", "parts", "one", "batched")  # plan number n is of the kind n % 4
RATES = [0.1, 1.0, 1e-3, 0.0, 1e-7, 0.3, 2.0, 1e30]
METRICS = ["float32", "float16", "bfloat16", "float64", "int64"]  # the first three fit float32
LONGEST = 400


@dataclasses.dataclass
class Lane:
    """A lane that is there from step ``born`` on, and what it is built with."""

    rates: list
    settings: dict
    born: int = 0


@dataclasses.dataclass
class Act:
    """Something that happens to the lanes with these positions in the plan, before step ``at``."""

    at: int
    do: str
    lanes: list
    value: object = None


@dataclasses.dataclass
class Plan:
    """A life of lanes: rows of metrics, one for each lane of the plan, and acts in between."""

    seed: int
    number: int
    kind: str
    lanes: list
    acts: list
    metrics: np.ndarray  # [steps, lanes], float64
    active: np.ndarray | None  # [steps, lanes]
    shared: bool = False  # settings are one for all lanes
    dtype: str = "float64"
    metric_dtype: str = "float64"
    publish: str = "float"
    events: int = 0

    def __len__(self):
        """Lane-steps that are compared: of lanes that are there."""
        ends = [len(self.metrics)] * len(self.lanes)
        for act in self.acts:
            for lane in act.lanes if act.do == "remove" else ():
                if act.at > self.lanes[lane].born:
                    ends[lane] = min(ends[lane], act.at)
        return sum(end - lane.born for lane, end in zip(self.lanes, ends, strict=True))

    def only_lanes(self, kept):
        """The same life of some of the lanes."""
        kept = sorted(kept)
        place = {lane: i for i, lane in enumerate(kept)}
        acts = []
        for act in self.acts:
            lanes = [place[lane] for lane in act.lanes if lane in place]
            value = act.value
            if act.do == "copy":
                pairs = [
                    (place[to], place[source])
                    for to, source in zip(act.lanes, act.value, strict=True)
                    if to in place and source in place
                ]
                lanes, value = [to for to, _ in pairs], [source for _, source in pairs]
            acts.append(dataclasses.replace(act, lanes=lanes, value=value))
        return dataclasses.replace(
            self,
            lanes=[self.lanes[lane] for lane in kept],
            acts=acts,
            metrics=self.metrics[:, kept],
            active=None if self.active is None else self.active[:, kept],
        )

    def without_steps(self, begin, end):
        """The same life, without some of its steps."""

        def moved(at):
            return min(at, begin) if at <= end else at - (end - begin)

        def cut(rows):
            return np.concatenate([rows[:begin], rows[end:]])

        return dataclasses.replace(
            self,
            lanes=[dataclasses.replace(lane, born=moved(lane.born)) for lane in self.lanes],
            acts=[dataclasses.replace(act, at=moved(act.at)) for act in self.acts],
            metrics=cut(self.metrics),
            active=None if self.active is None else cut(self.active),
        )


def drawn(seed, number):
    """The plan of a number."""
    r = random.Random(f"{seed} {number}")
    kind = KINDS[number % len(KINDS)]
    plan = Plan(seed, number, kind, [], [], np.zeros((0, 0)), None)
    size = r.random()
    n = r.randrange(1, 9) if size < 0.2 else r.randrange(9, 200) if size < 0.9 else 1100
    if kind == "one":
        n = min(n, 20)
    if kind == "parts":
        n = min(n, 100)
    steps = r.randrange(20, LONGEST)
    features = sorted(r.sample(sorted(set(FEATURES) - {"mask", "events"}), r.randrange(1, 7)))
    plan.shared = r.random() < 0.4
    groups = r.choice([1, 1, 1, 2, 3])
    uneven = r.random() < 0.2

    def settings(count):
        chosen = plain_settings(r, count)
        if r.random() < 0.5:
            chosen["patience"] = r.randrange(20)
        if kind == "parts":
            for feature in features:
                chosen.update(FEATURES[feature](r))
        return chosen

    common = settings(groups)
    few = [settings(groups) for _ in range(5)]  # which many lanes may have alike
    for _ in range(n):
        count = groups if plan.shared or not uneven else r.randrange(4)
        chosen = common if plan.shared else settings(count) if uneven else r.choice(few)
        plan.lanes.append(Lane([r.choice(RATES) for _ in range(count)], dict(chosen)))
    if kind in ("one", "batched"):  # an optimizer has groups
        plan.lanes = [lane for lane in plan.lanes if lane.rates] or [Lane([0.1], settings(1))]
        plan.publish = r.choice(["float", "tensor"])
        if plan.publish == "tensor":
            for lane in plan.lanes:
                lane.rates = torch.tensor(lane.rates).tolist()
    if plan.shared and isinstance(common["min_lr"], list):
        for lane in plan.lanes:
            lane.settings["min_lr"] = common["min_lr"]
    averages = kind == "parts" and AVERAGES & set(features)
    narrow = r.random() < 0.4 and not averages and kind != "one"
    plan.dtype = "float32" if narrow else "float64"
    plan.metric_dtype = plan.dtype
    if r.random() < 0.3:
        plan.metric_dtype = r.choice(METRICS[:3] if narrow else METRICS)
    plan.events = r.choice([0, 1, 50]) if kind in ("lanes", "parts") else 0
    if kind in ("lanes", "parts"):
        plan.acts = acts_of(plan, r, steps)
    else:
        plan.acts = [Act(r.randrange(steps), "save", []) for _ in range(r.randrange(4))]
    plan.acts.sort(key=lambda act: act.at)
    longest = max(lane.settings.get("window", 1) for lane in plan.lanes if not lane.born)
    for lane in plan.lanes:  # lanes that come later may have no longer window
        if "window" in lane.settings:
            lane.settings["window"] = min(lane.settings["window"], longest)
    numbers = np.random.RandomState(r.randrange(2**32))
    plan.metrics = metrics_of(plan, r, numbers, steps)
    if kind != "one" and r.random() < 0.3:
        plan.active = numbers.random_sample(plan.metrics.shape) < r.choice([0.1, 0.5, 0.95])
    return plan


def acts_of(plan, r, steps):
    """What happens to lanes on their way; some of them come later."""
    acts, n = [], len(plan.lanes)
    kinds = ["save", "save", "reset", "copy", "set", "remove", "append"]
    for _ in range(r.choice([0, 0, 1, 3, 8])):
        at, do = r.randrange(steps), r.choice(kinds)
        lanes = r.sample(range(1, n), r.randrange(min(n, 12)))  # the first lane always stays
        value = None
        if do == "append":
            for lane in lanes:
                plan.lanes[lane].born = at
            continue
        if do == "copy":
            value = [r.randrange(n) for _ in lanes]
        elif do == "set":
            name = r.choice(["lr", "patience", "factor", "cooldown", "threshold", "eps"])
            rates = name == "lr"
            value = {
                name: [r.choice(RATES) if rates else plain_settings(r, 1)[name] for _ in lanes]
            }
        acts.append(Act(at, do, lanes, value))
    return acts


def metrics_of(plan, r, numbers, steps):
    """Values that come again, tie with each other's gates, or creep along; with odd ones."""
    shape = (steps, len(plan.lanes))
    if r.random() < 0.6:
        alphabet = [r.choice(SPECIAL) if r.random() < 0.4 else r.uniform(-2, 2) for _ in range(6)]
        values = np.array(alphabet)[numbers.randint(0, len(alphabet), shape)]
    else:  # a course with noise, of few digits
        course = r.choice([0.99, 0.9, 1.0, 1.01]) ** np.arange(steps)[:, None]
        values = course + numbers.standard_normal(shape) * r.choice([0.0, 0.01, 0.3])
        values = np.round(values, r.choice([2, 3, 15])) * r.choice([1.0, -1.0, 1e-5, 1e300])
    sign = np.array([1.0 if lane.settings["mode"] == "max" else -1.0 for lane in plan.lanes])
    threshold = np.array([lane.settings["threshold"] for lane in plan.lanes])
    with np.errstate(all="ignore"):
        ties = [
            values * (1.0 + sign * threshold),
            values + sign * threshold,
            np.nextafter(values, sign * np.inf),
            values + (numbers.random_sample(shape) - 0.5) * 0.02,
        ]
    values = np.choose(numbers.randint(0, 6, shape), [*ties, values, values])
    if plan.metric_dtype == "int64":
        values = np.round(np.clip(np.nan_to_num(values), -9, 9) * 8)
    return values
