"""Make a plan that differs small: fewer acts, lanes, steps and settings, plainer numbers."""

import dataclasses
import time

import numpy as np

from .check import difference

SECONDS = 60  # of which more is not spent on one plan


def outcome(plan, device, copies=1):
    """The difference, or the error; None if all is the same."""
    try:
        return difference(plan, device, copies)
    except Exception as error:  # a fault of ours may show as one
        return f"{type(error).__name__}: {error}"


def shrunk(plan, device="cpu", copies=1):
    """The smallest plan found that fails as this one does: by a difference, or by this error."""
    said = outcome(plan, device, copies)
    ends = time.monotonic() + SECONDS

    def still(smaller):
        if time.monotonic() > ends:
            return False
        now = outcome(smaller, device, copies)
        return now is not None and _kind(now) == _kind(said)

    before = None
    while before != _size(plan):
        before = _size(plan)
        for smaller_by in (_fewer_acts, _fewer_steps, _fewer_lanes, _fewer_settings, _plainer):
            plan = smaller_by(plan, still)
    return plan


def _kind(said):
    """Differences are all of one kind; errors of one type are."""
    first = said.split(" ")[0]
    return first if first.endswith(":") else "difference"


def _size(plan):
    settings = sum(len(lane.settings) for lane in plan.lanes)
    return len(plan), len(plan.acts), settings, int(np.count_nonzero(plan.metrics))


def _without_some(count, remove, plan, still):
    """Take away half of what there is, then quarters, down to single ones, as long as it fails."""
    chunk = count(plan)
    while chunk:
        begin = 0
        while begin < count(plan):
            smaller = remove(plan, begin, min(begin + chunk, count(plan)))
            if smaller is not None and still(smaller):
                plan = smaller
            else:
                begin += chunk
        chunk //= 2
    return plan


def _fewer_acts(plan, still):
    def without(plan, begin, end):
        return dataclasses.replace(plan, acts=plan.acts[:begin] + plan.acts[end:])

    return _without_some(lambda plan: len(plan.acts), without, plan, still)


def _fewer_steps(plan, still):
    def without(plan, begin, end):
        return plan.without_steps(begin, end)

    return _without_some(lambda plan: len(plan.metrics), without, plan, still)


def _fewer_lanes(plan, still):
    def without(plan, begin, end):
        kept = [lane for lane in range(len(plan.lanes)) if not begin <= lane < end]
        return plan.only_lanes(kept) if any(not plan.lanes[i].born for i in kept) else None

    return _without_some(lambda plan: len(plan.lanes), without, plan, still)


def _fewer_settings(plan, still):
    kept = {"mode", "threshold", "min_lr"}
    for name in sorted(set(plan.lanes[0].settings) - kept):
        lanes = [
            dataclasses.replace(
                lane, settings={k: v for k, v in lane.settings.items() if k != name}
            )
            for lane in plan.lanes
        ]
        smaller = dataclasses.replace(plan, lanes=lanes)
        plan = smaller if still(smaller) else plan
    smaller = dataclasses.replace(plan, active=None)
    return smaller if plan.active is not None and still(smaller) else plan


def _plainer(plan, still):
    """Put 0 or 1 in the place of metrics, where few are left."""
    if plan.metrics.size > 64:
        return plan
    for place in np.ndindex(plan.metrics.shape):
        for number in (0.0, 1.0):
            if plan.metrics[place] in (0.0, 1.0):
                break
            metrics = plan.metrics.copy()
            metrics[place] = number
            smaller = dataclasses.replace(plan, metrics=metrics)
            plan = smaller if still(smaller) else plan
    return plan
