"""What a step costs on a GPU: check that all competitors decide alike, time them, write JSON.

::

    python benchmarks/gpu.py [--out benchmarks/results/gpu.json] [--quick]

``--device cpu`` tries the script out where there is no GPU: no graphs, wall times for device times,
and a JSON that says so and that no table takes.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_targets import summary_line, targets
from record import RESULTS, machine, write
from torch_plateau.bench.cases import DTYPES, Case, Rule, Start, State, bytes_a_lane, scenario
from torch_plateau.bench.device_timing import Timed, host_and_device, wait
from torch_plateau.bench.equal import DifferenceError, check_lanes, same, settled
from torch_plateau.bench.figures import Row, reason
from torch_plateau.bench.machine import nvidia_smi
from torch_plateau.bench.rivals import OURS, Copy, Ours, Schedulers
from torch_plateau.bench.vectorised import Compiled, Where

SIZES = (1, 1_000, 100_000, 100_000_000, 10_000_000)  # what may be cut off comes last
QUICK_SIZES = (1, 1_000, 10_000_000)
LOOPED = 1_000  # lanes up to which a scheduler of torch for each is worth its time
LATENCY = 100_000  # lanes up to which a launch is the greater part: an empty kernel is timed too
BANDWIDTH = 10_000_000  # lanes from which memory is: a copy is timed too


Name = tuple[str, str]
Make = Callable[[Rule, Start], Case]

EAGER: dict[Name, Make] = {
    (OURS, ""): Ours,
    ("N torch schedulers", "tolist"): partial(Schedulers, variant="tolist"),
    ("N torch schedulers", "iterated"): partial(Schedulers, variant="iterated"),
    ("torch.where", "plain"): partial(Where, variant="plain"),
    ("torch.where", "tuned"): partial(Where, variant="tuned"),
    ("torch.where", "in place"): partial(Where, variant="in place"),
    ("torch.compile", "functional"): partial(Compiled, variant="functional"),
    ("torch.compile", "in place"): partial(Compiled, variant="in place"),
    ("torch.compile", "two graphs"): partial(Compiled, variant="two graphs"),
}
CAPTURED: dict[Name, Make] = {
    (OURS, "graph"): EAGER[OURS, ""],
    ("torch.where", "in place, graph"): EAGER["torch.where", "in place"],
    ("torch.compile", "in place, graph"): EAGER["torch.compile", "in place"],
}


# -- steps in graphs ------------------------------------------------------------------------------


class Captured:
    """A competitor whose steps are captured when it is first stepped, and replayed from then on.

    ``one`` is a graph of one step, ``many`` one of ``steps`` steps that read the same metrics.
    """

    def __init__(self, case: Case | Empty, steps: int) -> None:
        self.case, self.steps = case, steps
        self.rival, self.variant = case.rival, f"{case.variant}, graph".removeprefix(", ")
        self.metrics: Tensor | None = None
        self.one: Any = None
        self.many: Any = None

    def feed(self, metrics: Tensor) -> Tensor:
        """Copy into the tensor that the graphs read; not timed."""
        if self.metrics is None:
            self.metrics = metrics.clone()
        return self.metrics.copy_(metrics)

    def step(self, metrics: Tensor) -> None:
        """Replay; the first time step uncaptured, which compiles and loads, and then capture."""
        if self.one is not None:
            self.replay_one()
            return
        beside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            self.case.step(metrics)
        now.wait_stream(beside)
        self.one, self.many = self._capture(metrics, 1), self._capture(metrics, self.steps)

    def _capture(self, metrics: Tensor, steps: int) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                self.case.step(metrics)
        return graph

    def replay_one(self) -> None:
        """Take a step."""
        self.one.replay()

    def replay_many(self) -> None:
        """Take ``steps`` steps."""
        self.many.replay()

    def state(self) -> State:
        """Return ``(best, clock, rate)``."""
        return self.case.state()


class Empty:
    """A kernel that does nothing, to be captured: what a launch costs by itself."""

    rival, variant = "empty kernel", ""

    def step(self, _: Tensor) -> None:
        """Launch it."""
        torch.cuda._sleep(0)


# -- one run --------------------------------------------------------------------------------------


class Run:
    """One run: where, how long, and what it found."""

    def __init__(self, device: torch.device, quick: bool, each: float, limit: float) -> None:
        self.device, self.limit = device, limit
        self.rounds, self.burst, self.most = (7, 0.002, 0.1) if quick else (31, 0.004, each)
        self.not_run: list[Row] = []
        self.began = time.perf_counter()
        self.competitors: dict[Name, Make] = dict(EAGER)
        self.graphs = device.type == "cuda"
        if self.graphs:
            self.competitors.update(CAPTURED)
        else:
            self._leave_out(("everything", "in a graph"), "all", "there is no GPU")

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

    def _leave_out(self, name: Name, what: str, reason: str) -> None:
        self.not_run.append({"rival": " ".join(name).strip(), "what": what, "reason": reason})
        print("   NOT RUN:", *self.not_run[-1].values(), flush=True)

    def make(self, name: Name, rule: Rule, start: Start, steps: int = 2) -> Case:
        """Build a competitor."""
        case = self.competitors[name](rule, start)
        return Captured(case, steps) if name in CAPTURED else case

    def attempt(self, name: Name, what: str, action: Callable[[], Any]) -> Any:
        """Return what ``action`` does, or None, and say why, if a rival cannot do it."""
        try:
            return action()
        except DifferenceError as error:
            if name[0] == OURS:
                raise
            why = str(error)
        except Exception as error:  # out of memory, or a compiler that fails: the others go on
            if name[0] == OURS:
                raise
            why = reason(error)
        self._leave_out(name, what, why)
        return None

    def check(self, quick: bool) -> Row:
        """Hold every competitor to torch's schedulers; one that differs is not timed."""
        steps, lanes = 0, 0
        for name in list(self.competitors):
            torch._dynamo.reset()
            for per_lane in (False,) if quick else (False, True):
                build = partial(self._alone, name)
                done = self.attempt(
                    name, "all", partial(check_lanes, "f32", per_lane, build, self.device)
                )
                if done is None:
                    del self.competitors[name]
                    break
                steps += done
        for name in [name for name in self.competitors if name[0] == OURS]:
            for dtypes in DTYPES:
                lanes += self._check_many(name, dtypes)
        return {"lane_steps": steps, "lane_steps_of_cpu_lanes": lanes}

    def _alone(self, name: Name, rule: Rule, start: Start) -> list[Case]:
        return [self.make(name, rule, start)]

    def _check_many(self, name: Name, dtypes: str) -> int:
        """Hold ours to itself on the CPU where other kernels run; return the steps checked."""
        n, steps = 300_003, 12
        lanes, metric = DTYPES[dtypes]
        rule = Rule(patience=1, threshold=0.01, factor=0.3, cooldown=2, min_lr=1e-3, eps=1e-8)
        best = torch.full((n,), torch.inf, dtype=lanes)
        start = Start(best, torch.zeros(n, dtype=torch.int32), torch.full((n,), 0.1).double())
        truth = Ours(rule, start)
        there = Start(*(getattr(start, field).to(self.device) for field in vars(start)))
        case = self.make(name, rule, there)
        random = torch.Generator().manual_seed(7)
        for step in range(steps):
            metrics = torch.rand(n, generator=random, dtype=metric) * 0.9**step
            truth.step(metrics)
            case.step(case.feed(metrics.to(self.device)))
            same(case, truth)
        assert int(truth.lanes.num_reductions.max()) > 1, "the history exercises too little"
        return n * steps

    def group(self, n: int, name: str) -> Iterator[Row]:
        """Time all competitors at one size, after three steps that must leave all in one state."""
        what = f"{n:,} lanes, {name}"
        if self.seconds > self.limit:
            self._leave_out(("everything", ""), what, f"{self.limit:.0f} seconds were over")
            return
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        torch._dynamo.reset()  # no entry of another size in the caches of compiled code
        rule, start, metrics = scenario(name, n, "f32", device=self.device)
        steps = 100 if n <= LATENCY else 10
        calls: dict[Name, Timed] = {}
        truth: Case | None = None
        for each in self.competitors:
            if each[0] == "N torch schedulers" and n > LOOPED:
                if name == "quiet":
                    why = "a Python call a lane takes too long"
                    self._leave_out(each, f"{n:,} lanes", why)
                continue
            build = partial(self._ready, each, (rule, start, metrics), steps, truth)
            case = self.attempt(each, what, build)
            if case is not None:
                truth = truth or case
                calls[each] = timed(case, metrics)
        if n <= LATENCY and self.graphs:
            empty = Captured(Empty(), steps)
            empty.step(empty.feed(metrics))
            calls["empty kernel", "graph"] = timed(empty, metrics)
        traffic = bytes_a_lane("f32", name) * n if n >= BANDWIDTH and name != "mixed" else 0
        if traffic:
            copy = Copy(traffic, "copy_", self.device)
            once = partial(copy.step, copy.argument())
            calls[copy.rival, copy.variant] = Timed(once, once)
        times = host_and_device(calls, self.device, self.rounds, self.burst, self.most)
        yield from rows({"lanes": n, "scenario": name}, times, traffic)
        print(f"   {what} ({self.seconds:.0f} s)", flush=True)

    def _ready(
        self, name: Name, what: tuple[Rule, Start, Tensor], steps: int, truth: Case | None
    ) -> Case:
        rule, start, metrics = what
        case = self.make(name, rule, start, steps)
        settled(case, metrics, truth)
        wait(self.device)
        return case


