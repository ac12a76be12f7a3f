"""Metrics of many epochs, as users give them, to tensors that a replay reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lanes.inputs import FITS_FLOAT32, FITS_FLOAT64
from ..lanes.readable import check_readable, is_out_of_memory, kind_of

__all__ = ["as_histories", "as_history"]


def as_history(history: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``history`` as a tensor ``[epochs]`` or ``[epochs, lanes]`` on ``device``.

    A tensor of a type that lanes of ``dtype`` hold is taken as it is, anything else is copied; it
    synchronises if that is on another device. A sequence of numbers becomes float64.

    Raises TypeError or ValueError, with what was expected and what came, for anything else.
    """
    wanted = "history: expected numbers of shape [epochs] or [epochs, lanes]"
    if not isinstance(history, Tensor):
        if history is None or isinstance(history, (str, bytes, Mapping)):
            raise TypeError(f"{wanted}, got {kind_of(history)}")
        try:
            exact = None if hasattr(history, "dtype") else torch.float64
            history = torch.as_tensor(history, dtype=exact)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            if is_out_of_memory(error):
                raise
            raise TypeError(f"{wanted}, got {kind_of(history)} ({error})") from error
        if dtype == torch.float32 and exact is not None:
            history = history.to(dtype)
    check_readable(history, "history")
    if history.ndim not in (1, 2):
        raise ValueError(f"{wanted}, got shape {tuple(history.shape)}")
    if history.dtype not in FITS_FLOAT64:
        raise TypeError(f"history: expected a real number type up to 64 bits, got {history.dtype}")
    if dtype == torch.float32 and history.dtype not in FITS_FLOAT32:
        raise TypeError(
            f"history: float32 lanes cannot hold {history.dtype} values exactly; pass "
            "history.float(), or leave out dtype=torch.float32"
        )
    found: Tensor = history.detach().to(device)
    return found.as_subclass(Tensor).resolve_neg()


def as_histories(histories: Any) -> dict[str, Tensor]:
    """Return one or several histories by name, float64 ``[epochs]`` each, on the CPU.

    Takes a mapping from names, a sequence of vectors, ``[epochs]`` or ``[epochs, histories]``;
    without names they are numbered. Synchronises if they are on another device.
    """
    if isinstance(histories, Mapping):
        named = {str(name): each for name, each in histories.items()}
    elif isinstance(histories, Sequence) and any(hasattr(each, "__len__") for each in histories):
        named = {str(i): each for i, each in enumerate(histories)}
    else:
        whole = as_history(histories, torch.float64, torch.device("cpu"))
        columns = [whole] if whole.ndim == 1 else list(whole.unbind(1))
        named = {str(i): each for i, each in enumerate(columns)}
    found = {}
    for name, each in named.items():
        history = as_history(each, torch.float64, torch.device("cpu"))
        if history.ndim != 1:
            raise ValueError(
                f"histories: expected vectors of one metric per epoch, got shape "
                f"{tuple(history.shape)} for {name!r}"
            )
        found[name] = history.double().contiguous()
    return found
