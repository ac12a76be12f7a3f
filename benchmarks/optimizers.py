"""What a step of LaneAdamW and LaneSGD costs against torch's own: equality first, then JSON.

::

    python benchmarks/optimizers.py [--out benchmarks/results/optimizers.json] [--quick]

Ours have a rate per lane, torch's one rate for the whole stack. All rivals of a case are timed in
turn, round after round, in one thread and then in all; `ratio` is ours over the fastest of torch's.
With half of the lanes finished every other lane is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from record import RESULTS, machine, options_of, write
from torch_plateau import LaneAdamW, LaneSGD, PlateauLanes
from torch_plateau.bench.timing import on_host

OUT = RESULTS / "optimizers.json"
RATE = 1e-3
CASES = {  # lanes, and the shapes of a lane's parameters
    "256 networks of 5,000": (256, [(64, 64), (64,), (64, 13), (8,)]),
    "8 of 10,000,000": (8, [(2000, 2500), (2500, 1600), (1000, 1000)]),
}
SMALL = {"4 of 100,000": (4, [(300, 300), (10_000,)])}
MOMENTUM = {"momentum": 0.9}
RIVALS: dict[str, dict[str, Callable[..., Optimizer]]] = {
    "AdamW": {"torch fused": lambda p: AdamW(p, lr=RATE, fused=True)},
    "SGD": {
        "torch fused": lambda p: SGD(p, lr=RATE, fused=True),
        "torch foreach": lambda p: SGD(p, lr=RATE, foreach=True),
    },
    "SGD momentum": {
        "torch fused": lambda p: SGD(p, lr=RATE, fused=True, **MOMENTUM),
        "torch foreach": lambda p: SGD(p, lr=RATE, foreach=True, **MOMENTUM),
    },
}
OURS: dict[str, Callable[..., Optimizer]] = {
    "AdamW": LaneAdamW,
    "SGD": LaneSGD,
    "SGD momentum": lambda params, lanes: LaneSGD(params, lanes, **MOMENTUM),
}


def lanes_of(n: int, half_finished: bool) -> PlateauLanes:
    """Return lanes of which none, or every other one, is finished."""
    lanes = PlateauLanes(n, RATE, nan="freeze")
    metrics = torch.ones(n)
    if half_finished:
        metrics[::2] = torch.nan
    lanes.step(metrics)
    assert int(lanes.finished.sum()) == (n // 2 if half_finished else 0)
    return lanes


def params_of(n: int, shapes: list[tuple[int, ...]], grads: list[Tensor]) -> list[Tensor]:
    """Return equal parameters each time; all rivals read the same gradients."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(n, *shape, generator=generator) for shape in shapes]
    for param, grad in zip(params, grads, strict=True):
        param.requires_grad_().grad = grad
    return params


def check(n: int, params: dict[str, list[Tensor]], first: str) -> None:
    """Compare what the rivals made of the same parameters; half finished only the live rows."""
    for name, mine in params.items():
        rows = slice(1, None, 2) if "half" in name else slice(0, n)
        for one, other in zip(mine, params[first], strict=True):
            difference = (one[rows] - other[rows]).abs().max()
            assert difference <= 1e-6, f"{name}: {float(difference)}"


def rows_of(case: str, optimizer: str, spec: Any, threads: list[int], quick: bool) -> list[Any]:
    """Check and time one case of one optimizer."""
    n, shapes = spec
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(n, *shape, generator=generator) for shape in shapes]
    params, rivals = {}, {}
    for name, make in RIVALS[optimizer].items():
        params[name] = params_of(n, shapes, grads)
        rivals[name] = make(params[name])
    for name, half in (("ours", False), ("ours, half finished", True)):
        params[name] = params_of(n, shapes, grads)
        rivals[name] = OURS[optimizer](params[name], lanes_of(n, half))
    for _ in range(3):
        for rival in rivals.values():
            rival.step()
    check(n, params, next(iter(RIVALS[optimizer])))
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        calls = {name: (lambda each: each.step(), rival) for name, rival in rivals.items()}
        rounds, most = (5, 1.0) if quick else (25, 5.0)
        times = on_host(calls, rounds=rounds, burst=0.03, most=most)
        best = min(times[name]["median_us"] for name in RIVALS[optimizer])
        for name, figures in times.items():
            ratio = round(figures["median_us"] / best, 3)
            row = {"case": case, "optimizer": optimizer, "threads": count, "rival": name}
            rows.append({**row, **figures, "ratio": ratio})
            print(f"{case:24} {optimizer:13} {count} {name:20} "
                  f"{figures['median_us']:>12,.0f} us  {ratio:.2f}")  # fmt: skip
    return rows


def main() -> None:
    """Run, and write unless it is quick."""
    options = options_of(__doc__)
    report: dict[str, Any] = {"machine": machine(), "rows": []}
    threads = sorted({1, torch.get_num_threads()})
    for case, spec in (SMALL if options.quick else CASES).items():
        for optimizer in RIVALS:
            report["rows"] += rows_of(case, optimizer, spec, threads, options.quick)
    out = options.out or (None if options.quick else OUT)
    if out:
        write(report, out)


if __name__ == "__main__":
    main()
