"""What can be read of lanes, as tensors; nothing here synchronises unless it says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import brief, plain
from ._parts import AT_MIN, EVENTS, FINISHED
from ._resolve import DEFAULTS, placed

__all__ = ["Cut", "Cuts", "LaneOutputs"]

_IMPROVED, _REDUCED = 1, 2  # bits of the outcome byte, csrc/plateau/types.hpp


class Cut(NamedTuple):
    """One rate that was lowered."""

    lane: int
    group: int  # numbered over all lanes; the lane's own number where lanes have one rate each
    step: int  # the lane's own, from 1
    old_rate: float
    new_rate: float
    metric: float  # that decided: the average, where there is one
    best: float


class Cuts(NamedTuple):
    """What :meth:`PlateauLanes.events` returns."""

    cuts: list[Cut]
    overwritten: int


class LaneOutputs:
    """State of lanes in tensors, and the properties that read it."""

    _state: dict[str, Tensor | None]
    _parts: dict[str, Tensor]  # of optional parts; empty where none was ever used
    _settings: dict[str, Any]
    _in_core: dict[str, float | Tensor]
    _groups: list[int] | None
    _capacity: int  # of the events
    _uses_options: bool
    _lr: Tensor
    _bind: Callable[[], None]
    _need_parts: Callable[[], None]
    _connect: Callable[[], None]

    def _tensor(self, name: str) -> Tensor:
        tensor = self._state[name]
        assert tensor is not None
        return tensor

    def _per_group(self, per_lane: Tensor) -> Tensor:
        """Repeat a value per lane for each of the lane's groups."""
        offsets = self._state["offsets"]
        if offsets is None or per_lane.ndim == 0:
            return per_lane
        return per_lane.repeat_interleave(offsets.diff(), output_size=len(self._lr))

    def _longest_window(self) -> int:
        """Return how many values the longest window holds; synchronises if nobody knows yet."""
        if "recent" in self._parts:
            return len(self._parts["recent"]) // max(len(self), 1)
        window = self._settings["window"]
        return int(window.max()) if window.numel() else 1

    def _setting(self, name: str) -> Tensor:
        """A numeric setting, where the lanes are; 0-d where uniform."""
        return placed(self._settings[name], self.device)

    def _worst(self) -> Tensor:
        """What ``best`` begins with."""
        maximize = self._in_core["maximize"]
        if not isinstance(maximize, Tensor):
            return torch.full_like(self.best, -math.inf if maximize else math.inf)
        return torch.where(maximize.bool(), -math.inf, math.inf).to(self.dtype)

    def _warming(self) -> Tensor | None:
        """Whether a warm-up keeps each group's rate below its master; None if there is none."""
        steps = self._settings["warmup_steps"]
        if not self._parts or (steps.ndim == 0 and steps.item() == 0):
            return None
        return self._per_group(self._parts["age"] < self._setting("warmup_steps"))

    # -- reading ----------------------------------------------------------------------------------

    @property
    def lr(self) -> Tensor:
        """Published rates, float32, shape ``(groups,)``: live, and what optimizers read.

        Writing to it in place is allowed (``lanes.lr[3] = 0.01``): the next cut of that group
        starts from the written value. (A lane in warm-up writes it at every step.)
        """
        return self._lr

    @property
    def lr_master(self) -> Tensor:
        """Rates at full precision, float64, shape ``(groups,)``; a new tensor each time.

        Without the factor of a warm-up.
        """
        rate, published = self._tensor("rate"), self._lr
        keep = rate.float() == published
        warming = self._warming()
        return torch.where(keep if warming is None else keep | warming, rate, published.double())

    @property
    def best(self) -> Tensor:
        """Best metric of each lane, ``dtype``, shape ``(n,)``: live. Infinite before the first."""
        return self._tensor("best")

    @property
    def num_bad_epochs(self) -> Tensor:
        """Bad steps in a row, int32, shape ``(n,)``; a new tensor each time."""
        return self._tensor("clock").clamp(min=0)

    @property
    def cooldown_counter(self) -> Tensor:
        """Cooldown steps that are left, int32, shape ``(n,)``; a new tensor each time."""
        return -self._tensor("clock").clamp(max=0)

    @property
    def improved(self) -> Tensor:
        """Whether the last metric was better than best; bool, shape ``(n,)``, a new tensor."""
        return (self._tensor("outcome") & _IMPROVED).bool()

    @property
    def reduced(self) -> Tensor:
        """Whether the last step lowered a rate of the lane; bool, shape ``(n,)``, a new tensor."""
        return (self._tensor("outcome") & _REDUCED).bool()

    @property
    def num_reductions(self) -> Tensor:
        """Steps so far that lowered a rate of the lane, int32, shape ``(n,)``: live."""
        return self._tensor("num_reductions")

    @property
    def num_steps(self) -> Tensor:
        """Steps taken by the batch, int64, 0-d: live."""
        return self._tensor("num_steps")[0]

    @property
    def last_reduction(self) -> Tensor:
        """The lane's step (from 1) that last lowered a rate, 0 for none; int64, ``(n,)``: live.

        A lane counts the steps that it takes: not those for which it was masked or finished.
        Raises RuntimeError unless an optional part is on; ``events=1`` is the least of them.
        """
        if not self._uses_options:  # a mask may have made the part, but whole steps pass it by
            raise RuntimeError(
                "last_reduction: plain lanes do not record it; build them with events=1 or more"
            )
        return self._parts["last_reduction"]

    @property
    def finished(self) -> Tensor:
        """Whether steps pass the lane by, by a limit or a frozen NaN; bool, ``(n,)``, a new one."""
        if not self._parts:
            return torch.zeros(len(self.best), dtype=torch.bool, device=self.device)
        return (self._parts["flags"] & FINISHED).bool()

    @property
    def at_min_lr(self) -> Tensor:
        """Whether no rate of the lane can be lowered, by floor or ``eps``; bool, ``(n,)``, new."""
        rate = self.lr_master
        factor, eps = (self._per_group(self._setting(name)) for name in ("factor", "eps"))
        lowered = torch.maximum(rate * factor, self._setting("min_lr"))
        room = (rate - lowered > eps) & (lowered < rate)
        offsets = self._state["offsets"]
        if offsets is None:
            return ~room
        counted = torch.nn.functional.pad(room.long().cumsum(0), (1, 0))
        return counted[offsets[1:]] == counted[offsets[:-1]]

    def events(self) -> Cuts:
        """Return the recorded cuts, oldest first, and how many of them were overwritten.

        One for each rate that was lowered. Those of one step come in the order of their lanes on
        the CPU, and in any order on a GPU. Synchronises. Raises RuntimeError if ``events`` was 0.
        """
        if not self._capacity:
            raise RuntimeError("events: none are recorded; build the lanes with events=1 or more")
        written = int(self._parts["events_written"])
        size = len(self._parts["events_lane"])
        first = max(written - size, int(self._parts["events_first"]))
        order = torch.arange(first, written, device=self.device) % size
        columns = [self._parts[name][order].tolist() for name in EVENTS]
        return Cuts([Cut(*row) for row in zip(*columns, strict=True)], first)

    @property
    def settings(self) -> dict[str, Any]:
        """The hyper-parameters: numbers and words where uniform, else one value per lane.

        Words per lane are kept as codes on the device: to read them synchronises.
        """
        return {name: plain(name, value) for name, value in self._settings.items()}

    @property
    def groups(self) -> list[int] | None:
        """How many rates each lane owns; None for one each."""
        return None if self._groups is None else list(self._groups)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self._lr.device

    @property
    def dtype(self) -> torch.dtype:
        """What ``best`` is kept in."""
        return self._tensor("best").dtype

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self._tensor("best"))

    def __repr__(self) -> str:
        """Show the settings; synchronises where there are some per lane, to show their range."""
        shown = {
            name: value
            for name, value in self.settings.items()
            if name not in DEFAULTS or isinstance(value, (list, Tensor)) or value != DEFAULTS[name]
        }
        settings = ", ".join(f"{name}={brief(value)}" for name, value in shown.items())
        groups = f", groups={len(self._lr)}" if self._state["offsets"] is not None else ""
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        name = type(self).__name__
        return f"{name}({len(self)}{groups}, {settings}, dtype={self.dtype}{where})"

    # -- what follows from the state, written after it was set -------------------------------------

    def _refresh(self) -> None:
        """Publish the rates, by the factor of a warm-up, and note which lanes are at their floor.

        Asked for after rates were set, not after a step, which does all this by itself.
        """
        rate, published = self._tensor("rate"), self._lr
        warming = self._warming()
        if warming is not None:
            steps = self._setting("warmup_steps")
            start = self._setting("warmup_start_factor")
            done = self._parts["age"].double() / steps
            factor = self._per_group(start + (1.0 - start) * done)
            published.copy_(torch.where(warming, (rate * factor).float(), published))
        if "at_min_steps" in self._parts:
            flags = self._parts["flags"]
            flags.copy_(torch.where(self.at_min_lr, flags | AT_MIN, flags & ~AT_MIN))
