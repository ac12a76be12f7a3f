"""What building, saving, loading and changing lanes costs beside plain copies of the same bytes.

::

    python benchmarks/life.py [--out benchmarks/results/life.json] [--quick]

Each call is timed in turn with torch operations that move as many bytes and do nothing else: clones
where the call gives out new memory, ``copy_`` and index operations where it writes into what there
is. `ratio` is ours over these. What the calls do is checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from record import RESULTS, machine, options_of, write
from torch_plateau import PlateauLanes
from torch_plateau.bench.timing import on_host

OUT = RESULTS / "life.json"
SIZES = (16, 4096, 1_000_000)
KINDS: dict[str, dict[str, Any]] = {  # settings by name
    "plain": {},
    "parts": {"max_steps": 1000, "window": 4, "stop_patience": 50},
}
KEPT = ("start_rate", "num_steps")  # a reset writes all fields but these


def begun(n: int, settings: dict[str, Any]) -> PlateauLanes:
    """Return lanes after a few steps."""
    lanes = PlateauLanes(n, 0.1, **settings)
    random = torch.Generator().manual_seed(n)
    for _ in range(3):
        lanes.step(torch.rand(n, generator=random))
    return lanes


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors in a state, at whatever depth."""
    if isinstance(tree, Tensor):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else ()
    return [each for value in inside for each in tensors_in(value)]


def cloned(tensors: list[Tensor]) -> Callable[[Any], object]:
    """Return what makes copies in new memory."""
    return lambda _: [each.clone() for each in tensors]


def copied(tensors: list[Tensor]) -> Callable[[Any], object]:
    """Return what copies into memory that there is."""
    targets = [torch.empty_like(each) for each in tensors]
    return lambda _: torch._foreach_copy_(targets, tensors)


def rows_copied(tensors: list[Tensor], src: Tensor, dst: Tensor) -> Callable[[Any], object]:
    """Return what copies some rows over others."""
    targets = [each.clone() for each in tensors]

    def copy(_: Any) -> None:
        for target in targets:
            target[dst] = target[src]

    return copy


def calls_of(
    n: int, settings: dict[str, Any]
) -> Iterator[tuple[str, Callable[[Any], object], Callable[[Any], object]]]:
    """Yield each call with the copies beside it."""
    lanes = begun(n, settings)
    saved = lanes.state_dict()
    random = torch.Generator().manual_seed(n + 1)
    some = max(n // 16, 1)
    order = torch.randperm(n, generator=random)
    src, dst = order[:some], order[-some:]
    half = torch.rand(n, generator=random) < 0.5
    fields = dict(lanes._state.fields)
    every = list(fields.values())
    written = [each for name, each in fields.items() if name not in KEPT]
    yield "build", lambda _: PlateauLanes(n, 0.1, **settings), cloned(every)
    yield "state_dict", lambda _: lanes.state_dict(), cloned(tensors_in(saved))
    yield "load_state_dict", lambda _: lanes.load_state_dict(saved), copied(tensors_in(saved))
    per_lane = [each for each in every if len(each) == n]
    yield "copy_lanes", lambda _: lanes.copy_lanes(src, dst), rows_copied(per_lane, src, dst)
    yield "reset", lambda _: lanes.reset(half), copied(written)
    setting = torch.full((n,), 3, dtype=torch.int32)
    yield "set_lanes", lambda _: lanes.set_lanes(half, patience=3), copied([setting])
    other = begun(n, settings)
    last = torch.arange(n, n + some)

    def come_and_go(_: Any) -> None:
        other.append(some, 0.1)
        other.remove(last)

    clone = cloned(every)
    yield "append, remove", come_and_go, lambda _: (clone(_), clone(_))


def check(settings: dict[str, Any]) -> None:
    """Hold the calls to what they promise, at a small size."""
    lanes, fresh = begun(16, settings), PlateauLanes(16, 0.1, **settings)
    saved = lanes.state_dict()
    lanes.copy_lanes([0, 1], [2, 3])
    for name in ("best", "num_bad_epochs", "lr"):
        assert torch.equal(lanes.state_dict()[name][2:4], saved[name][:2]), name
    lanes.reset(range(16))
    for name in ("best", "num_bad_epochs", "lr"):
        assert torch.equal(lanes.state_dict()[name], fresh.state_dict()[name]), name
    lanes.load_state_dict(saved)
    for mine, theirs in zip(tensors_in(lanes.state_dict()), tensors_in(saved), strict=True):
        assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())


def rows_of(n: int, kind: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Time all calls at one size."""
    rounds, burst, most = (5, 0.001, 0.1) if quick else (41, 0.002, 2.0)
    for name, ours, theirs in calls_of(n, KINDS[kind]):
        times = on_host({"ours": (ours, None), "copies": (theirs, None)}, rounds, burst, most)
        ratio = times["ours"]["median_us"] / times["copies"]["median_us"]
        for rival, figures in times.items():
            row = {"lanes": n, "kind": kind, "call": name, "rival": rival}
            yield {**row, **figures, "ratio": round(ratio, 3) if rival == "ours" else 1.0}
        print(f"{n:>9,} {kind:6} {name:16} {times['ours']['median_us']:>12,.1f} us  "
              f"copies {times['copies']['median_us']:>12,.1f} us  {ratio:.2f}")  # fmt: skip


def main() -> None:
    """Run, and write unless it is quick."""
    options = options_of(__doc__)
    report: dict[str, Any] = {"machine": machine(), "rows": []}
    for kind, settings in KINDS.items():
        check(settings)
        for n in SIZES[:2] if options.quick else SIZES:
            report["rows"] += rows_of(n, kind, options.quick)
    out = options.out or (None if options.quick else OUT)
    if out:
        write(report, out)


if __name__ == "__main__":
    main()
