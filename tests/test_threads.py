"""Threads that change lanes while others step them, and processes that are forked meanwhile.

What could end the process runs in a child of its own.
"""

import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest
import torch

from torch_plateau import PlateauLanes

SECONDS = 1.0  # enough for the faults to have shown every time


def run_in_child(code, seconds=120):
    """Run Python code in a process of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout


BESIDE = """
    import threading, time, torch
    from torch_plateau import PlateauLanes
    n, seconds = {n}, {seconds}
    lanes = PlateauLanes(n, 0.1, patience=10**6)
    other = PlateauLanes(n, 0.1, patience=[3] * n)
    states = [lanes.state_dict(), other.state_dict()]
    end, steps = time.monotonic() + seconds, 0
    metrics = {{size: torch.rand(size) for size in range(n - 3, n + 4)}}

    def step():
        global steps
        while time.monotonic() < end:
            try:
                lanes.step(metrics[len(lanes)])
                steps += 1
            except ValueError as error:  # another thread was between len() and step()
                assert "metrics: expected shape" in str(error)

    def change():
        while time.monotonic() < end:
            {change}

    threads = [threading.Thread(target=each) for each in (step, step, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps > 3, steps
    assert len(lanes.lr) == len(lanes) == len(lanes.best)
    lanes.step(metrics[len(lanes)])
"""
CHANGES = {
    "append and remove": "lanes.append(2, 0.1); lanes.remove([0, 1])",
    "load": "[lanes.load_state_dict(state) for state in states]",
    "set": "lanes.set_lanes([0, n - 1], patience=5, lr=0.1)",
    "copy and reset": "lanes.copy_lanes([0], [n - 1]); lanes.reset([1])",
    "change type": "lanes.to(dtype=torch.float32); lanes.to(dtype=torch.float64)",
}


@pytest.mark.parametrize("n", [100, 5_000, 200_000])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_lanes_may_be_changed_by_one_thread_while_others_step_them(change, n):
    run_in_child(BESIDE.format(n=n, seconds=SECONDS, change=change))


class Interrupt(Exception):  # noqa: N818
    pass


STRIDE = 5  # of the lines at which a change is interrupted


def interrupted(call, lines):
    """Call, and raise after so many lines of what changes lanes; return whether it came to that."""
    left, before = lines, sys.gettrace()

    def trace(frame, event, _):
        nonlocal left
        if os.path.join("torch_plateau", "lanes") not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left < 0:
            raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


INTERRUPTED = {
    "append": lambda lanes: lanes.append(2, 0.5, patience=1),
    "remove": lambda lanes: lanes.remove([1]),
    "load_state_dict": lambda lanes: lanes.load_state_dict(OTHER),
    "set_lanes": lambda lanes: lanes.set_lanes([0, 2], lr=0.3, patience=4),
    "copy_lanes": lambda lanes: lanes.copy_lanes([0], [2]),
    "reset": lambda lanes: lanes.reset([0]),
    "to": lambda lanes: lanes.to(dtype=torch.float32),
}
OTHER = PlateauLanes(3, 0.7, max_reductions=[1, 2, 3], patience=[1, 2, 3]).state_dict()


def three_lanes():
    lanes = PlateauLanes(3, 0.1, max_reductions=9, events=3, patience=0)
    lanes.step([1.0, 2.0, 3.0])
    lanes.step([2.0, 2.0, 2.0])
    return lanes


def everything(lanes):
    return repr([lanes.state_dict(), lanes.lr, lanes.best, lanes.groups])


@pytest.mark.parametrize("change", INTERRUPTED.values(), ids=INTERRUPTED)
def test_a_change_that_is_interrupted_anywhere_is_done_or_not_begun(change):
    new = three_lanes()
    change(new)
    allowed = everything(three_lanes()), everything(new)
    for stops in itertools.count():
        lanes = three_lanes()
        ended = not interrupted(lambda lanes=lanes: change(lanes), STRIDE * stops)
        torch.set_grad_enabled(True)  # torch's no_grad may be interrupted on its way out
        if ended:
            break
        assert everything(lanes) in allowed
        lanes.step(torch.full((len(lanes),), 0.5, dtype=lanes.dtype))
    assert stops > 20
    assert everything(lanes) == allowed[1]


def longest_pause_beside(call, seconds=0.5):
    """How long, at most, another thread waited for the interpreter lock meanwhile."""
    end, longest = time.monotonic() + seconds, 0.0
    done = threading.Event()

    def run():
        while time.monotonic() < end:
            call()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    last = time.perf_counter()
    while not done.is_set():
        time.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    thread.join()
    return longest


def test_one_lane_with_many_rates_does_not_stop_other_threads():
    count = 8_000_000  # so that a step takes far longer than a turn of a busy processor
    lanes = PlateauLanes(1, 0.5, groups=[count], patience=0, factor=0.999, eps=0.0)
    metric = torch.ones(1)
    lanes.step(metric)
    start = time.perf_counter()
    for _ in range(5):
        lanes.step(metric)
    one_step = (time.perf_counter() - start) / 5
    pauses = [longest_pause_beside(lambda: lanes.step(metric)) for _ in range(5)]
    assert lanes.num_reductions.item() > 8
    assert min(pauses) < one_step / 2


FORK = """
    import os, signal, threading, time, warnings
    import torch
    from torch_plateau import PlateauLanes
    warnings.simplefilter("ignore")  # of threads beside a fork, from Python 3.12 on
    torch.set_num_threads({threads})
    lanes = PlateauLanes({n}, 0.1, patience=1, factor=0.9)
    metrics = torch.rand({n})

    def step():
        while True:
            lanes.step(metrics)

    threading.Thread(target=step, daemon=True).start()
    for _ in range(20):
        time.sleep(0.01)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends one that hangs
            counts = lanes.num_steps.item()
            lanes.step(metrics)
            torch.set_num_threads(1)  # those of torch itself are not in a child
            whole = lanes.num_bad_epochs.unique().numel() == 1 and lanes.num_steps == counts + 1
            os._exit(0 if whole else 3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, status
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks")
@pytest.mark.parametrize(("n", "threads"), [(1000, 1), (2_000_000, 1), (2_000_000, 2)])
def test_a_process_that_is_forked_beside_a_step_can_step_on(n, threads):
    run_in_child(FORK.format(n=n, threads=threads))


@pytest.mark.parametrize(
    "settings", [{}, {"nan": "skip", "stop_patience": 9}], ids=["plain", "parts"]
)
def test_a_step_of_many_lanes_is_the_same_on_any_number_of_threads(settings):
    n, threads_before = 700_001, torch.get_num_threads()
    random = torch.Generator().manual_seed(5)
    history = torch.rand(6, n, generator=random)
    history[torch.rand(6, n, generator=random) < 0.01] = torch.nan
    mask = torch.rand(n, generator=random) < 0.9
    every = [
        PlateauLanes(n, 0.1, patience=1, cooldown=1, dtype=torch.float32, **settings)
        for _ in range(3)
    ]
    try:
        for epoch, metrics in enumerate(history):
            for threads, lanes in zip((1, 2, 5), every, strict=True):
                torch.set_num_threads(threads)
                lanes.step(metrics, mask if epoch % 2 else None)
    finally:
        torch.set_num_threads(threads_before)
    alone, *shared = (lanes.state_dict() for lanes in every)
    assert every[0].num_reductions.sum() > n
    for state in shared:
        for name, value in alone.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(state[name].nan_to_num(7), value.nan_to_num(7)), name


def test_a_child_that_is_forked_while_lanes_are_changed_can_change_them():
    run_in_child(
        """
        import os, signal, threading, torch, warnings
        from torch_plateau import PlateauLanes
        warnings.simplefilter("ignore")
        lanes = PlateauLanes(4, 0.1)
        inside, go_on = threading.Event(), threading.Event()

        class Slow(list):  # is read in the middle of a change
            def __iter__(self):
                inside.set()
                go_on.wait()
                return super().__iter__()

        thread = threading.Thread(target=lambda: lanes.set_lanes([0, 1], lr=Slow([0.5, 0.5])))
        thread.start()
        if not inside.wait(20):
            raise SystemExit("nobody read the list")
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            lanes.set_lanes([2], lr=0.25)
            lanes.step(torch.ones(4))
            os._exit(0 if lanes.lr.tolist()[2] == 0.25 else 3)
        go_on.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lanes.lr.tolist()[:2] == [0.5, 0.5]
        """
    )


# -- what is kept longer, and what is taken away --------------------------------------------------


def test_a_bound_step_that_is_kept_longer_than_its_lanes_works():
    run_in_child(
        """
        import gc, torch
        from torch_plateau import PlateauLanes
        for n in (3, 100_000):
            lanes = PlateauLanes(n, 0.1, patience=0)
            step, advance, core = lanes.step, lanes._advance, lanes._core.step_masked
            del lanes
            gc.collect()
            for row in torch.rand(5, n):
                step(row)
                advance(row)
                core(row, torch.ones(n, dtype=torch.bool))
        del step
        gc.collect()
        junk = [torch.rand(100_000) for _ in range(20)]
        for _ in range(5):
            advance(torch.rand(n))
        """
    )


def freed(tensor):
    tensor.untyped_storage().resize_(0)


@pytest.mark.parametrize("gibibytes", [0, 1, 4])
def test_metrics_whose_memory_was_freed_are_refused_at_every_offset(gibibytes):
    run_in_child(
        f"""
        import torch
        from torch.optim import SGD
        from torch_plateau import PlateauLanes, ReduceLROnPlateau
        whole = torch.empty(({gibibytes} << 30) + 64, dtype=torch.uint8)  # is never touched
        metrics = whole[-64:].view(torch.float64)
        one = metrics[3]
        whole.untyped_storage().resize_(0)
        drop_in = ReduceLROnPlateau(SGD([torch.ones(1)], lr=0.1))
        calls = [
            lambda: PlateauLanes(8, 0.1).step(metrics),
            lambda: PlateauLanes(1, 0.1).step(one),
            lambda: drop_in.step(one),
        ]
        for call in calls:
            try:
                call()
            except ValueError as error:
                assert "storage was freed" in str(error), error
            else:
                raise SystemExit("a metric without memory was read")
        """
    )


def test_metrics_that_another_thread_frees_are_held_for_a_step():
    run_in_child(
        f"""
        import threading, time, torch
        from torch_plateau import PlateauLanes
        n = 1_000_000
        lanes = PlateauLanes(n, 0.1)
        end = time.monotonic() + {SECONDS}
        metrics = torch.ones(n)

        def trade():
            while time.monotonic() < end:
                metrics.set_(torch.ones(n))  # nobody but the step holds the old memory

        thread = threading.Thread(target=trade)
        thread.start()
        while time.monotonic() < end:
            lanes.step(metrics)
        thread.join()
        assert lanes.best.unique().tolist() == [1.0]
        """
    )


# -- asking a type what it is may run any code ----------------------------------------------------


def test_a_type_that_steps_lanes_while_it_is_asked_is_survived():
    run_in_child(
        """
        import gc, sys, torch
        from torch_plateau import PlateauLanes
        lanes, changed = PlateauLanes(2, 0.1), []

        def step_with(kind):
            try:
                lanes.step(kind())
            except TypeError as error:
                assert "metrics: expected" in str(error)

        class Meta(type):
            def __getattr__(cls, name):
                gc.collect()  # the type that was met before is held by nobody else
                others = [type(f"Other{i}", (), {}) for i in range(50)]  # one in its place
                held = [sys.getrefcount(each) for each in others]
                step_with(object)
                changed.append([sys.getrefcount(each) for each in others] != held)
                raise AttributeError(name)

        for _ in range(5):
            step_with(type("Met", (), {}))
            step_with(Meta("Odd", (), {}))
            gc.collect()
            lanes.step(torch.ones(2))
        assert len(changed) >= 5 and not any(changed)
        assert lanes.best.tolist() == [1.0, 1.0]
        """
    )


def test_lanes_with_a_callback_are_gone_when_nobody_holds_them():
    lanes = PlateauLanes(2, 0.1, patience=0, on_reduce=lambda *_: None)
    lanes.step([1.0, 1.0])
    lanes.step([2.0, 2.0])
    gc.collect()
    gc.disable()
    try:
        there = weakref.ref(lanes)
        del lanes
        assert there() is None
    finally:
        gc.enable()
