"""Where results are kept, and of which commit they are."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from shown import RESULTS
from torch_plateau.bench import machine as measured_on

__all__ = ["RESULTS", "machine", "options_of", "write"]


def write(report: dict[str, Any], out: Path) -> None:
    """Write a report as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def options_of(about: str) -> argparse.Namespace:
    """Return what a script that measures was told: ``out`` and ``quick``."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Return what the numbers belong to, with a GPU if one is told, and the commit."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        **measured_on.machine(device),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": None if changed is None else bool(changed),
    }


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
