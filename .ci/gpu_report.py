"""What gpu_check.sh asks: which tests lack modules, which were skipped, how the steps ended."""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).parent.parent / "tests"
# What tests need beyond their own imports: the demo's modules, and those of the examples.
ALSO = {
    "test_bench.py": ["jax", "matplotlib", "optax"],
    "test_demo.py": ["matplotlib", "numpy", "sklearn", "torchmetrics"],
    "test_examples.py": ["matplotlib", "peft", "sklearn", "transformers"],
    "test_many_minimisations.py": ["matplotlib", "numpy", "scipy", "threadpoolctl"],
    "test_population.py": ["matplotlib", "sklearn"],
    "test_tabular_folds.py": ["matplotlib", "sklearn"],
}
LAST_LINES = 25


def missing() -> int:
    """Print each file of tests that cannot run here, a tab, and the modules that it lacks."""
    own = {path.stem for path in TESTS.iterdir()} | {"torch_plateau"}
    for path in sorted(TESTS.glob("test_*.py")):
        needed = (imports(path) | set(ALSO.get(path.name, []))) - own
        lacking = sorted(name for name in needed if find_spec(name) is None)
        if lacking:
            print(f"{TESTS.name}/{path.name}\t{', '.join(lacking)}")
    return 0


def imports(path: Path) -> set[str]:
    """Return the top-level modules that a file imports at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def skips(out: Path) -> int:
    """Print the tests that were skipped; fail if there are any, or if nothing ran."""
    cases = list(ElementTree.parse(out / "pytest.xml").iter("testcase"))
    skipped = 0
    for case in cases:
        for mark in case.findall("skipped"):
            if mark.get("type") != "pytest.xfail":
                skipped += 1
                print(case.get("classname"), case.get("name"), mark.get("message"), sep=" | ")
    print(f"{len(cases)} tests, {skipped} skipped")
    return int(skipped > 0 or not cases)


def report(out: Path, status: int, commit: str) -> int:
    """Write gpu_check.json and print a table; fail unless all that is required passed."""
    steps = []
    for line in (out / "gpu_check.tsv").read_text(encoding="utf-8").splitlines():
        name, ended, seconds, reason = line.split("\t")
        required = ended != "not run, optional"
        step: dict[str, object] = {
            "name": name,
            "status": ended.partition(",")[0],
            "required": required,
            "seconds": int(seconds),
        }
        if reason:
            step["reason"] = reason
        if ended == "failed":
            log = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            step["last_lines"] = log.splitlines()[-LAST_LINES:]
        steps.append(step)
    good = [step["status"] == "passed" for step in steps if step["required"]]
    passed = status == 0 and bool(good) and all(good)
    whole = {
        "date": datetime.date.today().isoformat(),
        "commit": commit or None,
        "passed": passed,
        "script_status": status,
        "seconds": sum(int(str(step["seconds"])) for step in steps),
        "steps": steps,
    }
    text = json.dumps(whole, indent=1) + "\n"
    (out / "gpu_check.json").write_text(text, encoding="utf-8")
    (out / "gpu_check.tsv").unlink()
    print()
    for step in steps:
        line = f"{step['name']:<28} {step['status']:<8} {step['seconds']:>4} s"
        print(f"{line}  {step.get('reason', '')}".rstrip())
    if status:
        print(f"the script itself ended early, with status {status}")
    print("all that is required passed" if passed else "NOT ALL PASSED")
    return int(not passed)


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["missing", "skips", "report"])
    parser.add_argument("out", type=Path, nargs="?", help="where the logs are")
    parser.add_argument("--status", type=int, default=0, help="of the script so far")
    parser.add_argument("--commit", default="", help="what was checked")
    options = parser.parse_args()
    if options.what == "missing":
        return missing()
    if options.what == "skips":
        return skips(options.out)
    return report(options.out, options.status, options.commit)


if __name__ == "__main__":
    sys.exit(main())
