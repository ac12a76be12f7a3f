"""What the modules for trainers share: what they can step, on which device, and its rates."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of

__all__ = ["A_PLATEAU", "check_plateau", "rates_of", "to_lanes"]

A_PLATEAU = "a ReduceLROnPlateau, a BatchedReduceLROnPlateau or PlateauLanes"


def check_plateau(given: Any, says: str = f"scheduler: expected {A_PLATEAU}") -> None:
    """Raise TypeError, which begins with ``says``, unless it is a plateau of torch or of ours."""
    if not isinstance(given, (ReduceLROnPlateau, PlateauLanes)):
        raise TypeError(f"{says}, got {kind_of(given)}")


def to_lanes(metrics: Tensor, plateau: Any) -> Tensor:
    """Return metrics on the device of a plateau's lanes; as they are where it has none."""
    lanes = getattr(plateau, "lanes", plateau)
    return metrics.to(lanes.device) if isinstance(lanes, PlateauLanes) else metrics


def rates_of(plateau: Any) -> list[float]:
    """Return the rates, one per group; to read those on a GPU synchronises."""
    if isinstance(plateau, PlateauLanes):
        return plateau.lr.tolist()
    return [float(rate) for rate in plateau.get_last_lr()]
