"""What lanes show of themselves: live tensors, copies, settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .events import Cuts, read_events
from .placed import Placed
from .readable import kind_of
from .selection import numbers_of
from .settings import plain
from .state import FINISHED, IMPROVED, RAISED, REDUCED
from .table import SETTINGS, STOP_REASONS, whole_number
from .turns import in_turn
from .values import brief

__all__ = ["ReadLanes"]


class ReadLanes(Placed):
    """Lanes that can be read; :class:`PlateauLanes` are."""

    @property
    def lr(self) -> Tensor:
        """Published rates, float32, shape ``(groups,)``: live, and what optimizers read.

        Writing to it in place is allowed (``lanes.lr[3] = 0.01``): the next cut of that group
        starts from the written value. (Lanes in a warm-up or with noise write it at every step.)
        """
        return self._lr

    @property
    @in_turn
    def lr_master(self) -> Tensor:
        """Rates at full precision, float64, ``(groups,)``; without a warm-up's factor or noise."""
        return self._state.master()

    @property
    def best(self) -> Tensor:
        """Best metric of each lane, ``dtype``, shape ``(n,)``: live. Infinite before the first."""
        self._core.watch_best()
        return self._state.fields["best"]

    @property
    @in_turn
    def num_bad_epochs(self) -> Tensor:
        """Bad steps in a row, int32, shape ``(n,)``; 0 with ``rule="band"``, which counts none."""
        return self._state.fields["clock"].clamp(min=0)

    @property
    @in_turn
    def cooldown_counter(self) -> Tensor:
        """Cooldown steps that are left, after a cut or a raise, int32, shape ``(n,)``."""
        return -self._state.fields["clock"].clamp(max=0)

    @property
    @in_turn
    def improved(self) -> Tensor:
        """Whether the last metric was better than best; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & IMPROVED).bool()

    @property
    @in_turn
    def reduced(self) -> Tensor:
        """Whether the last step lowered a rate of the lane; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & REDUCED).bool()

    @property
    @in_turn
    def raised(self) -> Tensor:
        """Whether the last step raised a rate of the lane; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & RAISED).bool()

    @property
    @in_turn
    def num_reductions(self) -> Tensor:
        """Steps so far that lowered a rate of the lane, int32, shape ``(n,)``."""
        return self._state.fields["num_reductions"].clone()

    @property
    @in_turn
    def num_increases(self) -> Tensor:
        """Steps so far that raised a rate of the lane, int32, shape ``(n,)``."""
        counts = self._state.fields.get("num_increases")
        if counts is None:
            return torch.zeros(len(self), dtype=torch.int32, device=self.device)
        return counts.clone()

    @property
    @in_turn
    def num_steps(self) -> Tensor:
        """Steps taken by the batch, int64, 0-d."""
        return self._state.fields["num_steps"][0].clone()

    @property
    @in_turn
    def last_reduction(self) -> Tensor:
        """The lane's step (from 1) that last lowered a rate, 0 for none; int64, ``(n,)``.

        A lane counts the steps that it takes: not those for which it was masked or finished.
        """
        return self._state.fields["last_cut"] - self._state.fields["born"]

    @property
    @in_turn
    def finished(self) -> Tensor:
        """Whether steps pass the lane by, for its :attr:`stop_reason`; bool, ``(n,)``."""
        flags = self._state.fields.get("flags")
        if flags is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return (flags & FINISHED).bool()

    def all_finished(self) -> bool:
        """Return whether every lane is finished; the one call in a loop that asks the device."""
        return bool(self.finished.all())

    @property
    @in_turn
    def stop_reason(self) -> Tensor:
        """What finished the lane, a position in ``STOP_REASONS``, 0 for none; uint8, ``(n,)``.

        The first of these that held, in the order in which a step asks::

            nan              NaN, where nan is freeze
            diverged         worse than diverge_at, infinite, or NaN where nan is bad
            target           better than stop_at (and finite, where there is a diverge_at);
                             also where it is worse than diverge_at
            patience         stop_patience bad steps in a row, from step min_steps on
            floor            patience_at_min bad steps at the floor
            max_reductions   so many cuts
            max_steps        so many steps
            pruned           finished from outside

        A step that ends a lane is whole: ``best`` and rates are as ever. Only a metric that
        diverged counts for nothing else, and NaN that freezes is no step.
        """
        codes = self._state.fields.get("stop_reason")
        if codes is None:
            return torch.zeros(len(self), dtype=torch.uint8, device=self.device)
        return codes.clone()

    def stop_reasons(self) -> list[str | None]:
        """Return :attr:`stop_reason` in words, None for lanes that go on; synchronises."""
        return [STOP_REASONS[code] if code else None for code in self.stop_reason.tolist()]

    @property
    @in_turn
    def best_step(self) -> Tensor:
        """The lane's step (from 1) of its :attr:`best`, 0 for none; int64, ``(n,)``.

        Counted for lanes with optional parts or events only, from when they have them: writing it
        would cost other lanes more than all else that an improvement writes. Raises RuntimeError
        for those.
        """
        steps = self._state.fields.get("best_step")
        if steps is None:
            raise RuntimeError(
                "best_step: expected lanes with an optional part (as max_steps) or events, got "
                "plain ones, which do not count it"
            )
        return steps.clone()

    @property
    @in_turn
    def at_min_lr(self) -> Tensor:
        """Whether no rate of the lane can be lowered, by floor or ``eps``; bool, ``(n,)``."""
        return self._state.at_min()

    @in_turn
    def events(self) -> Cuts:
        """Return the recorded cuts, oldest first, and how many of them were overwritten.

        One for each rate that was lowered, or raised. Those of one step come in the order of their
        lanes on the CPU, and in any order on a GPU. Synchronises. Raises RuntimeError if ``events``
        was 0.
        """
        if not self._state.capacity:
            raise RuntimeError("events: none are recorded; build the lanes with events=1 or more")
        return read_events(self._state)

    @property
    @in_turn
    def settings(self) -> dict[str, Any]:
        """The hyper-parameters: numbers and words where uniform, else one value per lane.

        Words per lane are kept as codes on the device: to read them synchronises.
        """
        return {name: plain(SETTINGS[name], each) for name, each in self._state.settings.items()}

    @in_turn
    def settings_of(self, lane: int) -> dict[str, Any]:
        """Return the hyper-parameters of one lane: numbers, words and None.

        ``min_lr`` is a list where the lane does not own just one rate. Synchronises where there are
        some per lane. Raises TypeError or IndexError for a lane that does not exist.
        """
        if not whole_number(lane, -(2**63)):
            raise TypeError(f"lane: expected a lane number, got {kind_of(lane)}")
        numbers_of("lane", lane, len(self), self.device)
        groups = self.groups
        first, count = (lane, 1) if groups is None else (sum(groups[:lane]), groups[lane])
        found: dict[str, Any] = {}
        for name, value in self._state.settings.items():
            row = SETTINGS[name]
            if isinstance(value, Tensor):
                at = slice(first, first + count) if row.of == "group" else slice(lane, lane + 1)
                values = [plain(row, float(each)) for each in value[at].tolist()]
            else:
                values = [plain(row, value)] * (count if row.of == "group" else 1)
            found[name] = values[0] if len(values) == 1 else values
        return found

    @property
    def groups(self) -> list[int] | None:
        """How many rates each lane owns; None for one each."""
        return None if self._state.groups is None else list(self._state.groups)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self._state.device

    @property
    def dtype(self) -> torch.dtype:
        """What ``best`` is kept in."""
        return self._state.dtype

    def __len__(self) -> int:
        """Return the number of lanes."""
        return self._state.n

    def __repr__(self) -> str:
        """Show the settings; synchronises where there are some per lane, to show their range."""
        settings = "".join(
            f", {name}={brief(value)}"
            for name, value in self.settings.items()
            if isinstance(each := self._state.settings[name], Tensor)
            or each != SETTINGS[name].first
        )
        groups = "" if self._state.offsets is None else f", groups={self._state.num_groups}"
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        name = type(self).__name__
        return f"{name}({len(self)}{groups}{settings}, dtype={self.dtype}{where})"
