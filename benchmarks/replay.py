"""What a replay costs against stepping and against torch's class: equality first, then JSON.

::

    python benchmarks/replay.py [--out benchmarks/results/replay.json]

Every row is one call that takes all lanes through 1,000 epochs, on one thread unless it says
otherwise; ours through the public functions, with the building of the lanes. All rivals of one case
are timed in turn, and `ratio` is a rival's time for an epoch of a lane over ours. The sweep of a
million settings runs in a process of its own; its memory is the peak less what there was once
torch, this package and a small sweep were loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from record import RESULTS, machine, write
from torch_plateau import PlateauLanes, replay, sweep
from torch_plateau.bench.timing import in_turn, seconds

OUT = RESULTS / "replay.json"
EPOCHS, ROUNDS = 1_000, 7
LANES = 1 << 18
STEPPED = 1 << 14  # lanes of the rivals that step
MILLION: dict[str, Any] = {
    "patience": range(100),
    "threshold": torch.linspace(0, 0.1, 100, dtype=torch.float64),
    "factor": [0.1, 0.2, 0.3, 0.5, 0.7],
    "cooldown": range(20),
}


def history() -> Tensor:
    """A loss that falls and gets noisy."""
    generator = torch.Generator().manual_seed(0)
    epochs = torch.arange(EPOCHS, dtype=torch.float64)
    noise = torch.randn(EPOCHS, generator=generator, dtype=torch.float64)
    return 1 / (1 + 0.05 * epochs) + 0.02 * noise


def settings_of(n: int, kind: str) -> dict[str, Any]:
    """Settings for ``n`` lanes: one for all, or the kinds of a sweep, shuffled."""
    if kind == "uniform":
        return {"patience": 10, "threshold": 1e-3}
    generator = torch.Generator().manual_seed(1)
    pick = torch.randperm(n, generator=generator)
    return {
        "patience": pick % 100,
        "threshold": (pick // 100 % 100).double() * 1e-3,
        "cooldown": pick // 7 % 20,
        "factor": torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)[pick % 3],
    }


def one(settings: dict[str, Any], lane: int) -> dict[str, Any]:
    """Return the settings of one lane as plain numbers."""
    return {k: v[lane].item() if isinstance(v, Tensor) else v for k, v in settings.items()}


def torchs(metrics: list[float], settings: dict[str, Any]) -> tuple[int, float]:
    """Loop over torch's own class; return when it first cut (0: never) and the last rate."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    group, first = optimizer.param_groups[0], 0
    for step, metric in enumerate(metrics, start=1):
        scheduler.step(metric)
        if not first and group["lr"] < 1.0:
            first = step
    return first, group["lr"]


def check_equal(metrics: Tensor, lanes: int = 200) -> int:
    """Compare lanes of each kind with torch's class; return how many epochs were compared."""
    for kind in ("uniform", "per lane"):
        settings = settings_of(lanes, kind)
        ours = replay(metrics[:, None].expand(-1, lanes).clone(), **settings)
        shared = replay(metrics, **{**settings, "factor": settings.get("factor", [0.1] * lanes)})
        for lane in range(lanes):
            first, rate = torchs(metrics.tolist(), one(settings, lane))
            for each in (ours, shared):
                assert (int(each.first_cut[lane]), float(each.final_lr[lane])) == (first, rate)
    return 2 * lanes * len(metrics)


def stepped(metrics: list[float], n: int, settings: dict[str, Any]) -> PlateauLanes:
    """Step lanes through a history that all of them share."""
    lanes = PlateauLanes(n, 1.0, **settings)
    for metric in metrics:
        lanes.step(torch.full((n,), metric, dtype=torch.float64))
    return lanes


def where(metrics: list[float], n: int, settings: dict[str, Any]) -> Tensor:
    """Do the same with torch.where, as one would by hand (mode min, threshold_mode rel)."""
    best = torch.full((n,), torch.inf, dtype=torch.float64)
    bad, cool = (torch.zeros(n, dtype=torch.int64) for _ in range(2))
    rate = torch.ones(n, dtype=torch.float64)
    scale = 1 - torch.as_tensor(settings["threshold"])
    patience, cooldown = settings["patience"], settings.get("cooldown", 0)
    factor = settings.get("factor", 0.1)
    for metric in metrics:
        better = metric < best * scale
        best = torch.where(better, metric, best)
        bad = torch.where(better, 0, bad + 1)
        cooling = cool > 0
        cool = cool - cooling.long()
        bad = torch.where(cooling, 0, bad)
        fired = bad > patience
        new = rate * factor
        rate = torch.where(fired & (rate - new > 1e-8), new, rate)
        cool = torch.where(fired, cooldown, cool)
        bad = torch.where(fired, 0, bad)
    return rate


