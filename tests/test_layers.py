"""Each file knows only those above it in the table of docs/design.md, and every file is in it."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"^\| (`(?:csrc|python)/[^|]*) \|", re.MULTILINE)
SOURCES = {"csrc": ("*.hpp", "*.cpp", "*.cuh", "*.cu"), "python": ("*.py",)}
OF_THE_PACKAGE = "python/torch_plateau/__init__.py"  # the public names, above which nothing is


def rows(text):
    """The patterns of paths in each row; a bare name is in the folder of the one before."""
    found = []
    for cell in TABLE.findall(text):
        folder, patterns = "", []
        for name in re.findall(r"`([^`]+)`", cell):
            inside = name.rstrip("/")
            if name.startswith(("csrc/", "python/")):
                folder = inside.rpartition("/")[0]
                path = inside
            else:
                path = f"{folder}/{inside}"
            patterns.append(f"{path}/*" if name.endswith("/") else path)
        found.append(patterns)
    return found


def layer_of(path, table):
    """The number of the row that names a path, from the top; None if there is none."""
    for number, patterns in enumerate(table):
        if any(fnmatch.fnmatch(path, pattern) for pattern in patterns):
            return number
    return None


def files():
    for tree, patterns in SOURCES.items():
        for pattern in patterns:
            for path in sorted((ROOT / tree).rglob(pattern)):
                yield path.relative_to(ROOT).as_posix()


def module_path(name):
    """Where a module of the package is, by its dotted name; None if there is none."""
    path = f"python/{name.replace('.', '/')}"
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if (ROOT / candidate).exists():
            return candidate
    return None


def imported(path, text):
    """The files of this project that one includes or imports."""
    if path.startswith("csrc/"):
        return [f"csrc/{name}" for name in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)]
    package = path.removeprefix("python/").split("/")[:-1]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
            dotted = ".".join(base)
            found += [
                module_path(f"{dotted}.{each.name}") or module_path(dotted) for each in node.names
            ]
    return [each for each in found if each not in (None, OF_THE_PACKAGE)]


def climbs(path, text, table):
    """What one imports from further down."""
    own = layer_of(path, table)
    return [each for each in imported(path, text) if (layer_of(each, table) or 0) > own]


def exempt(path):
    """What stands for a whole folder: packages, which import what they consist of."""
    return path.endswith("__init__.py")


DESIGN = rows((ROOT / "docs" / "design.md").read_text())


@pytest.mark.parametrize("path", [path for path in files() if not exempt(path)])
def test_a_file_knows_only_those_above_it(path):
    assert layer_of(path, DESIGN) is not None, "docs/design.md does not name it"
    assert climbs(path, (ROOT / path).read_text(), DESIGN) == []


def test_every_name_in_the_table_is_there():
    there = list(files())
    named = [pattern for patterns in DESIGN for pattern in patterns]
    assert [each for each in named if not fnmatch.filter(there, each)] == []


def test_the_table_fits_on_a_screen():
    assert 20 < len(DESIGN) <= 45


def test_a_file_that_imports_from_further_down_would_be_found():
    table = rows(
        "| `csrc/a/one.hpp`, `two.hpp` | x |\n| `python/torch_plateau/lanes/` | x |\n"
        "| `python/torch_plateau/cli/terminal.py` | x |\n"
    )
    assert climbs("csrc/a/one.hpp", '#include "a/two.hpp"', table) == []
    lanes = "python/torch_plateau/lanes/lanes.py"
    terminal = "python/torch_plateau/cli/terminal.py"
    assert climbs(lanes, "from ..cli.terminal import stop", table) == [terminal]
    assert climbs(lanes, "def f():\n    from ..cli import terminal", table) == [terminal]
    assert climbs(terminal, "from ..lanes.lanes import PlateauLanes", table) == []
