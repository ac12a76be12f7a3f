"""Check that all competitors decide alike, time them in one run, write JSON.

::

    python benchmarks/run.py [--out benchmarks/results/cpu.json] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD, lr_scheduler

from cases import (
    Case,
    Compiled,
    Copy,
    Optax,
    Ours,
    Rule,
    Schedulers,
    Start,
    Where,
    optax_versions,
)
from measure import interleave, machine
from scenarios import DTYPES, PATIENCE, bytes_a_lane, check_lanes, same, scenario
from torch_plateau import ReduceLROnPlateau

DEFAULT_OUT = Path(__file__).parent / "results" / "cpu.json"

Row = dict[str, Any]


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
    classes = {"torch-plateau": ReduceLROnPlateau, "torch": lr_scheduler.ReduceLROnPlateau}
    for metric, make in METRICS.items():
        for groups in (1, 10):
            for name in ("quiet", "cut"):
                settings = {"factor": 0.999999, "eps": 0.0, "patience": PATIENCE[name]}
                calls = {
                    (rival, ""): (build(cls, groups, **settings).step, make(10.0))
                    for rival, cls in classes.items()
                }
                where = {"table": "drop-in", "metric": metric, "groups": groups, "scenario": name}
                yield from rows(where, interleave(calls, rounds, burst))


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
            for _ in range(3):
                case.step(case.feed(metrics))
            same(case, cases[0])
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
        yield from rows(where, interleave(calls, rounds, burst))


# -- bandwidth ------------------------------------------------------------------------------------


def bandwidth(n: int, rounds: int, burst: float) -> Iterator[Row]:
    """Time steps against plain copies of as many bytes."""
    for dtypes in DTYPES:
        for name in ("quiet", "improving"):
            rule, start, metrics = scenario(name, n, dtypes)
            traffic = bytes_a_lane(dtypes, name) * n
            ours = Ours(rule, start)
            calls: dict[tuple[str, str], Any] = {(ours.rival, ""): (ours.step, metrics)}
            for variant in ("torch copy_", "memmove"):
                copy = Copy(traffic, variant)
                calls[copy.rival, variant] = (copy.step, copy.argument())
            where = {
                "table": "bandwidth",
                "lanes": n,
                "dtypes": dtypes,
                "scenario": name,
                "bytes_a_lane": traffic // n,
            }
            for row in rows(where, interleave(calls, rounds, burst)):
                yield {**row, "gb_per_s": round(traffic / row["median_us"] / 1e3, 1)}


# -- all of it ------------------------------------------------------------------------------------


def rows(where: Row, times: dict[tuple[str, str], dict[str, float]]) -> Iterator[Row]:
    """Yield a row a competitor; ``ratio`` is its median over ours in the same group."""
    ours = times["torch-plateau", ""]["median_us"]
    for (rival, variant), figures in times.items():
        ratio = float(f"{figures['median_us'] / ours:.3g}")
        yield {**where, "rival": rival, "variant": variant, **figures, "ratio": ratio}
    print("  ", *(str(value) for key, value in where.items() if key != "table"), flush=True)


def check(quick: bool, compiled: bool = True) -> Row:
    """Run every equality check."""

    def competitors(rule: Rule, start: Start) -> list[Case]:
        return [*vectorised(rule, start, compiled), Schedulers(rule, start, "tolist")]

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
        yield from bandwidth(n, rounds, burst)


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


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON to write (default results/cpu.json)")
    parser.add_argument(
        "--quick", action="store_true", help="a few cases; written only where --out says"
    )
    options = parser.parse_args()
    out = options.out or (None if options.quick else DEFAULT_OUT)
    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1

    began = time.perf_counter()
    on = machine()
    versions = optax_versions()
    on.update(versions)
    print("checking that all decide alike")
    checks = check(options.quick)
    results = list(measure(options.quick, versions["optax"] is not None))
    report = {
        "machine": on,
        "quick": options.quick,
        "checks": checks,
        "not_run": not_run(versions),
        "seconds": round(time.perf_counter() - began),
        "rows": results,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in results:
        if row["ratio"] < 1.3 and row["rival"] not in ("torch-plateau", "plain copy"):
            hidden = ("table", "median_us", "p25_us", "p75_us", "n", "calls", "ratio")
            print(f"{row['ratio']:.2f}x", *(v for k, v in row.items() if k not in hidden))
    print(f"{len(results)} rows in {report['seconds']} s")


if __name__ == "__main__":
    main()