def timed(calls: dict[str, tuple[int, int, Callable[[], object]]]) -> dict[str, dict[str, float]]:
    """Time calls in turn; each is (lanes, rounds, call). Returns figures a lane-epoch."""
    samplers = {name: (rounds, partial(seconds, call)) for name, (_, rounds, call) in calls.items()}
    figures = {}
    for name, samples in in_turn(samplers).items():
        lanes, median = calls[name][0], statistics.median(samples)
        figures[name] = {
            "lanes": lanes,
            "median_s": float(f"{median:.4g}"),
            "min_s": float(f"{min(samples):.4g}"),
            "n": len(samples),
            "lane_epochs_per_s": float(f"{lanes * EPOCHS / median:.4g}"),
        }
    return figures


def rows() -> Iterator[dict[str, Any]]:
    """Time every case."""
    metrics = history()
    listed = metrics.tolist()
    many = metrics[:, None] + torch.zeros(1, 1 << 16, dtype=torch.float64)
    for kind in ("uniform", "per lane"):
        whole, few = settings_of(LANES, kind), settings_of(STEPPED, kind)
        each, first = settings_of(many.shape[1], kind), one(few, 0)
        spread = {**whole, "factor": whole.get("factor", torch.full((LANES,), 0.1).double())}
        loop, n, one_thread = STEPPED, many.shape[1], partial(replay, threads=1)
        single, two = partial(one_thread, dtype=torch.float32), partial(replay, threads=2)
        smooth = {**few, "smoothing": [0.9] * loop}
        calls: dict[str, tuple[int, int, Callable[[], object]]] = {
            "replay, one history": (LANES, ROUNDS, partial(one_thread, metrics, **spread)),
            "replay, one history, float32 lanes": (
                LANES,
                ROUNDS,
                partial(single, metrics.float(), **spread),
            ),
            "replay, one history, two threads": (LANES, ROUNDS, partial(two, metrics, **spread)),
            "replay, a history per lane": (n, ROUNDS, partial(one_thread, many, **each)),
            "replay, smoothing": (loop, ROUNDS, partial(one_thread, metrics, **smooth)),
            "PlateauLanes.step in a loop": (loop, ROUNDS, partial(stepped, listed, loop, few)),
            "torch.where in a loop": (loop, 3, partial(where, listed, loop, few)),
            "torch's class in a loop": (1, ROUNDS, partial(torchs, listed, first)),
        }
        figures = timed(calls)
        ours = figures["replay, one history"]["lane_epochs_per_s"]
        for name, figure in figures.items():
            ratio = float(f"{ours / figure['lane_epochs_per_s']:.4g}")
            yield {"settings": kind, "what": name, **figure, "ratio": ratio}


def million() -> dict[str, Any]:
    """Sweep a million settings in a fresh process."""
    code = "import json, replay; print(json.dumps(replay.million_here()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def peak_memory() -> int:
    """Return the most memory that this process ever had, in KiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


def million_here() -> dict[str, Any]:
    """Sweep a million settings, three times, on two threads; peak memory of this process."""
    metrics = history()
    sweep(metrics, patience=range(3), threshold=[0.0, 0.1])
    before = peak_memory()
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        result = sweep(metrics, threads=2, **MILLION)
        spent.append(float(f"{time.perf_counter() - begin:.4g}"))
    peak = peak_memory()
    return {
        "settings": len(result),
        "epochs": EPOCHS,
        "threads": 2,
        "seconds": spent,
        "more_memory_mib": round((peak - before) / 1024, 1),
        "process_peak_mib": round(peak / 1024, 1),
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    compared = check_equal(history())
    report = {
        "machine": machine(),
        "equal_lane_epochs": compared,
        "rows": list(rows()),
        "million": million(),
    }
    write(report, out)
    for row in report["rows"]:
        speed = f"{row['lane_epochs_per_s']:.3g} lane-epochs/s"
        print(f"{row['settings']:<9} {row['what']:<36} {speed:>26} {row['ratio']:>10}x")
    print(report["million"])


if __name__ == "__main__":
    main()
