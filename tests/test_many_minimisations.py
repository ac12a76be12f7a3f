"""The example of clusters: relaxed at once they end where each of them would alone."""

import pathlib
import runpy

import pytest
import torch
from scipy.optimize import minimize

PATH = pathlib.Path(__file__).parent.parent / "examples" / "many_minimisations.py"
EXAMPLE = runpy.run_path(str(PATH))
ALONE = 11  # of each size one

# Cambridge Cluster Database, global minima of 3 to 13 Lennard-Jones atoms.
LOWEST = [-3.0, -6.0, -9.103852, -12.712062, -16.505384, -19.821489, -24.113360]
LOWEST += [-28.422532, -32.765970, -37.967600, -44.326801]


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory):
    """A short run: at once, one by one with torch's optimizer and scheduler, and the picture."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two would mostly wait for each other
    out = tmp_path_factory.mktemp("clusters") / "clusters.png"
    ours, theirs = EXAMPLE["main"](["--quick", "--out", str(out)])
    torch.set_num_threads(before)
    return ours, theirs, out


def energy(x):
    """The energy of a cluster, by the definition: a sum over pairs."""
    r = torch.pdist(x)
    return (4 * (r**-12 - r**-6)).sum()


def test_each_cluster_finds_the_minimum_that_it_finds_alone(relaxed):
    ours, theirs, _ = relaxed
    assert sorted(len(atoms) for atoms in theirs.atoms) == list(range(3, 14))
    torch.testing.assert_close(ours.lowest[:ALONE], theirs.lowest, rtol=0, atol=1e-8)


def test_each_cluster_is_cut_and_done_when_torchs_scheduler_says(relaxed):
    ours, theirs, _ = relaxed
    rates = ours.rates[:, :ALONE]
    assert torch.equal(rates.isnan(), theirs.rates.isnan())
    assert torch.equal(rates.nan_to_num(), theirs.rates.nan_to_num())
    assert (theirs.rates[1:] < theirs.rates[:-1]).sum(0).min() > 2
    assert len(theirs.rates.isfinite().sum(0).unique()) > 5  # they are done at different times


def test_atoms_end_at_a_minimum_below_which_scipy_finds_nothing(relaxed):
    ours, _, _ = relaxed
    for lane, atoms in enumerate(ours.atoms[:ALONE]):

        def with_slope(flat, shape=atoms.shape):
            x = torch.tensor(flat).view(shape).requires_grad_()
            value = energy(x)
            value.backward()
            return value.item(), x.grad.flatten().numpy()

        assert energy(atoms).item() == pytest.approx(ours.lowest[lane].item(), abs=1e-6)
        below = minimize(with_slope, atoms.flatten(), jac=True, method="L-BFGS-B").fun
        assert below > ours.lowest[lane] - 1e-6


def test_nothing_lies_below_the_minima_that_are_known_and_most_of_these_are_found(relaxed):
    ours, _, _ = relaxed
    lowest = torch.stack([ours.lowest[size :: len(LOWEST)].min() for size in range(len(LOWEST))])
    known = torch.tensor(LOWEST, dtype=torch.float64)
    assert (lowest > known - 1e-5).all()
    torch.testing.assert_close(lowest[:3], known[:3], rtol=0, atol=1e-5)  # have but one minimum
    assert (lowest < known + 1e-5).sum() >= 8


def test_a_picture_is_drawn(relaxed):
    assert relaxed[2].read_bytes().startswith(b"\x89PNG")
