"""Tensors that cannot be read: each for its reason, before anything touches their memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_readable", "is_out_of_memory", "kind_of"]


def check_readable(tensor: Tensor, label: str) -> None:
    """Refuse, as ``label``, a tensor that has no values of its own to read, on any device.

    Raises TypeError for wrappers of functorch, FakeTensor, DTensor and tensors that are not
    dense, and ValueError for meta tensors and freed storage, which torch itself would read.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise TypeError(
            f"{label}: expected a tensor of its own; inside torch.func.vmap or grad it stands for "
            "many values: return it from the transformed function and use it outside"
        )
    if tensor.layout != torch.strided or tensor.is_nested:
        got = "a nested one" if tensor.is_nested else f"{tensor.layout}; use .to_dense()"
        raise TypeError(f"{label}: expected a dense tensor, got {got}")
    ordinary = type(tensor) is Tensor or isinstance(tensor, torch.nn.Parameter)
    if ordinary and tensor.is_meta:
        raise ValueError(f"{label}: expected a tensor with values, got one on device meta")
    if tensor.numel() == 0 or _has_memory(tensor):
        return
    if ordinary:
        raise ValueError(f"{label}: expected a tensor with memory, got one whose storage was freed")
    cure = f"; pass {label}.full_tensor()" if kind_of(tensor) == "DTensor" else ""
    raise TypeError(
        f"{label}: expected a tensor with memory of its own, got a {kind_of(tensor)}{cure}"
    )


def _has_memory(tensor: Tensor) -> bool:
    if kind_of(tensor) == "FakeTensor":
        return False  # asking one for its pointer warns
    try:
        return tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:  # NotImplementedError is one
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is used up, and nothing about what was given."""
    full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return full or "DefaultCPUAllocator" in str(error)  # for which torch has no class


def kind_of(value: Any) -> str:
    """Return how errors call the type of ``value``."""
    return "None" if value is None else type(value).__name__
