"""Changes of some lanes as writes into the tensors that they have, which touch nothing else.

Each is an operation of torch with what it is called with, prepared and checked; to run them is left
to the core, which runs one after the other with no Python code in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from .state import LaneState
from .table import SETTINGS, STATE

__all__ = ["Write", "beginning_anew", "copying", "writing"]

Write = Callable[[], object]


def writing(
    state: LaneState, mask: Tensor, groups: Tensor, new: Mapping[str, float | Tensor]
) -> list[Write]:
    """Return what gives lanes and groups in these masks new values of some fields."""
    writes: list[Write] = []
    for name, values in new.items():
        which, target = mask if STATE[name].of == "lane" else groups, state.fields[name]
        if isinstance(values, Tensor):
            writes.append(partial(torch.where, which, values, target, out=target))
        else:
            writes.append(partial(target.masked_fill_, which, values))
    return writes


def beginning_anew(state: LaneState, mask: Tensor) -> LaneState | list[Write]:
    """Return what makes the lanes in ``mask`` as they were built, or the lanes as they are then."""
    if state.settles:
        return state.begun_anew(mask)
    return writing(state, mask, state.per_group(mask), state.first())


def copying(state: LaneState, src: Tensor, dst: Tensor) -> list[Write]:
    """Return what makes each lane ``dst[i]`` what ``src[i]`` is; all own equally many rates.

    A lane that ``dst`` names twice must get the same twice.
    """
    numbers = {"lane": (dst, src), "group": (dst, src)}
    if state.groups:
        count = state.groups[0]
        numbers["group"] = _groups_of(dst, count), _groups_of(src, count)
    if "recent" in state.fields:
        rows = torch.arange(state.window_rows, device=state.device)[:, None] * state.n
        numbers["window"] = (rows + dst).flatten(), (rows + src).flatten()
    tensors = [(STATE[name].of, each) for name, each in state.fields.items()]
    for name, value in state.settings.items():
        if isinstance(value, Tensor):
            tensors.append((SETTINGS[name].of, value))
    writes: list[Write] = []
    for of, tensor in tensors:
        if of in numbers:
            to, come_from = numbers[of]
            writes.append(partial(tensor.scatter_, 0, to, tensor.index_select(0, come_from)))
    return writes


def _groups_of(lanes: Tensor, count: int) -> Tensor:
    """Return the numbers of the groups of lanes that own so many each."""
    return (lanes[:, None] * count + torch.arange(count, device=lanes.device)).flatten()
