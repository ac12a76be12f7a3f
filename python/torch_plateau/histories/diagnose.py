"""``diagnose``: what a recorded training history says about its plateau, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import check_readable, is_out_of_memory, kind_of
from .findings.curve import leakage, mode_reversed, overfitting
from .findings.cuts import cut_while_improving, outcomes, patience_below_noise, spike_cut
from .findings.evidence import PIECE, places_of
from .findings.history import Finding, History, replayed

__all__ = ["Finding", "diagnose"]

SHORTEST = 8  # epochs: with fewer no trend can be told from chance
CUT = 0.9  # a rate that falls below this share of itself from one epoch to the next may be a cut
FLAT = 0.01  # and is one where the rate moved by no more than this just before it or just after

_Numbers = Sequence[float] | Tensor


def diagnose(
    metric: _Numbers,
    train_metric: _Numbers | None = None,
    lr: _Numbers | None = None,
    **settings: Any,
) -> list[Finding]:
    """Judge one recorded history; an empty list says that nothing was found.

    Epochs count from 1. Where ``lr`` is given, cuts are where it fell by more than a tenth between
    two epochs and was constant before or after, which leaves out smooth schedules. Without it cuts
    are those that the settings would have made (``min_lr`` and ``eps`` stop none, as the rate is
    unknown); whether they would have helped cannot be known.

    Args:
        metric: What the scheduler watches, a value an epoch; at least 8 epochs.
        train_metric: The same quantity on the images trained on, taken in the same way; needed for
            ``overfitting`` and ``leakage``.
        lr: The rate during each epoch.
        settings: Those of :class:`PlateauLanes`, one value each.

    Returns:
        Findings with a stable ``code``, a ``level`` (``"good"``, ``"problem"``, ``"question"``),
        a ``text`` and its ``numbers``. Codes: ``too-short``, ``diverged``, ``mode-reversed``,
        ``cut-helped``, ``cut-useless``, ``converged``, ``spike-cut``, ``patience-below-noise``,
        ``cut-while-improving``, ``overfitting``, ``leakage``.

        After a NaN or an infinity only the epochs before it are judged. Where the mode is reversed
        nothing is said about cuts. A short history gives ``too-short`` alone.

    Raises:
        ValueError: the series differ in length, are not 1-d, or a rate is not a finite number of
            at least 0; a setting is out of range.
        TypeError: a series is not numeric, or there is no such setting.
    """
    values = _series("metric", metric)
    train = None if train_metric is None else _series("train_metric", train_metric, len(values))
    rates = None if lr is None else _series("lr", lr, len(values))
    if rates is not None and not bool((rates.isfinite() & (rates >= 0)).all()):
        raise ValueError("lr: expected finite rates of 0 or more")
    checked = _settings(settings)
    odd = _odd_in(values)
    if train is not None:
        odd = torch.cat([odd, _odd_in(train)]).unique()
    found = []
    end = len(values)
    if len(odd):
        end = int(odd[0])
        found.append(_diverged(end, len(odd), len(values)))
    if end < SHORTEST:
        text = f"{end} epochs with finite values are too few to judge: is there a longer record?"
        return [*found, Finding("too-short", "question", text, {"epochs": end})]
    cuts = None if rates is None else [i for i in _cuts_of(rates) if i < end]
    if rates is None:  # nor is the room above the floor known
        checked = {**checked, "min_lr": 0.0, "eps": 0.0}
    history = History(
        values=values[:end],
        oriented=_oriented(values[:end], checked["mode"]),
        train=None if train is None else _oriented(train[:end], checked["mode"]),
        recorded=cuts,
        start_rate=1.0 if rates is None else float(rates[0]) or 1.0,
        settings=checked,
    )
    return found + _findings_of(history)


def _findings_of(history: History) -> list[Finding]:
    """Return all findings about a finite history, problems first."""
    found = list(overfitting(history)) + list(leakage(history))
    reversed_mode = [] if found else list(mode_reversed(history))
    if not reversed_mode:
        course = replayed(history)
        cuts = course.reduced if history.recorded is None else history.recorded
        found += [
            *spike_cut(history, course, cuts),
            *patience_below_noise(history, course, cuts),
            *cut_while_improving(history, cuts),
            *outcomes(history),
        ]
    order = ("problem", "question", "good")
    return sorted(reversed_mode + found, key=lambda each: order.index(each.level))


def _series(name: str, given: Any, size: int | None = None) -> Tensor:
    if isinstance(given, Tensor):
        check_readable(given, name)
    try:
        values = torch.as_tensor(given)
        if values.is_complex():
            raise TypeError
        values = values.detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise TypeError(f"{name}: expected a 1-d series of numbers, got {kind_of(given)}") from None
    if values.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(values.shape)}")
    if size is not None and len(values) != size:
        raise ValueError(f"{name}: expected {size} values, as metric has, got {len(values)}")
    return values.as_subclass(Tensor).resolve_neg()


def _oriented(values: Tensor, mode: str) -> Tensor:
    return -values if mode == "max" else values


def _odd_in(values: Tensor) -> Tensor:
    """Return where values are NaN or infinite; piece by piece, as each takes others along."""
    pieces = zip(count(0, PIECE), values.split(PIECE), strict=False)
    return torch.cat([begin + (~each.isfinite()).nonzero().flatten() for begin, each in pieces])


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Check settings as the lanes do, and return all of them, one value each."""
    for name in ("n", "lr", "groups", "device", "dtype", "events", "on_reduce"):
        if name in given:
            raise TypeError(f"{name}: expected a setting of one plateau, got {given[name]!r}")
    return PlateauLanes(1, 1.0, **given).settings_of(0)


def _cuts_of(rates: Tensor) -> list[int]:
    """Return the epochs, from 0, after which the rate was cut."""
    before, after = rates[:-1], rates[1:]
    ratios = torch.where(before > 0, after / before, 1.0)
    flat = torch.zeros(len(rates) + 1, dtype=torch.bool)
    flat[1:-1] = (ratios - 1).abs() <= FLAT
    return places_of((ratios < CUT) & (flat[:-2] | flat[2:]))


def _diverged(first: int, count: int, epochs: int) -> Finding:
    lasting = count == epochs - first
    span = "and stayed so" if lasting else f"in {count} epochs in all"
    return Finding(
        "diverged",
        "problem",
        f"From epoch {first + 1} on the metric was NaN or infinite, {span}: the rate was too high, "
        "or the data or the loss hold such values. Only the epochs before are judged.",
        {"epoch": first + 1, "count": count},
    )
