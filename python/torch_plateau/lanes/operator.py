"""The step as an operator of torch, for compiled functions: ``torch.ops.torch_plateau.step_``.

Eager code does not come this way. ``torch.compile`` cannot look into the core, so while it traces,
:meth:`PlateauLanes.step` calls this instead; it says which tensors a step writes. Compiled code
brings the tensors of the lanes themselves, or copies of them; the former are stepped by the core's
object that the lanes have, and only for copies one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from .. import _core
from .inputs import readable
from .table import SETTINGS

__all__ = ["Connection", "step_"]


class Connection:
    """What a core's object of some lanes is connected to, as the operator is given it.

    Found by its tensors for as long as somebody, the lanes, keeps it.
    """

    def __init__(
        self,
        core: _core.Lanes,
        state: list[Tensor],
        offsets: Tensor | None,
        uniform: list[float],
        each: list[Tensor | None],
        parts: bool,
    ) -> None:
        self.core = core
        self._tensors = [*state, offsets, *each]
        self._numbers = [*uniform, parts]
        _CONNECTIONS[id(state[0])] = self

    def has(
        self,
        state: Sequence[Tensor],
        offsets: Tensor | None,
        uniform: Sequence[float],
        each: Sequence[Tensor | None],
        parts: bool,
    ) -> bool:
        """Return whether it is connected to these very tensors, with these settings."""
        tensors = [*state, offsets, *each]
        return (
            len(tensors) == len(self._tensors)
            and all(a is b for a, b in zip(tensors, self._tensors, strict=True))
            and self._numbers == [*uniform, parts]
        )


_CONNECTIONS: WeakValueDictionary[int, Connection] = WeakValueDictionary()


def step(
    metrics: Tensor,
    active: Tensor | None,
    state: Sequence[Tensor],
    names: str,
    offsets: Tensor | None,
    uniform: Sequence[float],
    each: Sequence[Tensor | None],
    parts: bool,
) -> None:
    """Advance lanes by one metric, as :meth:`PlateauLanes.step` does, over its tensors.

    ``names`` are those of the fields in ``state``, with spaces between them. ``uniform`` and
    ``each`` hold the settings in the order of their table: one value for all lanes, or, where
    ``each`` is a tensor, one per lane.
    """
    known = _CONNECTIONS.get(id(state[0]))
    fits = known is not None and known.has(state, offsets, uniform, each, parts)
    if known is not None and fits and _advance(known.core, metrics, active) >= 0:
        return
    lanes = _core.Lanes(torch.autograd.graph.increment_version)
    lanes.watch_best()  # nobody knows here who has it
    tensors = dict(zip(names.split(), state, strict=True))
    settings = {
        name: one if many is None else many
        for name, one, many in zip(SETTINGS, uniform, each, strict=True)
    }
    lanes.connect(tensors if offsets is None else {**tensors, "offsets": offsets}, settings, parts)
    if _advance(lanes, metrics, active) >= 0:
        return
    best = tensors["best"]
    if _advance(lanes, readable(metrics, len(best), best.dtype, best.device), active) < 0:
        raise RuntimeError("torch_plateau::step_: cannot read these metrics; report a bug")


def _advance(lanes: _core.Lanes, metrics: Tensor, active: Tensor | None) -> int:
    return lanes.step(metrics) if active is None else lanes.step_masked(metrics, active)


def check_step(
    metrics: Tensor,
    active: Tensor | None,
    state: Sequence[Tensor],
    names: str,
    *settings: object,
) -> None:
    """Check shapes, all there is while a function is traced."""
    n = len(dict(zip(names.split(), state, strict=True))["best"])
    if metrics.shape != (n,) and not (n == 1 and metrics.ndim == 0):
        raise ValueError(f"metrics: expected shape ({n},), got {tuple(metrics.shape)}")


# torch.library.custom_op would do the same, at several times the cost of a call: it counts writes
# and looks for gradients in Python. The core counts the writes, and nothing here has a gradient.
_NAME = "torch_plateau::step_"
torch.library.define(
    _NAME,
    torch.library.infer_schema(step, mutates_args=("state",)),
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl(_NAME, "CompositeExplicitAutograd", step)
torch.library.register_fake(_NAME, check_step)
step_: Any = torch.ops.torch_plateau.step_.default
