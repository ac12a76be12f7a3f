"""Whether a step became slower: two installed versions of the package, timed in turn, as JSON.

::

    python benchmarks/versions.py OLD_PYTHON [--old COMMIT] [--rounds 10] [--out FILE]

The new version is that of the interpreter that runs this. In each round both are started, on one
processor, and sampled in turn; ``ratio`` is the new median over the old one, the median of the
rounds' between ``least`` and ``most``. An interpreter against itself shows what is noise.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen

import torch

HERE = Path(__file__).parent
SIZES, SCENARIOS = (1, 256, 4_096, 1_000_000), ("quiet", "mixed", "cut")
CASES = [(n, dtypes, name) for n in SIZES for dtypes in ("f32", "f64") for name in SCENARIOS]


def answer() -> None:
    """Take a sample of each case whose number comes in; by public names only, which last."""
    sys.path.append(str(HERE.parent / "python" / "torch_plateau"))
    # the cases of this checkout, as a package of their own: an older version may have none
    from bench import cases, machine, rivals, timing

    torch.set_num_threads(1)
    samples = []
    for n, dtypes, name in CASES:
        rule, start, metrics = cases.scenario(name, n, dtypes)
        samples.append(timing.sampler((rivals.Ours(rule, start).step, metrics), burst=0.001)[0])
    print(json.dumps(machine.machine()), flush=True)
    for line in sys.stdin:
        print(samples[int(line)](), flush=True)


def started(python: str) -> Popen[str]:
    """Return an interpreter that answers, and finds only the packages that it has installed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", "import versions; versions.answer()"]
    return Popen(command, cwd=HERE, env=env, stdin=PIPE, stdout=PIPE, text=True)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", help="the interpreter that has the old version")
    parser.add_argument("--old", help="what the old version is, for the JSON")
    parser.add_argument("--rounds", type=int, default=10, help="how often both are started")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "versions.json")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # a neighbour on that processor then hits both alike
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    medians: list[list[list[float]]] = [[] for _ in CASES]  # old and new, of each round
    for turn in range(options.rounds):
        with started(options.python) as old, started(sys.executable) as new:
            was, now = (json.loads(process.stdout.readline()) for process in (old, new))
            for case, kept in enumerate(medians):
                samples: list[list[float]] = [[], []]
                for which, process in ((0, old), (1, new), (1, new), (0, old)) * 11:
                    print(case, file=process.stdin, flush=True)
                    samples[which].append(float(process.stdout.readline()))
                kept.append([median(us) for us in samples])
        print(f"round {turn + 1} of {options.rounds}", flush=True)
    rows = []
    for (n, dtypes, name), pairs in zip(CASES, medians, strict=True):
        old_us, new_us, ratios = zip(*((a, b, b / a) for a, b in pairs), strict=True)
        figures = {"old_us": median(old_us), "new_us": median(new_us), "ratio": median(ratios)}
        figures |= {"least": min(ratios), "most": max(ratios)}
        figures = {key: float(f"{value:.4g}") for key, value in figures.items()}
        rows.append({"lanes": n, "dtypes": dtypes, "scenario": name, **figures})
        print(f"{n:>9,} {dtypes} {name:<6}", *(f"{key} {x:<9}" for key, x in figures.items()))
    import record  # needs the new version

    now |= {key: record.machine()[key] for key in ("commit", "changed_files")}
    record.write({"machine": now, "old": {"is": options.old, **was}, "rows": rows}, options.out)


if __name__ == "__main__":
    main()
