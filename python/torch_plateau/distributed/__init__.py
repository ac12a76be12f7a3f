"""Many processes: ranks that agree on what all of them decide."""

from .agreement import Agreement

__all__ = ["Agreement"]
