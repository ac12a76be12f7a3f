"""What a step costs on the CPU: check that all competitors decide alike, time them, write JSON.

::

    python benchmarks/step.py [--out benchmarks/results/cpu.json] [--quick]
    python benchmarks/step.py --parts [--out benchmarks/results/options.json] [--quick]

The second times lanes with optional parts against lanes without: the first three rows are lanes
without any, built alike, so that they show the noise.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, lr_scheduler

from record import RESULTS, machine, write
from torch_plateau import PlateauLanes, ReduceLROnPlateau
from torch_plateau.bench.cases import (
    DTYPES,
    NEVER,
    PATIENCE,
    Case,
    Rule,
    Start,
    bytes_a_lane,
    scenario,
)
from torch_plateau.bench.equal import check_lanes, settled
from torch_plateau.bench.figures import Row
from torch_plateau.bench.optax_rival import Optax, optax_versions
from torch_plateau.bench.rivals import OURS, Copy, Ours, Schedulers
from torch_plateau.bench.timing import on_host
from torch_plateau.bench.vectorised import Compiled, Where

ALL_THREADS = torch.get_num_threads()


def vectorised(rule: Rule, start: Start, compiled: bool = True) -> list[Case]:
    """Return ours and the versions written in torch ("in place" is for GPUs: tuned is better)."""
    cases: list[Case] = [Ours(rule, start)]
    cases += [Where(rule, start, variant) for variant in ("plain", "tuned")]
    if compiled:
        cases += [
            Compiled(rule, start, variant) for variant in ("functional", "in place", "two graphs")
        ]
    return cases


# -- equality first -------------------------------------------------------------------------------


def check_drop_in(metric: Callable[[float], Any]) -> int:
    """Hold the drop-in to torch's class on a random history; return the steps checked."""
    random = torch.Generator().manual_seed(7)
    history = torch.rand(300, generator=random, dtype=torch.float32)
    history[torch.rand(300, generator=random) < 0.05] = torch.nan
    settings: dict[str, Any] = {
        "factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": [0.01 * i for i in range(10)],
    }  # fmt: skip
    ours, theirs = (
        build(cls, 10, **settings) for cls in (ReduceLROnPlateau, lr_scheduler.ReduceLROnPlateau)
    )
    for value in history.tolist():
        ours.step(metric(value))
        theirs.step(metric(value))
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.get_last_lr() == theirs.get_last_lr()
    assert theirs.get_last_lr()[0] < 0.05, "the history exercises too little"
    return len(history)


# -- the drop-in ----------------------------------------------------------------------------------

METRICS: dict[str, Callable[[float], Any]] = {
    "float": float,
    "0-d f32": lambda value: torch.tensor(value, dtype=torch.float32),
    "0-d f64": lambda value: torch.tensor(value, dtype=torch.float64),
}


def build(cls: type, groups: int, **settings: Any) -> Any:
    """Return a scheduler of an optimizer with that many param groups."""
    params = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    return cls(SGD(params, lr=0.1), **settings)


def drop_in(rounds: int, burst: float) -> Iterator[Row]:
    """Time the drop-in against torch's class."""
    classes = {OURS: ReduceLROnPlateau, "torch": lr_scheduler.ReduceLROnPlateau}
    for metric, make in METRICS.items():
        for groups in (1, 10):
            for name in ("quiet", "cut"):
                settings = {"factor": 0.999999, "eps": 0.0, "patience": PATIENCE[name]}
                calls = {
                    (rival, ""): (build(cls, groups, **settings).step, make(10.0))
                    for rival, cls in classes.items()
                }
                where = {"table": "drop-in", "metric": metric, "groups": groups, "scenario": name}
                yield from rows(where, on_host(calls, rounds, burst))


# -- lanes ----------------------------------------------------------------------------------------


def lanes(
    n: int,
    dtypes: str,
    names: list[str],
    rounds: int,
    burst: float,
    *,
    per_lane: bool = False,
    loops: tuple[str, ...] = (),
    compiled: bool = True,
    optax: bool = False,
) -> Iterator[Row]:
    """Time all competitors at one size, after three steps that must leave all in one state."""
    torch._dynamo.reset()  # no entry of another size in the caches of compiled code
    for name in names:
        rule, start, metrics = scenario(name, n, dtypes, per_lane)
        cases = vectorised(rule, start, compiled)
        if name in loops:
            cases += [Schedulers(rule, start, variant) for variant in ("list of floats", "tolist")]
        for case in cases:
            settled(case, metrics, cases[0])
        if optax:
            cases.append(Optax(rule, start))
        calls = {(case.rival, case.variant): (case.step, case.feed(metrics)) for case in cases}
        where = {
            "table": "lanes",
            "lanes": n,
            "dtypes": dtypes,
            "settings": "per lane" if per_lane else "uniform",
            "scenario": name,
        }
        yield from rows(where, on_host(calls, rounds, burst))


