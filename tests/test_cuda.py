"""What only a GPU can show: that nothing waits, one kernel a step, devices, and many lanes."""

import io
import json
import time
import warnings

import pytest
import torch
from torch.optim import SGD, Adadelta, Adagrad, Adamax, AdamW, NAdam, RAdam, RMSprop
from torch.profiler import ProfilerActivity, profile

from cuda_lanes import SETTINGS, Ensemble, assert_same, noisy, sync_debug_mode, varied
from oracle import TorchLanes, assert_same_state
from torch_plateau import BatchedReduceLROnPlateau, PlateauLanes


@pytest.fixture
def cuda(cuda_devices):
    """One CUDA device, the current one."""
    return cuda_devices[0]


# -- nothing waits for the device -----------------------------------------------------------------


def test_an_ensembles_epochs_and_all_that_is_read_of_the_lanes_wait_for_nothing(cuda):
    ensemble = Ensemble(cuda)
    lanes, history, read = ensemble.lanes, [ensemble.epoch(functional=True)], []
    with sync_debug_mode("error"):
        for _ in range(30):
            history.append(ensemble.epoch(functional=True))
            read = [lanes.improved, lanes.reduced, lanes.lr, lanes.lr_master, lanes.num_bad_epochs]
            read += [lanes.cooldown_counter, lanes.num_reductions, lanes.num_steps, lanes.best]
            read += [lanes.state_dict(), lanes.settings, lanes.device, len(lanes)]
    for losses in history:
        ensemble.twin.step(losses.cpu())
    assert_same(lanes, ensemble.twin)
    assert lanes.num_steps == 31
    assert lanes.num_reductions.sum() > 0


FREE = [
    *((SGD, {"fused": True}), (AdamW, {"fused": True}), (AdamW, {"capturable": True})),
    *((RMSprop, {"capturable": True}), (Adadelta, {"capturable": True}), (Adagrad, {})),
    *((NAdam, {"capturable": True}), (Adamax, {"capturable": True}), (RAdam, {})),
]


