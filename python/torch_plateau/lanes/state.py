"""Lanes as tensors: their settings and what they remember, and how both are moved about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from .. import _core
from .memory import vector
from .settings import BAND, Settings, check_averages, joined, offsets_of, placed, uses_parts
from .table import BITS, SETTINGS, STATE, Row

__all__ = ["AT_MIN", "FINISHED", "IMPROVED", "LONGER", "RAISED", "REDUCED", "LaneState"]

IMPROVED, REDUCED, RAISED = BITS["improved"], BITS["reduced"], BITS["raised"]  # of the outcome
FINISHED, AT_MIN = BITS["finished"], BITS["at_min"]  # of the flags
LONGER = "window: expected at most {}, the longest so far, got {}"


class LaneState:
    """The state and the settings of some lanes, in tensors on one device.

    Nothing here writes into a tensor: whatever changes lanes returns others, in which what did not
    change is the same tensor as before. So a refused or interrupted change leaves nothing behind.

    Attributes:
        fields: By the names of the table of state, those that these lanes need or once needed.
        settings: By the names of the table of settings, on the same device.
        groups: How many rates each lane owns; None for one each.
        offsets: Where each lane's groups begin, int64 ``(n + 1,)``; None for one each.
        capacity: How many events were asked for.
    """

    def __init__(
        self,
        fields: dict[str, Tensor],
        settings: Settings,
        groups: list[int] | None,
        offsets: Tensor | None,
        capacity: int,
    ) -> None:
        self.fields = fields
        self.settings = settings
        self.groups = groups
        self.offsets = offsets
        self.capacity = capacity

    @classmethod
    def begin(
        cls,
        n: int,
        rate: Tensor,
        settings: Settings,
        offsets: Tensor | None,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> LaneState:
        """Return ``n`` lanes that have not been stepped; ``rate`` is float64, one per group."""
        start = {
            "best": torch.empty(n, dtype=dtype, device=device),  # until its settings are known
            "clock": vector(n, torch.int32, device).zero_(),  # tells how many lanes
            "start_rate": vector(len(rate), rate.dtype, device).copy_(rate),
            "rate": vector(len(rate), rate.dtype, device).copy_(rate),
            "published": rate.to(device).float(),
        }
        groups = None if offsets is None else offsets.diff().tolist()
        here = None if offsets is None else offsets.to(device)
        settings = {name: _on(value, device) for name, value in settings.items()}
        state = cls(start, settings, groups, here, capacity).complete()
        best, worst = vector(n, dtype, device), state.worst()
        best = best.copy_(worst) if isinstance(worst, Tensor) else best.fill_(worst)
        return state.replaced({"best": best}).settled()

    def replaced(
        self, fields: Mapping[str, Tensor], settings: Mapping[str, float | Tensor] | None = None
    ) -> LaneState:
        """Return the same lanes with some fields and settings in place of their own."""
        all_settings = {**self.settings, **settings} if settings else self.settings
        all_fields = {**self.fields, **fields}
        new = LaneState(all_fields, all_settings, self.groups, self.offsets, self.capacity)
        if not settings and "has_parts" in self.__dict__:
            new.has_parts = self.has_parts
        return new

    # -- sizes ------------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """How many lanes."""
        return self.fields["clock"].numel()

    @property
    def num_groups(self) -> int:
        """How many rates."""
        return self.fields["rate"].numel()

    @property
    def device(self) -> torch.device:
        """Where they live."""
        return self.fields["best"].device

    @property
    def dtype(self) -> torch.dtype:
        """What ``best`` is kept in."""
        return self.fields["best"].dtype

    @cached_property
    def has_parts(self) -> bool:
        """Whether whole steps are those of lanes with optional parts."""
        return self.capacity > 0 or uses_parts(self.settings)

    @property
    def window_rows(self) -> int:
        """How many values the longest window can hold; synchronises if nobody knows yet."""
        if "recent" in self.fields:
            return max(len(self.fields["recent"]) // max(self.n, 1), 1)
        window = self.settings["window"]
        if isinstance(window, Tensor):
            return int(window.max()) if len(window) else 1
        return int(window)

    def size_of(self, row: Row) -> int:
        """Return how many values a field or a setting per lane has here."""
        if row.of == "lane":
            return self.n
        if row.of == "group":
            return self.num_groups
        if row.of == "count":
            return max(-(-self.n // (_core.LANES_PER_COUNT if self.offsets is None else 1)), 1)
        if row.of == "window":
            return self.window_rows * self.n
        if row.of == "event":  # so that the cuts of one step never overwrite each other
            return max(self.capacity, self.num_groups) if self.capacity else 0
        return 1

    def needs(self, row: Row) -> bool:
        """Return whether lanes with these settings have this field."""
        if row.who == "always":
            return True
        if row.who == "events":
            return self.capacity > 0
        return self.has_parts and (
            row.who == "parts" or SETTINGS[row.who].needs_part(self.settings[row.who])
        )

    def fresh(self, row: Row) -> Tensor:
        """Return a field as it begins."""
        dtype = row.dtype or self.dtype
        return vector(self.size_of(row), dtype, self.device).fill_(row.first)

    def complete(self) -> LaneState:
        """Return the lanes with the fields that they need and do not have yet."""
        missing = [row for name, row in STATE.items() if name not in self.fields]
        fresh = {row.name: self.fresh(row) for row in missing if self.needs(row)}
        return self.replaced(fresh) if fresh else self

    def compared(self) -> dict[str, Tensor]:
        """Return, by name, what lanes are: equal bits in all of it are equal decisions."""
        fields = {k: each for k, each in self.fields.items() if STATE[k].who != "events"}
        return fields | {
            name: self.setting(name).expand(self.size_of(row)) for name, row in SETTINGS.items()
        }

    def place(self, name: str, index: int) -> str:
        """Return in words what an element of a field or a setting is."""
        row = STATE.get(name) or SETTINGS[name]
        if row.of == "window":
            index %= max(self.n, 1)
        elif row.of == "group" and self.offsets is not None:
            index = int((self.offsets[1:] <= index).sum())
        elif row.of not in ("lane", "group"):
            return name
        return f"{name} of lane {index}"

    # -- what follows from the fields -------------------------------------------------------------

    def per_group(self, per_lane: Tensor) -> Tensor:
        """Repeat a value per lane for each of the lane's groups."""
        if self.offsets is None or per_lane.ndim == 0:
            return per_lane
        return per_lane.repeat_interleave(self.offsets.diff(), output_size=self.num_groups)

    def setting(self, name: str) -> Tensor:
        """Return a setting as a tensor, 0-d where it is one number."""
        return placed(SETTINGS[name], self.settings[name], self.device)

    def age(self) -> Tensor:
        """Return the steps that each lane took, int64."""
        return self.fields["num_steps"][0] - self.fields["born"]

    def worst(self) -> float | Tensor:
        """Return what ``best`` begins with, one for all lanes where they have the same mode."""
        mode, maximize = self.settings["mode"], SETTINGS["mode"].words.index("max")
        if isinstance(mode, Tensor):
            return torch.where(mode == maximize, -math.inf, math.inf).to(self.dtype)
        return -math.inf if mode == maximize else math.inf

    def warming(self) -> Tensor | None:
        """Return of each group whether a warm-up is on; None for lanes without one."""
        if not SETTINGS["warmup_steps"].needs_part(self.settings["warmup_steps"]):
            return None
        return self.per_group(self.age() < self.setting("warmup_steps"))

    def noise(self) -> Tensor | None:
        """Return of each group the noise on its published rate; None for lanes without any."""
        noise = self.fields.get("noise")
        return None if noise is None else self.per_group(noise)

    def master(self) -> Tensor:
        """Return the rates at full precision, without a warm-up or noise; what others wrote."""
        rate, published = self.fields["rate"], self.fields["published"]
        keep = rate.float() == published
        warming, noise = self.warming(), self.noise()
        if warming is not None:
            keep = keep | warming
        if noise is not None:
            keep = keep | (noise != 0.0)
        return torch.where(keep, rate, published.double())

    def at_min(self) -> Tensor:
        """Return whether no rate of a lane can be lowered, by its floor or ``eps``."""
        rate = self.master()
        factor, eps, growth = (
            self.per_group(self.setting(name)) for name in ("factor", "eps", "growth")
        )
        in_band = self.settings["rule"] == BAND
        scaled = rate / growth if in_band else rate * factor
        lowered = torch.maximum(scaled, self.setting("min_lr"))
        room = lowered < rate
        if not in_band:
            room &= rate - lowered > eps
        if self.offsets is None:
            return ~room
        counted = torch.nn.functional.pad(room.long().cumsum(0), (1, 0))
        return counted[self.offsets[1:]] == counted[self.offsets[:-1]]

    @property
    def settles(self) -> bool:
        """Whether anything follows from rates that :meth:`settled` has to bring up to date."""
        warms = SETTINGS["warmup_steps"].needs_part(self.settings["warmup_steps"])
        return warms or "noise" in self.fields or "at_min_steps" in self.fields

    def settled(self) -> LaneState:
        """Return the lanes with rates published as they should be, and marked if at their floor.

        For when rates were set; a step does all this by itself.
        """
        if not self.settles:
            return self
        changed = {}
        warming = self.warming()
        if warming is not None:
            steps, start = self.setting("warmup_steps"), self.setting("warmup_start_factor")
            factor = self.per_group(start + (1.0 - start) * (self.age().double() / steps))
            scaled = (self.fields["rate"] * factor).float()
            changed["published"] = torch.where(warming, scaled, self.fields["published"])
        noise = self.noise()
        if noise is not None:
            rate, published = (
                self.fields["rate"],
                changed.get("published", self.fields["published"]),
            )
            noisy = (rate + rate * noise).float()
            changed["published"] = torch.where(noise != 0.0, noisy, published)
        if "at_min_steps" in self.fields:
            flags = self.fields["flags"]
            changed["flags"] = torch.where(self.at_min(), flags | AT_MIN, flags & ~AT_MIN)
        return self.replaced(changed)

    # -- moves ------------------------------------------------------------------------------------

    def begun_anew(self, mask: Tensor) -> LaneState:
        """Return the lanes, of which those in ``mask`` are as they were built."""
        return self.where(mask, self.per_group(mask), self.first()).settled()

    def first(self) -> dict[str, float | Tensor]:
        """Return what the fields of lanes that begin now hold, those of groups one for each."""
        start, steps = self.fields["start_rate"], self.fields["num_steps"][0]
        new: dict[str, float | Tensor] = {
            name: STATE[name].first for name in self.fields if STATE[name].of == "lane"
        }
        new |= {"best": self.worst(), "born": steps, "last_cut": steps}
        return new | {"rate": start, "published": start.float()}

    def where(self, mask: Tensor, groups: Tensor, new: Mapping[str, float | Tensor]) -> LaneState:
        """Return the lanes with new values of some fields for lanes and groups in these masks."""
        fields = {}
        for name, values in new.items():
            which, old = mask if STATE[name].of == "lane" else groups, self.fields[name]
            if isinstance(values, Tensor):
                fields[name] = torch.where(which, values, old)
            else:
                fields[name] = old.masked_fill(which, values)
        return self.replaced(fields)

    def select(self, keep: Tensor) -> LaneState:
        """Return only the lanes in the mask ``keep``, in their order; synchronises."""
        groups = self.per_group(keep).nonzero().flatten()
        numbers = keep.nonzero().flatten()
        state = self._picked(numbers, groups)
        if self.groups is not None:
            state._regroup([self.groups[lane] for lane in numbers.tolist()])
        return state._resized()

    def regrouped(self, lanes: Tensor, groups: Tensor, counts: list[int] | None) -> LaneState:
        """Return the lanes of these numbers, which own so many each of these rates; synchronises.

        ``counts`` is None for one each.
        """
        state = self._picked(lanes, groups)
        state._regroup(counts)
        return state._resized()

    def join(self, added: LaneState) -> LaneState:
        """Return these lanes and then others; synchronises.

        Raises ValueError, as for a setting that is None for some only or for a longer window.
        """
        n, k = self.n, added.n
        settings = {}
        for name, row in SETTINGS.items():
            sizes = (self.num_groups, added.num_groups) if row.of == "group" else (n, k)
            both = self.settings[name], added.settings[name]
            settings[name] = joined(row, *both, sizes, self.device)
        check_averages(settings, self.dtype)
        longest, longest_added = self.window_rows, added.window_rows
        if longest_added > longest > 1:  # of a ring, rows cannot be added at the end
            raise ValueError(LONGER.format(longest, longest_added))
        fields = {}
        for name, row in STATE.items():
            if name not in self.fields and name not in added.fields:
                continue
            if row.of in ("lane", "group"):
                parts = (each.fields.get(name) for each in (self, added))
                old, new = (
                    each.fresh(row) if part is None else part
                    for each, part in zip((self, added), parts, strict=True)
                )
                fields[name] = torch.cat([old, new])
            elif row.of == "window":
                rows = max(longest, longest_added)
                recent = torch.zeros(rows, n + k, dtype=row.dtype, device=self.device)
                for each, columns in ((self, recent[:, :n]), (added, recent[:, n:])):
                    if name in each.fields and each.n:
                        kept = each.fields[name].view(-1, each.n)
                        columns[: len(kept)] = kept
                fields[name] = recent.flatten()
            elif name in self.fields:
                fields[name] = self.fields[name]
        born = self.fields["num_steps"][0] - added.age()
        fields["last_cut"][n:] = born + added.fields["last_cut"] - added.fields["born"]
        fields["born"][n:] = born
        state = LaneState(fields, settings, None, None, self.capacity)
        if self.groups is not None or added.groups is not None:
            state._regroup([*(self.groups or [1] * n), *(added.groups or [1] * k)])
        return state.complete()._resized().settled()

    def to(self, device: torch.device, dtype: torch.dtype) -> LaneState:
        """Return the lanes on another device, or with ``best`` in another type."""
        fields, settings = dict(self.fields), self.settings
        if device != self.device:
            fields = {name: each.to(device) for name, each in fields.items()}
            settings = {name: _on(value, device) for name, value in settings.items()}
        fields["best"] = fields["best"].to(dtype)
        offsets = None if self.offsets is None else self.offsets.to(device)
        return LaneState(fields, settings, self.groups, offsets, self.capacity)

    def _picked(self, lanes: Tensor, groups: Tensor) -> LaneState:
        """Return the lanes and groups of these numbers, each field of its size but for counts."""

        def picked(row: Row, tensor: Tensor) -> Tensor:
            if row.of == "window":
                return tensor.view(-1, max(self.n, 1)).index_select(1, lanes).flatten()
            return tensor.index_select(0, lanes if row.of == "lane" else groups)

        moved = ("lane", "group", "window")
        fields = {
            name: picked(STATE[name], each) if STATE[name].of in moved else each
            for name, each in self.fields.items()
        }
        settings = {
            name: picked(SETTINGS[name], value) if isinstance(value, Tensor) else value
            for name, value in self.settings.items()
        }
        return LaneState(fields, settings, self.groups, self.offsets, self.capacity)

    def _regroup(self, counts: list[int] | None) -> None:
        offsets = offsets_of(len(counts or ()), counts)
        self.groups = counts
        self.offsets = None if offsets is None else offsets.to(self.device)

    def _resized(self) -> LaneState:
        """Return the lanes, whose number has changed, with counts and events of the right size."""
        steps = self.fields["num_steps"]
        changed = {"num_steps": steps[:1].expand(self.size_of(STATE["num_steps"])).clone()}
        if "events_written" in self.fields:
            size, old_size = self.size_of(STATE["events_lane"]), len(self.fields["events_lane"])
            written, first = (int(self.fields[f"events_{name}"]) for name in ("written", "first"))
            first = max(written - min(size, old_size), first)
            order = torch.arange(first, written, device=self.device)
            for name, row in STATE.items():
                if row.of == "event":
                    changed[name] = self.fresh(row)
                    changed[name][order % size] = self.fields[name][order % old_size]
            changed["events_first"] = torch.full_like(self.fields["events_first"], first)
        return self.replaced(changed)


def _on(value: float | Tensor, device: torch.device) -> float | Tensor:
    return value.to(device) if isinstance(value, Tensor) else value
