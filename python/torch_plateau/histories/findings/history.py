"""What :func:`diagnose` works on and answers with: a history, what settings do on it, a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..replay import replay
from .evidence import noise_of

NEAR = 12  # epochs before a cut that tell the noise there: more would mix in another phase
CLEAR = 3.0  # what must hold over a long stretch, where there are many to choose from
SMOOTH = 2  # neighbours on each side in running medians: bears two odd epochs in five
PROGRESS = 5.0  # noises that a history must have improved by to have a course at all
SUSTAINED = 8  # epochs of a worsening that is no excursion


@dataclass(frozen=True)
class Finding:
    """One thing to know about a history.

    Attributes:
        code: Stable, in kebab-case.
        level: ``"good"``, ``"problem"`` or ``"question"``.
        text: One or two sentences with the numbers in them.
        numbers: The same numbers for scripts; finite, and ready for JSON. Epochs count from 1.
    """

    code: str
    level: str
    text: str
    numbers: dict[str, float | int | list[int] | list[float]]


@dataclass(frozen=True)
class History:
    """Finite values; ``recorded`` are the cuts (epochs from 0), None where no rates were given."""

    values: list[float]
    oriented: list[float]
    train: list[float] | None
    recorded: list[int] | None
    start_rate: float
    settings: dict[str, Any]

    @property
    def patience(self) -> int:
        """Bad steps that are borne."""
        return int(self.settings["patience"])

    def noise_at(self, cut: int) -> float:
        """Return the noise in the epochs up to ``cut``."""
        return noise_of(self.oriented[max(0, cut + 1 - NEAR) : cut + 1])


@dataclass(frozen=True)
class Course:
    """What the settings do on a history, epoch by epoch."""

    reduced: list[bool]
    improved: list[bool]
    bad: list[int]


def replayed(values: list[float], rate: float, settings: dict[str, Any]) -> Course:
    """Take one lane through ``values``."""
    result = replay(values, lr=rate, record=("reduced", "improved", "num_bad_epochs"), **settings)
    rows = (result.reduced, result.improved, result.num_bad_epochs)
    return Course(*(row.flatten().tolist() for row in rows))
