"""The state of lanes or of a stack as tensors with a row for each lane, and the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ..lanes.table import SETTINGS, STATE

__all__ = ["Layout", "joined", "laid_out"]

_PER_GROUP = ("lr", "start_lr")
_LANES_KEY = "num_bad_epochs"  # which no other mapping in a state has


class Layout(NamedTuple):
    """A state taken apart."""

    rows: dict[str, Tensor]  # by their path, a row for each lane
    scalars: dict[str, Tensor]  # of no dimension, for all lanes
    rest: str  # what it looks like, with all that is no tensor, in JSON


def laid_out(state: dict[str, Any], n: int) -> Layout:
    """Take apart the ``state_dict()`` of ``n`` PlateauLanes or of a LaneStack of as many.

    Recorded events are left out: each rank has those of its own lanes. Nothing is copied that can
    be a view.
    """
    rows: dict[str, Tensor] = {}
    scalars: dict[str, Tensor] = {}

    def of(value: Any, path: str, per_lane: bool) -> Any:
        if isinstance(value, Tensor):
            if value.ndim == 0:
                scalars[path] = value
                return {"scalar": path}
            rows[path] = value if per_lane else value.view(-1 if n else 1, n).T.contiguous()
            return {"rows": path} if per_lane else {"columns": path}
        if isinstance(value, dict):
            if _LANES_KEY in value:
                return _of_lanes(value, path, n, rows, of)
            return {"map": [[k, of(v, f"{path}/{k}", per_lane)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            name = "tuple" if isinstance(value, tuple) else "list"
            return {name: [of(v, f"{path}/{i}", per_lane) for i, v in enumerate(value)]}
        return {"is": value}

    found = of(state, "state", True)
    return Layout(rows, scalars, json.dumps(found))


def _of_lanes(
    value: dict[str, Any],
    path: str,
    n: int,
    rows: dict[str, Tensor],
    of: Callable[[Any, str, bool], Any],
) -> Any:
    """Take apart a snapshot of lanes, whose tensors are per lane, per group or of windows."""
    items: list[Any] = []

    def add(inside: list[Any], name: str, each: Any, place: str, kind: str) -> None:
        if isinstance(each, Tensor) and kind == "group" and each.ndim:
            rows[place] = each.view(n, -1 if n else 1)
            inside.append([name, {"flat": place}])
        else:
            inside.append([name, of(each, place, kind != "window")])

    for name, each in value.items():
        place = f"{path}/{name}"
        if name in ("settings", "options"):
            table = SETTINGS if name == "settings" else STATE
            inside: list[Any] = []
            for key, one in each.items():
                kind = table[key].of if key in table else "lane"
                if kind != "event" and not key.startswith("events_"):
                    add(inside, key, one, f"{place}/{key}", kind)
            items.append([name, {"map": inside}])
        elif name == "groups":
            items.append([name, {"groups": None if each is None else (each or [1])[0]}])
        else:
            add(items, name, each, place, "group" if name in _PER_GROUP else "lane")
    return {"map": items}


def joined(layout: Layout, n: int) -> Any:
    """Put a state of ``n`` lanes together again."""

    def of(node: dict[str, Any]) -> Any:
        [(kind, value)] = node.items()
        if kind == "map":
            return {key: of(each) for key, each in value}
        if kind in ("list", "tuple"):
            items = [of(each) for each in value]
            return items if kind == "list" else tuple(items)
        if kind == "scalar":
            return layout.scalars[value]
        if kind == "rows":
            return layout.rows[value]
        if kind == "flat":
            return layout.rows[value].reshape(-1)
        if kind == "columns":
            return layout.rows[value].T.reshape(-1)
        if kind == "groups":
            return None if value is None else [value] * n
        return value

    return of(json.loads(layout.rest))
