"""What was built, and what it must not depend on."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

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
