"""``torch-plateau bench``: what a step costs on this machine, ours and others'."""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch

from ...bench.equal import DifferenceError
from ...bench.figures import Row
from ...bench.machine import machine
from ...lanes.lanes import PlateauLanes
from ..options import option
from ..outputs import check_outputs, replacing
from ..tables import console, written
from ..terminal import extra, stop
from ..threads import torch_threads

__all__ = ["bench"]

CURE = "tables and pictures need an extra: pip install 'torch-plateau[cli]'"
DIFFERS = 1  # exit code: terminal.py has the others
MOST = 100_000_000  # lanes or networks
# lanes of the steps, and networks of the epochs
SIZES = "1,16,256,4096,65536,1000000", "64,256,2048"
QUICK = "1,256,4096,65536,1000000", "64,256"


class Settings(str, Enum):
    """Whether lanes share patience and threshold."""

    uniform = "uniform"
    per_lane = "per-lane"


def bench(
    lanes: Annotated[
        str | None, option(f"Lanes of the steps: {SIZES[0]} unless told; quick {QUICK[0]}.")
    ] = None,
    networks: Annotated[
        str | None, option(f"Networks of the epochs: {SIZES[1]} unless told; quick {QUICK[1]}.")
    ] = None,
    device: Annotated[str, option("Where: cpu or cuda.")] = "cpu",
    settings: Annotated[
        Settings, option("Patience and threshold: one for all lanes, or one per lane.")
    ] = Settings.uniform,
    threads: Annotated[int, option("Threads of torch.", min=1)] = 1,
    quick: Annotated[bool, option("Fewer cases and rounds: less than two minutes.", "--quick")] = (
        False
    ),
    out: Annotated[Path, option("The picture.")] = Path("torch-plateau-bench.png"),
    in_json: Annotated[Path | None, option("Write every row and the machine.", "--json")] = None,
) -> None:
    """Time a step here beside other ways to decide the same, and whole epochs.

    First all must decide alike; exits with 1, and says what differs, if they do not.
    """
    with extra(CURE):
        from rich.console import Console
        from rich.progress import track

        from . import epochs, report
        from .picture import draw
        from .steps import Steps

        screen = console()
    usual = QUICK if quick else SIZES
    sizes = _sizes("--lanes", usual[0] if lanes is None else lanes)
    counts = _sizes("--networks", usual[1] if networks is None else networks)
    place = _device(device)
    check_outputs({"--out": out, "--json": in_json})
    began = time.perf_counter()
    progress = Console(stderr=True)
    trained: list[Row] = []
    with torch_threads(threads), torch._inductor.config.patch(compile_threads=1):
        on = machine(place)
        report.print_machine(screen, on)
        try:
            steps = Steps(place, settings is Settings.per_lane, quick)
            with progress.status("Checking that all decide alike"):
                equal = steps.check()
                cuts = sum(epochs.check(n, place) for n in counts)
            screen.print(
                f"Equal, bit for bit, to torch's schedulers: {equal:,} steps of lanes, and the "
                f"rates of all networks, cut {cuts:,} times; their weights within "
                f"{epochs.TOLERANCE:g}, in float64.\n"
            )
            for n in track(sizes, "Timing steps", console=progress):
                steps.size(n)
            for n in track(counts, "Timing epochs", console=progress):
                trained += epochs.time_epochs(n, place, quick)
        except DifferenceError as error:
            stop(f"not equal: {error}", DIFFERS)
    report.print_steps(screen, steps.rows)
    report.print_bandwidth(screen, steps.bandwidth, steps.rows)
    report.print_epochs(screen, trained)
    report.print_not_run(screen, steps.not_run)
    spent = round(time.perf_counter() - began)
    screen.print(f"{spent} seconds.")
    with replacing("--out", out) as picture:
        draw(steps.rows, steps.bandwidth, trained, on, picture)
    written(screen, "Picture", out)
    if in_json is not None:
        whole = {
            "machine": on,
            "device": str(place),
            "settings": settings.value,
            "quick": quick,
            "checks": {"lane_steps": equal, "cuts_of_networks": cuts},
            "steps": steps.rows,
            "bandwidth": steps.bandwidth,
            "epochs": trained,
            "not_run": steps.not_run,
            "seconds": spent,
        }
        with replacing("--json", in_json) as file:
            file.write((json.dumps(whole, indent=1) + "\n").encode())
        written(screen, "Rows", in_json)


def _sizes(flag: str, text: str) -> list[int]:
    """Return the sizes in a text, in order, each once."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1 or sizes[-1] > MOST:
        stop(f"{flag}: expected sizes from 1 to {MOST:,} like 16,4096, got {text!r}")
    return sizes


def _device(name: str) -> torch.device:
    """Return a device that lanes can be on."""
    try:
        return PlateauLanes(1, 0.1, device=name).device
    except (RuntimeError, TypeError, ValueError) as error:
        stop(f"--device: {str(error).splitlines()[0]}")
