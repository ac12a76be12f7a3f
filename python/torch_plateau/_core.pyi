"""
The lanes core. Private: the public names are in torch_plateau.
"""

from __future__ import annotations

import typing

__all__: list[str] = [
    "FIRED",
    "Lane",
    "Lanes",
    "RATES_CHANGED",
    "build_info",
    "cut",
    "cut_floats",
    "same_rates",
]

class Lanes:
    """
    N lanes over tensors that the caller allocated.
    """
    def __init__(
        self,
        state: dict[str, typing.Any],
        settings: dict[str, typing.Any],
        options: dict[str, typing.Any] | None = None,
        always: bool = False,
    ) -> None: ...
    def replay(
        self,
        history: typing.Any,
        rows: dict[str, typing.Any],
        threads: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Step through a history, [epochs] or [epochs, n], and fill the flat tensors in `rows`.
        """
    def step(self, metrics: typing.Any) -> int:
        """
        Advance every lane. Returns how many had a rate lowered (0 on a GPU, where nobody knows yet), or -1, and nothing changed, if `metrics` cannot be read in place.
        """
    def step_masked(self, metrics: typing.Any, active: typing.Any) -> int:
        """
        The same for the lanes of which `active` holds no 0; the others keep their state.
        """

class Lane:
    """
    One lane in plain numbers.
    """
    def __init__(self) -> None: ...
    def cool(self) -> None:
        """
        Start the cooldown: the end of a step that fired.
        """
    def set_gate(
        self,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        shift: typing.SupportsFloat | typing.SupportsIndex,
        maximize: bool,
    ) -> None: ...
    def step(self, metric: typing.Any, groups: typing.Any, rates: typing.Any) -> int:
        """
        Take one metric. Returns FIRED and RATES_CHANGED bits, or -1, and nothing changed, if the metric cannot be read in place.
        """
    @property
    def best(self) -> float: ...
    @best.setter
    def best(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def cooldown(self) -> int: ...
    @cooldown.setter
    def cooldown(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def cooldown_counter(self) -> int: ...
    @cooldown_counter.setter
    def cooldown_counter(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def last_epoch(self) -> int: ...
    @last_epoch.setter
    def last_epoch(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def num_bad_epochs(self) -> int: ...
    @num_bad_epochs.setter
    def num_bad_epochs(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def patience(self) -> int: ...
    @patience.setter
    def patience(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...

def build_info() -> dict[str, typing.Any]:
    """
    How this module was built, and how many CUDA devices it can use.
    """

def cut(
    rate: typing.SupportsFloat | typing.SupportsIndex,
    factor: typing.SupportsFloat | typing.SupportsIndex,
    min_lr: typing.SupportsFloat | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
) -> float:
    """
    The rate after a cut, by the rule.
    """

def cut_floats(
    groups: typing.Any,
    floors: typing.Any,
    factor: typing.SupportsFloat | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
) -> bool:
    """
    Cut the rate of every param group. False, and nothing changed, unless all rates are floats and there is a floor for each.
    """

def same_rates(optimizers: typing.Any, rates: typing.Any) -> bool:
    """
    Whether the groups of `optimizers`, in order, hold the very objects in the list `rates`.
    """

FIRED: int = 1
RATES_CHANGED: int = 2
