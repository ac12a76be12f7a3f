"""The slow way in: what the core could not read in place is converted here, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import NoReturn

import torch
from torch import Tensor

from .readable import check_readable, is_out_of_memory, kind_of

__all__ = ["FITS_FLOAT32", "FITS_FLOAT64", "mask_of", "one_metric", "readable"]

FITS_FLOAT32 = {
    torch.bool,
    torch.int8,
    torch.int16,
    torch.uint8,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.float32,
}
FITS_FLOAT64 = FITS_FLOAT32 | {
    torch.int32,
    torch.int64,
    torch.uint32,
    torch.uint64,
    torch.float64,
}
_DLPACK_HOST = (1, 3)  # memory of the CPU, and the same pinned for CUDA
_DLPACK_CUDA = 2
_DLPACK_DEVICES = {_DLPACK_CUDA: "cuda", 8: "metal", 10: "rocm", 14: "oneapi"}


def readable(
    metrics: object, n: int, dtype: torch.dtype, device: torch.device, fetch: bool = False
) -> Tensor:
    """Return ``metrics`` as a tensor of shape ``(n,)`` on ``device`` that the core reads in place.

    Takes what ``PlateauLanes.step`` documents beyond plain tensors on ``device``: sequences of
    numbers, one number for one lane, arrays of other libraries (``__dlpack__``; on a GPU they are
    made safe on torch's current stream), lazily negated views. With ``fetch``, and lanes on the
    CPU, metrics on another device are copied here, which synchronises.

    Raises TypeError or ValueError, with what was expected and what came, for anything else.
    """
    tensor = metrics if isinstance(metrics, Tensor) else _as_tensor(metrics, n, device)
    if fetch and device.type == "cpu" and tensor.device.type not in ("cpu", "meta"):
        check_readable(tensor, "metrics")
        tensor = tensor.detach().cpu()
    if tensor.device != device:
        _refuse_device(device, str(tensor.device))
    check_readable(tensor, "metrics")
    if tuple(tensor.shape) != (n,) and not (n == 1 and tensor.ndim == 0):
        raise ValueError(f"metrics: expected shape ({n},), got {tuple(tensor.shape)}")
    if tensor.dtype not in FITS_FLOAT64:
        raise TypeError(f"metrics: expected a real number type up to 64 bits, got {tensor.dtype}")
    if dtype == torch.float32 and tensor.dtype not in FITS_FLOAT32:
        cure = "metrics.float()"
        if isinstance(metrics, (Real, Sequence)):
            cure = "torch.tensor(metrics, dtype=torch.float32)"
        raise TypeError(
            f"metrics: float32 lanes cannot hold {tensor.dtype} values exactly; pass {cure}, or "
            "build the lanes with dtype=torch.float64"
        )
    # a subclass may not offer the core's interface, or not for itself
    return tensor.detach().as_subclass(Tensor).resolve_neg()


def mask_of(name: str, mask: object, n: int, device: torch.device) -> Tensor:
    """Return ``mask``, one bool per lane, as a contiguous tensor on ``device``; never synchronises.

    Raises TypeError or ValueError, with what was expected and what came, for anything else.
    """
    if not isinstance(mask, Tensor):
        flags = list(mask) if isinstance(mask, Sequence) and not isinstance(mask, str) else [None]
        if not all(isinstance(each, bool) for each in flags):
            raise TypeError(f"{name}: expected a bool tensor or {n} bools, got {kind_of(mask)}")
        here = torch.tensor(flags, dtype=torch.bool, device="cpu")
        mask = here.to(device, non_blocking=True)
    check_readable(mask, name)
    if mask.dtype != torch.bool or mask.shape != (n,):
        raise ValueError(
            f"{name}: expected a bool tensor of shape ({n},), got {mask.dtype} {tuple(mask.shape)}"
        )
    if mask.device != device:
        raise ValueError(f"{name}: expected device {device}, got {mask.device}")
    return mask.detach().as_subclass(Tensor).contiguous()


def one_metric(metrics: object) -> float:
    """Return ``float(metrics)``, as torch's scheduler reads it; this synchronises with a device.

    Raises TypeError or ValueError for what is not one real number.
    """
    expected = "a number or a one-element tensor"
    if isinstance(metrics, (str, bytes, bytearray)):
        _refuse(metrics, expected)
    if isinstance(metrics, Tensor):
        if type(metrics) in (Tensor, torch.nn.Parameter) and metrics.layout == torch.strided:
            check_readable(metrics, "metrics")  # float() would read freed memory
        if metrics.numel() != 1:
            raise ValueError(f"metrics: expected one element, got shape {tuple(metrics.shape)}")
        if metrics.is_complex():
            raise TypeError(f"metrics: expected a real number, got {metrics.dtype}")
        metrics = metrics.detach()  # float() of one that requires grad warns
    try:
        return float(metrics)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise TypeError(
            f"metrics: expected {expected}, got {kind_of(metrics)} ({error})"
        ) from error


def _as_tensor(metrics: object, n: int, device: torch.device) -> Tensor:
    expected = f"a tensor of shape ({n},)"
    if n == 1 and isinstance(metrics, Real):
        metrics = [metrics]
    if isinstance(metrics, Sequence) and not isinstance(metrics, (str, bytes, bytearray)):
        if any(isinstance(each, Tensor) for each in metrics):
            raise TypeError(
                f"metrics: expected {expected}, got a {kind_of(metrics)} of tensors; "
                "pass torch.stack(metrics)"
            )
        if not all(isinstance(each, Real) for each in metrics):
            _refuse(metrics, f"{expected} or as many numbers")
        try:
            numbers = [float(each) for each in metrics]
        except OverflowError as error:
            raise ValueError(f"metrics: expected numbers that fit float64: {error}") from error
        here = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        return here.to(device, non_blocking=True)  # pageable, so it is read before this returns
    if not hasattr(metrics, "__dlpack__") or not hasattr(metrics, "__dlpack_device__"):
        _refuse(metrics, expected)
    kind, index = metrics.__dlpack_device__()
    if int(kind) in _DLPACK_HOST:
        found = "cpu"
    else:
        name = _DLPACK_DEVICES.get(int(kind), f"DLPack device {int(kind)}")
        found = f"{name}:{index}"
    if found != str(device):
        raise ValueError(f"metrics: expected device {device}, got {kind_of(metrics)} on {found}")
    try:
        if any(stride < 0 for stride in getattr(metrics, "strides", None) or ()):
            metrics = metrics.copy()  # type: ignore[attr-defined]  # torch aborts on such an array
        return torch.utils.dlpack.from_dlpack(metrics)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise TypeError(f"metrics: cannot read this {kind_of(metrics)}: {error}") from error


def _refuse_device(expected: torch.device, found: str) -> NoReturn:
    cure = "" if found.startswith("meta") else f"; pass metrics.to({str(expected)!r})"
    raise ValueError(f"metrics: expected device {expected}, got {found}{cure}")


def _refuse(metrics: object, expected: str) -> NoReturn:
    raise TypeError(f"metrics: expected {expected}, got {kind_of(metrics)}")
