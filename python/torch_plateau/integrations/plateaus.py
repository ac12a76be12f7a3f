"""What the modules for trainers share: what they can step, on which device, and its rates."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of

__all__ = ["A_PLATEAU", "SchedulerOfLanes", "check_plateau", "rates_of", "to_lanes"]

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


class SchedulerOfLanes(ReduceLROnPlateau):
    """Lanes as the class that a trainer knows to step by a metric, and not after each batch.

    Args:
        lanes: Stay what they are, as ``lanes``; their state is that of this.
    """

    def __init__(self, lanes: PlateauLanes) -> None:
        self.lanes = lanes

    @property
    def mode(self) -> Any:
        """The mode, or one for each lane."""
        return self.lanes.settings["mode"]

    def step(self, metrics: Any, _: Any = None) -> None:  # type: ignore[override]
        """Take one step of the lanes, metrics brought to their device."""
        if isinstance(metrics, Tensor):
            metrics = to_lanes(metrics, self.lanes)
        self.lanes.step(metrics)

    def get_last_lr(self) -> list[Any]:
        """Return the lanes' rates; to read those on a GPU synchronises."""
        return rates_of(self.lanes)

    def state_dict(self) -> dict[str, Any]:
        """Return the lanes' state."""
        return self.lanes.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the lanes' state; raises what they do."""
        self.lanes.load_state_dict(state_dict)
