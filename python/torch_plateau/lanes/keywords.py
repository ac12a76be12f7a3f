"""The settings of lanes as keywords: generated from csrc/plateau/settings.hpp by nox -s stubs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

__all__ = ["LaneSettings"]

Numbers = float | Sequence[float] | Tensor
Counts = int | Sequence[int] | Tensor
Words = str | Sequence[str] | Tensor


class LaneSettings(TypedDict, total=False):
    """What ``PlateauLanes`` and everything built on it take: one value each, or one per lane."""

    mode: Words
    """Whether lower (min) or higher (max) metrics are better. ``min`` or ``max``; "min" unless
    told."""
    factor: Numbers
    """What a cut multiplies the rate by. Above 0 and below 1; 0.1 unless told."""
    patience: Counts
    """Bad steps in a row that are borne; the next one cuts. An integer from 0 to 2147483646; 10
    unless told."""
    threshold: Numbers
    """How much better a metric must be to count. Finite; 0.0001 unless told."""
    threshold_mode: Words
    """What the threshold is a share of: best (rel), nothing (abs), or the size of best
    (rel_safe: right for negative metrics, where rel is not). ``rel`` or ``abs`` or
    ``rel_safe``; "rel" unless told."""
    cooldown: Counts
    """Steps after a cut in which nothing counts as bad. An integer from 0 to 2147483646; 0
    unless told."""
    min_lr: Numbers
    """Floor of the rate. Finite and not negative; 0.0 unless told."""
    eps: Numbers
    """A rate is left alone if it would change by this or less. Finite and not negative; 1e-08
    unless told."""
    atol: Numbers
    """How much better a metric must be besides the threshold. Finite and not negative; 0.0
    unless told."""
    nan: Words
    """What NaN does: a bad step (torch's rule), no step (skip), a cut, or the lane is finished
    (freeze). ``bad`` or ``skip`` or ``cut`` or ``freeze``; "bad" unless told."""
    counting: Words
    """Whose bad steps: keras and optax cut one earlier than torch; Keras counts the step on
    which a cooldown ends, and starts none where no rate was lowered. ``torch`` or ``keras`` or
    ``optax``; "torch" unless told."""
    initial_patience: Counts | None
    """The patience until the first cut is due. An integer from 0 to 2147483646; None unless
    told."""
    min_steps: Counts
    """A lane is not cut before it has taken so many steps. An integer from 0 to 2147483646; 0
    unless told."""
    smoothing: Numbers
    """Decide by an exponential average that keeps this share of itself, corrected for its
    start. At least 0 and below 1; 0.0 unless told."""
    accumulate: Counts
    """Decide once in so many steps, by the mean of their metrics. An integer from 1 to
    2147483646; 1 unless told."""
    window: Counts
    """Decide by the mean of the last so many metrics. An integer from 1 to 2147483646; 1 unless
    told."""
    max_reductions: Counts | None
    """A lane is finished when its rates were lowered so often. An integer from 1 to 2147483646;
    None unless told."""
    patience_at_min: Counts | None
    """A lane is finished after so many bad steps in a row in which no rate of it could be
    lowered. An integer from 1 to 2147483646; None unless told."""
    warmup_steps: Counts
    """Steps in which the rate rises in a straight line; metrics count for best alone meanwhile.
    An integer from 0 to 2147483646; 0 unless told."""
    warmup_start_factor: Numbers
    """What a warm-up begins with, as a share of the rate. From 0 to 1; 0.0 unless told."""
