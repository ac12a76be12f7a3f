"""Lanes and schedulers in other processes decide there as they would here, and here as before.

Sent in queues, held by the workers of a DataLoader, or taken along by a fork; the oracle is torch.
"""

import multiprocessing
import os

import pytest
import torch
from torch.utils.data import DataLoader

from elsewhere import RATES, SETTINGS, THINGS, Collate, Rates, awake, rows, serve, step
from oracle import TorchLanes
from torch_plateau import PlateauLanes

METHODS = multiprocessing.get_all_start_methods()  # Windows has but one
SECONDS = 100
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),  # from Python 3.12 on
    # jax's, where another test imported it
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called"),
]


def torch_rates(*histories):
    """What torch's schedulers make of metrics, row by row of the last history."""
    oracle, found = TorchLanes([[rate] for rate in RATES], [SETTINGS] * len(RATES)), []
    for row in (row for history in histories for row in history):
        oracle.step(row)
        found.append(oracle.rates)
    return found[-len(histories[-1]) :]


def same(ours, theirs):
    """Whether rates are those of torch; of a single plateau it has the first lane."""
    return ours == [each[: len(row)] for each, row in zip(theirs, ours, strict=True)]


@pytest.fixture(scope="module", params=[*METHODS, "torch"])
def elsewhere(request):
    """A process, and queues to it and back."""
    library = torch.multiprocessing if request.param == "torch" else multiprocessing
    context = library.get_context(METHODS[0] if request.param == "torch" else request.param)
    inbox, outbox = context.Queue(), context.Queue()
    process = context.Process(target=serve, args=(inbox, outbox), daemon=True)
    process.start()
    yield inbox, outbox
    inbox.put(None)
    process.join(SECONDS)
    assert process.exitcode == 0


@pytest.mark.parametrize("name", THINGS)
def test_what_a_queue_brings_steps_as_it_would_have_here(elsewhere, name):
    inbox, outbox = elsewhere
    first, there, here, back = map(rows, range(4))
    thing = awake(THINGS[name]())
    for row in first:
        step(thing, row)
    inbox.put((thing.state_dict() if "state" in name else thing, there))
    answer = outbox.get(timeout=SECONDS)
    assert isinstance(answer, tuple), answer
    process, found, returned = answer
    assert process != os.getpid()
    assert same(found, torch_rates(first, there))
    assert same([step(thing, row) for row in here], torch_rates(first, here))
    assert same([step(returned, row) for row in back], torch_rates(first, there, back))


@pytest.mark.parametrize("method", [each for each in METHODS if each != "forkserver"])
def test_lanes_of_a_data_set_step_in_its_worker(method):
    metrics, data = rows(5), Rates(rows(5))
    persistent = method != "fork"
    loader = DataLoader(
        data,
        batch_size=None,
        num_workers=1,
        multiprocessing_context=method,
        persistent_workers=persistent,
        timeout=SECONDS,
    )
    first, second = ([each.tolist() for each in loader] for _ in range(2))
    assert first == torch_rates(metrics)
    assert second == torch_rates(*[metrics] * (1 + persistent))  # or by a new worker
    del loader
    assert [data[i].tolist() for i in range(len(data))] == torch_rates(metrics)  # here as before


def test_a_scheduler_of_a_collate_function_steps_in_each_worker_for_itself():
    collate, metrics = Collate(), rows(6)
    loader = DataLoader(metrics, batch_size=10, num_workers=2, collate_fn=collate, timeout=SECONDS)
    each_its_own = [torch_rates(metrics[:10]), torch_rates(metrics[10:])]
    assert [batch.tolist() for batch in loader] == each_its_own
    assert collate(metrics).tolist() == torch_rates(metrics)


if "fork" in METHODS:

    def test_a_fork_steps_many_lanes_after_threads_did():
        threads = torch.get_num_threads()
        n = 100_000 * len(RATES)  # so many are shared out to threads
        many = [torch.tensor(row, dtype=torch.float32).repeat(100_000) for row in rows(7)]
        metrics = [each[: len(RATES)].tolist() for each in many]
        lanes = PlateauLanes(n, RATES * 100_000, dtype=torch.float32, **SETTINGS)
        expected = torch_rates(metrics)

        def goes_on():
            """Whether every lane has the rates of torch's from the sixth row on."""
            shown = [lanes.step(row).view(-1, len(RATES)) for row in many[5:]][-1]
            return shown.unique(dim=0).tolist() == [torch.tensor(expected[-1]).tolist()]

        torch.set_num_threads(2)
        try:
            for row in many[:5]:
                lanes.step(row)
            child = os.fork()
            if child == 0:
                torch.set_num_threads(1)
                os._exit(0 if goes_on() else 3)
            assert goes_on()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            torch.set_num_threads(threads)
