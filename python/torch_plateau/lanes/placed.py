"""Lanes in a place of their own: what the core points at, and how that is replaced all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _core
from .memory import Handed, handed, placed_well
from .operator import Connection, found_by
from .state import LaneState
from .writes import Write

__all__ = ["INCREMENT_VERSION", "Move", "Placed"]

# torch's own, without the checks of what it is given: a cut of one lane takes as long as these.
INCREMENT_VERSION = getattr(torch._C, "_increment_version", torch.autograd.graph.increment_version)

# What becomes of a state: another one, or writes into the tensors that it has.
Move = Callable[[LaneState], LaneState | list[Write]]


class Placed:
    """A state of lanes, the core's object that points at it, and what else follows from it."""

    _state: LaneState
    _handed: dict[str, Handed]
    _lr: Tensor
    _names: str
    _uniform: list[float]
    _each: list[Tensor | None]
    _has_parts: bool
    _connection: Connection

    @property
    def _turn(self) -> _core.Lanes:
        return self._core

    def _place(self, state: LaneState) -> None:
        """Begin with a state."""
        self._core = _core.Lanes(INCREMENT_VERSION, torch.get_num_threads)
        self._advance = self._core.step
        self._become(state)

    def _change(
        self,
        make: Move,
        in_place: bool = True,
        also: Callable[[], list[Write]] | None = None,
    ) -> None:
        """Become what ``make`` makes of the state, all at once, while no other thread steps.

        ``also`` is asked after that for what others have to write, which is then part of it.
        """
        with self._core, torch.no_grad():
            self._take_moved()
            made = make(self._state)
            writes = [] if also is None else also()
            if isinstance(made, LaneState):
                self._become(made, in_place, writes)
            else:
                _core.call_each([*made, *writes])

    def _become(self, new: LaneState, in_place: bool = True, also: Sequence[Write] = ()) -> None:
        """Put ``new`` in place of the state, and do what else is to be written, all at once.

        With ``in_place`` tensors of the same kind keep their memory, which optimizers and captured
        graphs read, and take the new values.
        """
        old: LaneState | None = getattr(self, "_state", None)
        targets: list[Tensor] = []
        values: list[Tensor] = []

        def kept(before: Any, after: Any) -> Any:
            if after is before or not in_place or not _alike(before, after):
                return after
            targets.append(before)
            values.append(after)
            return before

        old_fields = {} if old is None else old.fields
        fields = {name: kept(old_fields.get(name), each) for name, each in new.fields.items()}
        settings = new.settings
        if old is not None and settings is not old.settings:
            settings = {name: kept(old.settings[name], each) for name, each in settings.items()}
            if _same(old.settings, settings):
                settings = old.settings
        copies = [partial(torch._foreach_copy_, targets, values)] if targets else []
        stays = old is not None and old.groups == new.groups and old.settings is settings
        if stays and _same(old_fields, fields):
            _core.call_each([*copies, *also])
            return
        out = {} if old is None else dict(self._handed)
        for name, field in fields.items():
            if field is old_fields.get(name):
                continue
            if name in ("published", "best"):
                out[name] = handed(field)
                fields[name] = out[name].tensor
            else:
                fields[name] = placed_well(field)
        state = LaneState(fields, settings, new.groups, new.offsets, new.capacity)
        self._connect(state, out, [*copies, *also])

    def _connect(
        self, state: LaneState, out: dict[str, Handed], writes: Sequence[Write] = ()
    ) -> None:
        tensors = dict(state.fields)
        if state.offsets is not None:
            tensors["offsets"] = state.offsets
        uniform = [0.0 if isinstance(v, Tensor) else v for v in state.settings.values()]
        each = [v if isinstance(v, Tensor) else None for v in state.settings.values()]
        fields = list(state.fields.values())
        found_by(fields[0], self)
        names = {
            "_state": state,
            "_handed": out,
            "_lr": state.fields["published"],
            "_names": " ".join(state.fields),
            "_uniform": uniform,
            "_each": each,
            "_has_parts": state.has_parts,
            "_connection": Connection(
                self._core, [*fields, state.offsets, *each], [*uniform, state.has_parts]
            ),
        }
        # by position: where there is no memory to compare a keyword, pybind11 ends the process
        kept = [each.kept() for each in out.values()]
        self._core.connect(
            tensors, state.settings, state.has_parts, kept, list(writes), self, names
        )

    def _take_moved(self) -> None:
        """Go on in the memory to which ``lr`` or ``best`` were moved, if they were.

        Raises RuntimeError if they are not what they were.
        """
        if not self._core.has_moved():
            return
        for name, label in (("published", "lr"), ("best", "best")):
            self._handed[name].check(label)
        # new ones, so that who remembers one sees that its memory is another
        out = {name: Handed(each.tensor, each.memory) for name, each in self._handed.items()}
        self._connect(self._state, out)


def _alike(before: Any, after: Any) -> bool:
    return (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and (before.shape, before.dtype, before.device) == (after.shape, after.dtype, after.device)
    )


def _same(one: Mapping[str, float | Tensor], other: Mapping[str, float | Tensor]) -> bool:
    """Return whether these are the very tensors, and the same numbers."""
    return one.keys() == other.keys() and all(
        each is other[name] or (type(each) is type(other[name]) is float and each == other[name])
        for name, each in one.items()
    )