@pytest.mark.parametrize(("kind", "options"), FREE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_epochs_of_optimizers_with_tensor_rates_wait_for_nothing(kind, options, cuda):
    params = [torch.randn(4, 1).to(cuda).requires_grad_() for _ in SETTINGS]
    optimizers = [kind([param], lr=0.1, **options) for param in params]
    each = {name: [lane[name] for lane in SETTINGS] for name in SETTINGS[0]}
    scheduler = BatchedReduceLROnPlateau(optimizers, publish="tensor", **each)
    oracle = TorchLanes([[0.1]] * len(SETTINGS), SETTINGS)
    x, history = torch.randn(32, 4).to(cuda), []

    def epoch():
        losses = torch.stack([(x @ param).square().mean() for param in params])
        losses.sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step(losses)
        scheduler.get_last_lr()
        history.append(losses.detach())

    epoch()
    with sync_debug_mode("error"):
        for _ in range(10):
            epoch()
    for losses in history:
        oracle.step(losses.tolist())
    assert_same_state(scheduler.lanes, oracle)
    assert [float(o.param_groups[0]["lr"]) for o in optimizers] == scheduler.lanes.lr.tolist()


def syncs_of(function):
    """How often ``function`` waits for the device."""
    with warnings.catch_warnings(record=True) as caught, sync_debug_mode("warn"):
        warnings.simplefilter("always")
        function()
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


@pytest.mark.parametrize("n", [1, 50])
def test_float_rates_cost_one_wait_a_step_however_many_lanes(n, cuda):
    optimizers = [SGD([torch.ones(2, device=cuda)], lr=0.1) for _ in range(n)]
    scheduler = BatchedReduceLROnPlateau(optimizers, patience=0, factor=0.5)
    assert scheduler.publish == "float"
    assert scheduler.lanes.device == torch.device("cpu")
    metrics = torch.ones(n, device=cuda)
    counts = [syncs_of(lambda: scheduler.step(metrics)) for _ in range(3)]  # the last two cut
    assert counts == [1, 1, 1]
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [0.025] * n


def test_tensor_rates_live_with_the_parameters_and_an_optimizer_that_waits_is_warned_of(cuda):
    param = torch.zeros(2, device=cuda)
    waits = "SGD waits for its rate at every step when that is on a GPU; set fused=True"
    with pytest.warns(UserWarning, match=waits):
        BatchedReduceLROnPlateau(SGD([param], lr=0.5), publish="tensor")
    optimizer = SGD([param], lr=0.5, fused=True)
    scheduler = BatchedReduceLROnPlateau(optimizer, patience=0, publish="tensor")
    assert scheduler.lanes.device == torch.device(cuda)
    param.grad = torch.ones(2, device=cuda)
    for metric, where in ((1.0, -0.5), (1.0, -1.0), (0.5, -1.05)):
        optimizer.step()
        torch.testing.assert_close(param.cpu(), torch.full((2,), where))
        scheduler.step(torch.tensor([metric], device=cuda))


# -- one kernel -----------------------------------------------------------------------------------

METRICS = {
    "float32": lambda n: torch.rand(n),
    "float64": lambda n: torch.rand(n, dtype=torch.float64),
    "bfloat16": lambda n: torch.rand(n).bfloat16(),
    "int64": lambda n: torch.randint(9, (n,)),
    "strided": lambda n: torch.rand(n, 3)[:, 1],
}
SHAPES = {  # the kernel, the number of lanes, and their settings
    "uniform": ("step_few", 100, {}),
    "four a thread": ("step_many", 2**18, {}),
    "per-lane": ("step_few", 100, {"patience": torch.arange(100) % 3}),
    "parts": ("step_parts", 100, {"nan": "skip"}),
    "groups": ("step_groups", 100, {"groups": [i % 3 for i in range(100)]}),
    "groups, parts": (
        "step_grouped_parts",
        100,
        {"groups": [i % 3 for i in range(100)], "nan": "skip"},
    ),
}


@pytest.mark.parametrize("metrics_of", METRICS.values(), ids=METRICS.keys())
@pytest.mark.parametrize(("kernel", "n", "keywords"), SHAPES.values(), ids=SHAPES.keys())
def test_a_step_is_one_kernel_and_copies_and_clears_nothing(
    kernel, n, keywords, metrics_of, cuda, tmp_path
):
    lanes = PlateauLanes(n, 0.1, device=cuda, **keywords)
    metrics = metrics_of(n).to(cuda)
    lanes.step(metrics)
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as trace:
        time.sleep(0.01)  # kineto drops what lies on the edge
        for _ in range(3):
            lanes.step(metrics)
        torch.cuda.synchronize()
        time.sleep(0.01)
    trace.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    on_device = ("kernel", "gpu_memcpy", "gpu_memset")
    names = [event["name"] for event in events if event.get("cat") in on_device]
    assert len(names) == 3, names
    assert all(kernel in name for name in names), names


# -- devices --------------------------------------------------------------------------------------


def test_lanes_of_every_device_step_whatever_device_is_current(cuda_devices):
    for device in cuda_devices:
        with torch.cuda.device(device):
            assert PlateauLanes(2, 0.1, device="cuda").device == torch.device(device)
        with torch.cuda.device(0):
            lanes, oracle = varied(device)
            for row in noisy(10, len(lanes)):
                lanes.step(row.to(device))
                assert torch.cuda.current_device() == 0
                oracle.step(row.tolist())
                assert_same_state(lanes, oracle)
            assert lanes.lr.device == torch.device(device)


def test_metrics_of_another_device_are_refused_and_change_nothing(cuda_devices):
    for device in cuda_devices:
        lanes, _ = varied(device)
        row = torch.rand(len(lanes))
        others = [row, row.pin_memory(), row.numpy()]
        others += [row.to(other) for other in cuda_devices if other != device]
        for metrics in others:
            with pytest.raises(ValueError, match=rf"metrics: expected device {device}, got .*c"):
                lanes.step(metrics)
        assert_same(lanes, varied("cpu")[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_lanes_that_are_moved_to_a_gpu_and_back_go_on_as_they_were(dtype, cuda):
    lanes, oracle = varied("cpu", dtype)
    for step, row in enumerate(noisy(60, len(lanes), dtype)):
        if step % 10 == 5:
            lanes.to(cuda if lanes.device.type == "cpu" else "cpu")
            assert_same_state(lanes, oracle)
        lanes.step(row.to(lanes.device))
        oracle.step(row.tolist())
        assert_same_state(lanes, oracle)
    assert lanes.num_steps == 60


@pytest.mark.parametrize("way", [("cpu", "cuda"), ("cuda", "cpu")], ids=" to ".join)
def test_a_state_saved_on_one_device_loads_on_another(way, cuda):
    devices = [cuda if each == "cuda" else each for each in way]
    lanes, oracle = varied(devices[0])
    rows = noisy(40, len(lanes))
    for row in rows[:20]:
        lanes.step(row.to(lanes.device))
        oracle.step(row.tolist())
    file = io.BytesIO()
    torch.save(lanes.state_dict(), file)
    file.seek(0)
    loaded = PlateauLanes(len(lanes), 0.7, device=devices[1])
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for row in rows[20:]:
        loaded.step(row.to(loaded.device))
        oracle.step(row.tolist())
        assert_same_state(loaded, oracle)
    assert loaded.num_steps == 40


# -- many lanes, many groups ----------------------------------------------------------------------


def check_many(n, steps, device, metric, dtype=torch.float64, skip=0, **keywords):
    """Compare with lanes on the CPU, which the rest of the suite holds equal to torch's class."""
    lanes, twin = (PlateauLanes(n, device=d, dtype=dtype, **keywords) for d in (device, "cpu"))
    for step in range(steps):
        row = noisy(1, n + skip, metric)[0]
        lanes.step(row.to(device)[skip:])
        twin.step(row[skip:])
        if step % 10 == 9:
            assert_same(lanes, twin)
    assert lanes.num_steps == steps
    assert lanes.num_reductions.sum() > 0


@pytest.mark.parametrize("skip", [0, 1], ids=["aligned", "misaligned"])
@pytest.mark.parametrize("n", [2**18 - 1, 2**18, 2**18 + 3, 1_000_000])
def test_a_million_lanes_are_equal_to_lanes_on_the_cpu(n, skip, cuda):
    for dtype, metric in (
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
        (torch.float64, torch.float64),
    ):
        patience = torch.arange(n) % 5 if n % 2 else 1
        keywords = {"lr": 0.1, "patience": patience, "cooldown": 1, "factor": 0.3}
        check_many(n, 20, cuda, metric, dtype, skip, **keywords)


UNEVEN = {
    "one lane": [10_000],
    "most in one": [0, 1, 9_000, 3, 0, 0, 700, 1],
    "many lanes": [(i * 7) % 5 for i in range(3_000)],
    "a big one among many": [1] * 500 + [20_000] + [0] * 300 + [2] * 500,
}


@pytest.mark.parametrize("groups", UNEVEN.values(), ids=UNEVEN.keys())
def test_groups_however_uneven_are_equal_to_groups_on_the_cpu(groups, cuda):
    total = sum(groups)
    keywords = {"lr": torch.rand(total).double(), "min_lr": torch.rand(total).double() / 4}
    keywords |= {"groups": groups, "patience": 0, "factor": 0.7}
    for dtype in (torch.float64, torch.float32):
        check_many(len(groups), 20, cuda, dtype, dtype, **keywords)