# -- bandwidth ------------------------------------------------------------------------------------


def bandwidth(n: int, threads: int, rounds: int, burst: float) -> Iterator[Row]:
    """Time steps against plain copies of as many bytes, in so many threads."""
    cases = [(dtypes, name, False) for dtypes in DTYPES for name in ("quiet", "improving")]
    cases += [(dtypes, "quiet", True) for dtypes in ("f32", "f64")]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for dtypes, name, per_lane in cases:
        rule, start, metrics = scenario(name, n, dtypes, per_lane)
        traffic = bytes_a_lane(dtypes, name, per_lane) * n
        ours = Ours(rule, start)
        calls: dict[tuple[str, str], Any] = {(ours.rival, ""): (ours.step, metrics)}
        for variant in ("torch copy_", "memmove") if threads == 1 else ("torch copy_",):
            copy = Copy(traffic, variant)
            calls[copy.rival, variant] = (copy.step, copy.argument())
        where = {
            "table": "bandwidth",
            "lanes": n,
            "dtypes": dtypes,
            "settings": "per lane" if per_lane else "uniform",
            "scenario": name,
            "threads": threads,
            "bytes_a_lane": traffic // n,
        }
        for row in rows(where, on_host(calls, rounds, burst)):
            yield {**row, "gb_per_s": round(traffic / row["median_us"] / 1e3, 1)}
    torch.set_num_threads(before)


# -- optional parts -------------------------------------------------------------------------------

OFF = {
    name: each.default
    for name, each in inspect.signature(PlateauLanes).parameters.items()
    if each.default is not inspect.Parameter.empty
}
PLAIN: dict[str, dict[str, Any]] = {"plain": {}, "plain again": {}, "every part named as off": OFF}
PARTS: dict[str, dict[str, Any]] = {
    "atol": {"atol": 0.1},
    "counting optax": {"counting": "optax"},
    "counting keras": {"counting": "keras"},
    "nan skip": {"nan": "skip"},
    "rel_safe": {"threshold_mode": "rel_safe"},
    "initial_patience": {"initial_patience": 10**6},
    "min_steps": {"min_steps": 5},
    "smoothing": {"smoothing": 0.9},
    "accumulate 4": {"accumulate": 4},
    "window 8": {"window": 8},
    "max_reductions": {"max_reductions": 100},
    "max_steps": {"max_steps": 10**9},
    "patience_at_min": {"patience_at_min": 100},
    "stop_patience": {"stop_patience": 10**9},
    "stop_at": {"stop_at": 0.0},
    "diverge_at": {"diverge_at": 1e9},
    "warm-up": {"warmup_steps": 10**6},
    "events": {"events": 1},
    "all of them": {
        "nan": "skip",
        "smoothing": 0.9,
        "accumulate": 4,
        "window": 8,
        "max_reductions": 100,
        "patience_at_min": 100,
        "warmup_steps": 10**6,
        "events": 1,
    },
}


# what a run with ragged batches has: some lanes have no metric, some a NaN, and they end
MASKED: dict[str, dict[str, Any]] = {
    "a mask": {"patience": NEVER},
    "a mask, nan skip, max_reductions": {"patience": NEVER, "nan": "skip", "max_reductions": 100},
}


def _masked(mask: Tensor, lanes: PlateauLanes, metrics: Tensor) -> None:
    lanes.step(metrics, mask)


def optional_parts(quick: bool) -> Iterator[Row]:
    """Time quiet steps of float64 lanes; ``ratio`` is the median over that of plain lanes."""
    rounds, burst = (9, 0.001) if quick else (41, 0.004)
    for n in (16, 4_096) if quick else (16, 4_096, 1_000_000):
        metrics, every = torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
        calls: dict[str, Any] = {
            name: (PlateauLanes(n, 0.1, **{**keywords, "patience": NEVER}).step, metrics)
            for name, keywords in {**PLAIN, **PARTS}.items()
        }
        for name, keywords in MASKED.items():
            calls[name] = (partial(_masked, every, PlateauLanes(n, 0.1, **keywords)), metrics)
        times = on_host(calls, rounds, burst)
        for name, figures in times.items():
            ratio = float(f"{figures['median_us'] / times['plain']['median_us']:.3g}")
            yield {"lanes": n, "with": name, **figures, "ratio": ratio}


# -- all of it ------------------------------------------------------------------------------------


def rows(where: Row, times: dict[tuple[str, str], dict[str, float]]) -> Iterator[Row]:
    """Yield a row a competitor; ``ratio`` is its median over ours in the same group."""
    ours = times[OURS, ""]["median_us"]
    for (rival, variant), figures in times.items():
        ratio = float(f"{figures['median_us'] / ours:.3g}")
        yield {**where, "rival": rival, "variant": variant, **figures, "ratio": ratio}
    print("  ", *(str(value) for key, value in where.items() if key != "table"), flush=True)


