"""The state of lanes as it is saved, and back, with everything checked on the way.

What users know by other names than the core is saved under theirs: ``lr``, ``num_bad_epochs`` and
so on; every other field of the state is in ``options`` by its own name, but for a lane's age and
its last reduction, which are in its own steps there.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .readable import check_readable, kind_of
from .settings import checked_settings, count_groups, offsets_of, plain
from .state import FINISHED, IMPROVED, RAISED, REDUCED, LaneState
from .table import RATE, SETTINGS, STATE, Row
from .values import check_keys, check_numbers, checked, copied, shown

__all__ = ["restored", "snapshot"]


def _with_room(row: Row) -> Row:
    """Return a count that may be half of what fits: so steps count on for longer than any run."""
    half = row.high / 2
    return row._replace(
        high=half, open_high=True, expected=f"an integer from 0 to below {half:.0f}"
    )


_ROWS = STATE | {
    name: _with_room(STATE[name]) for name in ("num_steps", "pushed", "judged", "events_written")
}
_COUNT = SETTINGS["patience"]
_KEYS = {
    "best": STATE["best"],
    "num_bad_epochs": _COUNT,
    "cooldown_counter": _COUNT,
    "num_reductions": STATE["num_reductions"],
    "lr": RATE,
    "start_lr": RATE,
}
_AGES = ("age", "last_reduction")  # in the lane's own steps, as nothing else in `options`
# Others may be missing in a state that was saved before they existed, and are as unless told.
_LATER = SETTINGS.keys() - signature(ReduceLROnPlateau).parameters
_OTHER_KEYS = ("improved", "reduced", "raised", "num_steps", "groups", "settings", "options")
_SHOWN = {
    "best",
    "clock",
    "outcome",
    "num_reductions",
    "num_steps",
    "start_rate",
    "rate",
    "published",
    "born",
    "last_cut",
}

_EVENTS = [name for name, row in STATE.items() if row.who == "events"]
_OTHERS = [row for name, row in STATE.items() if name not in (*_SHOWN, *_EVENTS)]


def snapshot(state: LaneState) -> dict[str, Any]:
    """Return clones and primitives; does not synchronise."""
    fields = state.fields
    settings = {  # words per lane stay codes: to tell them would synchronise
        name: value.clone() if isinstance(value, Tensor) else plain(SETTINGS[name], value)
        for name, value in state.settings.items()
    }
    options = {name: each.clone() for name, each in fields.items() if name not in _SHOWN}
    may_rise = "num_increases" in fields
    raised = {"raised": (fields["outcome"] & RAISED).bool()} if may_rise else {}
    return {
        **raised,
        "best": fields["best"].clone(),
        "num_bad_epochs": fields["clock"].clamp(min=0),
        "cooldown_counter": -fields["clock"].clamp(max=0),
        "improved": (fields["outcome"] & IMPROVED).bool(),
        "reduced": (fields["outcome"] & REDUCED).bool(),
        "num_reductions": fields["num_reductions"].clone(),
        "num_steps": fields["num_steps"][0].clone(),
        "lr": state.master(),
        "start_lr": fields["start_rate"].clone(),
        "groups": None if state.groups is None else list(state.groups),
        "settings": settings,
        "options": {
            "age": state.age(),
            "last_reduction": fields["last_cut"] - fields["born"],
            **options,
        },
    }


def restored(
    given: object,
    n: int,
    groups: list[int] | None,
    capacity: int,
    dtype: torch.dtype,
    device: torch.device,
    all_events: bool = False,
) -> LaneState:
    """Return the lanes of a snapshot, checked; it may lie on any device.

    Unless it recorded as many events as ``capacity`` says, none of them are taken over, or with
    ``all_events`` it is refused. Raises KeyError, TypeError or ValueError, as
    ``PlateauLanes.load_state_dict`` documents.
    """
    check_keys("state_dict", given, (*_KEYS, *_OTHER_KEYS), ("raised",))
    assert isinstance(given, Mapping)
    offsets = offsets_of(n, groups)
    counts = None if offsets is None else list(groups or [])
    if not _same_groups(given["groups"], counts):
        raise ValueError(
            f"state_dict['groups']: expected {shown(groups)}, got {shown(given['groups'])}"
        )
    check_keys("state_dict['settings']", given["settings"], SETTINGS, _LATER)
    settings = checked_settings(n, offsets, given["settings"], dtype)
    sizes = dict.fromkeys(_KEYS, n)
    sizes["lr"] = sizes["start_lr"] = count_groups(n, offsets)
    loaded = {name: _numbers(given, name, row, sizes[name]) for name, row in _KEYS.items()}
    outcome = torch.zeros(n, dtype=torch.uint8, device="cpu")
    for name, bit in (("improved", IMPROVED), ("reduced", REDUCED), ("raised", RAISED)):
        if name in given:
            outcome.add_(_bools(given, name, n), alpha=bit)
    steps = checked(_ROWS["num_steps"], given["num_steps"], label="state_dict['num_steps']")
    check_held(loaded["best"], dtype)
    bad, cooling = loaded["num_bad_epochs"], loaded["cooldown_counter"]  # copies, as all of it
    fields = {
        "best": loaded["best"].to(dtype),
        "clock": torch.where(cooling > 0, cooling.neg_(), bad, out=bad),
        "outcome": outcome,
        "num_reductions": loaded["num_reductions"],
        "start_rate": loaded["start_lr"],
        "rate": loaded["lr"],
        "published": loaded["lr"].float(),
    }
    state = LaneState(fields, settings, counts, offsets, capacity)
    state.fields["num_steps"] = steps.expand(state.size_of(STATE["num_steps"])).clone()
    state = _with_options(state, given["options"], int(steps), all_events)
    return state.to(device, dtype).settled()


def _same_groups(given: object, groups: list[int] | None) -> bool:
    if given is None or groups is None:
        return given is groups
    return isinstance(given, list) and all(type(each) is int for each in given) and given == groups


def check_held(best: Tensor, dtype: torch.dtype) -> None:
    """Refuse a ``best`` that ``dtype`` would round."""
    if dtype == torch.float64:
        return
    exact = best.to(dtype).double() == best
    if not (exact | best.isnan()).all():
        raise ValueError(f"best: {dtype} lanes cannot hold these values exactly; use float64")


def _with_options(state: LaneState, given: Any, steps: int, all_events: bool) -> LaneState:
    """Return the lanes with the fields that have no other place in a snapshot."""
    label = "state_dict['options']"
    needed = [row.name for row in _OTHERS if state.needs(row)]
    kept = {k: v for k, v in given.items() if k not in _EVENTS} if _is_mapping(given) else given
    check_keys(label, kept, [*_AGES, *needed])
    ages = {name: _field(given, name, _ROWS["num_steps"], state.n) for name in _AGES}
    fields = {"born": ages["age"].neg_().add_(steps)}
    fields["last_cut"] = ages["last_reduction"].add_(fields["born"])
    for name in needed:
        size: int | None = state.size_of(STATE[name])
        if name == "recent":  # windows may have been longer once
            size = None
        fields[name] = _field(given, name, _ROWS[name], size)
    if "recent" in fields:
        _check_window(fields["recent"], state)
    if "flags" in fields:
        _check_stops(fields["flags"], fields["stop_reason"])
    recorded = [name for name in _EVENTS if name in given]
    if recorded:
        check_keys(label, dict.fromkeys([*kept, *recorded]), [*_AGES, *needed, *_EVENTS])
    if state.capacity and (recorded or all_events):
        fields |= _events(given, state, all_events)
    return state.replaced(fields).complete()


def _is_mapping(given: Any) -> bool:
    return isinstance(given, Mapping)


def _check_stops(flags: Tensor, reasons: Tensor) -> None:
    odd = (flags & FINISHED).bool() != reasons.bool()
    if odd.any():
        raise ValueError(
            "state_dict['options']['stop_reason']: expected one for the lanes that are finished, "
            f"and 0 for others, got {int(reasons[odd][0])} at index {int(odd.nonzero()[0])}"
        )


def _check_window(recent: Tensor, state: LaneState) -> None:
    longest, n = state.window_rows, max(state.n, 1)
    if len(recent) % n or len(recent) // n < (longest if state.n else 0):
        raise ValueError(
            f"state_dict['options']['recent']: expected {longest} rows of {state.n} or more, got "
            f"{len(recent)} values"
        )


def _events(given: Mapping[str, Any], state: LaneState, all_events: bool) -> dict[str, Tensor]:
    """Return recorded events, if as many are recorded here, checked against one another."""
    rows = {name: row for name, row in _ROWS.items() if row.who == "events"}
    first = given["events_lane"]
    size = state.size_of(rows["events_lane"])
    one_row = isinstance(first, Tensor) and not first.is_nested and first.ndim == 1
    other = one_row and len(first) != size
    if other and not all_events:
        return {}
    found = {name: _field(given, name, row, state.size_of(row)) for name, row in rows.items()}
    if found["events_first"] > found["events_written"]:
        raise ValueError(
            "state_dict['options']['events_first']: expected at most events_written, got "
            f"{int(found['events_first'])} of {int(found['events_written'])}"
        )
    return found


def _numbers(given: Mapping[str, Any], name: str, row: Row, size: int) -> Tensor:
    """Check a tensor of numbers of any type."""
    value, label = given[name], f"state_dict[{name!r}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: expected a tensor of shape ({size},), got {kind_of(value)}")
    return checked(row, value, size, scalar=False, label=label)


def _bools(given: Mapping[str, Any], name: str, size: int) -> Tensor:
    """Check a bool tensor; returned as 0 and 1."""
    value, label = given[name], f"state_dict[{name!r}]"
    if isinstance(value, Tensor):
        check_readable(value, label)
    if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != (size,):
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else kind_of(value)
        raise ValueError(f"{label}: expected a bool tensor of shape ({size},), got {got}")
    return value.detach().to("cpu", torch.uint8)


def _field(given: Mapping[str, Any], name: str, row: Row, size: int | None) -> Tensor:
    """Check a field of the core by its row: its type, its size if given, and its numbers."""
    value, label = given[name], f"state_dict['options'][{name!r}]"
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: expected a tensor, got {kind_of(value)}")
    check_readable(value, label)
    if value.dtype != row.dtype or value.ndim != 1 or size not in (None, len(value)):
        shape = "one dimension" if size is None else f"shape ({size},)"
        raise ValueError(
            f"{label}: expected {row.dtype} of {shape}, got {value.dtype} {tuple(value.shape)}"
        )
    kept = copied(value)
    check_numbers(row, kept, label)
    return kept
