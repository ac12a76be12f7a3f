"""How the state of lanes is saved, loaded, moved and copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ._checks import (
    brief,
    check_device,
    check_dtype,
    check_filters,
    check_held,
    check_keys,
    checked_settings,
    loaded_field,
    loaded_flags,
    loaded_part,
    offsets_of,
)
from ._outputs import _IMPROVED, _REDUCED, LaneOutputs
from ._parts import EVENT_COUNTS, EVENTS, new_parts
from ._resolve import uses_options
from ._settings import setting

__all__ = ["LaneSaving"]

_STATE_KEYS = (
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "improved",
    "reduced",
    "num_reductions",
    "num_steps",
    "lr",
    "start_lr",
    "groups",
    "settings",
    "options",
)
_Lanes = TypeVar("_Lanes", bound="LaneSaving")


class LaneSaving(LaneOutputs):
    """Saving, loading and moving of ``PlateauLanes``."""

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot: tensors (clones) and primitives only, safe for ``weights_only=True``.

        Keys: ``best``, ``num_bad_epochs``, ``cooldown_counter``, ``improved``, ``reduced``,
        ``num_reductions``, ``num_steps``, ``lr`` and ``start_lr`` (float64, one per group),
        ``groups`` (rates per lane, or None for one each), ``settings`` (words per lane as codes)
        and ``options``, the state of optional parts. Does not synchronise: tensors stay on their
        device.
        """
        settings = {
            name: value.clone() if isinstance(value, Tensor) and value.ndim else value
            for name, value in self._settings.items()
        }
        for name, value in settings.items():
            if isinstance(value, Tensor) and value.ndim == 0:  # these are on the CPU
                settings[name] = value.item()
        return {
            "best": self.best.clone(),
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "improved": self.improved,
            "reduced": self.reduced,
            "num_reductions": self.num_reductions.clone(),
            "num_steps": self.num_steps.clone(),
            "lr": self.lr_master,
            "start_lr": self._tensor("start_rate").clone(),
            "groups": self.groups,
            "settings": settings,
            "options": {name: tensor.clone() for name, tensor in self._parts.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot in place: ``lr``, ``best`` and the rest keep their identity.

        The snapshot's hyper-parameters replace these lanes' own, as torch's schedulers do. Tensors
        may lie on any device (this synchronises then). How many events are recorded stays; those
        of the snapshot are taken over if it recorded as many.

        Raises KeyError, TypeError or ValueError, with nothing changed, for a snapshot of another
        number of lanes or groups, missing or unknown keys, settings out of range, or a ``best``
        that float32 lanes cannot hold exactly.
        """
        check_keys("state_dict", state_dict, _STATE_KEYS)
        n, groups = len(self), self.groups
        if state_dict["groups"] != groups:
            raise ValueError(
                f"state_dict['groups']: expected {brief(groups)}, got {brief(state_dict['groups'])}"
            )
        check_keys("state_dict['settings']", state_dict["settings"], self._settings)
        offsets = offsets_of(n, groups)
        settings = checked_settings(n, offsets, state_dict["settings"], self.dtype)
        bad = loaded_field(state_dict, "num_bad_epochs", n)
        cooling = loaded_field(state_dict, "cooldown_counter", n)
        improved = loaded_flags(state_dict, "improved", n)
        reduced = loaded_flags(state_dict, "reduced", n)
        num_steps = setting("num_steps", state_dict["num_steps"], label="state_dict['num_steps']")
        loaded = {
            "best": loaded_field(state_dict, "best", n),
            "clock": torch.where(cooling > 0, -cooling, bad),
            "outcome": improved * _IMPROVED + reduced * _REDUCED,
            "num_reductions": loaded_field(state_dict, "num_reductions", n),
            "num_steps": num_steps.view(1),
            "rate": loaded_field(state_dict, "lr", len(self._lr)),
            "start_rate": loaded_field(state_dict, "start_lr", len(self._lr)),
        }
        loaded["published"] = loaded["rate"].float()
        check_held(loaded["best"], self.dtype)
        parts = self._loaded_parts(state_dict["options"], settings)
        for name, value in loaded.items():
            self._tensor(name).copy_(value)
        self._settings = settings
        self._parts = {
            name: self._parts[name].copy_(value)
            if name in self._parts and self._parts[name].shape == value.shape
            else value.to(self.device)
            for name, value in parts.items()
        }
        self._bind()
        self._refresh()

    def _loaded_parts(self, given: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
        """Check the state of optional parts, on the CPU."""
        label = "state_dict['options']"
        if not isinstance(given, Mapping):
            check_keys(label, given, ())
        if not given and not uses_options(settings) and not self._capacity:
            return {}
        n, count = len(self), len(self._lr)
        longest = int(settings["window"].max()) if settings["window"].numel() else 1
        if isinstance(recent := given.get("recent"), Tensor):  # windows may have been longer once
            longest = max(longest, recent.numel() // max(n, 1))
        fresh = new_parts(settings, n, count, self._capacity, longest, torch.device("cpu"))
        recorded = [name for name in given if name.startswith("events_")]
        of_events = [*EVENTS, *EVENT_COUNTS]
        expected = [name for name in fresh if name not in of_events]
        if given or uses_options(settings):
            check_keys(label, {name: 0 for name in given if name not in of_events}, expected)
            for name in expected:
                fresh[name] = loaded_part(given, name, fresh[name])
        if self._capacity and set(recorded) == set(of_events):
            same = given["events_lane"].shape == fresh["events_lane"].shape
            for name in of_events if same else []:
                fresh[name] = loaded_part(given, name, fresh[name])
        return fresh

    def to(
        self: _Lanes, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> _Lanes:
        """Move the lanes, or change what ``best`` is kept in, and return ``self``.

        With ``dtype`` only ``best`` is replaced; on another device every tensor is, ``lr`` too.
        Raises RuntimeError for a device that cannot be used and ValueError, with nothing changed,
        for a ``best`` that float32 cannot hold exactly. Synchronises.
        """
        device = self.device if device is None else check_device(device)
        dtype = self.dtype if dtype is None else dtype
        check_dtype(dtype)
        if dtype != self.dtype:
            check_filters(self._settings, dtype)
            check_held(self.best, dtype)
        moved = {name: None if t is None else t.to(device) for name, t in self._state.items()}
        moved["best"] = self.best.to(device, dtype)
        self._state = moved
        self._parts = {name: tensor.to(device) for name, tensor in self._parts.items()}
        self._bind()
        return self

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_state", "_parts", "_settings", "_groups", "_capacity", "_on_reduce")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__dict__.update(pickled)
        self._in_core = {}
        self._bind()
