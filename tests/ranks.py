"""Test files as scripts that are the ranks of a gloo group."""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


def run_ranks(file, ranks, folder, *arguments, timeout=240):
    """Run ``file`` in so many processes; return what each saved in ``folder``, None if it died.

    Each calls ``begin``, which tells it its rank, and saves with ``done``. Warnings are errors.
    """
    (folder / "store").unlink(missing_ok=True)
    command = [sys.executable, "-W", "error", file, str(folder), *arguments]
    codes, said = _run(command, ranks, timeout, stderr=subprocess.PIPE)
    saved = [folder / f"{rank}.pt" for rank in range(ranks)]
    assert all(p.exists() or code == 7 for p, code in zip(saved, codes, strict=True)), said
    return [torch.load(path) if path.exists() else None for path in saved]


def in_two_processes(file, *arguments):
    """Run it as ranks 0 and 1, found as torchrun tells them; return the JSON each prints last."""
    codes, said = _run([sys.executable, file, *arguments], 2, 120, stdout=subprocess.PIPE)
    assert codes == [0, 0]
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def _run(command, ranks, timeout, **pipes):
    """Run a command in so many processes; return their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, text=True, **pipes
        )
        for i in range(ranks)
    ]
    try:
        said = [each.communicate(timeout=timeout) for each in started]
    finally:
        for each in started:
            each.kill()
    return [each.returncode for each in started], said


def begin(timeout=60.0):
    """Be one of the ranks; return which, their number, the folder, other arguments."""
    rank, ranks, folder = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), Path(sys.argv[1])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    seconds = timedelta(seconds=timeout)
    dist.init_process_group("gloo", store, rank=rank, world_size=ranks, timeout=seconds)
    return rank, ranks, folder, sys.argv[2:]


def done(found, rank, folder):
    """Save what this rank found, whole or not at all, and end."""
    torch.save(found, folder / f"{rank}.tmp")
    os.replace(folder / f"{rank}.tmp", folder / f"{rank}.pt")
