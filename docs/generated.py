"""What the scripts here that generate files share: they write them, or compare."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def write_or_check(texts: dict[Path, str]) -> int:
    """Write the files, or with ``--check`` name those that differ; return the exit status."""
    stale = []
    for path, text in texts.items():
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: not as generated: run nox -s stubs\n")
    return bool(stale)
