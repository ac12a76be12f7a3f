"""PlateauLanes: what it reads, how many lanes, whose settings, and how its state lives on."""

import copy
import io
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oracle import TorchLanes, assert_same_state, same_bits
from torch_plateau import PlateauLanes, ReduceLROnPlateau

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = ["bool", *INTEGERS, "float16", "bfloat16", "float32", "float64"]
FLOAT32_HOLDS = ["bool", "int8", "int16", "uint8", "uint16", "float16", "bfloat16", "float32"]


def noisy(steps, n, device="cpu"):
    """Metrics with many ties and plateaus, different in every lane, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    metrics = (torch.rand(steps, n, generator=generator, dtype=torch.float64) * 8).round() / 8
    return (metrics - 0.25).to(device)


def check_against_torch(lanes, oracle, rows):
    for row in rows:
        lanes.step(row.to(lanes.device))
        oracle.step([float(x) for x in row.tolist()])
        assert_same_state(lanes, oracle)


# -- dtypes ---------------------------------------------------------------------------------------


def extremes(name):
    """Two steps of the most awkward values of a dtype."""
    if name == "bool":
        values = [True, False, True, False]
    elif name in INTEGERS:
        info = torch.iinfo(getattr(torch, name))
        values = [info.min, info.max, info.max - 1, 0, 1, info.max // 2, info.min + 1, 7]
    else:
        info = torch.finfo(getattr(torch, name))
        values = [info.min, info.max, info.tiny, info.eps, 0.1, -0.0, math.inf, math.nan]
    return [torch.tensor(row, dtype=getattr(torch, name)) for row in (values, values[::-1])]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", DTYPES)
def test_metrics_of_every_dtype_count_as_the_float_that_python_makes_of_them(name, mode, device):
    rows = extremes(name)
    n = len(rows[0])
    for dtype in (torch.float64, torch.float32):
        if dtype == torch.float32 and name not in FLOAT32_HOLDS:
            continue
        keywords = {"mode": mode, "patience": 0}
        lanes = PlateauLanes(n, 0.1, dtype=dtype, device=device, **keywords)
        check_against_torch(lanes, TorchLanes([[0.1]] * n, [keywords] * n), rows * 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_all_bit_patterns_of_a_16_bit_float_are_read_right(name, dtype, device):
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    metrics = patterns.view(getattr(torch, name))
    values = metrics.double()
    for mode, worst in (("min", math.inf), ("max", -math.inf)):
        keywords = {"mode": mode, "threshold": 0.0, "dtype": dtype, "device": device}
        lanes = PlateauLanes(len(metrics), 0.1, **keywords)
        numbers = torch.where(values.isnan(), worst, values)
        for best in (torch.full_like(values, worst), numbers, numbers.roll(12345)):
            lanes.load_state_dict({**lanes.state_dict(), "best": best})
            lanes.step(metrics.to(device))
            better = values < best if mode == "min" else values > best
            assert torch.equal(lanes.improved.cpu(), better)
            assert same_bits(lanes.best.double(), torch.where(better, values, best))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_drop_in_reads_all_bit_patterns_of_a_16_bit_float_right(name):
    metrics = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(getattr(torch, name))
    scheduler = ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=0.1), threshold=0.0)
    seen = []
    for metric in metrics.unbind():
        scheduler.best = math.inf
        scheduler.step(metric)
        seen.append(scheduler.best)
    values = metrics.double()
    assert same_bits(seen, torch.where(values < math.inf, values, math.inf))


# -- where metrics come from ----------------------------------------------------------------------


class OwnTensor(torch.Tensor):
    pass


class OlderTensor(torch.Tensor):
    __dlpack_c_exchange_api__ = None  # as before torch 2.10


WAYS = {
    "every second element": lambda v: torch.stack([v, -v], 1).flatten()[::2],
    "column of a matrix": lambda v: torch.stack([-v, v, -v], 1)[:, 1],
    "row of a transposed matrix": lambda v: torch.stack([-v, v], 1).T[1],
    "expanded, stride 0": lambda v: v[:1].expand(len(v)),
    "slice": lambda v: torch.cat([-v, v])[len(v) :],
    "requires grad": lambda v: v.clone().requires_grad_(),
    "result of a computation": lambda v: v.clone().requires_grad_() * 1,
    "parameter": torch.nn.Parameter,
    "subclass": lambda v: v.as_subclass(OwnTensor),
    "subclass without the C interface": lambda v: v.as_subclass(OlderTensor),
    "imaginary part": lambda v: torch.complex(-v, v).imag,
    "of another library": lambda v: SimpleNamespace(
        __dlpack__=v.__dlpack__, __dlpack_device__=v.__dlpack_device__, tolist=v.tolist
    ),
    "list": torch.Tensor.tolist,
    "tuple": lambda v: tuple(v.tolist()),
}
ARRAYS = {
    "array": lambda v: v.numpy(),
    "every second of an array": lambda v: np.stack([v, -v], 1).ravel()[::2],
    "reversed array": lambda v: np.flip(v.numpy()[::-1].copy()),
    "array of one value": lambda v: np.broadcast_to(v[:1].numpy(), len(v)),
    "read-only array": lambda v: read_only(v.numpy().copy()),
}


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("n", [1, 5, 700])
def test_metrics_are_read_wherever_they_lie(way, n, device):
    metrics = way(noisy(1, n, device)[0] + 1)
    lanes = PlateauLanes(n, 0.1, mode="max", device=device)
    lanes.step(metrics)
    expected = metrics if isinstance(metrics, (list, tuple)) else metrics.tolist()
    assert lanes.best.tolist() == list(expected)
    assert not lanes.best.requires_grad


@pytest.mark.parametrize("way", ARRAYS.values(), ids=ARRAYS.keys())
@pytest.mark.parametrize("n", [1, 5, 700])
def test_arrays_are_read_by_lanes_on_the_cpu(way, n):
    metrics = way(noisy(1, n)[0] + 1)
    lanes = PlateauLanes(n, 0.1, mode="max")
    lanes.step(metrics)
    assert lanes.best.tolist() == metrics.tolist()


@pytest.mark.parametrize("name", ["bool", "int16", "uint64", "float16", "float32"])
def test_strided_metrics_of_other_dtypes_are_read_too(name, device):
    rows = (noisy(4, 600) * 8).to(getattr(torch, name)).T.contiguous().to(device).T
    assert rows.stride() == (1, 4)
    lanes = PlateauLanes(600, 0.1, patience=0, device=device)
    check_against_torch(lanes, TorchLanes([[0.1]] * 600, [{"patience": 0}] * 600), rows)


def test_one_lane_takes_one_number(device):
    numbers = [0.5, 1, True, np.float64(0.5), np.float32(0.1), np.int64(3)]
    numbers += [np.array(0.25)] if device == "cpu" else []
    tensors = [torch.tensor(value, device=device) for value in (0.125, [7], 2.5)]
    tensors[2] = torch.nn.Parameter(tensors[2])
    expected = [float(each) for each in numbers] + [0.125, 7.0, 2.5]
    for number, value in zip(numbers + tensors, expected, strict=True):
        lanes = PlateauLanes(1, 0.1, device=device)
        lanes.step(number)
        assert lanes.best.tolist() == [value]


NEGATED = torch.arange(1.0, 120.0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 33])
def test_lazily_negated_views_are_read_right_at_every_offset(size, kind, device):
    values = NEGATED.to(device, kind)
    view = torch.complex(values, -values).conj().imag
    lanes = PlateauLanes(size, 0.1, device=device)
    for start in range(40):
        for part in (view[start : start + size], view[start : start + 2 * size : 2]):
            assert part.is_neg()
            lanes.load_state_dict({**lanes.state_dict(), "best": torch.full((size,), math.inf)})
            lanes.step(part)
            assert lanes.best.tolist() == part.tolist()


def test_one_lazily_negated_element_is_read_right(device):
    view = torch.complex(NEGATED, -NEGATED).to(device).conj().imag
    lanes = PlateauLanes(1, 0.1, mode="max", device=device)
    drop_in = ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=0.1), mode="max")
    for i in range(40):
        assert view[i].is_neg()
        lanes.step(view[i])
        drop_in.step(view[i])
        assert lanes.best.item() == drop_in.best == NEGATED[i]


def on_a_cache_line():
    """Lazily negated views on the CPU that start on a multiple of 64 bytes."""
    memory = torch.zeros(1024, dtype=torch.uint8)
    offset = -memory.data_ptr() % 64 + 60
    shifted = torch.frombuffer(memory.numpy(), dtype=torch.complex64, offset=offset, count=33)
    shifted.copy_(torch.complex(NEGATED[:33], -NEGATED[:33]))
    aligned = torch.complex(-NEGATED, NEGATED).conj().imag.as_strided((33,), (2,), 0)
    return {"memory of another": shifted.conj().imag, "made by as_strided": aligned}


each_view = pytest.mark.parametrize(
    "view", on_a_cache_line().values(), ids=on_a_cache_line().keys()
)


@each_view
def test_lazily_negated_views_are_read_right_on_a_cache_line_too(view):
    assert view.is_neg()
    assert view.data_ptr() % 64 == 0
    lanes = PlateauLanes(len(view), 0.1, mode="max")
    lanes.step(view)
    assert lanes.best.tolist() == NEGATED[: len(view)].tolist()


@each_view
def test_one_lazily_negated_element_is_read_right_on_a_cache_line_too(view):
    for part in (view[:1], view[0]):
        assert part.is_neg()
        lanes = PlateauLanes(1, 0.1, mode="max")
        lanes.step(part)
        assert lanes.best.tolist() == [NEGATED[0]]


# -- how many lanes, whose settings ---------------------------------------------------------------

BLOCKS = [0, 1, 2, 511, 512, 513, 1025]  # around the block of the core's loop
UNLOCKED = [16_383, 16_384, 16_385]  # around the size from which it releases the interpreter lock
WIDE = [2**18 - 1, 2**18 + 3]  # around the size from which a CUDA thread takes four lanes
STREAMS = 61  # no multiple of which is near a block: every lane of a block meets another stream


@pytest.mark.parametrize("per_lane", [False, True], ids=["uniform", "per lane"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("n", BLOCKS + UNLOCKED + WIDE)
def test_any_number_of_lanes_decides_as_torch_does(n, dtype, per_lane, device):
    settings = [
        {"patience": i % 3, "factor": 0.5 + i / 200, "mode": "min" if i % 5 else "max"}
        for i in range(STREAMS)
    ]
    settings = settings if per_lane else [{"patience": 1}] * STREAMS
    stream = torch.arange(n) % STREAMS
    keywords = {name: [settings[i][name] for i in stream.tolist()] for name in settings[0]}
    keywords = keywords if per_lane else settings[0]
    lanes = PlateauLanes(n, 0.1, dtype=dtype, device=device, **keywords)
    oracle = TorchLanes([[0.1]] * STREAMS, settings)
    for step, row in enumerate(noisy(12, STREAMS)):  # which float32 holds exactly
        lanes.step(row[stream].to(device, dtype if step % 3 else torch.float32))
        oracle.step(row.tolist())
        for name in ("best", "num_bad_epochs", "cooldown_counter"):
            expected = torch.tensor(oracle.field(name), dtype=torch.float64)[stream]
            assert torch.equal(getattr(lanes, name).cpu().double(), expected)
        rates = torch.tensor(oracle.rates, dtype=torch.float64)[stream]
        assert torch.equal(lanes.lr_master.cpu(), rates)
        assert torch.equal(lanes.lr.cpu(), rates.float())
        assert torch.equal(lanes.reduced.cpu(), torch.tensor(oracle.reduced)[stream])
    assert int(lanes.num_steps) == (12 if n else 0)  # no lanes see no step


PER_LANE = {
    "mode": ["min", "max", "max", "min"],
    "factor": [0.1, 0.5, 0.9, 0.3],
    "patience": [0, 1, 2, 5],
    "threshold": [0.0, 0.1, 0.25, 1e-4],
    "threshold_mode": ["rel", "abs", "abs", "rel"],
    "cooldown": [0, 3, 1, 2],
    "min_lr": [0.0, 0.05, 1e-3, 0.02],
    "eps": [0.0, 0.03, 1e-8, 0.06],
}
UNIFORM = {
    "mode": "max",
    "factor": 0.5,
    "patience": 1,
    "threshold": 0.1,
    "threshold_mode": "abs",
    "cooldown": 1,
    "min_lr": 0.01,
    "eps": 1e-3,
}


@pytest.mark.parametrize("base", [{}, UNIFORM], ids=["defaults", "uniform"])
@pytest.mark.parametrize("names", [[name] for name in PER_LANE] + [list(PER_LANE)], ids=",".join)
def test_settings_per_lane_and_for_all_lanes_mix(names, base, device):
    base = {"patience": 1, **base}
    keywords = {**base, **{name: PER_LANE[name] for name in names}}
    each = [{**base, **{name: PER_LANE[name][i] for name in names}} for i in range(4)]
    rows = noisy(60, 4)
    lanes, oracle = PlateauLanes(4, 0.1, device=device, **keywords), TorchLanes([[0.1]] * 4, each)
    check_against_torch(lanes, oracle, rows)
    assert sum(oracle.num_reductions) > 0
    assert {name: lanes.settings[name] for name in names if name in ("mode", "threshold_mode")} == {
        name: PER_LANE[name] for name in names if name in ("mode", "threshold_mode")
    }


SPELLINGS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "tensor": lambda v: torch.tensor(v, dtype=torch.float64 if type(v[0]) is float else None),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_settings_may_be_any_array_and_are_not_aliased(spelling, device):
    given = {"lr": [0.1, 0.3, 0.7], "factor": [0.3, 0.5, 0.7], "patience": [0, 1, 0]}
    arrays = {name: spelling(values) for name, values in given.items()}
    lanes = PlateauLanes(3, **arrays, device=device)
    lanes.step([1.0] * 3)
    lanes.step([2.0] * 3)
    assert [list(array) for array in arrays.values()] == list(given.values())
    for array in arrays.values():
        if not isinstance(array, tuple):
            array[1] = 7
    lanes.step([2.0] * 3)
    assert lanes.settings["factor"].tolist() == given["factor"]
    assert lanes.lr_master.tolist() == [0.1 * 0.3 * 0.3, 0.3 * 0.5, 0.7 * 0.7 * 0.7]


def test_a_float32_tensor_of_settings_is_widened(device):
    rate = torch.tensor([0.1], device=device)
    lanes = PlateauLanes(1, rate, factor=np.float32(0.3), device=device)
    assert lanes.lr_master.tolist() == [float(np.float32(0.1))]
    assert lanes.settings["factor"] == float(np.float32(0.3))


def test_a_lane_may_own_several_groups_with_floors_of_their_own(device):
    rates = [[0.1, 0.2], [0.3], [], [0.4, 0.5, 0.6]]
    floors = [[0.01, 0.15], [0.05], [], [0.0, 0.5, 0.2]]
    counts, flat = [len(lane) for lane in rates], [rate for lane in rates for rate in lane]
    lanes = PlateauLanes(
        4,
        flat,
        groups=counts,
        patience=0,
        min_lr=[x for lane in floors for x in lane],
        device=device,
    )
    oracle = TorchLanes(
        [lane or [0.0] for lane in rates],
        [{"patience": 0, "min_lr": lane or [0.0]} for lane in floors],
    )
    for row in noisy(30, 4, device):
        lanes.step(row)
        oracle.step(row.tolist())
        expected = [rate for lane in (0, 1, 3) for rate in oracle.rates_of(lane)]
        assert same_bits(lanes.lr_master, expected)
        assert lanes.reduced.tolist() == oracle.reduced
        assert lanes.num_reductions.tolist() == oracle.num_reductions
    assert sum(oracle.num_reductions) > 3


def test_one_rate_or_floor_per_lane_is_shared_by_its_groups(device):
    lanes = PlateauLanes(
        2, [0.5, 0.25], groups=[1, 2], min_lr=[0.0, 0.2], patience=0, device=device
    )
    assert lanes.lr.tolist() == [0.5, 0.25, 0.25]
    for metric in (1.0, 2.0, 2.0):
        lanes.step([metric] * 2)
    assert lanes.lr_master.tolist() == [0.5 * 0.1 * 0.1, 0.2, 0.2]


# -- what can be read -----------------------------------------------------------------------------


def test_lr_is_one_live_tensor_and_the_master_rounds_to_it(device):
    lanes = PlateauLanes(3, [0.1, 0.3, 0.7], factor=0.7, patience=0, device=device)
    lr, best, oracle = (
        lanes.lr,
        lanes.best,
        TorchLanes([[0.1], [0.3], [0.7]], [{"factor": 0.7, "patience": 0}] * 3),
    )
    address = lr.data_ptr()
    for row in noisy(40, 3, device):
        assert lanes.step(row) is lr is lanes.lr
        oracle.step(row.tolist())
        assert lanes.best is best
        assert lr.data_ptr() == address
        assert lr.dtype == torch.float32
        assert torch.equal(lanes.lr_master.float(), lr)
        assert lanes.lr_master.tolist() == oracle.rates


def test_improved_reduced_and_the_counts_tell_what_the_last_step_did(device):
    lanes = PlateauLanes(3, [0.1, 0.1, 1e-9], patience=0, device=device)
    assert lanes.improved.tolist() == lanes.reduced.tolist() == [False] * 3
    assert lanes.num_steps.item() == 0
    lanes.step([1.0, math.nan, 1.0])
    assert lanes.improved.tolist() == [True, False, True]
    assert lanes.reduced.tolist() == [False, True, False]
    lanes.step([2.0, 2.0, 2.0])  # the last lane fires, but its change is below eps
    assert lanes.improved.tolist() == [False, True, False]
    assert lanes.reduced.tolist() == [True, False, False]
    assert lanes.num_reductions.tolist() == [1, 1, 0]
    assert lanes.num_steps.item() == 2


def test_a_rate_written_in_place_is_where_the_next_cut_starts(device):
    lanes = PlateauLanes(3, 0.1, factor=0.5, patience=0, device=device)
    lanes.step([1.0] * 3)
    lanes.lr[1] = 0.3
    written = float(torch.tensor(0.3))
    assert lanes.lr_master.tolist() == [0.1, written, 0.1]
    assert lanes.state_dict()["lr"].tolist() == [0.1, written, 0.1]
    lanes.step([2.0] * 3)
    assert lanes.lr_master.tolist() == [0.05, written * 0.5, 0.05]
    lanes.lr.fill_(0.25)
    lanes.step([2.0, 0.5, 2.0])
    assert lanes.lr_master.tolist() == [0.125, 0.25, 0.125]


def test_the_text_shows_the_settings(device):
    lanes = PlateauLanes(
        3, 0.1, mode=["min", "max", "min"], patience=[1, 5, 2], factor=0.25, device=device
    )
    text = repr(lanes)
    for part in ("PlateauLanes(3", "['min', 'max', 'min']", "[1 .. 5]", "factor=0.25"):
        assert part in text
    assert "eps" not in text  # as it is unless told
    assert ("device='cuda:0'" in text) == (device == "cuda")
    assert "groups=7" in repr(PlateauLanes(3, 0.1, groups=[3, 0, 4], device=device))
    assert len(lanes) == 3


# -- state that lives on --------------------------------------------------------------------------


def mixed_lanes(device, **keywords):
    return PlateauLanes(4, [0.1, 0.2, 0.3, 0.4], device=device, **{**PER_LANE, **keywords})


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def values_of(state):
    """A state as numbers, lists and words, which compare exactly."""
    if isinstance(state, dict):
        return {name: values_of(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, torch.Tensor) else state


def same_state(one, other):
    return values_of(one.state_dict()) == values_of(other.state_dict())


def test_a_state_goes_through_a_file_into_lanes_with_other_settings(device):
    lanes, rows = mixed_lanes(device), noisy(60, 4, device)
    for row in rows[:30]:
        lanes.step(row)
    other = PlateauLanes(4, 0.9, mode="max", device=device)
    lr, best = other.lr, other.best
    other.load_state_dict(through_a_file(lanes.state_dict()))
    assert other.lr is lr
    assert other.best is best
    assert same_state(lanes, other)
    for row in rows[30:]:
        assert torch.equal(lanes.step(row), other.step(row))
        assert other.lr is lr
    assert same_state(lanes, other)


def test_a_state_from_before_a_setting_existed_has_it_as_unless_told(device):
    lanes = PlateauLanes(2, 0.1, patience=1, device=device)
    lanes.step([1.0, 1.0])
    state = lanes.state_dict()
    del state["settings"]["min_steps"]
    other = PlateauLanes(2, 0.1, min_steps=9, device=device)
    other.load_state_dict(state)
    assert other.settings == lanes.settings
    del state["settings"]["patience"]  # which every state has
    with pytest.raises(KeyError, match=r"missing or unknown keys \['patience'\]"):
        other.load_state_dict(state)


def test_a_state_dict_is_a_snapshot(device):
    lanes = mixed_lanes(device)
    lanes.step([1.0, 2.0, 3.0, 4.0])
    state = lanes.state_dict()
    before = values_of(state)
    for row in noisy(30, 4, device):
        lanes.step(row)
    assert values_of(state) == before
    for value in [*state.values(), *state["settings"].values()]:
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert lanes.lr.min() > 0
    assert lanes.settings["factor"].tolist() == PER_LANE["factor"]


def test_the_steps_are_saved_as_a_tensor_and_may_be_loaded_as_a_number(device):
    lanes = PlateauLanes(2, 0.1, device=device)
    lanes.step([1.0, 2.0])
    state = lanes.state_dict()
    assert state["num_steps"].dtype == torch.int64
    assert state["num_steps"].tolist() == 1
    lanes.load_state_dict({**state, "num_steps": 2**40})
    assert lanes.step([1.0, 2.0]) is lanes.lr
    assert lanes.num_steps.tolist() == 2**40 + 1


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal_and_independent(twin, device):
    lanes, rows = mixed_lanes(device), noisy(60, 4, device)
    for row in rows[:30]:
        lanes.step(row)
    other, before = twin(lanes), values_of(lanes.state_dict())
    for row in rows[30:]:
        other.step(row)
    assert values_of(lanes.state_dict()) == before
    for row in rows[30:]:
        lanes.step(row)
    assert same_state(lanes, other)


def test_a_change_of_dtype_keeps_all_and_lr_itself(device):
    lanes, rows = mixed_lanes(device), noisy(60, 4, device)
    oracle = copy.deepcopy(lanes)
    for row in rows[:30]:
        lanes.step(row)
        oracle.step(row)
    lr = lanes.lr
    assert lanes.to(dtype=torch.float32) is lanes
    assert lanes.dtype == lanes.best.dtype == torch.float32
    assert lanes.to(device).to(torch.device(device)).device.type == device
    for row in rows[30:]:
        assert lanes.step(row.float()) is lr
        oracle.step(row)
    lanes.to(dtype=torch.float64)
    assert same_state(lanes, oracle)


def test_a_float32_state_loads_into_float64_lanes(device):
    narrow, wide = mixed_lanes(device, dtype=torch.float32), mixed_lanes(device)
    narrow.step(torch.tensor([0.1, 0.2, 0.3, 0.4], device=device))
    wide.load_state_dict(narrow.state_dict())
    assert wide.best.dtype == torch.float64
    assert wide.best.tolist() == narrow.best.tolist()


# -- threads, and torch's defaults ----------------------------------------------------------------


def test_threads_may_step_lanes_of_their_own(device):
    many, steps = 20_000, 40
    rows = noisy(steps, many, device)
    alone = PlateauLanes(many, 0.1, patience=1, device=device)
    lanes = [copy.deepcopy(alone) for _ in range(4)]

    def run(mine):
        for row in rows:
            mine.step(row)
        return mine

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, lanes))
    run(alone)
    assert all(torch.equal(mine.lr_master, alone.lr_master) for mine in done)
    assert all(torch.equal(mine.num_reductions, alone.num_reductions) for mine in done)


@pytest.mark.parametrize("n", [100, 200_000])
def test_threads_may_step_the_same_lanes_and_no_step_is_lost(n, device):
    threads, steps = 3, 1000  # enough for a lost step to show every time, were there no lock
    lanes = PlateauLanes(n, 0.1, patience=10**6, device=device)
    lanes.step(torch.zeros(n, device=device))
    bad = torch.ones(n, device=device)

    def run(_):
        for _ in range(steps):
            lanes.step(bad)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))
    assert lanes.num_bad_epochs.unique().tolist() == [threads * steps]
    assert lanes.num_steps.item() == threads * steps + 1


@pytest.fixture(params=[torch.float16, torch.float32, torch.float64])
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def test_settings_are_the_same_whatever_the_default_dtype(default_dtype, device):
    lanes = PlateauLanes(2, 0.1, factor=0.3, eps=[1e-8, 1e-9], patience=0, device=device)
    lanes.step([1.0, 1.0])
    lanes.step([2.0, 2.0])
    assert default_dtype == torch.get_default_dtype()
    assert lanes.lr_master.tolist() == [0.1 * 0.3] * 2
    assert lanes.settings["eps"].tolist() == [1e-8, 1e-9]
    assert (lanes.lr.dtype, lanes.best.dtype) == (torch.float32, torch.float64)
    drop_in = ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=0.1), factor=0.3, patience=0)
    drop_in.step(1.0)
    drop_in.step(2.0)
    assert drop_in.get_last_lr() == [0.1 * 0.3]


def test_floors_are_one_for_each_group_where_groups_are_as_many_as_lanes(device):
    lanes = PlateauLanes(
        2, [0.1, 2.0], groups=[0, 2], min_lr=[0.05, 1.5], patience=0, device=device
    )
    for _ in range(3):
        lanes.step(torch.ones(2, device=device))
    assert lanes.lr_master.tolist() == [0.05, 1.5]
