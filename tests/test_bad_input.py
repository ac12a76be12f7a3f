"""Refused input: for every public call, what is raised, in which words, and that nothing changed.

Each table row is (bad input, exception, pattern of the message), and each test a call that must
refuse it. Tensors of the tables are moved to the device that it is given. A ``Through`` makes its
input there, around the call: inside a vmap, under a FakeTensorMode.
"""

import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.nn import Parameter
from torch.optim import SGD, lr_scheduler
from torch.testing._internal.distributed.fake_pg import FakeStore

from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes, ReduceLROnPlateau

NAN, INF = math.nan, math.inf
BOTH = (TypeError, ValueError)


class Through(NamedTuple):
    run: Callable  # of the call that must refuse, and the device


def table(rows):
    return pytest.mark.parametrize(("bad", "error", "words"), rows.values(), ids=rows.keys())


def assert_refused(call, bad, error, words, *things, device=None):
    """``call(bad)``, ``bad`` on ``device``, raises ``error`` in ``words`` and changes no thing."""
    before = contents(things)
    if device and isinstance(bad, torch.Tensor) and not bad.is_meta:
        bad = bad.to(device)
    with pytest.raises(error, match=f"(?s){words}"):
        bad.run(call, device) if isinstance(bad, Through) else call(bad)
    assert contents(things) == before


