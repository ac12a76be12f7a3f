"""What ranks that agree pay for it, and what ranks with lanes of their own: times, and the wire.

::

    python benchmarks/ranks.py [--out benchmarks/results/ranks.json] [--quick]

It starts 2, 4 and 8 gloo ranks on this machine, of one thread each. What they agree on is compared
with one process that has the metrics of all; then calls are timed in turn (the slowest rank's time
counts), and the loopback interface's own counters say what the ranks sent each other: on Linux, if
nothing else uses it; the JSON says how much did before.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from page_ranks import rows_sent, sent
from record import RESULTS, machine, options_of, write
from torch_plateau import PlateauLanes
from torch_plateau.bench.timing import in_turn, summary
from torch_plateau.distributed import Agreement, LaneShard
from torch_plateau.distributed.layout import laid_out
from wire import COUNTERS, Call, collectives, others, sampler, wire

OUT = RESULTS / "ranks.json"
RANKS, SIZES, SPREAD_OVER = (2, 4, 8), (1, 1000, 1_000_000), (2, 4)
QUIET = 10**9  # a patience: what is timed cuts no rate


def lanes_of(n: int, patience: int, group: Agreement | bool) -> PlateauLanes:
    """Return lanes that agree, or with False decide alone."""
    return PlateauLanes(n, 0.1, dtype=torch.float64, patience=patience, process_group=group)


def check(n: int, rank: int, ranks: int, steps: int) -> int:
    """Compare ranks that agree with one process that has all metrics; return the lane steps."""
    for reduction, masked in (("mean", False), ("mean", True), ("max", False)):
        random = torch.Generator().manual_seed(n)
        lanes, alone = lanes_of(n, 0, Agreement(None, reduction)), lanes_of(n, 0, False)
        for _ in range(steps):  # multiples of 1/64: their sums are exact in any order
            every = torch.randint(0, 2**14, (ranks, n), generator=random).double() / 64
            active = (torch.rand(ranks, n, generator=random) < 0.6) | (not masked)
            lanes.step(every[rank], active=active[rank] if masked else None)
            mean = every.mul(active).sum(0) / active.sum(0)
            alone.step(mean if reduction == "mean" else every.amax(0), active=active.any(0))
        most = lanes.lr_master.clone()
        dist.all_reduce(most, dist.ReduceOp.MAX)
        assert torch.equal(lanes.lr_master, most), "ranks differ"
        assert torch.equal(lanes.lr_master, alone.lr_master), "one process decides otherwise"
        assert n < 100 or float(most.min()) < 0.1, "no rate was cut"
    return 3 * steps * n


def calls_of(n: int, ranks: int, folder: str) -> tuple[dict[str, tuple[Call, int]], int]:
    """Return calls by name with the bytes that a formula says, and the bytes of a lane's state."""
    values, mask = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
    alone = lanes_of(n, QUIET, False)
    mean, most = lanes_of(n, QUIET, Agreement()), lanes_of(n, QUIET, Agreement(None, "max"))
    reduced = sent("all_reduce", ranks, n)
    calls: dict[str, tuple[Call, int]] = {
        "step, no group": (lambda: alone.step(values), 0),
        "step, mean": (lambda: mean.step(values), reduced),
        "step, mean, mask": (lambda: mean.step(values, active=mask), 2 * reduced),
        "step, max": (lambda: most.step(values), reduced),
        "all_reduce": (lambda: dist.all_reduce(values), reduced),
    }
    if ranks not in SPREAD_OVER:
        return calls, 0
    mesh, some = init_device_mesh("cpu", (ranks,)), max(n // 100, 1)
    mine = LaneShard.numbers_of(n, mesh)
    shard = LaneShard(lanes_of(len(mine), QUIET, False), n, mesh)
    src, dst, own = range(some), range(n - some, n), values[mine.start : mine.stop]
    rows = laid_out(shard.lanes.state_dict(), len(mine)).rows.values()
    a_lane = sum(each.shape[1:].numel() * each.element_size() for each in rows)
    moved = rows_sent(n, ranks, src, dst) * a_lane
    calls |= {
        "step, lanes spread": (lambda: shard.lanes.step(own), 0),
        "gather": (lambda: shard.gather(own), sent("all_gather", ranks, n)),
        "copy": (lambda: shard.copy(src, dst), moved),
        "save": (lambda: shard.save(f"{folder}/checkpoint"), 0),
    }
    return calls, a_lane


def work(rank: int, ranks: int, folder: str, sizes: tuple[int, ...], quick: bool) -> None:
    """Be a rank, and write what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    found: dict[str, Any] = {"checked": 0, "rows": []}
    for n in sizes:
        found["checked"] += check(n, rank, ranks, 20 if n < 10**6 else 4)
        calls, a_lane = calls_of(n, ranks, folder)
        burst, most = (1e-3, 0.01) if quick else (0.02, 2.0)
        samplers = {name: sampler(call, burst, most) for name, (call, _) in calls.items()}
        taken = in_turn({name: each[:2] for name, each in samplers.items()})
        for name, (call, formula) in calls.items():
            row = {"ranks": ranks, "lanes": n, "call": name, "collectives": collectives(call)}
            if COUNTERS.exists():
                times = 3 if quick or name == "save" or n == 10**6 else 50
                got = wire(call, times, pause=0.01 if quick else 0.1)
                row |= dict(zip(("bytes", "packets"), got, strict=True))
            row["formula_bytes"] = formula
            if name == "save":
                files = Path(folder, "checkpoint").iterdir()
                row["checkpoint_bytes"] = sum(each.stat().st_size for each in files)
                row["bytes_of_a_lane"] = a_lane
            found["rows"].append((row, taken[name], samplers[name][2]))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Run, and write unless it is quick."""
    options = options_of(__doc__)
    os.environ |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine(), "lane_steps_equal": 0}
    report |= {"other_bytes_a_second": [], "rows": []}
    for ranks in RANKS[:1] if options.quick else RANKS:
        report["other_bytes_a_second"].append(others() if COUNTERS.exists() else None)
        with tempfile.TemporaryDirectory() as folder:
            sizes = (100,) if options.quick else SIZES
            mp.spawn(work, (ranks, folder, sizes, options.quick), ranks)
            found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]
        report["lane_steps_equal"] += found[0]["checked"]
        for same in zip(*(each["rows"] for each in found), strict=True):
            row, _, calls = same[0]
            slowest = [max(us) for us in zip(*(samples for _, samples, _ in same), strict=True)]
            row |= {"crowded": ranks > (os.cpu_count() or 1), **summary(slowest, calls)}
            report["rows"].append(row)
            print(f"{ranks} ranks {row['lanes']:>9,} {row['call']:20} {row['median_us']:>11,.1f} us"
                  f" {row.get('bytes', 0):>13,.0f} B of {row['formula_bytes']:,}")  # fmt: skip
    out = options.out or (None if options.quick else OUT)
    if out:
        write(report, out)


if __name__ == "__main__":
    main()