def timed(case: Case, metrics: Tensor) -> Timed:
    """Return what is timed: a call of step, or a replay of one step and one of many.

    Either keeps the case, whose memory a graph reads and does not hold.
    """
    if isinstance(case, Captured):
        return Timed(case.replay_one, case.replay_many, case.steps)
    call = partial(case.step, case.feed(metrics))
    return Timed(call, call)


def rows(where: Row, times: dict[Name, Row], traffic: int) -> Iterator[Row]:
    """Yield a row a competitor; ratios are its medians over ours, captured where it is."""
    for (rival, variant), figures in times.items():
        graph = variant.endswith("graph")
        ours = times.get((OURS, "graph" if graph else ""), {})
        row = {**where, "rival": rival, "variant": variant, "graph": graph, **figures}
        for side in ("host", "device"):
            if ours:
                ratio = figures[side]["median_us"] / ours[side]["median_us"]
                row[f"{side}_ratio"] = float(f"{ratio:.3g}")
        if traffic and rival in (OURS, "plain copy"):
            per_s = traffic / figures["device"]["median_us"] / 1e3
            row |= {"bytes_a_lane": traffic // where["lanes"], "gb_per_s": round(per_s, 1)}
        yield row


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON to write (default results/gpu.json)")
    parser.add_argument("--quick", action="store_true", help="short; written only where --out says")
    parser.add_argument("--device", default="cuda", help="'cpu' to try the script out")
    parser.add_argument("--commit", help="what is measured, where there is no git to say so")
    parser.add_argument(
        "--each", type=float, default=0.4, help="seconds for a competitor, size and scenario"
    )
    parser.add_argument(
        "--limit", type=float, default=160.0, help="seconds after which nothing new begins"
    )
    return parser.parse_args()


def main() -> int:
    """Run, write the report after every group, print a table."""
    options = arguments()
    device = torch.device(options.device)
    real = device.type == "cuda"
    if real and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} finds no CUDA device", file=sys.stderr)
        return 1
    if real:
        device = torch.device("cuda", torch.cuda.current_device())
    torch._inductor.config.compile_threads = 1
    run = Run(device, options.quick, options.each, options.limit)
    on = machine(device)
    on["commit"] = options.commit or on["commit"]
    if real:
        clocks = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
        on["gpu_at_start"] = nvidia_smi(device, *clocks)
    report: Row = {"gpu_run": real, "quick": options.quick, "finished": False, "machine": on}
    report |= {"not_run": run.not_run, "targets": [], "rows": []}
    out = options.out or (None if options.quick or not real else RESULTS / "gpu.json")

    def save() -> None:
        report["seconds"] = round(run.seconds)
        if out is not None:
            write(report, out)

    print("checking that all decide alike", flush=True)
    report["checks"] = run.check(options.quick)
    print(f"   {report['checks']} ({run.seconds:.0f} s)", flush=True)
    lines = []
    for n in QUICK_SIZES if options.quick else SIZES:
        names = (["all improve"] if n >= BANDWIDTH else []) + ["quiet", "mixed"]
        for name in names:
            some = list(run.group(n, name))
            report["rows"] += some
            lines += [summary_line(some)] if some else []
            save()
    report["targets"] = targets(report["rows"])
    if real:
        on["gpu_at_end"] = nvidia_smi(device, *clocks)
    report["finished"] = True
    save()
    print("" if real else "\nNOT A GPU RUN: wall times on the CPU, to try the script out")
    print("ours: host us, device us a step; next: the fastest rival's device time over ours")
    print("\n".join(lines))
    for target in report["targets"]:
        print(f"{'yes' if target['met'] else 'NO ':<4}{target['what']}: {target['got']}")
    print(f"{len(report['rows'])} rows in {report['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
