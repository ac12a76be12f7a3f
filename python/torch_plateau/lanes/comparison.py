"""Whether the ranks of a process group hold the same: by hashes, and if not, where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["State", "compare", "needs_numpy"]

# Odd numbers with their bits all over: a product with one moves every bit, and loses none.
_BY_VALUE, _BY_PLACE, _BY_NAME = -0x61C8864680B583EB, 0x2545F4914F6CDD1D, 0x5851F42D4C957F2D
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class State(NamedTuple):
    """What is compared: tensors of one dimension by name, and what an element of one is."""

    tensors: Mapping[str, Tensor]
    place: Callable[[str, int], str]


def needs_numpy(what: str) -> None:
    """Refuse what sends objects: torch.distributed does so by numpy, without which torch runs."""
    if find_spec("numpy") is None:
        raise ImportError(f"{what}: torch.distributed needs numpy for it: pip install numpy")


def compare(group: Any, state: State, step: int, device: torch.device) -> None:
    """Raise RuntimeError on every rank if they do not hold the same bits.

    ::

        hash = sum(mix(bits of an element, its place) * its name's number)    modulo 2**64

    One collective of a number a rank, from ``device``, which synchronises; more where they differ.
    """
    sums = torch.stack([_digest(each).sum() for each in state.tensors.values()]).to(device)
    total = (sums * (torch.arange(len(sums), device=device) * 2 + _BY_NAME)).sum()[None]
    if len(set(_gathered(group, total).flatten().tolist())) > 1:
        _tell(group, state, step, device)


def _digest(tensor: Tensor) -> Tensor:
    """Return a number for each element, int64."""
    bits = tensor.detach().contiguous().view(_SAME_SIZE[tensor.element_size()]).to(torch.int64)
    mixed = (bits + 1) * _BY_VALUE + torch.arange(len(bits), device=bits.device) * _BY_PLACE
    mixed = (mixed ^ (mixed >> 29)) * _BY_PLACE
    return mixed ^ (mixed >> 32)


def _gathered(group: Any, tensor: Tensor) -> Tensor:
    """Return what each rank has, a row a rank."""
    rows = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, tensor.contiguous(), group=group)
    return torch.stack(rows)


def _tell(group: Any, state: State, step: int, device: torch.device) -> None:
    """Raise for the first difference; every rank asks the same, so that none waits for ever."""
    mine = {name: (str(each.dtype), len(each)) for name, each in state.tensors.items()}
    all_of_them: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(all_of_them, mine, group=group)
    first = dist.get_global_rank(group, 0)

    def differs(rank: int, what: str) -> RuntimeError:
        return RuntimeError(
            f"process_group: rank {dist.get_global_rank(group, rank)} differs from rank {first} "
            f"before step {step}: {what} there"
        )

    for rank, theirs in enumerate(all_of_them):
        for name in [*all_of_them[0], *theirs]:
            here, there = theirs.get(name), all_of_them[0].get(name)
            if here != there:
                raise differs(rank, f"{name} has {_shape(here)}, {_shape(there)}")
    for name, tensor in state.tensors.items():
        rows = _gathered(group, tensor.detach().to(device)).cpu()
        for rank, row in enumerate(rows):
            others = (_digest(row) != _digest(rows[0])).nonzero().flatten().tolist()
            if others:
                here, there = (each[others[0]].item() for each in (row, rows[0]))
                raise differs(rank, f"{state.place(name, others[0])} is {here!r}, {there!r}")


def _shape(found: tuple[str, int] | None) -> str:
    return "nothing" if found is None else f"{found[1]} values of {found[0]}"
