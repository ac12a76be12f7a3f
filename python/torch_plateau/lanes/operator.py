"""The step as an operator of torch, for compiled functions: ``torch.ops.torch_plateau.step_``.

Eager code does not come this way. ``torch.compile`` cannot look into the core, so while it traces,
:meth:`PlateauLanes.step` calls this instead; it says which tensors a step writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _core
from .inputs import readable
from .table import SETTINGS

__all__ = ["step_"]


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
    tensors = dict(zip(names.split(), state, strict=True))
    if offsets is not None:
        tensors["offsets"] = offsets
    settings = {
        name: one if many is None else many
        for name, one, many in zip(SETTINGS, uniform, each, strict=True)
    }
    lanes = _core.Lanes(None)
    lanes.connect(tensors, settings, parts)

    def advance(metrics: Tensor) -> bool:
        done = lanes.step(metrics) if active is None else lanes.step_masked(metrics, active)
        return done >= 0

    best = tensors["best"]
    if not advance(metrics) and not advance(readable(metrics, len(best), best.dtype, best.device)):
        raise RuntimeError("torch_plateau::step_: cannot read these metrics; report a bug")


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


step_ = torch.library.custom_op("torch_plateau::step_", step, mutates_args=("state",))
step_.register_fake(check_step)
