"""What every test sees: the devices to run on, and whether a test may be skipped."""

import os

import pytest
import torch

import torch_plateau

REQUIRE_CUDA = os.environ.get("TORCH_PLATEAU_REQUIRE_CUDA") == "1"


def pytest_addoption(parser):
    parser.addoption(
        "--lane-steps",
        type=int,
        default=200_000,
        help="lane-steps that the conformance suite compares with torch (default 200,000)",
    )


def pytest_sessionfinish(session):
    """With TORCH_PLATEAU_REQUIRE_CUDA=1 nothing may be skipped, for whatever reason."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if REQUIRE_CUDA and reporter.stats.get("skipped"):
        reporter.write_line("\nTORCH_PLATEAU_REQUIRE_CUDA=1: a skipped test is a failure", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)


def need_cuda():
    """Skip where there is no GPU to test on, and fail where there must be one."""
    info = torch_plateau.build_info()
    if not info["cuda_usable"]:
        says = {name: info[name] for name in ("cuda", "cuda_usable")}
        stop = pytest.fail if REQUIRE_CUDA else pytest.skip
        stop(f"no CUDA device, or torch-plateau built without CUDA: build_info() says {says}")


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where lanes live."""
    if request.param == "cuda":
        need_cuda()
    return request.param


@pytest.fixture
def cuda_devices():
    """All CUDA devices: one on most machines that have any."""
    need_cuda()
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
