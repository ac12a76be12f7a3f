"""From the settings that users give to the numbers that the core works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ._settings import CHOICES, INT32_MAX

__all__ = ["DEFAULTS", "OPTIONS", "gate_of", "options_of", "placed", "settings_of", "uses_options"]

OPTIONS = (
    "on_nan",
    "safe_gate",
    "keras",
    "initial_patience",
    "accumulate",
    "window",
    "smoothing",
    "max_reductions",
    "patience_at_min",
    "warmup_steps",
    "warmup_start_factor",
)
# Settings beyond torch's, each as it is when it does nothing.
DEFAULTS: dict[str, Any] = {
    "atol": 0.0,
    "nan": "bad",
    "counting": "torch",
    "initial_patience": None,
    "smoothing": 0.0,
    "accumulate": 1,
    "window": 1,
    "max_reductions": None,
    "patience_at_min": None,
    "warmup_steps": 0,
    "warmup_start_factor": 0.0,
}
_IN_EVERY_STEP = ("atol", "counting", "warmup_start_factor")  # these need no optional part


def gate_of(
    mode: str | Tensor,
    threshold: Tensor,
    threshold_mode: str | Tensor,
    atol: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``(scale, shift, maximize)`` of the value that a metric must beat.

    ::

        gate = best * scale + shift                     rel_safe: best + |best| * scale + shift
        min, rel: scale = 1 - threshold, shift = -atol  abs: scale = 1, shift = -threshold - atol
        max, rel: scale = 1 + threshold, shift = +atol  abs: scale = 1, shift = +threshold + atol
        rel_safe: scale = -threshold (min) or +threshold (max), shift as for rel

    All three are 0-d when one gate serves every lane, 1-d otherwise; float64, float64, uint8, on
    the device of whichever argument is a vector. Words per lane are codes (see ``check_word``).
    """
    maximize, relative, safe = (
        is_word("mode", mode, "max"),
        is_word("threshold_mode", threshold_mode, "rel"),
        is_word("threshold_mode", threshold_mode, "rel_safe"),
    )
    atol = torch.zeros((), dtype=torch.float64, device="cpu") if atol is None else atol
    given = (maximize, relative, safe, threshold, atol)
    device = next((each.device for each in given if each.ndim), torch.device("cpu"))
    maximize, relative, safe, threshold, atol = (placed(each, device) for each in given)
    signed = torch.where(maximize, threshold, -threshold)
    extra = torch.where(maximize, atol, -atol)
    scale = torch.where(relative, 1.0 + signed, torch.where(safe, signed, 1.0))
    shift = torch.where(relative | safe, 0.0, signed) + extra
    shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        scale.shape, shift.shape, maximize.shape
    )
    gate = (scale, shift, maximize.to(torch.uint8))
    scale, shift, maximize = (each.expand(shape).contiguous() for each in gate)
    return scale, shift, maximize


def placed(value: Tensor, device: torch.device) -> Tensor:
    """Return ``value``, if on the CPU, where the lanes are, without waiting for the device.

    One number is no copy there but filled in, so that a CUDA graph that is being captured holds it.
    """
    if value.device == device:
        return value
    if value.is_cpu and value.ndim == 0:
        return torch.full((), value.item(), dtype=value.dtype, device=device)
    return value.to(device, non_blocking=True)


def is_word(name: str, value: str | Tensor, word: str) -> Tensor:
    """Return where a word setting is ``word``; bool, 0-d on the CPU for one word for all lanes."""
    if isinstance(value, str):
        return torch.tensor(value == word, device="cpu")
    return value == CHOICES[name].index(word)


def settings_of(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what every step needs, in the order of ``_ops.SETTINGS``: 0-d where uniform."""
    scale, shift, maximize = gate_of(
        settings["mode"], settings["threshold"], settings["threshold_mode"], settings["atol"]
    )
    return {
        "gate_scale": scale,
        "gate_shift": shift,
        "maximize": maximize,
        "patience": _counted(settings["patience"], settings["counting"]),
        "cooldown": settings["cooldown"],
        "factor": settings["factor"],
        "eps": settings["eps"],
        "min_lr": settings["min_lr"],
    }


def options_of(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the settings of optional parts for the core, in the order of ``OPTIONS``."""
    first = settings["initial_patience"]
    return {
        "on_nan": _code("nan", settings["nan"]),
        "safe_gate": is_word("threshold_mode", settings["threshold_mode"], "rel_safe").byte(),
        "keras": is_word("counting", settings["counting"], "keras").byte(),
        "initial_patience": _counted(
            settings["patience"] if first is None else first, settings["counting"]
        ),
        "accumulate": settings["accumulate"],
        "window": settings["window"],
        "smoothing": settings["smoothing"],
        "max_reductions": _limit(settings["max_reductions"]),
        "patience_at_min": _limit(settings["patience_at_min"]),
        "warmup_steps": settings["warmup_steps"],
        "warmup_start_factor": settings["warmup_start_factor"],
    }


def uses_options(settings: Mapping[str, Any]) -> bool:
    """Return whether any optional part is in use; settings per lane count as used."""
    for name, off in DEFAULTS.items():
        if name in _IN_EVERY_STEP:
            continue
        value = settings[name]
        if isinstance(value, Tensor):
            value = value.item() if value.ndim == 0 else value
        if isinstance(value, Tensor) or value != off:
            return True
    words = {"threshold_mode": "rel_safe", "counting": "keras"}
    return any(
        isinstance(settings[name], Tensor) or settings[name] == word for name, word in words.items()
    )


def _counted(patience: Tensor, counting: str | Tensor) -> Tensor:
    """Keras and optax cut on bad step number ``patience`` (or the first, for 0), torch after it."""
    torchs = is_word("counting", counting, "torch")
    if torchs.ndim == 0:
        return patience if torchs else patience.clamp(min=1) - 1
    patience = placed(patience, torchs.device)
    return torch.where(torchs, patience, patience.clamp(min=1) - 1)


def _code(name: str, value: str | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(CHOICES[name].index(value), dtype=torch.uint8, device="cpu")


def _limit(value: Tensor | None) -> Tensor:
    if value is None:
        return torch.tensor(INT32_MAX, dtype=torch.int32, device="cpu")
    return value
