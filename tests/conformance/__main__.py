"""Compare as many lane-steps as are asked with the oracles, and keep a record of it.

``nox -s conformance -- --lane-steps 1e9``, or ``python -m conformance`` in tests/. Plans are
numbered, and each follows from the seed and its number alone. The record says up to which number
they were compared, so that the next run goes on there; one that was interrupted loses a second.
A plan that differs is named, made small and printed; the exit code is then 1.
"""

import argparse
import json
import multiprocessing
import pathlib
import pprint
import sys

import torch

from torch_plateau.bench.machine import machine
from torch_plateau.saving import replacing

from .plans import KINDS, drawn
from .running import CHUNK, compared
from .shrink import outcome, shrunk

MOST = 5  # plans that differ; more say nothing new
RECORD = pathlib.Path(__file__).with_name("record.json")


def records(path):
    """The runs of a record, by what they were told."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    return {(run["seed"], run["device"], run["copies"]): run for run in runs}


def written(path, runs):
    """Write a record, whole or not at all."""
    says = {"command": "nox -s conformance", "runs": list(runs.values())}
    with replacing(path) as file:
        file.write((json.dumps(says, indent=1) + "\n").encode())


def show_small(number, said, seed, device, copies):
    """Name a plan that differs, and print it as small as it can be made."""
    print(f"plan {number} of seed {seed} differs: {said}", flush=True)
    small = shrunk(drawn(seed, number), device, copies)
    print(f"as small as this it does so too: {outcome(small, device, copies)}")
    pprint.pprint(small, width=100)


def main(words=None):
    """Run the plans that the record lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lane-steps", type=float, default=1e6, help="in all, with those recorded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    copies = "lanes of ours for each of the oracle's, shuffled: wider batches in less time"
    parser.add_argument("--copies", type=int, default=1, help=copies)
    cores = multiprocessing.cpu_count()
    parser.add_argument("--jobs", type=int, default=cores, help="processes; 0: in this one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then")
    parser.add_argument("--record", type=pathlib.Path, default=RECORD)
    parser.add_argument("--plan", type=int, help="only this plan, and nothing recorded")
    args = parser.parse_args(words)
    told = (args.seed, args.device, args.copies)
    if args.plan is not None:
        said = outcome(drawn(args.seed, args.plan), *told[1:])
        if said is not None:
            show_small(args.plan, said, *told)
        return int(said is not None)

    runs = records(args.record)
    new = dict(zip(("seed", "device", "copies"), told, strict=True))
    new |= {"plans": 0, "lane_steps": dict.fromkeys(KINDS, 0), "differ": []}
    run = runs.setdefault(told, new)
    device = torch.device(args.device)
    run["machine"] = machine(device if device.type == "cuda" else None)
    try:
        for steps, differs in compared(run, args.jobs, args.lane_steps, args.seconds):
            run["plans"] += CHUNK
            run["differ"] += differs
            for kind, count in steps.items():
                run["lane_steps"][kind] += count
            for number, said in differs.items():
                show_small(number, said, *told)
            written(args.record, runs)
            if len(run["differ"]) >= MOST:
                break
    except KeyboardInterrupt:
        print("stopped; the record holds what was compared", file=sys.stderr)
    done = sum(run["lane_steps"].values())
    print(
        f"{run['plans']:,} plans, {done:,} lane-steps on {args.device}: {len(run['differ'])} differ"
    )
    return int(bool(run["differ"]))


if __name__ == "__main__":
    sys.exit(main())
