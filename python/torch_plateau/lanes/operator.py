"""The step as an operator of torch, for compiled functions: ``torch.ops.torch_plateau.step_``.

Eager code does not come this way. ``torch.compile`` cannot look into the core, so while it traces,
:meth:`PlateauLanes.step` calls this instead; it says which tensors a step writes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _core
from .inputs import readable

__all__ = ["SETTINGS", "step_"]

SETTINGS = (
    "gate_scale",
    "gate_shift",
    "maximize",
    "patience",
    "cooldown",
    "factor",
    "eps",
    "min_lr",
)


@torch.library.custom_op(
    "torch_plateau::step_",
    mutates_args=(
        "best",
        "clock",
        "outcome",
        "num_reductions",
        "num_steps",
        "rate",
        "published",
    ),
)
def step_(
    metrics: Tensor,
    best: Tensor,
    clock: Tensor,
    outcome: Tensor,
    num_reductions: Tensor,
    num_steps: Tensor,
    rate: Tensor,
    published: Tensor,
    offsets: Tensor | None,
    uniform: list[float],
    each: list[Tensor | None],
) -> None:
    """Advance lanes by one metric, as :meth:`PlateauLanes.step` does, over its tensors.

    ``uniform`` and ``each`` hold the settings in the order of ``SETTINGS``: one value for all
    lanes, or, where ``each`` is a tensor, one per lane.
    """
    state = {
        "best": best,
        "clock": clock,
        "outcome": outcome,
        "num_reductions": num_reductions,
        "num_steps": num_steps,
        "rate": rate,
        "published": published,
        "offsets": offsets,
    }
    settings = {
        name: one if many is None else many
        for name, one, many in zip(SETTINGS, uniform, each, strict=True)
    }
    lanes = _core.Lanes(state, settings)
    if lanes.step(metrics) < 0:
        lanes.step(readable(metrics, len(best), best.dtype, best.device))


@step_.register_fake
def _(
    metrics: Tensor,
    best: Tensor,
    clock: Tensor,
    outcome: Tensor,
    num_reductions: Tensor,
    num_steps: Tensor,
    rate: Tensor,
    published: Tensor,
    offsets: Tensor | None,
    uniform: list[float],
    each: list[Tensor | None],
) -> None:
    n = len(best)
    if metrics.shape != (n,) and not (n == 1 and metrics.ndim == 0):
        raise ValueError(f"metrics: expected shape ({n},), got {tuple(metrics.shape)}")
