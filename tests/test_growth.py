"""Nothing grows: long runs keep their memory, and what is dropped is gone at once, hooks too."""

import gc
import tracemalloc
import weakref

import pytest

from dropped import BUILT, ON_ONE_OPTIMIZER, sgd
from growth import LONG_RUNS
from subjects.schedulers import hooks_of
from torch_plateau import LaneLR, PlateauLanes

STEPS = 400
GROWS = 2_000  # bytes of Python: an object a step would be five times as many


@pytest.mark.parametrize("name", LONG_RUNS)
def test_steps_leave_nothing_behind(name):
    step = LONG_RUNS[name]()
    tracemalloc.start()
    try:
        for i in range(100):  # what replaces older things is counted from here on
            step(i)
        grown = []
        for window in range(3):  # what leaks does so in each of them
            before = tracemalloc.get_traced_memory()[0]
            for i in range(STEPS):
                step(100 + window * STEPS + i)
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
        assert min(grown) < GROWS
    finally:
        tracemalloc.stop()


@pytest.fixture
def without_collector():
    """Whatever dies in a test dies without the collector of cycles."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
@pytest.mark.usefixtures("without_collector")
def test_what_nobody_holds_is_gone_at_once(build):
    build()  # imports
    there = weakref.ref(build())
    assert there() is None


@pytest.mark.usefixtures("without_collector")
def test_an_optimizer_with_a_lane_lr_is_gone_at_once():
    optimizer = sgd()
    rates = LaneLR(optimizer, PlateauLanes(2, 0.1))
    there = weakref.ref(optimizer), weakref.ref(rates)
    del optimizer, rates
    assert [each() for each in there] == [None, None]


def test_a_removed_lane_lr_leaves_an_optimizer_as_it_was():
    optimizer = sgd()
    before = set(vars(optimizer)), hooks_of(optimizer)
    LaneLR(optimizer, PlateauLanes(2, 0.1)).remove()
    assert (set(vars(optimizer)), hooks_of(optimizer)) == before


@pytest.mark.parametrize("build", ON_ONE_OPTIMIZER.values(), ids=ON_ONE_OPTIMIZER.keys())
@pytest.mark.usefixtures("without_collector")
def test_the_hooks_of_an_optimizer_do_not_grow_with_the_schedulers_that_it_has_had(build):
    optimizer = sgd()
    build(optimizer)  # torch wraps step() once; our one hook stays, for schedulers to come
    before = set(vars(optimizer)), hooks_of(optimizer)
    for _ in range(3):
        build(optimizer)
    assert (set(vars(optimizer)), hooks_of(optimizer)) == before
    ours = optimizer._optimizer_load_state_dict_post_hooks.values()
    assert all(len(hook) <= 1 for hook in ours)  # which remembers the last until another comes
