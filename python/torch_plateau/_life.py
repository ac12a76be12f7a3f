"""The life of a lane: reset it, copy it, give it other settings, add and remove lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._checks import SETTINGS, check_filters, checked_setting, offsets_of
from ._metrics import mask_of
from ._outputs import LaneOutputs
from ._parts import LANE_PARTS
from ._settings import CHOICES, codes_of, setting
from ._tensors import kind_of

if TYPE_CHECKING:
    from .lanes import PlateauLanes

__all__ = ["LaneLife"]

_LANE_STATE = ("best", "clock", "outcome", "num_reductions")
_GROUP_STATE = ("start_rate", "rate", "published")

_Which = Tensor | Sequence[bool] | Sequence[int] | int


class LaneLife(LaneOutputs):
    """Life-cycle methods of ``PlateauLanes``.

    ``lanes`` says which: a bool tensor of shape ``(n,)``, an integer tensor of lane numbers, both
    on the lanes' device, a sequence of either, or one number. Nothing synchronises except
    :meth:`append` and :meth:`remove`. Numbers in a tensor on a GPU are not checked, since that
    would wait for it; one out of range ends in a device-side assertion.
    """

    def reset(self, lanes: _Which) -> None:
        """Begin anew: the starting rate, no best, no counts, no averages; settings stay.

        Recorded events and ``num_steps`` stay too. Raises TypeError, ValueError or IndexError,
        with nothing changed, for lanes that do not exist.
        """
        mask, _ = self._chosen("lanes", lanes)
        groups = self._per_group(mask)
        start = self._tensor("start_rate")
        self._set("best", mask, self._worst())
        for name in _LANE_STATE[1:]:
            self._set(name, mask, 0)
        self._set("rate", groups, start)
        self._set("published", groups, start.float())
        for name, (_, first) in LANE_PARTS.items():
            if name in self._parts:
                part = self._parts[name]
                part.copy_(torch.where(mask, torch.full_like(part, first), part))
        self._refresh()

    def copy_lanes(self, src: _Which, dst: _Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before: state, rates and settings.

        Everything is read before anything is written, so ``src`` and ``dst`` may overlap; where
        ``dst`` names a lane twice the last counts. ``num_steps`` and recorded events stay, and so
        does the optimizer's own state (copy the rows of stacked parameters with it).

        Args:
            src: Lane numbers; or one, for all of ``dst``.
            dst: As many lane numbers.

        Raises TypeError, ValueError or IndexError, with nothing changed, for masks, different
        lengths, lanes that do not exist or lanes with unequal numbers of groups.
        """
        to = self._numbers("dst", dst)
        come_from = self._numbers("src", src)
        if len(come_from) not in (1, len(to)):
            raise ValueError(
                f"src: expected {len(to)} lanes, as in dst, or 1, got {len(come_from)}"
            )
        per_lane = set(self._groups or [1])
        if len(per_lane) > 1:
            raise ValueError("src: expected lanes with equally many groups, got some with others")
        mask, take = self._last_of(to)
        here = torch.arange(len(self), device=self.device)
        origin = torch.where(mask, take(come_from.expand(len(to))), here)
        self._rearrange(origin, next(iter(per_lane), 1))

    def set_lanes(self, lanes: _Which, **changes: Any) -> None:
        """Give lanes other rates or other hyper-parameters; uniform ones become one per lane.

        ::

            lanes.set_lanes(losers, lr=lanes.lr_master[winners] * 1.2, patience=3)

        Args:
            lanes: Which. Where a number comes twice the last value counts.
            changes: ``lr`` or any setting of the constructor: one value, or one for each lane in
                ``lanes`` (for a mask: for every lane). ``lr`` and ``min_lr`` are set for all groups
                of the lane. Numbers and CPU tensors are checked; a tensor on a GPU is not.

        Raises KeyError, TypeError or ValueError, with nothing changed, for an unknown name, a
        value of a wrong shape or out of range, or a longer window than the longest so far.
        """
        mask, take = self._chosen("lanes", lanes)
        unknown = set(changes) - {"lr", *SETTINGS}
        if unknown:
            raise KeyError(f"set_lanes: expected lr or settings, got {sorted(unknown)}")
        count = len(self) if take is None else None
        new = {name: self._values(name, value, take, count) for name, value in changes.items()}
        settings = dict(self._settings)
        for name, value in new.items():
            if name != "lr":
                settings[name] = self._merged(name, mask, value)
        check_filters(settings, self.dtype)
        self._settings = settings
        if "lr" in new:
            rate = self._per_group(new["lr"])
            groups = self._per_group(mask)
            self._set("rate", groups, rate)
            self._set("published", groups, rate.float())
        self._bind()
        self._refresh()

    def append(self, k: int, lr: Any, **settings: Any) -> None:
        """Add ``k`` lanes at the end, built as by the constructor with these arguments.

        Settings that are not given are those of the lanes there are, if these are uniform, else
        the constructor's. Every tensor is replaced, ``lr`` too. Synchronises.

        Raises as the constructor does, with nothing changed.
        """
        for name, value in self._settings.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                settings.setdefault(name, value)
        if self._groups is not None:
            settings.setdefault("groups", [1] * k)
        build: Any = type(self)
        self._join(build(k, lr, device=self.device, dtype=self.dtype, **settings))

    def remove(self, lanes: _Which) -> None:
        """Take lanes out; the others move up. Every tensor is replaced, ``lr`` too. Synchronises.

        Recorded events keep the numbers that lanes had. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        mask, _ = self._chosen("lanes", lanes)
        keep = (~mask).nonzero().flatten()
        groups = (~self._per_group(mask)).nonzero().flatten()
        self._select(keep, groups)

    # -- which lanes ------------------------------------------------------------------------------

    def _numbers(self, name: str, lanes: Any) -> Tensor:
        """Lane numbers as an int64 tensor on the lanes' device."""
        n = len(self)
        given = [lanes] if isinstance(lanes, int) and not isinstance(lanes, bool) else lanes
        if isinstance(given, range):
            given = list(given)
        if isinstance(given, (list, tuple)):
            if not all(isinstance(each, int) and not isinstance(each, bool) for each in given):
                raise TypeError(f"{name}: expected lane numbers, got {kind_of(lanes)} of others")
            here = torch.tensor(given, dtype=torch.int64, device="cpu")
            _check_numbers(name, here, n)
            return here.to(self.device, non_blocking=True)
        if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
            got = given.dtype if isinstance(given, Tensor) else kind_of(given)
            raise TypeError(f"{name}: expected lane numbers, got {got}")
        if given.dtype == torch.bool or given.ndim > 1:
            raise ValueError(
                f"{name}: expected lane numbers, shape (k,), got {given.dtype} {tuple(given.shape)}"
            )
        if given.device != self.device:
            raise ValueError(f"{name}: expected device {self.device}, got {given.device}")
        if given.is_cpu:
            _check_numbers(name, given, n)
        return given.detach().reshape(-1).long()

    def _chosen(self, name: str, lanes: Any) -> tuple[Tensor, Any]:
        """A mask of lanes, and how to spread values given for each of them (None: as they are)."""
        is_mask = isinstance(lanes, Tensor) and lanes.dtype == torch.bool
        if isinstance(lanes, (list, tuple)) and lanes:
            is_mask = all(isinstance(each, bool) for each in lanes)
        if is_mask:
            return mask_of(name, lanes, len(self), self.device), None
        return self._last_of(self._numbers(name, lanes))

    def _last_of(self, numbers: Tensor) -> tuple[Tensor, Any]:
        """For lane numbers: their mask, and a function from values for them to values per lane."""
        order = torch.arange(len(numbers), device=self.device)
        last = torch.full((len(self),), -1, dtype=torch.int64, device=self.device)
        last.scatter_reduce_(0, numbers, order, "amax")

        def take(values: Tensor) -> Tensor:
            if len(numbers) == 0:
                return values.new_zeros(len(self))
            return values[last.clamp(min=0)]

        take.count = len(numbers)  # type: ignore[attr-defined]
        return last >= 0, take

    # -- values -----------------------------------------------------------------------------------

    def _values(self, name: str, value: Any, take: Any, n: int | None) -> Any:
        """A change, checked: None, or a tensor on the lanes' device, 0-d or one value per lane."""
        count = take.count if n is None else n
        if isinstance(value, Tensor) and not value.is_cpu and name not in CHOICES:
            if value.device != self.device or value.shape not in ((), (count,)):
                raise ValueError(
                    f"{name}: expected one number or shape ({count},) on {self.device}, got shape "
                    f"{tuple(value.shape)} on {value.device}"
                )
            like = setting(name, 0.5 if name in ("factor", "lr") else 1)
            checked: Any = value.detach().to(like.dtype)
        elif name in ("lr", "min_lr"):
            checked = setting(name, value, count)
        else:
            checked = checked_setting(name, value, count, None)
        if checked is None:
            raise TypeError(f"{name}: expected a number for these lanes, got None")
        if isinstance(checked, str):
            checked = codes_of(name, [checked])[0]
        if name == "window" and checked.is_cpu:
            longest = self._longest_window() if "recent" in self._parts else 1
            if checked.numel() and int(checked.max()) > longest > 1:
                raise ValueError(
                    f"window: expected at most {longest}, the longest so far, got {checked.max():d}"
                )
        checked = checked.to(self.device, non_blocking=True)
        return take(checked) if take is not None and checked.ndim else checked

    def _merged(self, name: str, mask: Tensor, value: Tensor) -> Tensor:
        """A setting with the change in it, one per lane (``min_lr``: per group)."""
        old = self._settings[name]
        if old is None:
            raise ValueError(
                f"{name}: expected lanes that were built with it, got None in the others"
            )
        if isinstance(old, str):
            old = codes_of(name, [old])[0]
        old = old.to(self.device)
        if name == "min_lr":
            mask, value = self._per_group(mask), self._per_group(value)
        return torch.where(mask, value, old)

    def _set(self, name: str, mask: Tensor, value: Tensor | float) -> None:
        tensor = self._tensor(name)
        new = value if isinstance(value, Tensor) else torch.full_like(tensor, value)
        tensor.copy_(torch.where(mask, new.to(tensor.dtype), tensor))

    # -- moving lanes about -----------------------------------------------------------------------

    def _rearrange(self, origin: Tensor, per_lane: int) -> None:
        """In place: lane i becomes what lane ``origin[i]`` was."""
        groups = origin
        if self._groups is not None:
            within = torch.arange(per_lane, device=self.device)
            groups = (origin[:, None] * per_lane + within).view(-1)
        for name in _LANE_STATE:
            self._tensor(name).copy_(self._tensor(name)[origin])
        for name in _GROUP_STATE:
            self._tensor(name).copy_(self._tensor(name)[groups])
        for name in LANE_PARTS:
            if name in self._parts:
                self._parts[name].copy_(self._parts[name][origin])
        if "recent" in self._parts:
            recent = self._parts["recent"].view(-1, len(self))
            recent.copy_(recent[:, origin])
        for name, value in self._settings.items():
            if isinstance(value, Tensor) and value.ndim:
                value.copy_(value[groups if name == "min_lr" else origin])
        self._bind()

    def _select(self, keep: Tensor, groups: Tensor) -> None:
        """In new tensors: only these lanes and groups."""
        n = len(self)
        state = self._state
        for name in _LANE_STATE:
            state[name] = self._tensor(name)[keep]
        for name in _GROUP_STATE:
            state[name] = self._tensor(name)[groups]
        for name in LANE_PARTS:
            if name in self._parts:
                self._parts[name] = self._parts[name][keep]
        if "recent" in self._parts:
            self._parts["recent"] = self._parts["recent"].view(-1, n)[:, keep].flatten()
        for name, value in self._settings.items():
            if isinstance(value, Tensor) and value.ndim:
                self._settings[name] = value[groups if name == "min_lr" else keep]
        if self._groups is not None:
            kept = keep.tolist()
            self._groups = [self._groups[lane] for lane in kept]
            offsets = offsets_of(len(kept), self._groups)
            state["offsets"] = None if offsets is None else offsets.to(self.device)
        self._in_core = {}
        self._bind()

    def _join(self, added: PlateauLanes) -> None:
        """In new tensors: these lanes, and then the others."""
        n, k = len(self), len(added)
        counts, new_counts = self._groups or [1] * n, added._groups or [1] * k
        groups, new_groups = len(self._lr), len(added._lr)
        settings = {}
        for name, old in self._settings.items():
            new = added._settings[name]
            sizes = (groups, new_groups) if name == "min_lr" else (n, k)
            settings[name] = _joined(name, old, new, sizes, self.device)
        mine, theirs = self._state, added._state
        if self._parts or added._parts:
            self._need_parts()
            added._need_parts()
        parts = dict(self._parts)
        for name in LANE_PARTS:
            if name in parts or name in added._parts:
                parts[name] = torch.cat(
                    [
                        each._parts.get(name, _first(name, len(each), self.device))
                        for each in (self, added)
                    ]
                )
        if "recent" in parts or "recent" in added._parts:
            rows = [
                each._parts["recent"].view(-1, len(each))
                if "recent" in each._parts
                else torch.zeros(1, len(each), dtype=torch.float64, device=self.device)
                for each in (self, added)
            ]
            tall = max(len(each) for each in rows)
            if len(rows[0]) not in (1, tall):
                raise ValueError(f"window: expected at most {len(rows[0])}, the longest so far")
            parts["recent"] = torch.cat(
                [torch.nn.functional.pad(each, (0, 0, 0, tall - len(each))) for each in rows], 1
            ).flatten()
        for name in (*_LANE_STATE, *_GROUP_STATE):
            mine[name] = torch.cat([self._tensor(name), added._tensor(name)])
        if mine["offsets"] is not None or theirs["offsets"] is not None:
            self._groups = [*counts, *new_counts]
            offsets = offsets_of(n + k, self._groups)
            mine["offsets"] = None if offsets is None else offsets.to(self.device)
        self._settings, self._parts, self._in_core = settings, parts, {}
        self._bind()
        self._refresh()


def _check_numbers(name: str, numbers: Tensor, n: int) -> None:
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= n):
        bad = numbers[(numbers < 0) | (numbers >= n)].reshape(-1)[0]
        raise IndexError(f"{name}: expected lanes from 0 to {n - 1}, got {int(bad)}")


def _first(name: str, n: int, device: torch.device) -> Tensor:
    dtype, first = LANE_PARTS[name]
    return torch.full((n,), first, dtype=dtype, device=device)


def _joined(name: str, old: Any, new: Any, sizes: tuple[int, int], device: torch.device) -> Any:
    """A setting of two batches of lanes: as it is if both have the same, else one per lane."""
    scalars = not any(isinstance(each, Tensor) and each.ndim for each in (old, new))
    if scalars and type(old) is type(new) and old == new:
        return old
    if old is None or new is None:
        raise ValueError(f"{name}: expected it for all lanes or for none, got None for some")
    columns = []
    for value, size in zip((old, new), sizes, strict=True):
        tensor = codes_of(name, [value])[0] if isinstance(value, str) else value
        columns.append(tensor.to(device).expand(size))
    return torch.cat(columns)
