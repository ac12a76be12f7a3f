"""What SECURITY.md promises: nothing that a file holds is run, imported or unpickled."""

import ast
import os
import pathlib
import pickle

import pytest
from torch.distributed.checkpoint.metadata import Metadata

from torch_plateau.distributed.checkpoint import _Reader

PACKAGE = pathlib.Path(__file__).parent.parent / "python" / "torch_plateau"
RUNS_CODE = {"eval", "exec", "__import__"}
READS_OBJECTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
# Where such things are none the less: a module that the caller names, and the index of a
# checkpoint, of which the tests below are.
KNOWN = {
    "distributed/checkpoint.py": {"pickle"},
    "histories/files/errors.py": {"import_module"},
    "interpreter.py": {"import_module"},  # of two names of Python's own
}


def suspicious(node):
    """What a piece of syntax can run or build that stands in no code, by name; None if nothing."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        given = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            return called
        if called.endswith("import_module") and not isinstance(node.args[0], ast.Constant):
            return "import_module"
        return called if called in RUNS_CODE else None
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [each.name for each in node.names] + [getattr(node, "module", None)]
        return next((name for name in names if name in READS_OBJECTS), None)
    return None


def test_no_module_runs_or_unpickles_what_it_read():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        names = set(map(suspicious, ast.walk(ast.parse(path.read_text())))) - {None}
        if names:
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == KNOWN


class Harmful:
    """An object that makes a directory where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("inside", [False, True])
def test_the_index_of_a_sharded_checkpoint_runs_nothing(tmp_path, inside):
    harm = Harmful(str(tmp_path / "harmed"))
    index = Metadata({"shard.rest": harm}) if inside else harm
    (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(
        ValueError, match=r"^path: expected a checkpoint at .* its index names \w+\.mkdir"
    ):
        _Reader(tmp_path).read_metadata()
    assert not (tmp_path / "harmed").exists()
    pickle.loads((tmp_path / ".metadata").read_bytes())  # as torch's own reader does
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("written", [b"", b"no pickle", pickle.dumps({"a": 1})])
def test_what_is_no_index_is_said_to_be_none(tmp_path, written):
    (tmp_path / ".metadata").write_bytes(written)
    with pytest.raises(ValueError, match=r"^path: expected a checkpoint at"):
        _Reader(tmp_path).read_metadata()
