"""How often `diagnose` is wrong about networks whose training is known: JSON.

::

    python benchmarks/false_alarms.py [--first 10000] [--clean 200] [--others 40] [--out FILE]

Trains the scenes of examples/record_histories.py on seeds from 10000 on, all of them new: the
thresholds were chosen on the seeds 0 to 4 (which the tests keep) and 1000 to 1039. A row is a
scene; it counts in how many histories each code was said. In "clean" every problem, and
"leakage", is a false alarm; in the others the codes in ``expected`` are what is wrong.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from record import RESULTS, machine, write
from torch_plateau import diagnose

RECORDER = Path(__file__).parent.parent / "examples" / "record_histories.py"
OUT = RESULTS / "false_alarms.json"
EPOCHS = 60
EXPECTED = {
    "clean": [],
    "noisy": ["spike-cut", "patience-below-noise"],
    "overfitting": ["overfitting"],
    "wrong_mode": ["mode-reversed", "cut-while-improving"],
    "leak": ["leakage"],
}


def row(recorder: dict[str, Any], name: str, first: int, histories: int) -> dict[str, Any]:
    """Train one scene and count what is said of it."""
    scene = recorder["SCENES"][name]
    seeds = range(first, first + histories)
    columns = recorder["record"](scene, seeds, EPOCHS)
    said: Counter[str] = Counter()
    hits = alarmed = 0
    for lane in range(histories):
        train = columns["train_loss"][:, lane] if scene.watch == "val_loss" else None
        rates = columns["lr"][:, lane]
        found = diagnose(columns[scene.watch][:, lane], train, rates, **scene.settings)
        codes = {each.code for each in found}
        said.update(codes)
        hits += bool(codes & set(EXPECTED[name]))
        wrong = {f.code for f in found if f.level == "problem" or f.code == "leakage"}
        alarmed += bool(wrong - set(EXPECTED[name]))
    return {
        "scene": name,
        "first_seed": first,
        "histories": histories,
        "epochs": EPOCHS,
        "expected": EXPECTED[name],
        "hits": hits if EXPECTED[name] else None,
        "with_other_alarms": alarmed,
        "said": dict(sorted(said.items())),
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=10_000, help="the first seed")
    parser.add_argument("--clean", type=int, default=200, help="histories of the clean scene")
    parser.add_argument("--others", type=int, default=40, help="histories of each other scene")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recorder = runpy.run_path(str(RECORDER))
    report: dict[str, Any] = {"machine": machine(), "rows": []}
    for name in EXPECTED:
        histories = args.clean if name == "clean" else args.others
        report["rows"].append(row(recorder, name, args.first, histories))
        print(json.dumps(report["rows"][-1]), flush=True)
    write(report, args.out)


if __name__ == "__main__":
    main()
