"""2,000 clusters of 3 to 13 atoms, relaxed at once: ragged rows, a plateau for each cluster.

The atoms of all clusters lie in one flat tensor, and ``lane_of`` says whose each of them is. Adam
moves them downhill; a cluster whose energy (Lennard-Jones) stalls gets a smaller step, and when it
stalls for longer it is done and leaves. Every cluster starts from other random places, so what they
find are many minima, of which the lowest of each size is known: Cambridge Cluster Database,
https://www-wales.ch.cam.ac.uk/~jon/structures/LJ/tables.150.html

The rivals take some of the clusters one after the other: torch's Adam and ReduceLROnPlateau, with
the same rule to stop, and scipy's L-BFGS-B, the usual method for a single one. Needs scipy and
matplotlib: pip install 'torch-plateau[demo]'.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from torch_plateau import LaneLR, PlateauLanes

KNOWN = [-3, -6, -9.103852, -12.712062, -16.505384, -19.821489, -24.113360, -28.422532]
KNOWN += [-32.765970, -37.967600, -44.326801]  # of 3 to 13 atoms
RATE, BETAS = 0.05, (0.9, 0.99)
PLATEAU = {"factor": 0.5, "patience": 20, "threshold": 1e-6, "threshold_mode": "abs"}
STOP, BETTER, LONGEST = 60, 1e-9, 3000  # done after 60 steps in which it fell by less than BETTER
LEAVE = 10  # every so many steps those that are done leave


class Relaxed(NamedTuple):
    """Clusters at rest; energies and rates are ``[steps, clusters]``, NaN when one is done."""

    energies: Tensor
    rates: Tensor
    atoms: list[Tensor]
    seconds: float

    @property
    def lowest(self) -> Tensor:
        """The lowest energy of each."""
        return self.energies.nan_to_num(nan=torch.inf).amin(0)


def random_clusters(n: int) -> list[Tensor]:
    """Return clusters of 3 to 13 atoms near some of the 27 places of a small lattice."""
    lattice = 1.1 * torch.cartesian_prod(*[torch.arange(3, dtype=torch.float64)] * 3)
    places = [lattice[torch.randperm(27)[: 3 + lane % 11]] for lane in range(n)]
    return [each + 0.1 * torch.randn_like(each) for each in places]


def pair_energy(squared: Tensor) -> Tensor:
    """Return the energy of atoms at these squared distances."""
    return 4 * (squared**-6 - squared**-3)


class Clusters:
    """Those that still move, in flat tensors, with the lanes and the optimizer that move them."""

    def __init__(self, starts: list[Tensor]) -> None:
        sizes = torch.tensor([len(atoms) for atoms in starts])
        first = (sizes.cumsum(0) - sizes).tolist()
        self.pairs = torch.cat(
            [torch.triu_indices(len(a), len(a), 1) + f for a, f in zip(starts, first, strict=True)],
            dim=1,
        )
        self.lane_of = torch.arange(len(starts)).repeat_interleave(sizes)
        self.x = torch.cat(starts).requires_grad_()
        stop = {"stop_patience": STOP, "stop_threshold": BETTER, "max_steps": LONGEST}
        self.lanes = PlateauLanes(len(starts), lr=RATE, **PLATEAU, **stop)
        self.optimizer = torch.optim.Adam([self.x], lr=1.0, betas=BETAS)
        LaneLR(self.optimizer, self.lanes, lane_of=lambda _: self.lane_of)  # asks anew in keep()

    def step(self) -> Tensor:
        """Move all a step downhill; return the energies before."""
        one, other = (self.x.index_select(0, ends) for ends in self.pairs)
        pairs = pair_energy((one - other).square().sum(1))
        energies = pairs.new_zeros(len(self.lanes)).index_add(0, self.lane_of[self.pairs[0]], pairs)
        self.optimizer.zero_grad()
        energies.sum().backward()
        self.lanes.step(energies)
        self.optimizer.step()
        return energies.detach()

    def keep(self, live: Tensor) -> None:
        """Go on with these clusters only."""
        rows = live[self.lane_of]
        self.pairs = (rows.cumsum(0) - 1)[self.pairs[:, rows[self.pairs[0]]]]
        self.lane_of = (live.cumsum(0) - 1)[self.lane_of[rows]]
        self.lanes.remove(~live)
        self.optimizer.zero_grad()
        for tensor in (self.x, *self.optimizer.state[self.x].values()):
            tensor.data = tensor.detach()[rows] if tensor.ndim else tensor  # Adam's count: of all


def all_at_once(starts: list[Tensor]) -> Relaxed:
    """Relax all clusters in one batch, which becomes smaller."""
    begin, n = time.perf_counter(), len(starts)
    energies, rates = torch.full((2, LONGEST, n), torch.nan, dtype=torch.float64)
    atoms, who = list(starts), torch.arange(n)  # who: the clusters in the batch
    clusters = Clusters(starts)
    for step in range(LONGEST + LEAVE):
        live = ~clusters.lanes.finished
        if step % LEAVE == 0 and not live.all():
            parts = clusters.x.detach().split(clusters.lane_of.bincount().tolist())
            for lane in (~live).nonzero().flatten().tolist():
                atoms[who[lane]] = parts[lane]
            clusters.keep(live)
            who, live = who[live], live[live]
        if not len(who):
            break
        now = clusters.step()
        energies[step, who[live]] = now[live]
        rates[step, who[live]] = clusters.lanes.lr_master[live]
    return Relaxed(energies, rates, atoms, time.perf_counter() - begin)


def one_by_one(starts: list[Tensor]) -> Relaxed:
    """Relax a cluster after the other with what torch has."""
    begin, n = time.perf_counter(), len(starts)
    energies, rates = torch.full((2, LONGEST, n), torch.nan, dtype=torch.float64)
    atoms = [start.clone().requires_grad_() for start in starts]
    for lane, x in enumerate(atoms):
        optimizer = torch.optim.Adam([x], lr=RATE, betas=BETAS)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAU)
        lowest, waited = torch.inf, 0
        for step in range(LONGEST):
            optimizer.zero_grad()
            energy = pair_energy(torch.pdist(x).square()).sum()
            energy.backward()
            scheduler.step(energy.item())
            optimizer.step()
            energies[step, lane], rates[step, lane] = energy.item(), scheduler.get_last_lr()[0]
            waited += 1
            if energy.item() < lowest - BETTER:
                lowest, waited = energy.item(), 0
            if waited == STOP:
                break
    return Relaxed(energies, rates, [x.detach() for x in atoms], time.perf_counter() - begin)


def with_scipy(starts: list[Tensor]) -> tuple[Tensor, float]:
    """Relax a cluster after the other with L-BFGS-B; return the lowest energies and the seconds."""

    def energy_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = flat.reshape(-1, 3)
        apart = x[:, None] - x
        squared = np.square(apart).sum(2)
        np.fill_diagonal(squared, np.inf)
        s = squared**-3
        slope = ((24 * (s - 2 * s * s) / squared)[:, :, None] * apart).sum(1)
        return 2 * (s * s - s).sum(), slope.ravel()

    begin, options = time.perf_counter(), {"ftol": 1e-10, "maxiter": LONGEST}
    with threadpool_limits(1):  # it is slower on more
        found = [
            minimize(energy_and_slope, x.flatten(), jac=True, method="L-BFGS-B", options=options)
            for x in starts
        ]
    return torch.tensor([each.fun for each in found]), time.perf_counter() - begin


def draw(relaxed: Relaxed, out: Path) -> None:
    """Draw the energies of a few clusters, with the cuts of their rates, and how many are live."""
    figure = Figure((10, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    live = relaxed.energies.isfinite().sum(1)
    steps = int((live > len(relaxed.atoms) / 200).sum())  # not the long tail of the last few
    above = relaxed.energies[:steps] - relaxed.lowest + 1e-10
    cuts = relaxed.rates[1:steps] < relaxed.rates[: steps - 1]
    for lane in range(0, len(KNOWN), 2):
        (line,) = upper.plot(above[:, lane], lw=1, label=f"{len(relaxed.atoms[lane])} atoms")
        at = cuts[:, lane].nonzero().flatten() + 1
        upper.plot(at, above[at, lane], "v", ms=5, color=line.get_color(), mec="k", mew=0.5)
    upper.plot([], [], "kv", ms=5, label="the rate is cut")
    upper.set(yscale="log", ylabel="energy above the lowest that it reaches")
    upper.legend(loc="upper right")
    lower.plot(live[:steps])
    last = f"step (the last cluster is done after {int((live > 0).sum())})"
    lower.set(xlabel=last, ylabel="clusters that move", ylim=0)
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> tuple[Relaxed, Relaxed]:
    """Relax all clusters at once and some alone; print what it took and what was found."""
    parser = argparse.ArgumentParser(description="Many clusters relaxed in one batch.")
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=44, help="how many are relaxed alone too")
    parser.add_argument("--quick", action="store_true", help="220 clusters, 11 alone")
    parser.add_argument("--out", type=Path, default=Path("clusters.png"), help="the picture")
    args = parser.parse_args(argv)
    n, alone = (220, 11) if args.quick else (args.clusters, args.alone)
    if not 11 <= alone <= n or not args.out.parent.is_dir():
        parser.error("expected as many clusters as alone, 11 at least; a folder for --out")

    torch.manual_seed(0)
    starts = random_clusters(n)
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports much: before the clock
    ours, theirs = all_at_once(starts), one_by_one(starts[:alone])
    scipys, seconds = with_scipy(starts[:alone])

    print(f"{'':28}{'clusters':>9}{'seconds':>9}{'ms each':>9}{f'mean energy of {alone}':>20}")
    rows = {
        "all at once": (n, ours.seconds, ours.lowest[:alone]),
        "one by one, Adam": (alone, theirs.seconds, theirs.lowest),
        "one by one, L-BFGS-B": (alone, seconds, scipys),
    }
    for name, (count, took, lowest) in rows.items():
        print(f"{name:28}{count:9}{took:9.2f}{took / count * 1e3:9.2f}{lowest.mean():20.4f}")
    print(f"All {n} one by one would take, extrapolated from these {alone}:")
    for name, took in (("Adam", theirs.seconds), ("L-BFGS-B", seconds)):
        whole = took / alone * n
        print(f"{name:>10}: {whole:.1f} s, {whole / ours.seconds:.1f} times as long as at once")
    same = (ours.rates[:, :alone].nan_to_num() == theirs.rates.nan_to_num()).all(0).sum()
    apart = (ours.lowest[:alone] - theirs.lowest).abs().max()
    print(f"Alone with Adam: minima equal to {apart:.0e}, same cuts and stop in {same} of {alone}")
    print("\natoms   lowest found      known   reached by")
    for i, known in enumerate(KNOWN):
        found = ours.lowest[i :: len(KNOWN)]
        share = (found < known + 1e-4).double().mean()
        print(f"{i + 3:5}{found.min():15.6f}{known:11.6f}{share:13.0%}")
    draw(ours, args.out)
    print(f"Picture: {args.out}")
    return ours, theirs


if __name__ == "__main__":
    torch.set_num_threads(1)  # two would mostly wait for each other
    main()
