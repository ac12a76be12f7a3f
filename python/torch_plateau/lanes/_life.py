"""The life of a lane: reset it, copy it, give it other settings, add and remove lanes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ._checks import SETTINGS, check_filters, checked_setting, offsets_of
from ._outputs import LaneOutputs
from ._parts import EVENTS, LANE_PARTS
from ._resolve import placed
from ._settings import CHOICES, codes_of, setting
from .inputs import mask_of
from .readable import check_readable, kind_of

if TYPE_CHECKING:
    from .lanes import PlateauLanes

__all__ = ["Chosen", "LaneLife", "Which"]

_LANE_STATE = ("best", "clock", "outcome", "num_reductions")
_GROUP_STATE = ("start_rate", "rate", "published")
_LONGER = "window: expected at most {}, the longest so far, got {}"
_WARM_UP = {"warmup_steps", "warmup_start_factor"}

Which = Tensor | Sequence[bool] | Sequence[int] | int


class Chosen(NamedTuple):
    """Lanes that a caller named."""

    mask: Tensor  # bool, (n,)
    size: int  # of values that may be given for them
    place: Tensor | None  # for each lane, the last place in the caller's numbers that names it

    def spread(self, values: Tensor) -> Tensor:
        """From values for the lanes as they were named to one for each lane there is."""
        if self.place is None or values.ndim == 0:
            return values
        if self.size == 0:
            return values.new_zeros(len(self.mask))
        return values[self.place.clamp(min=0)]


class LaneLife(LaneOutputs):
    """Life-cycle methods of ``PlateauLanes``.

    ``lanes`` says which: a bool tensor of shape ``(n,)``, an integer tensor of lane numbers, both
    on the lanes' device, a sequence of either, or one number. Numbers in a tensor on a GPU are not
    checked, since that would wait for it; one out of range ends in a device-side assertion.

    Everything is read before anything is written. :meth:`reset`, :meth:`copy_lanes` and
    :meth:`set_lanes` write in place (``lr`` and ``best`` stay the same tensors), never synchronise
    unless they say so, and may be captured in a CUDA graph when ``lanes`` is a tensor.
    """

    def reset(self, lanes: Which) -> None:
        """Begin anew: the starting rate, no best, no counts, no averages; settings stay.

        Recorded events and ``num_steps`` stay too. Raises TypeError, ValueError or IndexError,
        with nothing changed, for lanes that do not exist.
        """
        mask = self._chosen("lanes", lanes).mask
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

    def copy_lanes(self, src: Which, dst: Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before: state, rates and settings.

        ``src`` and ``dst`` may overlap; where ``dst`` names a lane twice the last counts.
        ``num_steps`` and recorded events stay, and so does the optimizer's own state (copy the
        rows of stacked parameters with it).

        Args:
            src: Lane numbers; or one, for all of ``dst``.
            dst: As many lane numbers.

        Raises TypeError, ValueError or IndexError, with nothing changed, for masks, different
        lengths, lanes that do not exist or lanes with unequal numbers of groups.
        """
        to = self._numbers("dst", dst)
        come_from = self._numbers("src", src)
        if len(come_from) not in (1, len(to)):
            raise ValueError(f"src: expected 1 or {len(to)} lanes, as in dst, got {len(come_from)}")
        per_lane = set(self._groups or [1])
        if len(per_lane) > 1:
            raise ValueError("src: expected lanes with equally many groups, got some with others")
        chosen = self._last_of(to)
        here = torch.arange(len(self), device=self.device)
        origin = torch.where(chosen.mask, chosen.spread(come_from.expand(len(to))), here)
        self._rearrange(origin, next(iter(per_lane), 1))

    def set_lanes(self, lanes: Which, **changes: Any) -> None:
        """Give lanes other rates or other hyper-parameters; uniform ones become one per lane.

        ::

            lanes.set_lanes(losers, lr=lanes.lr_master[winners] * 1.2, patience=3)

        The state stays, ``best`` too: a lane whose ``mode`` changes wants a :meth:`reset`. So does
        the starting rate, to which a reset returns.

        Args:
            lanes: Which. Where a number comes twice the last value counts.
            changes: ``lr`` or any setting of the constructor: one value, or one for each lane in
                ``lanes`` (for a mask: for every lane). ``lr`` and ``min_lr`` are set for all groups
                of the lane. Numbers and CPU tensors are checked; a tensor on a GPU is not.

        Capture a CUDA graph of the step again when a uniform setting became one per lane. The first
        ``window`` of lanes that had none synchronises.

        Raises KeyError, TypeError or ValueError, with nothing changed, for an unknown name, a
        value of a wrong shape or out of range, None, a setting that is None in the other lanes, or
        a longer window than the longest so far.
        """
        chosen = self._chosen("lanes", lanes)
        unknown = set(changes) - {"lr", *SETTINGS}
        if unknown:
            raise KeyError(f"set_lanes: expected lr or settings, got {sorted(unknown)}")
        new = {name: self._change(name, value, chosen) for name, value in changes.items()}
        rate = new.pop("lr", None)
        merged = {name: self._merged(name, chosen.mask, value) for name, value in new.items()}
        check_filters({**self._settings, **merged}, self.dtype)
        if merged.keys() & _WARM_UP:  # what others wrote goes into the master, before a warm-up
            master = self.lr_master  # begins to scale it; and what a warm-up scaled comes back
            self._tensor("rate").copy_(master)
            self._lr.copy_(master)
        for name, value in merged.items():
            old = self._settings[name]
            if isinstance(old, Tensor) and old.ndim:
                old.copy_(value)  # a captured graph that sets it again must find it here
            else:
                self._settings[name] = value
        if rate is not None:
            rate, groups = self._per_group(rate), self._per_group(chosen.mask)
            self._set("rate", groups, rate)
            self._set("published", groups, rate.float())
        if merged:
            self._bind()
        self._refresh()

    def append(self, k: int, lr: Any, **settings: Any) -> None:
        """Add ``k`` lanes at the end, built as by the constructor with ``lr`` and ``settings``.

        Settings that are not given are those of the lanes there are, if these are uniform, else
        the constructor's; ``groups``, one each. Every tensor is replaced, ``lr`` too. Synchronises.

        Raises as the constructor does, KeyError for another argument, and ValueError for a setting
        that is None in some lanes only, or a longer window than the longest so far; with nothing
        changed.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise ValueError(f"k: expected an integer of 0 or more, got {k!r}")
        unknown = set(settings) - {"groups", *SETTINGS}
        if unknown:
            raise KeyError(f"append: expected settings or groups, got {sorted(unknown)}")
        for name, value in self._settings.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                settings.setdefault(name, value)
        if self._groups is not None:
            settings.setdefault("groups", [1] * k)
        build: Any = type(self)
        self._join(build(k, lr, device=self.device, dtype=self.dtype, **settings))

    def remove(self, lanes: Which) -> None:
        """Take lanes out; the others move up. Every tensor is replaced, ``lr`` too. Synchronises.

        Recorded events keep the numbers that lanes had. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        mask = self._chosen("lanes", lanes).mask
        keep = (~mask).nonzero().flatten()
        groups = (~self._per_group(mask)).nonzero().flatten()
        self._select(keep, groups)

    # -- which lanes ------------------------------------------------------------------------------

    def _numbers(self, name: str, lanes: Any) -> Tensor:
        """Lane numbers as an int64 tensor on the lanes' device."""
        given = [lanes] if isinstance(lanes, int) and not isinstance(lanes, bool) else lanes
        if isinstance(given, (list, tuple, range)):
            if not all(isinstance(each, int) and not isinstance(each, bool) for each in given):
                raise TypeError(f"{name}: expected lane numbers, got {kind_of(lanes)} of others")
            _check_numbers(name, given, len(self))
            here = torch.tensor(given, dtype=torch.int64, device="cpu")
            return here.to(self.device, non_blocking=True)
        if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
            got = given.dtype if isinstance(given, Tensor) else kind_of(given)
            raise TypeError(f"{name}: expected lane numbers, got {got}")
        if given.dtype == torch.bool or given.ndim > 1:
            raise ValueError(
                f"{name}: expected lane numbers, shape (k,), got {given.dtype} {tuple(given.shape)}"
            )
        check_readable(given, name)
        if given.device != self.device:
            raise ValueError(f"{name}: expected device {self.device}, got {given.device}")
        numbers = given.detach().as_subclass(Tensor).reshape(-1)
        if given.is_cpu:
            _check_numbers(name, numbers.tolist(), len(self))
        return numbers.long()

    def _chosen(self, name: str, lanes: Any) -> Chosen:
        is_mask = isinstance(lanes, Tensor) and lanes.dtype == torch.bool
        if isinstance(lanes, (list, tuple)) and lanes:
            is_mask = all(isinstance(each, bool) for each in lanes)
        if is_mask:
            return Chosen(mask_of(name, lanes, len(self), self.device), len(self), None)
        return self._last_of(self._numbers(name, lanes))

    def _last_of(self, numbers: Tensor) -> Chosen:
        """What lane numbers choose; of a number that comes twice the last place counts."""
        order = torch.arange(len(numbers), device=self.device)
        last = torch.full((len(self),), -1, dtype=torch.int64, device=self.device)
        last.scatter_reduce_(0, numbers, order, "amax")
        return Chosen(last >= 0, len(numbers), last)

    # -- values -----------------------------------------------------------------------------------

    def _change(self, name: str, value: Any, chosen: Chosen) -> Tensor:
        """A value to set, checked: on the lanes' device, 0-d or one per lane."""
        if name != "lr" and self._settings[name] is None:
            raise ValueError(
                f"{name}: expected lanes that were built with it, got None in the others"
            )
        if isinstance(value, Tensor) and not value.is_cpu:
            return chosen.spread(self._unchecked(name, value, chosen.size))
        check = setting if name == "lr" else partial(checked_setting, offsets=None)
        checked: Any = check(name, value, chosen.size)
        if checked is None:
            raise TypeError(f"{name}: expected a number for these lanes, got None")
        if isinstance(checked, str):
            checked = codes_of(name, [checked])[0]
        if name == "window" and "recent" in self._parts and checked.numel():
            longest, new = self._longest_window(), int(checked.max())
            if new > longest:
                raise ValueError(_LONGER.format(longest, new))
        return chosen.spread(placed(checked, self.device))

    def _unchecked(self, name: str, value: Tensor, size: int) -> Tensor:
        """A value to set that is on a GPU: only what is known without waiting is checked."""
        check_readable(value, name)
        if value.device != self.device or value.shape not in ((), (size,)):
            raise ValueError(
                f"{name}: expected one number or shape ({size},) on {self.device}, got shape "
                f"{tuple(value.shape)} on {value.device}"
            )
        wrong = value.dtype != torch.uint8 if name in CHOICES else value.dtype == torch.bool
        if wrong or value.is_complex():
            wanted = "uint8 codes" if name in CHOICES else "numbers"
            raise TypeError(f"{name}: expected {wanted}, got {value.dtype}")
        old = self._tensor("rate") if name == "lr" else self._settings[name]
        return value.detach() if isinstance(old, str) else value.detach().to(old.dtype)

    def _merged(self, name: str, mask: Tensor, value: Tensor) -> Tensor:
        """A setting with the change in it, one per lane (``min_lr``: per group)."""
        old = self._settings[name]
        if isinstance(old, str):
            old = codes_of(name, [old])[0]
        if name == "min_lr":
            mask, value = self._per_group(mask), self._per_group(value)
        return torch.where(mask, value, placed(old, self.device))

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
        in_lanes = [self._tensor(name) for name in _LANE_STATE]
        in_lanes += [self._parts[name] for name in LANE_PARTS if name in self._parts]
        in_groups = [self._tensor(name) for name in _GROUP_STATE]
        for settings in (self._settings, self._in_core):
            for name, value in settings.items():
                if isinstance(value, Tensor) and value.ndim:
                    (in_groups if name == "min_lr" else in_lanes).append(value)
        for tensor in in_lanes:
            tensor.copy_(tensor[origin])
        for tensor in in_groups:
            tensor.copy_(tensor[groups])
        if "recent" in self._parts:
            recent = self._parts["recent"].view(-1, len(self))
            recent.copy_(recent[:, origin])

    def _select(self, keep: Tensor, groups: Tensor) -> None:
        """In new tensors: only these lanes and groups."""
        n = len(self)
        for name in _LANE_STATE:
            self._state[name] = self._tensor(name)[keep]
        for name in _GROUP_STATE:
            self._state[name] = self._tensor(name)[groups]
        for name in LANE_PARTS:
            if name in self._parts:
                self._parts[name] = self._parts[name][keep]
        if "recent" in self._parts:
            rows = len(self._parts["recent"]) // max(n, 1)
            self._parts["recent"] = self._parts["recent"].view(rows, n)[:, keep].flatten()
        for name, value in self._settings.items():
            if isinstance(value, Tensor) and value.ndim:
                self._settings[name] = value[groups if name == "min_lr" else keep]
        if self._groups is not None:
            self._regroup([self._groups[lane] for lane in keep.tolist()])
        self._rebuilt()

    def _join(self, added: PlateauLanes) -> None:
        """In new tensors: these lanes, and then the others."""
        n, k = len(self), len(added)
        settings = {}
        for name, old in self._settings.items():
            sizes = (len(self._lr), len(added._lr)) if name == "min_lr" else (n, k)
            new = added._settings[name]
            settings[name] = _joined(name, old, new, sizes, self.device)
        longest, new_longest = self._longest_window(), added._longest_window()
        if new_longest > longest > 1:  # of a ring, rows cannot be added at the end
            raise ValueError(_LONGER.format(longest, new_longest))
        parts = dict(self._parts)
        for name, (dtype, first) in LANE_PARTS.items():
            if name in self._parts or name in added._parts:
                begun = torch.full((n + k,), first, dtype=dtype, device=self.device)
                old, new = self._parts.get(name, begun[:n]), added._parts.get(name, begun[n:])
                parts[name] = torch.cat([old, new])
        rows = max(longest, new_longest)
        if rows > 1:
            recent = torch.zeros(rows, n + k, dtype=torch.float64, device=self.device)
            if "recent" in self._parts:
                recent[:, :n] = self._parts["recent"].view(rows, n)
            parts["recent"] = recent.flatten()
        counts = [*(self._groups or [1] * n), *(added._groups or [1] * k)]
        regroup = self._groups is not None or added._groups is not None
        for name in (*_LANE_STATE, *_GROUP_STATE):
            self._state[name] = torch.cat([self._tensor(name), added._tensor(name)])
        if regroup:
            self._regroup(counts)
        self._settings, self._parts = settings, parts
        self._rebuilt()
        self._refresh()

    def _regroup(self, counts: list[int]) -> None:
        offsets = offsets_of(len(counts), counts)
        self._groups = counts
        self._state["offsets"] = None if offsets is None else offsets.to(self.device)

    def _rebuilt(self) -> None:
        """Bind tensors of another size, and events so many that those of one step have room."""
        if "events_written" in self._parts:
            size = max(self._capacity, len(self._tensor("rate")))
            written, old_size = int(self._parts["events_written"]), len(self._parts["events_lane"])
            first = max(written - min(size, old_size), int(self._parts["events_first"]))
            order = torch.arange(first, written, device=self.device)
            for name in EVENTS:
                old = self._parts[name]
                self._parts[name] = old.new_zeros(size)
                self._parts[name][order % size] = old[order % old_size]
            self._parts["events_first"].fill_(first)
        self._in_core = {}
        self._bind()


def _check_numbers(name: str, numbers: Sequence[int], n: int) -> None:
    for number in numbers:
        if not 0 <= number < n:
            lanes = f"lanes from 0 to {n - 1}" if n else "none, there are no lanes"
            raise IndexError(f"{name}: expected {lanes}, got {number}")


def _joined(name: str, old: Any, new: Any, sizes: tuple[int, int], device: torch.device) -> Any:
    """A setting of two batches of lanes: as it is if both have the same, else one per lane."""
    if 0 in sizes:
        return old if sizes[1] == 0 else new
    scalars = not any(isinstance(each, Tensor) and each.ndim for each in (old, new))
    if scalars and type(old) is type(new) and old == new:
        return old
    if old is None or new is None:
        raise ValueError(f"{name}: expected it for all lanes or for none, got None for some")
    columns = []
    for value, size in zip((old, new), sizes, strict=True):
        tensor = codes_of(name, [value])[0] if isinstance(value, str) else value
        columns.append(placed(tensor, device).expand(size))
    return torch.cat(columns)
