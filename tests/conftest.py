"""What every test sees: the devices to run on, and whether a test may be skipped."""

import os
import sys

import pytest
import torch

import torch_plateau

collect_ignore = [] if sys.platform == "linux" else ["test_scarce.py"]  # which preloads a library

REQUIRE_CUDA = os.environ.get("TORCH_PLATEAU_REQUIRE_CUDA") == "1"


def pytest_addoption(parser):
    parser.addoption(
        "--lane-steps",
        type=int,
        default=200_000,
        help="lane-steps that the conformance suite compares with torch (default 200,000)",
    )

    parser.addoption("--gpu-only", action="store_true", help="run nothing that needs no GPU")


def pytest_sessionfinish(session):
    """With TORCH_PLATEAU_REQUIRE_CUDA=1 nothing may be skipped, for whatever reason."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if REQUIRE_CUDA and reporter and reporter.stats.get("skipped"):  # a worker of xdist has none
        reporter.write_line("\nTORCH_PLATEAU_REQUIRE_CUDA=1: a skipped test is a failure", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)


def on_gpu(item):
    """Whether a test needs a CUDA device."""
    device = getattr(item, "callspec", None) and item.callspec.params.get("device")
    return device == "cuda" or "cuda_devices" in item.fixturenames


def pytest_collection_modifyitems(config, items):
    """Leave out what needs a GPU where there is none, unless there must be one."""
    if config.getoption("--gpu-only"):
        items[:] = [item for item in items if on_gpu(item)]
    if REQUIRE_CUDA or torch_plateau.build_info()["cuda_usable"]:
        return
    left_out = [item for item in items if on_gpu(item)]
    items[:] = [item for item in items if not on_gpu(item)]
    config.hook.pytest_deselected(items=left_out)
    config.left_out = len(left_out)


def pytest_report_collectionfinish(config):
    """Say what was left out."""
    if not getattr(config, "left_out", 0):
        return []
    info = torch_plateau.build_info()
    says = {name: info[name] for name in ("cuda", "cuda_usable")}
    return [f"{config.left_out} tests need a GPU and are left out: build_info() says {says}"]


@pytest.fixture(autouse=True)
def cuda_where_it_is_needed(request):
    """With TORCH_PLATEAU_REQUIRE_CUDA=1 fail where there is no GPU."""
    if on_gpu(request.node) and not torch_plateau.build_info()["cuda_usable"]:
        pytest.fail(f"no CUDA device, or built without CUDA: {torch_plateau.build_info()}")


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where lanes live."""
    return request.param


@pytest.fixture
def cuda_devices():
    """All CUDA devices: one on most machines that have any."""
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
