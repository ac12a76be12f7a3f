"""Lanes spread over ranks: which are whose, and how rows of them travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Spread", "lanes_of"]


def lanes_of(n: int, ranks: int, rank: int) -> range:
    """Return the numbers of the lanes that a rank has of ``n``, split as ``torch.chunk`` does.

    So DTensor splits too: each has ``ceil(n / ranks)``, the last one fewer, or none.
    """
    chunk = -(-n // ranks) if n else 0
    return range(min(rank * chunk, n), min((rank + 1) * chunk, n))


class Spread:
    """``n`` rows over the ranks of a process group."""

    def __init__(self, n: int, group: Any) -> None:
        self.n, self.group = n, group
        self.ranks, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.chunk = len(lanes_of(n, self.ranks, 0))
        self.numbers = lanes_of(n, self.ranks, self.rank)

    def owner(self, number: int) -> int:
        """Return which rank has a row."""
        return number // self.chunk

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in order, on each; one collective of ``ceil(n/ranks)``."""
        padded = rows.new_zeros(self.chunk, *rows.shape[1:])
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in range(self.ranks)]
        dist.all_gather(every, padded, group=self.group)
        return torch.cat(every)[: self.n]  # none is short but the last that have any

    def objects(self, mine: Any) -> list[Any]:
        """Return what each rank has, in the order of ranks; synchronises."""
        every: list[Any] = [None] * self.ranks
        dist.all_gather_object(every, mine, group=self.group)
        return every

    @torch.no_grad()
    def copy(self, pairs: Sequence[tuple[int, int]], tensors: Sequence[Tensor]) -> None:
        """Make row ``dst`` what row ``src`` was, for each pair of these, in every tensor.

        ``tensors`` are this rank's rows, alike on all ranks that have any. All rows that leave a
        rank for another go as bytes in one collective; none is written before all are read.
        """
        first = self.numbers.start
        sent = [[s - first for s, d in pairs if self._goes(s, d, to=q)] for q in range(self.ranks)]
        got = [[d - first for s, d in pairs if self._comes(s, d, of=p)] for p in range(self.ranks)]
        size = sum(_row_bytes(each) for each in tensors)
        device = tensors[0].device
        packed = [
            tensor.detach()[torch.tensor(rows, device=device)].view(-1).view(torch.uint8)
            for rows in sent
            for tensor in tensors
            if rows and _row_bytes(tensor)
        ]
        outgoing = torch.cat(packed) if packed else torch.empty(0, dtype=torch.uint8, device=device)
        incoming = outgoing.new_empty(size * sum(map(len, got)))
        lengths = [size * len(rows) for rows in got], [size * len(rows) for rows in sent]
        dist.all_to_all_single(incoming, outgoing, *lengths, group=self.group)
        at = 0
        for rows in got:
            for tensor in tensors:
                count = _row_bytes(tensor) * len(rows)
                if count:
                    values = incoming[at : at + count].clone().view(tensor.dtype)
                    index = torch.tensor(rows, device=device)
                    tensor.detach()[index] = values.view(len(rows), *tensor.shape[1:])
                at += count

    def _goes(self, src: int, dst: int, to: int) -> bool:
        return src in self.numbers and self.owner(dst) == to

    def _comes(self, src: int, dst: int, of: int) -> bool:
        return dst in self.numbers and self.owner(src) == of


def _row_bytes(tensor: Tensor) -> int:
    return tensor.shape[1:].numel() * tensor.element_size()
