"""Whether a step takes more instructions than it did: counted by callgrind, compared, as JSON.

::

    python benchmarks/instructions/count.py [--write] [--python PYTHON] [--build build/cpp]

Counts do not depend on what else the machine does, so a few per cent are seen where a clock sees
nothing. They are those of one compiler, so counts of another are refused, not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDED = HERE / "counts.json"
TOLERANCE = 0.05  # of a count: more is a failure, and as much less is worth to be recorded
AGAIN = "to record them again: nox -s instructions -- --write"
LOOPS, MARKS = "count_loops", "libcount_marks.so"  # what CMake builds of the C++ files here

Counts = dict[str, Any]  # made_by: what they depend on; instructions: one number per case


def count(command: list[str | Path]) -> Counts:
    """Run a program that marks what is to be counted and prints, as JSON, what it was made by."""
    env = {**os.environ, "PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        callgrind = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"]
        callgrind += [f"--callgrind-out-file={out}", f"--log-file={folder}/log"]
        done = subprocess.run([*callgrind, *command], env=env, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            log = Path(folder, "log")
            sys.exit((log.read_text() if log.exists() else "") + f"failed: {command[0]}")
        parts = sorted(Path(folder).glob("counts.*"), key=lambda path: int(path.suffix[1:]))
        instructions = dict(read(path.read_text()) for path in parts)
    return {"made_by": json.loads(done.stdout), "instructions": instructions}


def read(text: str) -> tuple[str, int]:
    """Return the name and the instructions of what was counted: of one call for NAME/CALLS."""
    name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
    total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
    if name is None or total is None:
        raise ValueError("no dump of callgrind that a mark asked for")
    called, _, calls = name[1].partition("/")
    return called, round(int(total[1]) / int(calls or 1))


def compare(recorded: Counts, counted: Counts) -> tuple[list[str], list[str]]:
    """Return what is wrong with ``counted``, and what is worth to be known, a line each."""
    was, now = recorded["made_by"], counted["made_by"]
    if was != now:
        differ = (name for name in {**was, **now} if was.get(name) != now.get(name))
        words = ", ".join(f"{name} was {was.get(name)}, is {now.get(name)}" for name in differ)
        return [f"cannot be compared: {words}"], []
    wrong, notes = [], []
    before, after = recorded["instructions"], counted["instructions"]
    for name in {**before, **after}:
        if name not in before or name not in after:
            only = "recorded, not counted" if name in before else "counted, not recorded"
            wrong.append(f"{name}: {only}")
            continue
        change = after[name] / before[name] - 1
        line = f"{name}: {after[name]:,} instructions, {change:+.1%} of {before[name]:,}"
        if change > TOLERANCE:
            wrong.append(line)
        elif change < -TOLERANCE:
            notes.append(line)
    return wrong, notes


def main() -> None:
    """Count, print, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="record the counts instead")
    parser.add_argument("--python", default=sys.executable, help="that has the package installed")
    parser.add_argument("--build", type=Path, default=Path("build", "cpp"), help="CMake's folder")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("valgrind: not found; on Debian: apt-get install valgrind")
    loops, marks = options.build / LOOPS, options.build / MARKS
    if not loops.exists() or not marks.exists():
        sys.exit(f"{loops}: not built; run nox -s cpp, with valgrind/callgrind.h installed")
    counted = {
        "loops": count([loops]),
        "calls": count([options.python, HERE / "calls.py", marks]),
    }
    counted["calls"]["made_by"]["vectors"] = counted["loops"]["made_by"]["vectors"]
    for counts in counted.values():
        for name, instructions in counts["instructions"].items():
            print(f"{instructions:>9,}  {name}")
    if options.write:
        RECORDED.write_text(json.dumps(counted, indent=2) + "\n")
        return
    recorded, wrong = json.loads(RECORDED.read_text()), []
    for kind, counts in counted.items():
        failures, notes = compare(recorded[kind], counts)
        wrong += [f"{kind}: {line}" for line in failures]
        for line in notes:
            print(f"note: {line}; {AGAIN}")
    if wrong:
        sys.exit("\n".join([*wrong, f"the recorded counts do not hold; {AGAIN}"]))
    print(f"no count is above the recorded one by more than {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
