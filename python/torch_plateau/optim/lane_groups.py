"""Which lane owns which param group, and lanes whose groups come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch

from ..lanes.readable import kind_of
from ..lanes.state import LaneState
from ..lanes.table import whole_number
from ..lanes.values import shown

__all__ = ["LaneGroups", "LaneOf", "carried_over", "numbers_for"]

LaneOf = Sequence[int] | Callable[[dict[str, Any]], int]


class LaneGroups:
    """Param groups in the optimizers' order, the lane of each, and its place among all rates.

    The core keeps the rates of a lane side by side; optimizers have groups in any order.

    Attributes:
        params: The very list of parameters of each group, by which the group is known again: to
            load a state replaces groups, but not these lists.
        lanes: The lane of each group.
        n: How many lanes there are; some may own no group.
        counts: How many groups each lane owns.
        place: Where the rate of each group is among those of the lanes.
        order: The group of each rate of the lanes.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lanes: list[int], n: int) -> None:
        self.params = [group["params"] for group in groups]
        self.lanes = lanes
        self.n = n
        self.counts = [0] * n
        for lane in lanes:
            self.counts[lane] += 1
        self.order = sorted(range(len(lanes)), key=lanes.__getitem__)
        self.place = [0] * len(lanes)
        for place, group in enumerate(self.order):
            self.place[group] = place

    def by_group(self, values: Sequence[Any]) -> list[Any]:
        """Return what lanes have for each rate in the order of the groups."""
        return [values[place] for place in self.place]

    def by_lane(self, values: Any) -> Any:
        """Return what was given for each group in the order of the lanes; other things as given."""
        listed = isinstance(values, (Sequence, torch.Tensor)) and not isinstance(values, str)
        if not listed or getattr(values, "ndim", 1) != 1 or len(values) != len(self.order):
            return values
        return [values[group] for group in self.order]

    def origins(self, old: LaneGroups) -> list[int | None]:
        """Return which group of ``old`` each group was; None for new ones."""
        known = {id(params): i for i, params in enumerate(old.params)}
        return [known.get(id(params)) for params in self.params]

    def fit(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Return whether these are the groups."""
        return len(groups) == len(self.params) and all(
            group["params"] is params for group, params in zip(groups, self.params, strict=True)
        )


def numbers_for(
    lane_of: LaneOf, groups: Sequence[dict[str, Any]], old: LaneGroups | None = None
) -> list[int]:
    """Return the lane of each group: what it was in ``old``, else what ``lane_of`` says.

    Raises TypeError or ValueError, naming ``lane_of``.
    """
    known = {} if old is None else dict(zip(map(id, old.params), old.lanes, strict=True))
    numbers = []
    for i, group in enumerate(groups):
        if id(group["params"]) in known:
            numbers.append(known[id(group["params"])])
        elif callable(lane_of):
            numbers.append(_number(lane_of(group), f"lane_of(param_groups[{i}])"))
        elif old is not None:
            raise ValueError(
                f"lane_of: expected a function, which can say the lane of param_groups[{i}] that "
                "was added later, got a list"
            )
        else:
            numbers = [_number(each, f"lane_of[{j}]") for j, each in enumerate(_listed(lane_of))]
            if len(numbers) != len(groups):
                raise ValueError(
                    f"lane_of: expected {len(groups)} lane numbers, one for each param group, got "
                    f"{len(numbers)}"
                )
            break
    return numbers


def carried_over(
    state: LaneState, old: LaneGroups, new: LaneGroups, rates: Mapping[int, float]
) -> LaneState:
    """Return the lanes of ``old`` as those of ``new``, with the ``rates`` of groups that are new.

    ::

        a lane that keeps a group, or owns none       goes on
        a lane all of whose groups are new            begins anew, with its settings
        a lane that is new                            begins, with the settings of the last lane
        a rate that is new                            has the floor of its lane, else the last floor
    """
    origins = new.origins(old)
    kept: dict[int, int] = {}  # a group of each lane that was there before
    for lane, was in zip(new.lanes, origins, strict=True):
        if was is not None:
            kept.setdefault(lane, was)
    numbers, owners = range(new.n), set(new.lanes)
    lanes = [old.lanes[kept[i]] if i in kept else min(i, old.n - 1) for i in numbers]
    anew = [i not in kept and (i >= old.n or i in owners) for i in numbers]
    first = [0, *accumulate(old.counts)]
    groups, added, values = [], [], []
    for place, group in enumerate(new.order):
        was, like = origins[group], lanes[new.lanes[group]]
        if was is not None:
            groups.append(old.place[was])
            continue
        groups.append(first[like] if old.counts[like] else len(old.lanes) - 1)
        added.append(place)
        values.append(rates[group])

    def here(numbers: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(numbers, dtype=dtype, device="cpu").to(state.device)

    one_each = state.groups is None and all(count == 1 for count in new.counts)
    moved = state.regrouped(
        here(lanes, torch.int64), here(groups, torch.int64), None if one_each else new.counts
    )
    at, rate = here(added, torch.int64), here(values, torch.float64)
    fields = {
        name: moved.fields[name].index_copy(0, at, rate.to(moved.fields[name].dtype))
        for name in ("rate", "start_rate", "published")
    }
    return moved.replaced(fields).begun_anew(here(anew, torch.bool))


def _listed(lane_of: object) -> Sequence[Any]:
    if isinstance(lane_of, torch.Tensor):
        lane_of = lane_of.tolist()
    if not isinstance(lane_of, Sequence) or isinstance(lane_of, str):
        raise TypeError(f"lane_of: expected a function or a list, got {kind_of(lane_of)}")
    return lane_of


def _number(value: Any, label: str) -> int:
    if not whole_number(value, 0):
        raise TypeError(f"{label}: expected a lane number, 0 or more, got {shown(value)}")
    return int(value)
