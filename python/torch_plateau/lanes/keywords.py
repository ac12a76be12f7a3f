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
    """What ``PlateauLanes`` and everything built on it take: one value each, or one per lane.

    Of ``rule`` there is one for all lanes.
    """

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
    """A lane is neither cut nor finished by stop_patience before it has taken so many steps. An
    integer from 0 to 2147483646; 0 unless told."""
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
    stop_patience: Counts | None
    """A lane is finished by so many bad steps in a row (0 as 1), by a gate and a best of their
    own, in a cooldown too. An integer from 0 to 2147483646; None unless told."""
    stop_threshold: Numbers
    """How much better than the best of stop_patience a metric must be to count there. Finite;
    0.0 unless told."""
    stop_threshold_mode: Words
    """What stop_threshold is a share of, as threshold_mode has it. ``rel`` or ``abs`` or
    ``rel_safe``; "abs" unless told."""
    stop_mult: Numbers
    """With it stop_patience bears more after a late best: the lane is finished by a bad step
    after which step + 1 > stop_mult * step of the best + stop_patience. Finite and at least 1;
    1 unless told."""
    max_steps: Counts | None
    """A lane is finished when it has taken so many steps. An integer from 1 to 2147483646; None
    unless told."""
    stop_at: Numbers | None
    """A lane is finished by a metric that is better than this target. Finite; None unless
    told."""
    diverge_at: Numbers | None
    """A lane is finished by a metric that is worse than this or infinite, and by NaN where nan
    is bad; such a metric counts for nothing else. Finite; None unless told."""
    warmup_steps: Counts
    """Steps in which the rate rises in a straight line; metrics count for best alone meanwhile.
    An integer from 0 to 2147483646; 0 unless told."""
    warmup_start_factor: Numbers
    """What a warm-up begins with, as a share of the rate. From 0 to 1; 0.0 unless told."""
    rule: str
    """What moves the rates of all lanes: a plateau lowers them, band steers the metric to a
    target, greedy raises them too, where the metric goes on improving. ``plateau`` or ``band``
    or ``greedy``; "plateau" unless told."""
    max_lr: Numbers | None
    """Ceiling of a rate that may rise. Not negative and below 3.4e38; None unless told."""
    target: Numbers | None
    """What band, which needs it, steers the metric to. Finite and above 0; None unless told."""
    width: Numbers
    """With band a metric above width * target lowers the rate, and one below target / width,
    but above 0, raises it. Finite and at least 1; 2 unless told."""
    growth: Numbers
    """What band divides or multiplies the rate by; factor, eps, patience and cooldown are not
    for it. Finite and above 1; 1.5 unless told."""
    raise_cooldown: Counts
    """With greedy, steps after a raise in which nothing counts. An integer from 0 to
    2147483646; 0 unless told."""
    reset_at_min: Counts | None
    """With greedy, so many cuts due with all rates at min_lr begin the lane anew. An integer
    from 1 to 2147483646; None unless told."""
    noise_from: Counts | None
    """The step from which on the published rate is noisy: rate + rate * noise, the same for all
    rates of the lane, and undone before the next step decides. An integer from 0 to 2147483646;
    None unless told."""
    noise_until: Counts | None
    """The step from which on it is not any more. An integer from 0 to 2147483646; None unless
    told."""
    noise_pct: Numbers
    """Bound of the noise, a share of the rate. Above 0 and below 1; 0.67 unless told."""
    noise_type: Words
    """Noise is standard normal, drawn anew where it passes noise_pct, or uniform up to there.
    ``normal`` or ``uniform``; "normal" unless told."""
    noise_seed: Counts
    """What noise follows from, besides the lane's step; lanes of one seed have the same noise.
    An integer from 0 to 2147483646; 42 unless told."""
