"""Many processes: ranks that agree on what all decide, and ranks with lanes of their own."""

from ..lanes.agreement import Agreement
from .shard import LaneShard

__all__ = ["Agreement", "LaneShard"]