def check(quick: bool) -> Row:
    """Run every equality check."""

    def competitors(rule: Rule, start: Start) -> list[Case]:
        return [*vectorised(rule, start), Schedulers(rule, start, "tolist")]

    dtypes = ["f32"] if quick else list(DTYPES)
    steps = 0
    for each in dtypes:
        for per_lane in (False,) if quick else (False, True):
            torch._dynamo.reset()
            steps += check_lanes(each, per_lane, competitors)
    single = sum(check_drop_in(make) for make in METRICS.values())
    return {"lane_steps": steps, "drop_in_steps": single, "dtypes": dtypes}


def measure(quick: bool, optax: bool) -> Iterator[Row]:
    """Yield every row."""
    rounds, burst = (9, 0.001) if quick else (41, 0.002)
    print("drop-in")
    yield from drop_in(rounds, burst)
    print("lanes")
    if quick:
        yield from lanes(16, "f32", ["mixed"], rounds, burst, loops=("mixed",), optax=optax)
        yield from lanes(4096, "f32", ["mixed"], rounds, burst, loops=("mixed",), optax=optax)
        yield from lanes(1_000_000, "f32", ["mixed"], rounds, burst, compiled=False, optax=optax)
    else:
        every = ["quiet", "mixed", "cut"]
        for n in (1, 16, 256, 4096, 100_000, 1_000_000):
            for dtypes in ("f32", "f64"):
                yield from lanes(
                    n,
                    dtypes,
                    every,
                    rounds,
                    burst,
                    loops=_loops(n, dtypes),
                    optax=optax and dtypes == "f32",
                )
        for n in (4096, 1_000_000):
            yield from lanes(n, "f64, f32 metrics", every, rounds, burst)
        print("settings per lane")
        for n in (256, 4096, 1_000_000):
            for dtypes in ("f32", "f64"):
                yield from lanes(n, dtypes, every, rounds, burst, per_lane=True)
    print("bandwidth")
    for n in (1_000_000,) if quick else (1_000_000, 10_000_000):
        for threads in (1, ALL_THREADS):
            yield from bandwidth(n, threads, rounds, burst)


def _loops(n: int, dtypes: str) -> tuple[str, ...]:
    """Return the scenarios in which N torch schedulers are worth their time."""
    if n <= 4096:
        return ("quiet", "mixed", "cut")
    return ("mixed",) if n == 100_000 and dtypes == "f32" else ()


def not_run(versions: Row) -> list[Row]:
    """Return what was left out of a full run, and why."""
    left = [
        {
            "rival": "N torch schedulers",
            "what": "100,000 lanes: only f32 mixed; 1,000,000 lanes: nothing",
            "reason": "a step takes a tenth of a second and more than a second",
        },
        {
            "rival": "optax",
            "what": "float64, and one setting per lane",
            "reason": "its state is float32 unless JAX is switched to 64 bits for the process, "
            "and its settings are constants",
        },
    ]
    if versions["optax"] is None:
        left.append({"rival": "optax", "what": "everything", "reason": "not installed"})
    return left


def rivals_run(quick: bool) -> Row:
    """Check, time and return everything but the optional parts."""
    began = time.perf_counter()
    on = machine()
    versions = optax_versions()
    on.update(versions)
    print("checking that all decide alike")
    checks = check(quick)
    results = list(measure(quick, versions["optax"] is not None))
    report = {
        "machine": on,
        "quick": quick,
        "checks": checks,
        "not_run": not_run(versions),
        "seconds": round(time.perf_counter() - began),
        "rows": results,
    }
    for row in results:
        if row["ratio"] < 1.3 and row["rival"] not in (OURS, "plain copy"):
            hidden = ("table", "median_us", "p25_us", "p75_us", "n", "calls", "ratio")
            print(f"{row['ratio']:.2f}x", *(v for k, v in row.items() if k not in hidden))
    print(f"{len(results)} rows in {report['seconds']} s")
    return report


def parts_run(quick: bool) -> Row:
    """Time and return the optional parts."""
    report = {"machine": machine(), "rows": list(optional_parts(quick))}
    for row in report["rows"]:
        print(f"{row['lanes']:>9,} {row['with']:<24} {row['median_us']:>10} us {row['ratio']:>6}x")
    return report


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", action="store_true", help="what optional parts cost, instead")
    parser.add_argument(
        "--out", type=Path, help="JSON to write (default results/cpu.json, or options.json)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few cases; written only where --out says"
    )
    options = parser.parse_args()
    full = RESULTS / ("options.json" if options.parts else "cpu.json")
    out = options.out or (None if options.quick else full)
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1
    report = (parts_run if options.parts else rivals_run)(options.quick)
    if out is not None:
        write(report, out)


if __name__ == "__main__":
    main()
