"""What was built, and what it must not depend on."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zlib

import torch

import torch_plateau
from torch_plateau import _core

ROOT = pathlib.Path(__file__).parent.parent


def test_build_info_says_what_was_built():
    info = torch_plateau.build_info()
    keys = ["version", "compiler", "cuda", "cuda_architectures", "cuda_option", "cuda_usable"]
    assert list(info) == keys
    assert info["version"] == importlib.metadata.version("torch-plateau")
    assert re.fullmatch(r"(\d+\.\d+)?", info["cuda"])
    assert all(re.fullmatch(r"\d+\.\d", each) for each in info["cuda_architectures"])
    assert bool(info["cuda_architectures"]) == bool(info["cuda"])
    assert info["cuda_option"] in (("AUTO", "ON") if info["cuda"] else ("AUTO", "OFF"))
    possible = bool(info["cuda"]) and torch.cuda.is_available()
    assert info["cuda_usable"] in ((True, False) if possible else (False,))


def test_the_module_links_neither_torch_nor_cuda():
    ldd = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True)
    assert "libc.so" in ldd.stdout
    assert not re.findall(r"libtorch|libc10|libcuda", ldd.stdout)


def test_what_is_installed_is_the_package_and_one_library():
    files = importlib.metadata.files("torch-plateau")
    assert files is not None, "torch-plateau is not installed"
    kinds = {"torch_plateau": {".j2", ".py", ".pyi", ".pyc", ".so", ".typed"}}
    kinds["_torch_plateau_command"] = {".py", ".pyc"}
    kinds[f"torch_plateau-{torch_plateau.__version__}.dist-info"] = {"", ".json", ".txt"}
    odd = [file for file in files if file.suffix not in kinds.get(file.parts[0], ())]
    assert [file.name for file in odd] == ["torch-plateau"]
    inside = [file.as_posix() for file in files if file.parts[0] == "torch_plateau"]
    assert not [name for name in inside if "test" in name]
    libraries = [name for name in inside if name.endswith(".so")]
    assert libraries == [f"torch_plateau/{pathlib.Path(_core.__file__).name}"]


def test_the_package_takes_less_than_three_megabytes_with_its_kernels_compressed():
    files = importlib.metadata.files("torch-plateau")
    assert files is not None, "torch-plateau is not installed"
    kept = [file for file in files if file.suffix != ".pyc"]
    assert sum(len(zlib.compress(file.read_binary())) for file in kept) < 3_000_000


def test_the_bill_of_materials_names_what_is_compiled_in():
    sboms = importlib.metadata.distribution("torch-plateau").read_text(
        "sboms/torch-plateau.cdx.json"
    )
    bill = json.loads(sboms)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == torch_plateau.__version__
    versions = {each["name"]: each["version"] for each in bill["components"]}
    cuda = torch_plateau.build_info()["cuda"]
    assert set(versions) == {"dlpack", "pybind11"} | ({"cuda-runtime"} if cuda else set())
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions.values()), versions
    assert versions.get("cuda-runtime", "").startswith(cuda)


def source_archive(tree, out):
    """The sdist of a tree, as scikit-build-core makes it."""
    script = f"from scikit_build_core.build import build_sdist; build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=tree, capture_output=True, check=True)
    return next(out.glob("*.tar.gz"))


def test_the_sdist_made_from_the_sdist_is_the_same_to_the_bit(tmp_path):
    made_here = (".git", ".nox", ".venv*", ".*_cache", ".hypothesis", "build", "dist")
    tree = tmp_path / "tree"  # walked in a moment, as ours is not where environments lie in it
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*made_here))
    first = source_archive(tree, tmp_path / "first")
    with tarfile.open(first) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    second = source_archive(tmp_path / names[0].partition("/")[0], tmp_path / "second")
    of = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (first, second)]
    assert of[0] == of[1]
    assert len(names) == len(set(names))
    inside = {name.partition("/")[2] for name in names}
    assert {"PKG-INFO", "CMakeLists.txt", "csrc/plateau/rule.hpp", "tests/oracle.py"} <= inside
    assert not [name for name in inside if name.startswith((".ci", ".github")) or ".so" in name]


def test_where_no_gpu_can_be_seen_it_imports_and_says_so():
    script = """if True:
        from torch_plateau import PlateauLanes, build_info
        assert build_info()["cuda_usable"] is False
        assert PlateauLanes(1, 0.5).step(1.0).tolist() == [0.5]
        PlateauLanes(1, 0.5, device="cuda")
    """
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=hidden)
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: device: got 'cuda', but")


def test_what_was_built_is_told_without_initialising_cuda(monkeypatch):
    built = {**torch_plateau._core_build_info(), "cuda": "13.0"}
    monkeypatch.setattr(torch_plateau, "_core_build_info", lambda: built)
    asked = []  # in a way that initialises CUDA, after which a process must not fork
    for name in ("is_available", "current_device", "init"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: asked.append(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_plateau.build_info()["cuda_usable"] is True
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert torch_plateau.build_info()["cuda_usable"] is False
    assert asked == []


def test_torch_is_no_build_requirement():
    text = (ROOT / "pyproject.toml").read_text()
    requires = re.search(r"^requires = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert requires
    assert not re.search(r"\"torch\b", requires[1])


def test_the_package_is_typed_and_its_public_names_exist():
    package = pathlib.Path(torch_plateau.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()
    for name in torch_plateau.__all__:
        assert getattr(torch_plateau, name).__doc__
