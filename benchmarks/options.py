"""What optional parts of lanes cost a step, and that lanes without them pay nothing: JSON.

::

    python benchmarks/options.py [--out benchmarks/results/options.json]

All lanes of one size are timed in turn in one run. The first three rows are lanes without optional
parts, built alike, so that they show the noise: plain, plain again, and with every part named as
off. To compare two versions of the package, run this with each of them, several times in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from measure import interleave, machine
from torch_plateau import PlateauLanes
from torch_plateau.lanes._resolve import DEFAULTS

OUT = Path(__file__).parent / "results" / "options.json"
SIZES = (16, 4_096, 1_000_000)
OFF = {**DEFAULTS, "events": 0, "on_reduce": None}
PLAIN: dict[str, dict[str, Any]] = {"plain": {}, "plain again": {}, "every part named as off": OFF}
PARTS: dict[str, dict[str, Any]] = {
    "atol": {"atol": 0.1},
    "counting optax": {"counting": "optax"},
    "counting keras": {"counting": "keras"},
    "nan skip": {"nan": "skip"},
    "rel_safe": {"threshold_mode": "rel_safe"},
    "initial_patience": {"initial_patience": 10**6},
    "smoothing": {"smoothing": 0.9},
    "accumulate 4": {"accumulate": 4},
    "window 8": {"window": 8},
    "max_reductions": {"max_reductions": 100},
    "patience_at_min": {"patience_at_min": 100},
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


def rows() -> Iterator[dict[str, Any]]:
    """Time quiet steps: nothing improves, no lane is cut."""
    for n in SIZES:
        metrics, every = torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
        lanes = {
            name: PlateauLanes(n, 0.1, patience=10**6, **keywords)
            for name, keywords in {**PLAIN, **PARTS}.items()
        }
        calls: dict[str, Any] = {name: (each.step, metrics) for name, each in lanes.items()}
        masked = PlateauLanes(n, 0.1, patience=10**6)

        def step_masked(given: Tensor, lanes: PlateauLanes = masked, mask: Tensor = every) -> None:
            lanes.step(given, mask)

        calls["a mask"] = (step_masked, metrics)
        times = interleave(calls, rounds=41, burst=0.004)
        for name, figures in times.items():
            ratio = figures["median_us"] / times["plain"]["median_us"]
            yield {"lanes": n, "with": name, **figures, "ratio": float(f"{ratio:.3g}")}


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    report = {"machine": machine(), "rows": list(rows())}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["rows"]:
        print(f"{row['lanes']:>9,} {row['with']:<24} {row['median_us']:>10} us {row['ratio']:>6}x")


if __name__ == "__main__":
    main()
