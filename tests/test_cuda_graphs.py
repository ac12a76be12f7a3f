"""Steps on a GPU that are replayed, or run beside others: CUDA graphs, streams and events."""

import pytest
import torch
from torch.optim import AdamW

from cuda_lanes import SETTINGS, Ensemble, assert_same, noisy, varied
from oracle import TorchLanes, assert_same_state
from torch_plateau import BatchedReduceLROnPlateau, PlateauLanes

SLEEP = 50_000_000  # cycles, some 30 ms: longer than the host needs to queue a few kernels


@pytest.fixture
def cuda(cuda_devices):
    """One CUDA device, the current one."""
    return cuda_devices[0]


def captured(function, stream=None):
    """A CUDA graph of what ``function`` queues; it does not run."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    return graph


# -- graphs ---------------------------------------------------------------------------------------


def test_a_thousand_replays_of_a_captured_first_step_decide_as_torchs_schedulers_do(cuda):
    lanes, oracle = varied(cuda)
    eager, _ = varied(cuda)
    history = noisy(1000, len(lanes))
    static, rows = torch.full((len(lanes),), torch.nan, device=cuda).double(), history.to(cuda)
    graph = captured(lambda: lanes.step(static))
    assert_same(lanes, varied("cpu")[0])  # nothing has run
    for i in range(1000):
        static.copy_(rows[i])
        graph.replay()
        eager.step(rows[i])
        oracle.step(history[i].tolist())
        if i in (0, 1, 2, 9, 99, 500, 999):
            assert_same_state(lanes, oracle)
            assert_same(lanes, eager)
            assert lanes.num_steps == i + 1
    assert min(oracle.num_reductions) > 1


def test_one_graph_holds_training_validation_and_the_step(cuda):
    ensemble, side = Ensemble(cuda), torch.cuda.Stream()
    lanes, losses = ensemble.lanes, torch.zeros(12, device=cuda)

    def epoch():
        losses.copy_(ensemble.epoch())

    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # allocates what the optimizer keeps
            epoch()
            ensemble.twin.step(losses.cpu())
    torch.cuda.current_stream().wait_stream(side)
    graph = captured(epoch, stream=side)
    for _ in range(60):
        graph.replay()
        ensemble.twin.step(losses.cpu())  # the very losses that the graph computed
        assert_same(lanes, ensemble.twin)
    assert lanes.num_steps == 63
    assert lanes.num_reductions.sum() > 12
    before = [param.detach().clone() for param in ensemble.params]
    graph.replay()
    assert not any(map(torch.equal, ensemble.params, before))
    before = [param.detach().clone() for param in ensemble.params]
    lanes.lr.zero_()  # the graph trains by the live rates
    graph.replay()
    assert all(map(torch.equal, ensemble.params, before))


def test_a_captured_graph_sees_the_per_lane_settings_of_a_loaded_state(cuda):
    lanes, _ = varied(cuda)
    static = torch.zeros(len(lanes), device=cuda)
    graph = captured(lambda: lanes.step(static))
    turned = SETTINGS[::-1]
    each = {name: [lane[name] for lane in turned] for name in turned[0]}
    loaded = PlateauLanes(len(lanes), 0.1, **each)  # what is one number for all stays as it was
    lanes.load_state_dict(loaded.state_dict())
    oracle = TorchLanes([[0.1]] * len(turned), turned)
    for row in noisy(40, len(lanes), torch.float32):
        static.copy_(row)
        graph.replay()
        oracle.step(row.tolist())
        assert_same_state(lanes, oracle)


def test_a_captured_scheduler_cuts_the_rates_that_its_optimizers_read(cuda):
    optimizers = [AdamW([torch.ones(2, device=cuda)], lr=0.1, capturable=True) for _ in range(3)]
    keywords = {"patience": [0, 1, 9], "factor": 0.5}
    scheduler = BatchedReduceLROnPlateau(optimizers, publish="tensor", **keywords)
    static = torch.ones(3, device=cuda)
    graph = captured(lambda: scheduler.step(static))
    for _ in range(3):
        graph.replay()
    rates = torch.tensor([0.025, 0.05, 0.1])
    assert torch.equal(torch.stack([o.param_groups[0]["lr"] for o in optimizers]).cpu(), rates)
    assert (scheduler.lanes.num_steps, scheduler.last_epoch) == (3, 1)


# -- streams --------------------------------------------------------------------------------------


def late(metrics, row):
    """Write ``row`` into ``metrics`` on the current stream, a good while after this returns."""
    torch.cuda._sleep(SLEEP)
    metrics.copy_(row)


def test_a_step_on_a_side_stream_comes_after_the_metrics_of_that_stream(cuda):
    lanes, oracle = varied(cuda)
    history, side = noisy(4, len(lanes)), torch.cuda.Stream()
    rows, metrics = history.to(cuda), torch.full((len(lanes),), torch.nan, device=cuda).double()
    torch.cuda.synchronize()
    for row, here in zip(rows, history, strict=True):
        with torch.cuda.stream(side):
            late(metrics, row)
            lanes.step(metrics)
        assert not side.query()  # the step was queued and not waited for
        side.synchronize()
        oracle.step(here.tolist())
        assert_same_state(lanes, oracle)


def test_a_step_on_a_stream_that_waits_for_another_sees_its_metrics(cuda):
    lanes, oracle = varied(cuda)
    row, one, two = noisy(1, len(lanes))[0], torch.cuda.Stream(), torch.cuda.Stream()
    there, metrics = row.to(cuda), torch.full((len(lanes),), torch.nan, device=cuda).double()
    torch.cuda.synchronize()
    with torch.cuda.stream(one):
        late(metrics, there)
        done = one.record_event()
    with torch.cuda.stream(two):
        two.wait_event(done)
        lanes.step(metrics)
    two.synchronize()
    oracle.step(row.tolist())
    assert_same_state(lanes, oracle)


def test_a_step_captured_on_one_side_stream_replays_on_another(cuda):
    lanes, oracle = varied(cuda)
    row, one, two = noisy(1, len(lanes))[0], torch.cuda.Stream(), torch.cuda.Stream()
    there, static = row.to(cuda), torch.full((len(lanes),), torch.nan, device=cuda).double()
    graph = captured(lambda: lanes.step(static), stream=one)
    torch.cuda.synchronize()
    with torch.cuda.stream(two):
        late(static, there)
        graph.replay()
    two.synchronize()
    oracle.step(row.tolist())
    assert_same_state(lanes, oracle)


class Foreign:
    """An array of another library, made on a stream of that library's, read by DLPack alone."""

    def __init__(self, tensor, stream):
        self.tensor, self.stream, self.asked = tensor, stream, []

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, *, stream, max_version=None):
        self.asked.append(stream)
        legacy = torch.cuda.default_stream()
        reader = legacy if stream == 1 else torch.cuda.ExternalStream(stream)
        reader.wait_event(self.stream.record_event())
        return self.tensor.__dlpack__(stream=-1, max_version=max_version)


@pytest.mark.parametrize("on_side", [False, True], ids=["default stream", "side stream"])
def test_arrays_of_other_libraries_are_made_safe_on_the_current_stream(on_side, cuda):
    lanes, oracle = varied(cuda)
    row, producer = noisy(1, len(lanes))[0], torch.cuda.Stream()
    there, metrics = row.to(cuda), torch.full((len(lanes),), torch.nan, device=cuda).double()
    current = torch.cuda.Stream() if on_side else torch.cuda.default_stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(producer):
        late(metrics, there)
    array = Foreign(metrics, producer)
    with torch.cuda.stream(current):
        lanes.step(array)
    assert not current.query()  # made safe by an event, not by waiting
    current.synchronize()
    assert array.asked == [current.cuda_stream if on_side else 1]  # DLPack's number of the default
    oracle.step(row.tolist())
    assert_same_state(lanes, oracle)
