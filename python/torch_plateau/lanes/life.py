"""The life of lanes: begun anew, copied, changed, finished, appended, removed, moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from .agreement import Agreement
from .changes import changed, changed_for_all
from .comparison import State
from .device import check_device, check_dtype
from .halving import halved
from .inputs import readable
from .placed import Move
from .reading import ReadLanes
from .saved import check_held
from .selection import Which, alike, chosen, numbers_of
from .settings import (
    check_averages,
    check_names,
    checked_settings,
    count_groups,
    offsets_of,
    per_group,
    plain,
)
from .state import LaneState
from .table import RATE, SETTINGS, whole_number
from .values import checked, shown
from .writes import Write, beginning_anew, copying

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LaneSettings

__all__ = ["LivingLanes"]

_SHARE = SETTINGS["factor"]._replace(name="keep", open_high=False, expected="above 0 and at most 1")


class LivingLanes(ReadLanes):
    """Lanes whose number, rates and settings change; :class:`PlateauLanes` are."""

    _agreement: Agreement | None

    def reset(self, lanes: Which) -> None:
        """Begin anew: the starting rate, no best, no counts, no averages; settings stay.

        Recorded events and ``num_steps`` stay too. In place, without a synchronisation, and may be
        captured in a CUDA graph if ``lanes`` is a tensor. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        self._change(self._anew(lanes))

    def _anew(self, lanes: Which) -> Move:
        return lambda state: beginning_anew(
            state, chosen("lanes", lanes, state.n, state.device).mask
        )

    def copy_lanes(self, src: Which, dst: Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before: state, rates and settings.

        ``src`` and ``dst`` may overlap; where ``dst`` names a lane twice the last counts.
        ``num_steps`` and recorded events stay, and so does the optimizer's own state (copy the
        rows of stacked parameters with it). In place, without a synchronisation, and may be
        captured in a CUDA graph if both are tensors.

        Args:
            src: Lane numbers; or one, for all of ``dst``.
            dst: As many lane numbers.

        Raises TypeError, ValueError or IndexError, with nothing changed, for masks, different
        lengths, lanes that do not exist or lanes with unequal numbers of groups.
        """
        self._change(self._copied(src, dst))

    def _copied(self, src: Which, dst: Which) -> Move:
        def copied(state: LaneState) -> list[Write]:
            to = numbers_of("dst", dst, state.n, state.device)
            come_from = numbers_of("src", src, state.n, state.device)
            if len(come_from) not in (1, len(to)):
                raise ValueError(
                    f"src: expected 1 or {len(to)} lanes, as in dst, got {len(come_from)}"
                )
            if len(set(state.groups or [1])) > 1:
                raise ValueError(
                    "src: expected lanes with equally many groups, got some with others"
                )
            return copying(state, alike(to, come_from.expand(len(to)), state.n), to)

        return copied

    def set_lanes(self, lanes: Which, **changes: Any) -> None:
        """Give lanes other rates or other hyper-parameters; uniform ones become one per lane.

        ::

            lanes.set_lanes(losers, lr=lanes.lr_master[winners] * 1.2, patience=3)

        The state stays, ``best`` too: a lane whose ``mode`` changes wants a :meth:`reset`. So does
        the starting rate, to which a reset returns. In place, without a synchronisation but for the
        first ``window`` of lanes that had none, and may be captured in a CUDA graph if all are
        tensors.

        Args:
            lanes: Which. Where a number comes twice the last value counts.
            changes: ``lr`` or any setting of the constructor: one value, or one for each lane in
                ``lanes`` (for a mask: for every lane). ``lr`` and ``min_lr`` are set for all groups
                of the lane. Numbers and CPU tensors are checked; a tensor on a GPU is not.

        Capture a CUDA graph of the step again when a uniform setting became one per lane.

        Raises TypeError, ValueError or IndexError, with nothing changed, for an unknown name, a
        value of a wrong shape or out of range, None, a setting that is None in the other lanes, or
        a longer window than the longest so far.
        """
        check_names("set_lanes", changes, "lr")
        self._change(
            lambda state: changed(state, chosen("lanes", lanes, state.n, state.device), changes)
        )

    def halve(self, metrics: Any, keep: float = 0.5) -> Tensor:
        """Finish the worst of the live lanes; return which, bool ``(n,)``.

        ::

            live  = lanes that are not finished, the best metric first, NaN last, ties by number
            kept  = max(1, round(len(live) * keep))          halves to the even number
            finished = finished or in live[kept:]

        Successive halving, a third of the lanes three times as long in each rung::

            for rung in range(4):
                for epoch in range(3**rung):
                    losses = ...                    train and validate the live lanes
                    lanes.step(losses)
                lanes.halve(losses, keep=1 / 3)

        Finished lanes are passed by, as those are that a limit finished; a :meth:`reset` or
        :meth:`copy_lanes` brings them back. In place, without a synchronisation, and may be
        captured in a CUDA graph. Lanes without optional parts get ``nan`` as a setting per lane at
        their first halving, since plain steps know no finished lanes: capture a graph of the step
        again then.

        Args:
            metrics: One for each lane, as :meth:`step` takes them; those of finished lanes may be
                anything.
            keep: The share of the live lanes that stays, above 0 and at most 1.

        Raises TypeError or ValueError, with nothing changed, for other metrics or shares, and for
        lanes of which each has its own ``mode``.
        """
        share = float(checked(_SHARE, keep, label="keep"))
        if self._agreement is not None:
            metrics, _ = self._agree(metrics, None, self._agreement)
        values = readable(metrics, len(self), self.dtype, self.device)
        found: list[Tensor] = []

        def finished(state: LaneState) -> LaneState:
            new, worst = halved(state, values, share)
            found.append(worst)
            return new

        self._change(finished)
        return found[0]

    def _set_settings(self, **changes: Any) -> None:
        """Change settings of all lanes: one value stays one, as the constructor takes it."""
        self._change(lambda state: changed_for_all(state, changes))

    def _set_rates(self, rates: Mapping[int, float]) -> None:
        """Set the rates of groups by their numbers, in place; they are checked already."""
        if not rates:
            return

        def written(state: LaneState) -> LaneState:
            index = torch.tensor(list(rates), dtype=torch.int64).to(state.device)
            values = torch.tensor(list(rates.values()), dtype=torch.float64).to(state.device)
            fields = {name: state.fields[name].clone() for name in ("rate", "published")}
            fields["rate"][index], fields["published"][index] = values, values.float()
            return state.replaced(fields)

        self._change(written)

    def append(
        self,
        k: int,
        lr: float | Sequence[float] | Tensor,
        *,
        groups: Sequence[int] | None = None,
        **settings: Unpack[LaneSettings],
    ) -> None:
        """Add ``k`` lanes at the end, built as by the constructor with ``lr`` and ``settings``.

        Settings that are not given are those of the lanes there are, if these are uniform, else
        the constructor's; ``groups``, one each. Every tensor is replaced, ``lr`` too. Synchronises.

        Raises as the constructor does, and ValueError for a setting that is None in some lanes
        only, or a longer window than the longest so far; with nothing changed.
        """
        self._change(self._appended(k, lr, groups, settings), in_place=False)

    def _appended(self, k: int, lr: Any, groups: Any, settings: Mapping[str, Any]) -> Move:
        if not whole_number(k):
            raise ValueError(f"k: expected an integer of 0 or more, got {shown(k)}")
        check_names("append", settings, "groups")

        def joined(state: LaneState) -> LaneState:
            uniform = {
                name: plain(SETTINGS[name], value)
                for name, value in state.settings.items()
                if not isinstance(value, Tensor)
            }
            counts = [1] * k if groups is None and state.groups is not None else groups
            offsets = offsets_of(k, counts)
            given = checked_settings(k, offsets, {**uniform, **settings}, state.dtype)
            rate = per_group(RATE, lr, k, offsets, "lr").expand(count_groups(k, offsets))
            added = LaneState.begin(k, rate, given, offsets, 0, state.dtype, state.device)
            return state.join(added)

        return joined

    def remove(self, lanes: Which) -> None:
        """Take lanes out; the others move up. Every tensor is replaced, ``lr`` too. Synchronises.

        Recorded events keep the numbers that lanes had. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        self._change(self._without(lanes), in_place=False)

    def _without(self, lanes: Which) -> Move:
        return lambda state: state.select(~chosen("lanes", lanes, state.n, state.device).mask)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the lanes, or change what ``best`` is kept in, and return ``self``.

        With ``dtype`` only ``best`` is replaced; on another device every tensor is, ``lr`` too.
        Raises RuntimeError for a device that cannot be used and ValueError, with nothing changed,
        for a ``best`` that float32 cannot hold exactly. Synchronises.
        """
        new_device = self.device if device is None else check_device(device)
        new_dtype = self.dtype if dtype is None else dtype
        check_dtype(new_dtype)

        def moved(state: LaneState) -> LaneState:
            check_averages(state.settings, new_dtype)
            check_held(state.fields["best"], new_dtype)
            return state.to(new_device, new_dtype)

        self._change(moved, in_place=False)
        return self

    def _agree(
        self, metrics: Any, active: Any, agreement: Agreement
    ) -> tuple[Tensor, Tensor | None]:
        agreement.check(self._compared)
        return agreement.agree(metrics, active, len(self), self.dtype, self.device)

    def _compared(self) -> State:
        return State(self._state.compared(), self._state.place)
