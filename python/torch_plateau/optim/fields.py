"""What torch's plateau keeps in its state, by its names there, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..lanes.readable import check_readable, kind_of
from ..lanes.table import SETTINGS, STATE, Row
from ..lanes.values import checked, checked_word

__all__ = [
    "EPOCHS",
    "GATE",
    "IN_CORE",
    "KEYS",
    "Field",
    "as_dict",
    "checked_field",
    "checked_rate",
    "checked_rates",
    "items_of",
    "set_gate",
]

COUNT = SETTINGS["patience"]
RATES = SETTINGS["min_lr"]  # of float rates; those of lanes must fit float32 besides
# Half of what float64 counts exactly, so that steps can count on for longer than any run.
EPOCHS = STATE["born"]._replace(
    name="last_epoch", low=-(2.0**52), high=2.0**52, open_low=True, open_high=True
)

IN_CORE = {  # numbers of the core
    "best": STATE["best"],
    "num_bad_epochs": COUNT,
    "cooldown_counter": COUNT,
    "last_epoch": EPOCHS,
    "patience": SETTINGS["patience"],
    "cooldown": SETTINGS["cooldown"],
}
GATE = {"mode": ("min", "max"), "threshold": (), "threshold_mode": ("rel", "abs")}  # torch's words
_NUMBERS = {"factor": SETTINGS["factor"], "eps": SETTINGS["eps"]}
KEYS = {*IN_CORE, *GATE, *_NUMBERS, "default_min_lr", "min_lrs", "mode_worse", "_last_lr"}


def checked_field(name: str, value: Any, label: str | None = None) -> Any:
    """Check a value of torch's state by its key; return it in plain numbers, words and clones.

    Numbers that are a float or an int stay the objects that they are. Raises TypeError or
    ValueError, which call it ``label``, its name unless told.
    """
    label = label or name
    if name in IN_CORE:
        return checked(IN_CORE[name], value, label=label).item()
    if name in GATE:
        if GATE[name]:
            return checked_word(label, value, GATE[name])
        return checked(SETTINGS[name], value, label=label).item()
    if name in _NUMBERS:
        return _number(_NUMBERS[name], value, label)
    if name == "default_min_lr":
        return None if value is None else _number(RATES, value, label)
    if name == "min_lrs":
        floors = items_of(value, label)
        numbers = checked(RATES, floors, len(floors), label=label).tolist()
        return [_kept(given, found) for given, found in zip(floors, numbers, strict=True)]
    if name == "mode_worse":  # which follows from the mode
        if type(value) is not float or not math.isinf(value):
            raise ValueError(f"{label}: expected inf or -inf, got {kind_of(value)}")
        return value
    return checked_rates(value, label)


def checked_rates(value: Any, label: str) -> list[Any]:
    """Check rates as ``get_last_lr`` returns them: floats, and tensors, which are cloned."""
    return [
        checked_rate(RATES, each, f"{label}[{i}]") for i, each in enumerate(items_of(value, label))
    ]


def checked_rate(row: Row, value: Any, label: str) -> Any:
    """Check a rate as a param group holds it: a number, or a tensor of one, which is cloned."""
    if not isinstance(value, Tensor):
        return _number(row, value, label)
    check_readable(value, label)
    if value.numel() != 1:
        raise ValueError(f"{label}: expected one element, got shape {tuple(value.shape)}")
    checked(row, value.reshape(()), label=label)
    return value.detach().clone()


class Field:
    """An attribute of the drop-in that is checked when it is set, wherever it is kept."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, plateau: Any, owner: type | None = None) -> Any:
        if plateau is None:
            return self
        name = self._name
        if name in IN_CORE:
            return getattr(plateau._lane, name)
        try:
            return (plateau._gate if name in GATE else plateau.__dict__)[name]
        except KeyError:
            raise AttributeError(name) from None

    def __set__(self, plateau: Any, value: Any) -> None:
        name, value = self._name, checked_field(self._name, value)
        if name in IN_CORE:
            setattr(plateau._lane, name, value)
        elif name in GATE:
            gate = {**plateau._gate, name: value}
            set_gate(plateau._lane, gate)
            plateau._gate = gate
        else:
            plateau.__dict__[name] = value


def set_gate(lane: Any, gate: Mapping[str, Any]) -> None:
    """Give the core the settings of the gate, words as codes."""
    mode, threshold_mode = (
        SETTINGS[name].words.index(gate[name]) for name in ("mode", "threshold_mode")
    )
    lane.set_gate(mode, gate["threshold"], threshold_mode)


def as_dict(label: str, value: Any) -> dict[Any, Any]:
    """Return a mapping as a dict of its own, or raise TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{label}: expected a mapping, got {kind_of(value)}")
    return dict(value)


def items_of(value: Any, label: str, count: int | None = None) -> list[Any]:
    """Return the items of a list or a tuple, so many if told; raises TypeError or ValueError."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{label}: expected a list, got {kind_of(value)}")
    if count not in (None, len(value)):
        raise ValueError(f"{label}: expected {count} items, got {len(value)}")
    return list(value)


def _number(row: Row, value: Any, label: str) -> Any:
    return _kept(value, checked(row, value, label=label).item())


def _kept(given: Any, number: Any) -> Any:
    """Return a number as the user's own object, where that is a float or an int."""
    return given if type(given) in (float, int) else number
