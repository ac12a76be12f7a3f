"""What was built, and what it must not depend on."""

import importlib.metadata
import pathlib
import re

import torch_plateau
from torch_plateau import _core

ROOT = pathlib.Path(__file__).parent.parent


def test_build_info_says_what_was_built():
    info = torch_plateau.build_info()
    assert set(info) == {"version", "compiler", "cuda", "cuda_option", "nvcc"}
    assert info["version"] == importlib.metadata.version("torch-plateau")
    assert info["cuda"] is False
    assert info["cuda_option"] in ("AUTO", "OFF")


def test_the_module_links_neither_torch_nor_cuda():
    binary = pathlib.Path(_core.__file__).read_bytes()
    for library in (b"libtorch", b"libc10", b"libcudart", b"libcuda.so"):
        assert library not in binary


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
