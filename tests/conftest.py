"""What every test sees: the devices to run on."""

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--lane-steps",
        type=int,
        default=200_000,
        help="lane-steps that the conformance suite compares with torch (default 200,000)",
    )


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(params=["cpu"])
def device(request):
    """Where lanes live; the CUDA kernels will add theirs."""
    return request.param
