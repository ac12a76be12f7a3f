"""Where lanes lie in memory; what users are given of it the core keeps, and sees it moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import _core

__all__ = ["Handed", "handed", "kept_for_spawn", "placed_well", "vector"]

State = TypeVar("State")


@dataclass(frozen=True)
class Handed:
    """A tensor that users were given, and what it was then."""

    tensor: Tensor
    memory: Any  # of the core, on the CPU
    shape: torch.Size = field(init=False)
    dtype: torch.dtype = field(init=False)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        for name in ("shape", "dtype", "device"):
            object.__setattr__(self, name, getattr(self.tensor, name))

    def kept(self) -> tuple[Any, Any]:
        """Return what must live as long as the core may write: the first memory, and today's."""
        return self.memory, self.tensor.untyped_storage()

    def check(self, label: str) -> None:
        """Raise RuntimeError unless the tensor is of the kind that it was, in whatever memory."""
        now = self.tensor
        was = (self.shape, self.dtype, self.device)
        there = now.numel() == 0 or now.untyped_storage().data_ptr() != 0
        if (now.shape, now.dtype, now.device) != was or not now.is_contiguous() or not there:
            got = f"{now.dtype} {tuple(now.shape)} on {now.device}, strides {now.stride()}"
            raise RuntimeError(
                f"{label}: expected the tensor that the lanes gave out, {self.dtype} "
                f"{tuple(self.shape)} on {self.device}, got {got if there else 'freed memory'}; "
                "it was resized or given other data"
            )


def handed(tensor: Tensor) -> Handed:
    """Return a copy of a vector in memory that torch can neither free nor resize.

    On a GPU, where memory is torch's, it is the tensor itself.
    """
    if not tensor.is_cpu or tensor.numel() == 0:
        return Handed(tensor, None)
    memory, own = _in_core(tensor.numel(), tensor.dtype)
    return Handed(own.copy_(tensor), memory)


def vector(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an uninitialised vector; a long one on the CPU in memory of the core, in huge pages.

    There a step of many lanes is faster, and so is the first write.
    """
    if device.type != "cpu" or size * dtype.itemsize < _core.HUGE_PAGE:
        return torch.empty(size, dtype=dtype, device=device)
    return _in_core(size, dtype)[1]


def placed_well(tensor: Tensor) -> Tensor:
    """Return a vector where :func:`vector` would have put it: itself, or a copy."""
    is_long = tensor.is_cpu and tensor.numel() * tensor.element_size() >= _core.HUGE_PAGE
    if not is_long or not tensor.untyped_storage().resizable():  # torch's memory can be resized
        return tensor
    return vector(len(tensor), tensor.dtype, tensor.device).copy_(tensor)


def _in_core(size: int, dtype: torch.dtype) -> tuple[Any, Tensor]:
    """Return memory of the core and an uninitialised vector, not of none, that lies in it."""
    memory = _core.Memory(size * dtype.itemsize)
    return memory, torch.frombuffer(memory, dtype=dtype)


def kept_for_spawn(state: State) -> State:
    """Return a state that is pickled now; keep it if that is for a process that is being spawned.

    Its tensors are then sent by a number of their memory, which must outlive the pickling.
    """
    process = get_spawning_popen()
    if process is not None:
        process.__dict__.setdefault("_torch_plateau", []).append(state)
    return state
