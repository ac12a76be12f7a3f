"""What CMake says and does where nvcc is missing, broken, or comes later; nothing is compiled."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PATH = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
CPU_ONLY = "torch-plateau: CPU only, no CUDA (TORCH_PLATEAU_CUDA=AUTO)"


def configure(build, option, nvcc):
    """Configure the C++ build; return the exit status and what was said, on one line."""
    cmake, ninja = (shutil.which(name, path=PATH) for name in ("cmake", "ninja"))
    assert cmake, "cmake is in the test extra"
    chosen = ("CUDA", "CMAKE_", "TORCH_PLATEAU_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    done = subprocess.run(
        [cmake, "-S", ROOT, "-B", build, f"-DTORCH_PLATEAU_CUDA={option}"]
        + (["-G", "Ninja"] if ninja else []),
        env={**kept, "PATH": PATH, "CUDACXX": str(nvcc)},
        capture_output=True,
        text=True,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture(params=["missing", "broken"])
def bad_nvcc(request, tmp_path):
    """A compiler that CMake is told to take and that does not work."""
    nvcc = tmp_path / "bin" / "nvcc"
    if request.param == "broken":
        nvcc.parent.mkdir()
        nvcc.write_text("#!/bin/sh\nexit 1\n")
        nvcc.chmod(0o755)
    return nvcc


def test_cuda_that_is_required_and_cannot_be_built_stops_with_what_to_do(bad_nvcc, tmp_path):
    status, said = configure(tmp_path / "build", "ON", bad_nvcc)
    assert status != 0
    assert (
        "TORCH_PLATEAU_CUDA=ON, but no working CUDA compiler was found: put nvcc on PATH or name "
        "it in CUDACXX, or set TORCH_PLATEAU_CUDA=AUTO to build for the CPU." in said
    )


def test_a_build_for_the_cpu_finds_nvcc_once_it_is_there(bad_nvcc, tmp_path):
    status, said = configure(tmp_path / "build", "AUTO", bad_nvcc)
    assert (status, CPU_ONLY in said) == (0, True), said
    nvcc = shutil.which("nvcc")
    status, said = configure(tmp_path / "build", "AUTO", nvcc or bad_nvcc)
    assert status == 0, said
    assert ("torch-plateau: CPU and CUDA " in said) == bool(nvcc), said
    assert (CPU_ONLY in said) == (not nvcc), said


def test_cuda_that_is_not_wanted_is_not_looked_for(tmp_path):
    status, said = configure(tmp_path / "build", "OFF", tmp_path / "nvcc")
    assert status == 0, said
    assert "torch-plateau: CPU only, no CUDA (TORCH_PLATEAU_CUDA=OFF)" in said
    assert "Looking for a CUDA compiler" not in said


def test_a_choice_that_is_none_is_refused(tmp_path):
    status, said = configure(tmp_path / "build", "YES", tmp_path / "nvcc")
    assert status != 0
    assert "TORCH_PLATEAU_CUDA: expected AUTO, ON or OFF, got 'YES'" in said
