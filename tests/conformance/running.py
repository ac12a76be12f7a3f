"""Live plan after plan, in processes."""

import collections
import concurrent.futures
import multiprocessing
import time

import torch

from .check import COPIED
from .plans import KINDS, drawn
from .shrink import outcome

CHUNK = len(KINDS)  # plans that a process takes at a time


def lived(seed, device, copies, first):
    """Live a chunk of plans; what to count, and what differs."""
    steps, differs = collections.Counter(), {}
    for number in range(first, first + CHUNK):
        plan = drawn(seed, number)
        steps[plan.kind] += len(plan) * (copies if plan.kind in COPIED else 1)
        said = outcome(plan, device, copies)
        if said is not None:
            differs[number] = said
    return steps, differs


def compared(run, jobs, lane_steps, seconds):
    """Live plan after plan until there are enough; yield what each chunk gave, in order."""
    ends, plans = time.monotonic() + seconds, (run["seed"], run["device"], run["copies"])

    def more():
        return sum(run["lane_steps"].values()) < lane_steps and time.monotonic() < ends

    if not jobs:  # in this process
        while more():
            yield lived(*plans, run["plans"])
        return
    first, pending, spawn = run["plans"], collections.deque(), multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        jobs, spawn, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        while more():
            while len(pending) < 8 * jobs:  # some take much longer than others
                pending.append(pool.submit(lived, *plans, first))
                first += CHUNK
            yield pending.popleft().result()
        for future in pending:
            future.cancel()