def contents(thing):
    """All that can be read of ``thing``, in values that compare: NaN with NaN, -0.0 not with 0."""
    if isinstance(thing, torch.Tensor):
        return str(thing.dtype), repr(thing.tolist())
    if isinstance(thing, dict):
        return {key: contents(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [contents(value) for value in thing]
    if isinstance(thing, PlateauLanes):
        live = [thing.lr, thing.best, id(thing.lr), id(thing.best)]
        return contents([thing.state_dict(), repr(thing), *live])
    if isinstance(thing, torch.optim.Optimizer):
        return contents([thing.param_groups, *(id(group["lr"]) for group in thing.param_groups)])
    if isinstance(thing, BatchedReduceLROnPlateau):
        return contents([thing.lanes, thing.last_epoch, thing.optimizer, thing.get_last_lr()])
    if isinstance(thing, ReduceLROnPlateau):
        return contents([thing.state_dict(), thing.optimizer])
    return repr(thing)


# -- tensors that have no values, or not here -----------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """One process that believes it is a group, for DTensors."""
    init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


def distributed(values):
    """A DTensor, which lies on the CPU wherever the test is."""
    return distribute_tensor(values, init_device_mesh("cpu", (1,)), [Replicate()])


def freed(*shape, device, start=0, kind=torch.Tensor):
    """``shape`` elements of a tensor whose storage was freed, the first of them at ``start``."""
    whole = torch.ones(start + math.prod(shape), device=device)
    part = kind(whole[start:].view(shape))
    whole.untyped_storage().resize_(0)
    return part


def test_an_error_about_a_freed_tensor_does_not_read_it():
    with pytest.raises(ValueError, match=r"^dtype: expected torch.float64 or .*got tensor\(\.\.\."):
        PlateauLanes(3, 0.1, dtype=freed(3, device="cpu"))


def fake(*shape, device, start=0):
    with FakeTensorMode():
        if start:
            return torch.ones(start + math.prod(shape), device=device)[start:].view(shape)
        return torch.ones(shape, device=device)


def under_fake_mode(call, value):
    with FakeTensorMode():
        return call(value)


def nested(*shape, device):
    """As many numbers in a nested tensor, which is strided and has no shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones((), device=device)] * math.prod(shape))


class OnCuda:
    """An array of another library that says it lies on a far GPU; to read it is a failure."""

    def __dlpack_device__(self):
        return (2, 99)

    def __dlpack__(self, **_):
        pytest.fail("an array on another device was read")


def unreadable(*shape):
    """Tensors of ``shape`` from which no values can be had."""
    inputs = {
        "meta": torch.ones(shape, device="meta"),
        "fake on cuda": Through(lambda call, _: call(fake(*shape, device="cuda"))),
        "vmapped": Through(
            lambda call, d: torch.vmap(lambda x: (call(x), x)[1])(torch.ones(2, *shape, device=d))
        ),
    }
    for name, make in {
        "freed": freed,
        "freed slice": partial(freed, start=5),
        "freed slice on a cache line": partial(freed, start=64),
        "freed slice far in": partial(freed, start=4_000_000),
        "freed parameter": partial(freed, kind=Parameter),
        "fake": fake,
        "fake slice": partial(fake, start=5),
        "nested": nested,
    }.items():
        inputs[name] = Through(lambda call, d, make=make: call(make(*shape, device=d)))
    return {name: (bad, BOTH, "") for name, bad in inputs.items()}


# -- things in use: a best, a cut behind them and a cooldown running -------------------------------


def sgd(groups=1, lr=0.1, device="cpu"):
    """On a GPU one that does not wait for rates there."""
    each = [{"params": [torch.zeros(1, device=device)], "lr": lr} for _ in range(groups)]
    return SGD(each, lr=0.1, fused=device != "cpu")


def used(thing, n=None):
    for metric in (2.0, 3.0, 1.0):
        thing.step(metric if n is None else [metric] * n)
    return thing


def used_lanes(device, n=3, dtype=torch.float64):
    lanes = PlateauLanes(n, 0.1, patience=0, cooldown=2, device=device)
    return used(lanes, n).to(dtype=dtype)


def used_drop_in(**settings):
    return used(ReduceLROnPlateau(sgd(), **{"patience": 0, "cooldown": 2, **settings}))


def used_batched(device="cpu", **settings):
    """With tensor rates, and so lanes there, on a GPU."""
    publish = "float" if device == "cpu" else "tensor"
    settings = {"patience": 0, "cooldown": 2, "publish": publish, **settings}
    return used(BatchedReduceLROnPlateau(sgd(3, device=device), **settings), 3)


# -- hyper-parameters, wherever they come in ------------------------------------------------------

COUNT = "expected an integer from 0 to 2147483646, got "
FLOOR = "expected finite and not negative, got "
NUMBER = "expected one number( or shape .*)?, got "
HYPER_PARAMETERS = {
    "factor nan": (("factor", NAN), ValueError, "expected above 0 and below 1, got nan"),
    "factor one": (("factor", 1.0), ValueError, "expected above 0 and below 1, got 1"),
    "factor above one": (("factor", 1.5), ValueError, "expected above 0 and below 1, got 1.5"),
    "factor zero": (("factor", 0.0), ValueError, "expected above 0 and below 1, got 0"),
    "factor negative": (("factor", -0.5), ValueError, "expected above 0 and below 1, got -0.5"),
    "factor None": (("factor", None), TypeError, NUMBER + "None"),
    "factor string": (("factor", "0.5"), TypeError, NUMBER + "'0.5'"),
    "factor complex": (("factor", 0.5j), TypeError, NUMBER + "0.5j"),
    "patience nan": (("patience", NAN), ValueError, COUNT + "nan"),
    "patience negative": (("patience", -1), ValueError, COUNT + "-1"),
    "patience fraction": (("patience", 1.5), ValueError, COUNT + "1.5"),
    "patience past int32": (("patience", 2**31 - 1), ValueError, COUNT),
    "patience None": (("patience", None), TypeError, NUMBER + "None"),
    "patience bool": (("patience", True), TypeError, NUMBER + "True"),
    "cooldown nan": (("cooldown", NAN), ValueError, COUNT + "nan"),
    "cooldown negative": (("cooldown", -2), ValueError, COUNT + "-2"),
    "cooldown string": (("cooldown", "3"), TypeError, NUMBER + "'3'"),
    "threshold nan": (("threshold", NAN), ValueError, "expected finite, got nan"),
    "threshold infinite": (("threshold", INF), ValueError, "expected finite, got inf"),
    "min_lr nan": (("min_lr", NAN), ValueError, FLOOR + "nan"),
    "min_lr negative": (("min_lr", -0.1), ValueError, FLOOR + "-0.1"),
    "min_lr nan in a list": (("min_lr", [NAN]), ValueError, FLOOR + "nan at index 0"),
    "min_lr strings": (("min_lr", ["a"]), TypeError, NUMBER + r"\['a'\]"),
    "eps nan": (("eps", NAN), ValueError, FLOOR + "nan"),
    "eps negative": (("eps", -1e-9), ValueError, FLOOR + "-1e-09"),
    "mode unknown": (("mode", "best"), ValueError, "expected 'min' or 'max', got 'best'"),
    "mode None": (("mode", None), ValueError, "expected 'min' or 'max', got None"),
    "threshold_mode unknown": (("threshold_mode", "r"), ValueError, "expected 'rel' or 'abs'"),
}


@table(HYPER_PARAMETERS)
def test_lanes_refuse_the_hyper_parameter(bad, error, words, device):
    (name, _), lanes = bad, used_lanes(device, 1)

    def load(setting):
        state = PlateauLanes(1, 0.7, mode="max", patience=4, device=device).state_dict()
        lanes.load_state_dict({**state, "settings": {**state["settings"], **dict([setting])}})

    def build(setting):
        PlateauLanes(1, 0.1, device=device, **dict([setting]))

    assert_refused(build, bad, error, f"^{name}: {words}")
    assert_refused(load, bad, error, f"{name}.*: {words}", lanes)


@table(HYPER_PARAMETERS)
@pytest.mark.parametrize("kind", [ReduceLROnPlateau, BatchedReduceLROnPlateau])
def test_schedulers_refuse_the_hyper_parameter(kind, bad, error, words):
    (name, _), optimizer = bad, sgd()

    def build(setting):
        kind(optimizer, **dict([setting]))

    assert_refused(build, bad, error, f"^{name}: {words}", optimizer)


@table(HYPER_PARAMETERS)
def test_the_drop_in_refuses_the_hyper_parameter_later_too(bad, error, words):
    (name, value), scheduler = bad, used_drop_in()
    if name in ("patience", "cooldown", "threshold", "mode", "threshold_mode"):
        assert_refused(lambda x: setattr(scheduler, *x), bad, error, f"^{name}: {words}", scheduler)
    state = used_drop_in(mode="max", factor=0.3, eps=0.01).state_dict()
    if name == "min_lr":
        name, value = "min_lrs", value if isinstance(value, list) else [value]
    state[name] = value
    assert_refused(scheduler.load_state_dict, state, error, f"{name}.*: {words}", scheduler)


VECTORS = {
    "too short": ([0.1, 0.2], ValueError, r"shape \(3,\), got shape \(2,\)"),
    "too long": ([0.1] * 4, ValueError, r"shape \(3,\), got shape \(4,\)"),
    "one in a list": ([0.1], ValueError, r"shape \(3,\), got shape \(1,\)"),
    "rank 2": (torch.full((3, 1), 0.1), ValueError, r"shape \(3,\), got shape \(3, 1\)"),
    "one nan": ([0.1, NAN, 0.1], ValueError, "got nan at index 1"),
    "one negative": (np.array([0.1, 0.1, -0.1]), ValueError, "got -0.1 at index 2"),
    "bool tensor": (torch.ones(3, dtype=torch.bool), TypeError, "got tensor"),
    "complex": (torch.ones(3, dtype=torch.complex64), TypeError, "got tensor"),
    "sparse": (torch.ones(3).to_sparse(), TypeError, "sparse"),
    "strings": (["a", "b", "c"], TypeError, r"got \['a', 'b', 'c'\]"),
    "a None in a list": ([0.1, None, 0.1], TypeError, r"got \[0.1, None, 0.1\]"),
    "ragged": ([[0.1], [0.1, 0.2], 0.1], TypeError, "got"),
    "an object": (object(), TypeError, "got <object"),
    "DTensor": (Through(lambda call, _: call(distributed(torch.ones(3)))), TypeError, "DTensor"),
    **unreadable(3),
}


@table(VECTORS)
@pytest.mark.parametrize("name", ["lr", "factor", "min_lr", "eps"])
def test_lanes_refuse_the_vector_of_settings(name, bad, error, words, device):
    def build(value):
        return PlateauLanes(3, **{"lr": 0.1, name: value}, device=device)

    assert_refused(build, bad, error, f"^{name}: expected .*{words}", device=device)


CONSTRUCTIONS = {
    "n negative": ({"n": -1}, ValueError, "n: expected an integer of 0 or more, got -1"),
    "n float": ({"n": 3.0}, ValueError, "n: expected an integer of 0 or more, got 3.0"),
    "n bool": ({"n": True}, ValueError, "n: expected an integer of 0 or more, got True"),
    "n string": ({"n": "3"}, ValueError, "n: expected an integer of 0 or more, got '3'"),
    "n None": ({"n": None}, ValueError, "n: expected an integer of 0 or more, got None"),
    "lr None": ({"lr": None}, TypeError, "lr: expected one number or shape .*got None"),
    "lr bool": ({"lr": True}, TypeError, "lr: expected one number or shape .*got True"),
    "modes too few": ({"mode": ["min"] * 2}, ValueError, "mode: expected one word or 3 .*got 2"),
    "mode odd": ({"mode": ["min", "max", 1]}, ValueError, "mode: expected 'min' or 'max', got"),
    "cuda": ({"device": "cuda:99"}, RuntimeError, "device: got 'cuda:99', but"),
    "meta": ({"device": "meta"}, RuntimeError, "device: expected 'cpu' or 'cuda', got 'meta'"),
    "half": ({"dtype": torch.float16}, ValueError, "dtype: expected .*got torch.float16"),
    "dtype word": ({"dtype": "float32"}, ValueError, "dtype: expected .*got 'float32'"),
    "dtype None": ({"dtype": None}, ValueError, "dtype: expected .*got None"),
    "groups few": ({"groups": [1, 2]}, ValueError, r"groups: expected 3 counts.*got \[1, 2\]"),
    "groups negative": ({"groups": [1, 2, -1]}, ValueError, "groups: expected 3 counts of 0"),
    "groups fraction": ({"groups": [1, 2, 0.5]}, ValueError, "groups: expected 3 counts of 0"),
    "groups nan": ({"groups": [1, 2, NAN]}, BOTH, "groups: expected 3 counts of 0"),
    "groups word": ({"groups": "abc"}, BOTH, "groups: expected 3 counts of 0"),
    "groups number": ({"groups": 3}, BOTH, "groups: expected 3 counts of 0"),
    "rates that fit neither": (
        {"groups": [1, 2, 1], "lr": [0.1] * 5},
        ValueError,
        r"lr: expected one number or shape \(4,\) or shape \(3,\), got shape \(5,\)",
    ),
}


@table(CONSTRUCTIONS)
def test_lanes_refuse_to_be_built(bad, error, words):
    assert_refused(
        lambda keywords: PlateauLanes(**{"n": 3, "lr": 0.1, **keywords}), bad, error, words
    )


# -- metrics --------------------------------------------------------------------------------------

TENSOR = r"expected a tensor of shape \(3,\)"
METRICS = {
    "too short": (torch.ones(2), ValueError, r"expected shape \(3,\), got \(2,\)"),
    "too long": (torch.ones(4), ValueError, r"expected shape \(3,\), got \(4,\)"),
    "empty": (torch.ones(0), ValueError, r"expected shape \(3,\), got \(0,\)"),
    "0-d": (torch.ones(()), ValueError, r"expected shape \(3,\), got \(\)"),
    "rank 2": (torch.ones(3, 1), ValueError, r"expected shape \(3,\), got \(3, 1\)"),
    "list too long": ([1.0] * 4, ValueError, r"expected shape \(3,\), got \(4,\)"),
    "complex": (torch.ones(3, dtype=torch.complex64), TypeError, "real number.*complex64"),
    "float8": (torch.ones(3).to(torch.float8_e5m2), TypeError, "real number.*float8_e5m2"),
    "sparse": (torch.ones(3).to_sparse(), TypeError, "expected a dense tensor.*use .to_dense"),
    "on another GPU": (OnCuda(), ValueError, "expected device .*, got OnCuda on cuda:99"),
    "None": (None, TypeError, TENSOR + ", got None"),
    "string": ("abc", TypeError, TENSOR + ", got str"),
    "bytes": (b"abc", TypeError, TENSOR + ", got bytes"),
    "one number": (1.0, TypeError, TENSOR + ", got float"),
    "set": ({1.0, 2.0, 3.0}, TypeError, TENSOR + ", got set"),
    "strings": (["a", "b", "c"], TypeError, TENSOR),
    "a None in a list": ([1.0, None, 2.0], TypeError, TENSOR),
    "tensors in a list": ([torch.ones(())] * 3, TypeError, "list of tensors; pass torch.stack"),
    "an integer past float64": ([1.0, 10**400, 1.0], BOTH, "expected"),
    "under fake mode": (
        Through(lambda call, _: under_fake_mode(call, [1.0] * 3)),
        TypeError,
        "memory of its own",
    ),
    **unreadable(3),
    "meta": (torch.ones(3, device="meta"), ValueError, "expected device (cpu|cuda:0), got meta$"),
}
METRICS_ON_THE_CPU = {
    "array too short": (np.ones(2), ValueError, r"expected shape \(3,\), got \(2,\)"),
    "complex array": (np.ones(3, "complex128"), TypeError, "real number.*complex128"),
    "array of objects": (np.array([1, 2, None]), TypeError, "cannot read this ndarray"),
    "array of words": (np.array(["a", "b", "c"]), TypeError, "cannot read this ndarray"),
    "byte-swapped array": (np.ones(3, ">f8"), TypeError, "cannot read this ndarray"),
    "mkldnn": (Through(lambda call, _: call(torch.ones(3).to_mkldnn())), TypeError, "dense tensor"),
    "DTensor": (
        Through(lambda call, _: call(distributed(torch.ones(3)))),
        TypeError,
        r"got a DTensor; pass metrics.full_tensor\(\)",
    ),
}
STEPPED = {
    "f64 lanes": used_lanes,
    "f32 lanes": partial(used_lanes, dtype=torch.float32),
    "batched": used_batched,
}
each_stepped = pytest.mark.parametrize("make", STEPPED.values(), ids=STEPPED.keys())


@each_stepped
@table(METRICS)
def test_the_metrics_are_refused(make, bad, error, words, device):
    thing = make(device)
    assert_refused(thing.step, bad, error, f"^metrics: .*{words}", thing, device=device)


@each_stepped
@table(METRICS_ON_THE_CPU)
def test_the_metrics_on_the_cpu_are_refused_there_and_by_lanes_on_a_gpu(
    make, bad, error, words, device
):
    if device == "cuda":
        error, words = ValueError, "expected device cuda:0, got .*cpu"
    thing = make(device)
    assert_refused(thing.step, bad, error, f"^metrics: .*{words}", thing)


def test_good_metrics_on_another_device_are_refused_with_the_cure(device):
    lanes = used_lanes(device)
    cure = f"; pass metrics.to('{lanes.device}')"
    others = [(OnCuda(), "OnCuda on cuda:99")]
    if device == "cuda":
        others += [(torch.ones(3), f"cpu{cure}"), (np.ones(3), "ndarray on cpu")]
    elif torch.cuda.is_available():
        others += [(torch.ones(3, device="cuda:0"), f"cuda:0{cure}")]
    for metrics, there in others:
        words = re.escape(f"metrics: expected device {lanes.device}, got {there}")
        assert_refused(lanes.step, metrics, ValueError, f"^{words}$", lanes)


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "uint64", "float64"])
def test_float32_lanes_refuse_what_they_cannot_hold_and_say_the_cure(name, device):
    lanes = used_lanes(device, dtype=torch.float32)
    words = rf"^metrics: float32 .*torch.{name} .*metrics.float\(\), or .*dtype=torch.float64"
    metrics = torch.ones(3, dtype=getattr(torch, name))
    for bad in (metrics, metrics.numpy()) if device == "cpu" else (metrics,):
        assert_refused(lanes.step, bad, TypeError, words, lanes, device=device)


ONE_METRIC = {
    "vector": (torch.ones(3), ValueError, r"expected one element, got shape \(3,\)"),
    "empty": (torch.ones(0), ValueError, r"expected one element, got shape \(0,\)"),
    "complex": (torch.tensor(1 + 0j), TypeError, "expected a real number, got torch.complex64"),
    "complex number": (1j, TypeError, "got complex"),
    "vector array": (np.ones(3), TypeError, "got ndarray"),
    "list": ([1.0], TypeError, "got list"),
    "None": (None, TypeError, "got None"),
    "string": ("0.5", TypeError, "expected a number or a one-element tensor, got str"),
    "bytes": (b"0.5", TypeError, "expected a number or a one-element tensor, got bytes"),
    "on cuda": (OnCuda(), TypeError, "got OnCuda"),
    "an integer past float64": (10**400, BOTH, "expected"),
    "vector DTensor": (
        Through(lambda call, _: call(distributed(torch.ones(3)))),
        ValueError,
        "shape",
    ),
    **unreadable(),
}


@table(ONE_METRIC)
def test_the_drop_in_refuses_the_metric(bad, error, words, device):
    scheduler, words = used_drop_in(), f"^metrics: .*{words}"
    assert_refused(scheduler.step, bad, error, words, scheduler, device=device)


def test_the_drop_in_reads_what_torch_reads():
    for metric in (distributed(torch.tensor(0.5)), torch.tensor(0.25).to_sparse()):
        ours, theirs = ReduceLROnPlateau(sgd()), lr_scheduler.ReduceLROnPlateau(sgd())
        ours.step(metric)
        theirs.step(metric)
        assert ours.best == theirs.best == float(metric)


@pytest.mark.parametrize("start", [0, 1, 7, 8])
def test_a_negative_bit_view_gives_the_right_answer(start, device):
    values = torch.arange(1.0, 20.0, device=device)
    view = torch.complex(values, -values).conj().imag[start : start + 3]
    assert view.is_neg()
    lanes = PlateauLanes(3, view, mode="max", device=device)
    lanes.step(view)
    assert lanes.best.tolist() == lanes.lr.tolist() == values[start : start + 3].tolist()


@pytest.mark.parametrize("start", [0, 1, 7, 15, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_negative_bit_view_of_one_number_gives_the_right_answer(start, dtype, device):
    values = torch.arange(1.0, 20.0, dtype=dtype, device=device)
    view = torch.complex(values, -values).conj().imag
    for one in (view[start], view[start : start + 1], view.expand(1, -1)[:, start]):
        assert one.is_neg()
        lanes = PlateauLanes(1, 0.1, mode="max", dtype=torch.float64, device=device)
        lanes.step(one)
        assert lanes.best.tolist() == [values[start].item()]


def test_no_lanes_at_all_work(device):
    lanes = PlateauLanes(0, 0.1, patience=[], mode=[], groups=[], device=device)
    tensors = [torch.ones(0, dtype=dtype, device=device) for dtype in (torch.float32, torch.bool)]
    for metrics in (*tensors, [], *([np.ones(0)] if device == "cpu" else [])):
        assert lanes.step(metrics).shape == (0,)
    lanes.load_state_dict(lanes.state_dict())
    assert (len(lanes), int(lanes.num_steps), lanes.best.shape) == (0, 0, (0,))
    words = r"metrics: expected shape \(0,\), got \(1,\)"
    assert_refused(lanes.step, torch.ones(1), ValueError, words, lanes, device=device)


# -- states ---------------------------------------------------------------------------------------


def three(value, dtype=torch.float64):
    return torch.full((3,), value, dtype=dtype)


LANES_STATES = {
    "another number of lanes": (("best", torch.ones(4)), ValueError, "expected .*shape"),
    "a rate too many": (("lr", torch.ones(4)), ValueError, "expected .*shape"),
    "counts of rank 2": (("num_bad_epochs", torch.ones(3, 1)), ValueError, "expected .*shape"),
    "a list": (("best", [1.0] * 3), BOTH, "expected .*got list"),
    "None": (("cooldown_counter", None), BOTH, "expected .*got None"),
    "steps a word": (("num_steps", "many"), BOTH, "expected"),
    "steps None": (("num_steps", None), BOTH, "expected"),
    "steps a fraction": (("num_steps", 1.5), BOTH, "expected"),
    "steps negative": (("num_steps", -1), BOTH, "expected"),
    "complex": (("best", three(1, torch.complex64)), BOTH, "expected"),
    "sparse": (("best", three(1).to_sparse()), BOTH, "expected"),
    "rate nan": (("lr", three(NAN)), ValueError, "expected .*got nan"),
    "rate negative": (("lr", three(-0.1)), ValueError, "expected .*got -0.1"),
    "rate infinite": (("lr", three(INF)), ValueError, "expected .*got inf"),
    "count negative": (("num_bad_epochs", three(-4)), ValueError, "expected .*got -4"),
    "count fraction": (("num_bad_epochs", three(1.5)), ValueError, "expected .*got 1.5"),
    "count at int32's end": (("num_bad_epochs", three(2.0**31 - 1)), ValueError, "expected"),
    "count past int32": (("num_bad_epochs", three(2.0**32)), ValueError, "expected"),
    "cooldown negative": (("cooldown_counter", three(-4)), ValueError, "expected .*got -4"),
    "groups": (("groups", [1, 1, 1]), ValueError, r"expected None, got \[1, 1, 1\]"),
    "settings None": (("settings", None), BOTH, "expected"),
    "settings of few": (("settings", {"mode": "min"}), KeyError, ".*keys .*factor"),
    "DTensor": (("lr", lambda _: distributed(three(1))), BOTH, "expected"),
    "meta": (("lr", lambda _: three(1).to("meta")), BOTH, "expected"),
    "freed": (("lr", lambda device: freed(3, device=device)), BOTH, "expected"),
    "freed slice": (("lr", lambda device: freed(3, start=5, device=device)), BOTH, "expected"),
    "fake": (("lr", lambda device: fake(3, device=device)), BOTH, "expected"),
}


@table(LANES_STATES)
def test_lanes_refuse_the_state(bad, error, words, device):
    lanes = used_lanes(device)
    other = PlateauLanes(3, 0.7, mode="max", patience=[1, 2, 3], device=device)
    other.step([5.0, 6.0, 7.0])
    (name, value), state = bad, other.state_dict()
    bad = {**state, name: value(device) if callable(value) else value}
    words = rf"state_dict\['{name}'\]: {words}"
    assert_refused(lanes.load_state_dict, bad, error, words, lanes)
    lanes.load_state_dict(state)
    assert contents(lanes.state_dict()) == contents(state)


def test_lanes_refuse_a_state_with_a_key_missing_or_too_many(device):
    lanes = used_lanes(device)
    state = PlateauLanes(3, 0.7, device=device).state_dict()
    words = r"state_dict: .*keys \['{}'\]".format
    for name in state:
        bad = {key: value for key, value in state.items() if key != name}
        assert_refused(lanes.load_state_dict, bad, KeyError, words(name), lanes)
    bad = {**state, "momentum": 0.9}
    assert_refused(lanes.load_state_dict, bad, KeyError, words("momentum"), lanes)


@pytest.mark.parametrize("bad", [None, [1, 2], 3])
def test_what_is_no_state_is_refused(bad, device):
    for thing in (used_lanes(device), used_drop_in(), used_batched()):
        error = (*BOTH, KeyError)
        assert_refused(thing.load_state_dict, bad, error, "state_dict: expected", thing)


def test_float32_lanes_refuse_a_best_that_they_cannot_hold(device):
    lanes, exact = used_lanes(device, dtype=torch.float32), used_lanes(device)
    state = {**exact.state_dict(), "best": three(0.1)}
    words = "best: torch.float32 lanes cannot hold .* use float64"
    assert_refused(lanes.load_state_dict, state, ValueError, words, lanes)
    exact.load_state_dict(state)
    assert_refused(lambda dtype: exact.to(device, dtype), torch.float32, ValueError, words, exact)


MOVES = {
    "cuda": ({"device": "cuda:99"}, RuntimeError, "device: got 'cuda:99', but"),
    "meta": ({"device": "meta"}, RuntimeError, "device: expected 'cpu' or 'cuda', got 'meta'"),
    "no such device": ({"device": "quantum"}, RuntimeError, "quantum"),
    "dtype": ({"dtype": torch.int64}, ValueError, "dtype: expected .*got torch.int64"),
    "one of both": ({"device": "meta", "dtype": torch.float32}, RuntimeError, "device: expected"),
}


@table(MOVES)
def test_lanes_refuse_to_move(bad, error, words, device):
    lanes = used_lanes(device)
    assert_refused(lambda keywords: lanes.to(**keywords), bad, error, words, lanes)


FIELDS = {
    "best None": (("best", None), BOTH, "expected .*got None"),
    "best a word": (("best", "low"), BOTH, "expected .*got 'low'"),
    "count a word": (("num_bad_epochs", "x"), BOTH, "expected .*got 'x'"),
    "count negative": (("num_bad_epochs", -1), BOTH, "expected .*got -1"),
    "count past int32": (("num_bad_epochs", 2**31), BOTH, "expected .*got 2"),
    "count at int32's end": (("num_bad_epochs", 2**31 - 1), BOTH, "expected .*got 2"),
    "cooldown None": (("cooldown_counter", None), BOTH, "expected .*got None"),
    "cooldown negative": (("cooldown_counter", -1), BOTH, "expected .*got -1"),
    "epoch None": (("last_epoch", None), BOTH, "expected .*got None"),
    "epoch past int64": (("last_epoch", 2**63), BOTH, "expected .*got 9"),
}


@table(FIELDS)
def test_the_drop_in_refuses_the_field(bad, error, words):
    (name, value), scheduler = bad, used_drop_in()
    assert_refused(lambda x: setattr(scheduler, *x), bad, error, f"{name}: {words}", scheduler)
    state = used_drop_in(mode="max", factor=0.3).state_dict()
    state[name] = value
    assert_refused(scheduler.load_state_dict, state, error, f"{name}.*: {words}", scheduler)


BATCHED_STATES = {
    "epoch None": ({"last_epoch": None}, BOTH, "last_epoch.*: expected .*got None"),
    "epoch a word": ({"last_epoch": "x"}, BOTH, "last_epoch.*: expected .*got 'x'"),
    "lanes None": ({"lanes": None}, BOTH, "expected"),
    "a key too many": ({"best": 1.0}, KeyError, "state_dict: .*keys .*best"),
}


@table(BATCHED_STATES)
def test_the_batched_scheduler_refuses_the_state(bad, error, words):
    scheduler, state = used_batched(), used_batched(mode="max", factor=0.3).state_dict()
    load = scheduler.load_state_dict
    assert_refused(load, {**state, **bad}, error, words, scheduler)
    del state["lanes"]
    assert_refused(load, state, KeyError, "state_dict: .*keys .*lanes", scheduler)


def test_the_batched_scheduler_refuses_the_state_of_fewer_groups():
    scheduler, state = used_batched(), used_batched(mode="max").state_dict()
    scheduler.optimizer.add_param_group({"params": [torch.zeros(1)]})
    with pytest.raises(ValueError, match=r"best.*: expected .*shape \(4,\), got shape \(3,\)"):
        scheduler.load_state_dict(state)
    assert_refused(scheduler.load_state_dict, state, ValueError, "expected", scheduler)
    assert scheduler.last_epoch == 3


# -- optimizers -----------------------------------------------------------------------------------


def sharing_a_group():
    one, other = sgd(), sgd()
    other.param_groups.append(one.param_groups[0])
    return [one, other]


one_sgd = sgd()
OPTIMIZERS = {
    "none": ([], ValueError, "optimizers: expected at least one, got an empty sequence"),
    "None": (None, TypeError, "optimizers: expected an Optimizer, got NoneType"),
    "model": (torch.nn.Linear(1, 1), TypeError, "optimizers: expected an Optimizer, got Linear"),
    "one is None": ([sgd(), None], TypeError, r"optimizers\[1\]: expected .*, got NoneType"),
    "word": ("sgd", TypeError, r"optimizers\[0\]: expected an Optimizer, got str"),
    "one twice": ([one_sgd, sgd(), one_sgd], ValueError, "optimizers: expected .* at 0 and 2"),
    "a group twice": (sharing_a_group(), ValueError, "param groups: expected .* at 0 and 2"),
    "rate vector": (sgd(2), ValueError, r"param_groups\[1\]\['lr'\]: expected one element"),
    "rate nan": ([sgd(), sgd(lr=NAN)], ValueError, r"param_groups\[1\]\['lr'\]: .*got nan"),
    "rate None": (sgd(lr=None), TypeError, r"param_groups\[0\]\['lr'\]: expected .*got None"),
}
OPTIMIZERS["rate vector"][0].param_groups[1]["lr"] = torch.ones(2)


@table(OPTIMIZERS)
def test_the_batched_scheduler_refuses_the_optimizers(bad, error, words):
    assert_refused(BatchedReduceLROnPlateau, bad, error, words, bad)


@pytest.mark.parametrize("bad", [None, "sgd", [], torch.nn.Linear(1, 1)])
def test_the_drop_in_refuses_what_is_no_optimizer(bad):
    words = f"optimizer: expected an Optimizer, got {type(bad).__name__}"
    assert_refused(ReduceLROnPlateau, bad, TypeError, words)


@pytest.mark.parametrize("kind", [ReduceLROnPlateau, BatchedReduceLROnPlateau])
def test_schedulers_refuse_floors_that_are_not_one_a_group(kind):
    optimizer, words = sgd(2), r"min_lr: expected one number or shape \(2,\), got shape \(3,\)"
    bad = [0.1, 0.2, 0.3]
    assert_refused(lambda x: kind(optimizer, min_lr=x), bad, ValueError, words, optimizer)


def test_the_batched_scheduler_refuses_an_unknown_way_to_publish():
    optimizer, words = sgd(), "publish: expected 'float', 'tensor' or None, got 'both'"

    def build(publish):
        BatchedReduceLROnPlateau(optimizer, publish=publish)

    assert_refused(build, "both", ValueError, words, optimizer)


DEVICES = {
    "floats": (("float", "cuda"), ValueError, "device: expected 'cpu' with publish='float', got"),
    "absent": (("tensor", "cuda:99"), RuntimeError, "device: got 'cuda:99', but"),
    "meta": ((None, "meta"), RuntimeError, "device: expected 'cpu' or 'cuda', got 'meta'"),
}


@table(DEVICES)
def test_the_batched_scheduler_refuses_the_device(bad, error, words, device):
    optimizer = sgd(3, device=device)

    def build(given):
        BatchedReduceLROnPlateau(optimizer, publish=given[0], device=given[1])

    assert_refused(build, bad, error, f"^{words}", optimizer)


def test_tensor_rates_are_refused_for_parameters_on_several_devices(device):
    optimizers = [SGD([torch.ones(1, device=where)], lr=0.1) for where in (device, "meta")]
    with pytest.raises(ValueError, match=r"parameters on one device, got c.*, meta; build"):
        BatchedReduceLROnPlateau(optimizers, publish="tensor")
    assert [each.param_groups[0]["lr"] for each in optimizers] == [0.1, 0.1]


# -- LaneLR ---------------------------------------------------------------------------------------


def stacked(kind=SGD, shape=(3, 2), lr=1.0, dtype=torch.float32, device="cpu"):
    param = torch.ones(shape, dtype=dtype, device=device, requires_grad=True)
    param.grad = torch.ones_like(param)
    return kind([param], lr=lr)


class OwnSGD(SGD):
    pass


OPTIM = torch.optim
NOT_LINEAR = (OPTIM.Rprop, OPTIM.ASGD, OPTIM.Adafactor, OPTIM.LBFGS, OPTIM.Muon, OPTIM.SparseAdam)
LANE_LR = {
    **{
        kind.__name__: (
            stacked(kind),
            TypeError,
            f": {kind.__name__} cannot .*: it.*; use SGD, Ada",
        )
        for kind in (*NOT_LINEAR, OwnSGD)
    },
    "None": (None, TypeError, "optimizer: expected an Optimizer, got NoneType"),
    "first dimension": (stacked(shape=(2, 3)), ValueError, r"parameters \[3, ...\], .*\(2, 3\)"),
    "0-d": (stacked(shape=()), ValueError, r"parameters \[3, ...\], got shape \(\)"),
    "complex": (stacked(dtype=torch.complex64), ValueError, "real parameters, got .*complex64"),
}


@table(LANE_LR)
def test_a_rate_per_lane_is_refused(bad, error, words, device):
    lanes = used_lanes(device)
    assert_refused(lambda optimizer: LaneLR(optimizer, lanes), bad, error, words, bad, lanes)


PLACES = {
    "linear": ({"linear": 1}, TypeError, "linear: expected a bool, got int"),
    "dim None": ({"dim": None}, TypeError, "dim: expected an integer for each parameter, got None"),
    "dim too large": ({"dim": 2}, ValueError, r"with 3 at dimension 2, got shape \(3, 2\)"),
    "dim too small": ({"dim": -3}, ValueError, r"with 3 at dimension -3, got shape \(3, 2\)"),
    "dim of others": ({"dim": lambda _: 1}, ValueError, r"with 3 at dimension 1, got"),
    "dim of words": ({"dim": lambda _: "x"}, TypeError, "dim: expected an integer .*, got str"),
    "lane_of a word": ({"lane_of": "x"}, TypeError, "lane_of: expected lane numbers, got str"),
    "lane_of floats": ({"lane_of": [0.5]}, TypeError, "lane_of: expected lane numbers, got list"),
    "lane_of mask": ({"lane_of": [True] * 3}, TypeError, "lane_of: expected lane numbers, got"),
    "lane_of out of range": ({"lane_of": [0, 1, 3]}, IndexError, "lane_of: expected lanes from 0"),
    "lane_of negative": ({"lane_of": [0, 1, -1]}, IndexError, "lane_of: expected lanes from 0"),
    "lane_of short": ({"lane_of": [0, 1]}, ValueError, r"expected parameters \[2, ...\], got"),
    "lane_of by a function": (
        {"lane_of": lambda _: [0, 1, 9]},
        IndexError,
        "lane_of: expected lanes from 0 to 2, got 9",
    ),
}


@table(PLACES)
def test_lanes_that_are_not_there_in_the_parameters_are_refused(bad, error, words, device):
    optimizer, lanes = stacked(device=device), used_lanes(device)
    assert_refused(lambda x: LaneLR(optimizer, lanes, **x), bad, error, words, optimizer, lanes)
    optimizer.step()
    assert optimizer.param_groups[0]["params"][0].tolist() == [[0.0, 0.0]] * 3


def test_an_optimizer_of_torch_that_is_not_linear_is_none_because_someone_says_so(device):
    optimizer, lanes = stacked(OPTIM.Rprop, device=device), used_lanes(device)
    words = "Rprop cannot have a rate per lane: its step sizes"
    assert_refused(lambda x: LaneLR(x, lanes, linear=True), optimizer, TypeError, words, optimizer)


def test_a_refused_optimizer_steps_as_before(device):
    optimizer, words = stacked(lr=0.5, device=device), r"expected parameters \[4, ...\]"
    lanes = PlateauLanes(4, 0.1, device=device)
    assert_refused(lambda x: LaneLR(x, lanes), optimizer, ValueError, words, optimizer)
    optimizer.step()
    assert optimizer.param_groups[0]["params"][0].tolist() == [[0.5, 0.5]] * 3


def test_stacked_parameters_on_another_device_are_refused(device):
    optimizer, lanes = stacked(device="meta"), used_lanes(device)
    words = rf"param_groups\[0\]: .* on the lanes' device, {lanes.device}, got meta"
    assert_refused(lambda x: LaneLR(x, lanes), optimizer, ValueError, words, lanes)


GROUPS = {"several groups": [1, 2, 1], "as many groups as lanes": [2, 0, 1]}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
def test_lanes_without_one_rate_each_are_refused(groups, device):
    optimizer, words = stacked(device=device), r"^lanes: expected one rate per lane, got \d groups"
    lanes = PlateauLanes(3, 0.1, groups=groups, device=device)
    assert_refused(lambda x: LaneLR(optimizer, x), lanes, ValueError, words, optimizer, lanes)


@pytest.mark.parametrize("bad", [None, torch.ones(3)], ids=["None", "rates"])
def test_what_are_no_lanes_is_refused(bad):
    optimizer, words = stacked(), f"^lanes: expected PlateauLanes, got {type(bad).__name__}"
    assert_refused(lambda x: LaneLR(optimizer, x), bad, TypeError, words, optimizer)
