"""
The lanes core. Private: the public names are in torch_plateau.
"""

from __future__ import annotations

import collections.abc
import typing

__all__: list[str] = [
    "AdamStep",
    "FIRED",
    "HUGE_PAGE",
    "LANES_PER_COUNT",
    "Lane",
    "Lanes",
    "MOVED",
    "Memory",
    "RATES_CHANGED",
    "REASONS",
    "STOP_REASONS",
    "SgdStep",
    "UNREADABLE",
    "bits",
    "build_info",
    "call_each",
    "cut",
    "first_outside",
    "put_rates",
    "same_groups",
    "settings_table",
    "state_table",
]

class Memory:
    """
    Uninitialised bytes that the core owns.
    """
    def __init__(self, size: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class Lanes:
    """
    N lanes over tensors that the caller allocated.
    """
    def __enter__(self) -> None: ...
    def __exit__(self, arg0: typing.Any, arg1: typing.Any, arg2: typing.Any) -> None: ...
    def __init__(
        self, increment_version: typing.Any, get_num_threads: typing.Any = None
    ) -> None: ...
    def connect(
        self,
        tensors: dict[str, typing.Any],
        settings: dict[str, typing.Any],
        parts: bool,
        keep: typing.Any = None,
        writes: collections.abc.Sequence[typing.Any] = [],
        owner: typing.Any = None,
        names: dict[str, typing.Any] = {},
    ) -> None:
        """
        Take tensors and settings, all or nothing, at once.
        """
    def has_moved(self) -> bool:
        """
        Whether lr or best is not where it was.
        """
    def rates(self) -> list[float]:
        """
        Rates of lanes on the host, without a warm-up or noise.
        """
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
        Advance every lane. Returns how many had a rate lowered (0 on a GPU, where nobody knows yet); or, and nothing changed, UNREADABLE if `metrics` cannot be read in place and MOVED if tensors are no longer where they were.
        """
    def step_masked(self, metrics: typing.Any, active: typing.Any) -> int:
        """
        The same for the lanes of which `active` holds no 0; the others keep their state.
        """
    def watch_best(self) -> None:
        """
        Users have best: it may be moved, and torch is told of writes.
        """
    @property
    def calls(self) -> int: ...
    @calls.setter
    def calls(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class Lane:
    """
    One lane in plain numbers.
    """
    def __enter__(self) -> None: ...
    def __exit__(self, arg0: typing.Any, arg1: typing.Any, arg2: typing.Any) -> None: ...
    def __init__(self, reduce_lr: typing.Any) -> None: ...
    def cool(self) -> None:
        """
        Start the cooldown: the end of a step that fired.
        """
    def set_gate(
        self,
        mode: typing.SupportsInt | typing.SupportsIndex,
        threshold: typing.SupportsFloat | typing.SupportsIndex,
        threshold_mode: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Words as codes.
        """
    def step(
        self,
        metric: typing.Any,
        groups: typing.Any,
        rates: typing.Any,
        plateau: typing.Any,
        epoch: typing.Any,
    ) -> bool:
        """
        Take one metric. Where a cut is due, the groups of `plateau` are plain dicts with float rates and its `_reduce_lr` is that of this lane, cut them and set its `_last_lr`. What is left then, FIRED and RATES_CHANGED bits, and an `epoch`, if any, are for `plateau._finish_step`, during which no other thread steps; the step waits until swap() where there are such bits. False, and nothing changed, if the metric cannot be read in place.
        """
    def swap(self) -> None:
        """
        Take the step that waits, or take that back.
        """
    def take(self, other: Lane) -> None:
        """
        Become another, but for `reduce_lr`.
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

class AdamStep:
    """
    A step of stacked parameters, checked: csrc/optim/update.hpp.
    """
    def __init__(
        self,
        lanes: dict[str, typing.Any],
        amp: dict[str, typing.Any],
        settings: dict[str, typing.Any],
        tensors: list[tuple[typing.Any, ...]],
        amsgrad: bool,
        maximize: bool,
        decoupled: bool,
    ) -> None: ...
    def run(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Take it; once.
        """

class SgdStep:
    """
    A step of stacked parameters, checked: csrc/optim/update.hpp.
    """
    def __init__(
        self,
        lanes: dict[str, typing.Any],
        amp: dict[str, typing.Any],
        settings: dict[str, typing.Any],
        tensors: list[tuple[typing.Any, ...]],
        has_momentum: bool,
        maximize: bool,
        nesterov: bool,
    ) -> None: ...
    def run(self, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Take it; once.
        """

def bits() -> dict[str, int]:
    """
    What is packed in bytes: outcome and flags, and why of a replay.
    """

def build_info() -> dict[str, typing.Any]:
    """
    How this module was built.
    """

def call_each(calls: collections.abc.Sequence[typing.Any]) -> None:
    """
    Call each of these, and no Python code in between. What lacks memory is called again, with memory that was set aside.
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

def first_outside(
    values: typing.Any,
    low: typing.SupportsFloat | typing.SupportsIndex,
    high: typing.SupportsFloat | typing.SupportsIndex,
    open_low: bool,
    open_high: bool,
    whole: bool,
) -> int:
    """
    Where the first of some values, a vector or 0-d on the CPU, is that is not between these ends, or not whole; -1 for none.
    """

def put_rates(
    groups: list[typing.Any],
    rates: list[typing.Any],
    owner: typing.Any,
    names: dict[str, typing.Any],
) -> None:
    """
    Write rates into param groups, and then attributes of `owner`, at once.
    """

def same_groups(optimizers: typing.Any, rates: typing.Any, params: typing.Any) -> bool:
    """
    Whether the groups of `optimizers`, in order, are those with the very rates and lists of parameters in the lists `rates` and `params`.
    """

def settings_table() -> list[dict[str, typing.Any]]:
    """
    A row per setting, see csrc/plateau/settings.hpp.
    """

def state_table() -> list[dict[str, typing.Any]]:
    """
    A row per field of the state, see csrc/plateau/state.hpp.
    """

FIRED: int = 1
HUGE_PAGE: int = 2097152
LANES_PER_COUNT: int = 256
MOVED: int = -2
RATES_CHANGED: int = 2
REASONS: str = "passed skipped froze collecting warming cooling better bad nan diverged above below within good anew"
STOP_REASONS: str = "none nan diverged target patience floor max_reductions max_steps pruned"
UNREADABLE: int = -1
