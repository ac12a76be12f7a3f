"""Processes that are the ranks of a gloo group, for tests: each runs a file with its rank."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


def run_ranks(file, ranks, folder, *arguments, timeout=240):
    """Run ``file`` in so many processes; return what each saved in ``folder``, None if it died.

    Each is given its rank, their number, the folder and the arguments, and saves with ``done``.
    """
    (folder / "store").unlink(missing_ok=True)
    path = os.pathsep.join(each for each in sys.path if each)
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", file, str(rank), str(ranks), folder, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = []
    try:
        for each in started:
            said.append(each.communicate(timeout=timeout)[1])
    finally:
        for each in started:
            each.kill()
    saved = [folder / f"{rank}.pt" for rank in range(ranks)]
    assert all(p.exists() or e.returncode == 7 for p, e in zip(saved, started, strict=True)), said
    return [torch.load(path) if path.exists() else None for path in saved]


def begin(timeout=60.0):
    """Be the rank that the arguments say; return it, their number, the folder, other arguments."""
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    seconds = timedelta(seconds=timeout)
    dist.init_process_group("gloo", store, rank=rank, world_size=ranks, timeout=seconds)
    return rank, ranks, folder, sys.argv[4:]


def done(found, rank, folder):
    """Save what this rank found, whole or not at all, and end."""
    torch.save(found, folder / f"{rank}.tmp")
    os.replace(folder / f"{rank}.tmp", folder / f"{rank}.pt")
