"""The tables of settings and state, as csrc/plateau/settings.hpp and state.hpp declare them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core

__all__ = ["BITS", "RATE", "SETTINGS", "STATE", "STOP_REASONS", "Row", "whole_number"]

_ALWAYS = 2**32 - 1  # every value but the one that a setting has unless told, csrc's kAnyOther


class Row(NamedTuple):
    """What is declared of a setting, or of a field of the state.

    Attributes:
        dtype: Of its tensors; None for ``best``, which has that of the lanes.
        of: What there is one of: ``"lane"``, ``"group"``, ``"count"`` (of steps), ``"batch"``,
            ``"window"`` (a row of lanes for each value that it holds) or ``"event"``.
        first: A field's first value; a setting's unless told. A setting that may be None is so
            where this is none of the numbers that it may have.
        low, high, open_low, open_high: The numbers that it may have: of integers whole ones, and no
            NaN unless ``low`` is above ``high``, which stands for anything.
        expected: How errors call them.
        words: The words of a setting that is one, in the order of their codes.
        part: A setting's: which values need optional parts, as csrc/plateau/settings.hpp has it.
        help: A setting's: what it does.
        who: A field's: the lanes that have it, as csrc/plateau/state.hpp has it.
        may_be_none: Whether None is its value unless told.
        whole: Whether its numbers are whole.
    """

    name: str
    dtype: torch.dtype | None
    of: str
    first: float
    low: float
    high: float
    open_low: bool
    open_high: bool
    expected: str
    words: tuple[str, ...]
    part: int = 0
    help: str = ""
    who: str = ""
    may_be_none: bool = False
    whole: bool = False

    def has(self, number: float) -> bool:
        """Return whether a number is among those that it may have."""
        if self.low > self.high:
            return True
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return above and below and (not self.whole or number == math.floor(number))

    def first_outside(self, values: Tensor) -> int:
        """Return where the first of some values that it may not have is, -1 for none.

        ``values`` are real numbers on the CPU, in a vector or a 0-d tensor.
        """
        if self.low > self.high:
            return -1
        ends = self.low, self.high, self.open_low, self.open_high
        return _core.first_outside(values, *ends, self.whole)

    def needs_part(self, value: float | Tensor) -> bool:
        """Return whether a setting of this value takes the lanes out of the plain loop.

        Asks no device: one value per lane may be any.
        """
        if self.part == 0 or isinstance(value, Tensor):
            return self.part != 0
        if self.words:
            return bool(self.part >> int(value) & 1)
        return value != self.first


def _rows(table: list[dict[str, Any]]) -> dict[str, Row]:
    rows = {}
    for raw in table:
        given = dict(raw)
        kind = given.pop("type")
        given["dtype"] = None if kind == "best" else getattr(torch, kind)
        given["words"] = tuple(given["words"].split())
        dtype = given["dtype"]
        row = Row(**given, whole=dtype is not None and not dtype.is_floating_point)
        rows[row.name] = row._replace(may_be_none=not row.words and not row.has(row.first))
    return rows


SETTINGS: dict[str, Row] = _rows(_core.settings_table())
STATE: dict[str, Row] = _rows(_core.state_table())
RATE = STATE["rate"]
BITS: dict[str, int] = _core.bits()  # of bytes in the state and in the record of a replay
STOP_REASONS = tuple(_core.STOP_REASONS.split())  # by their codes, 0 for none


def whole_number(value: object, least: int = 0) -> bool:
    """Return whether ``value`` is an int of at least ``least``, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
