"""What schedulers do whenever their optimizer loads a state, for as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from torch.optim import Optimizer

from .optimizers import unwrapped

__all__ = ["AfterLoad", "call_after_load", "call_no_more"]


class _Scheduler(Protocol):
    def _after_load(self) -> None: ...


class AfterLoad:
    """The one hook of an optimizer: it calls the ``_after_load`` of schedulers that still live.

    There is one for all of them, and it stays, since torch goes through its hooks without a copy:
    one that a collected scheduler took away in the middle of that would be an error there.
    """

    def __init__(self) -> None:
        self._schedulers: list[weakref.ref[_Scheduler]] = []

    def add(self, scheduler: _Scheduler) -> None:
        """Call this one too."""
        self.remove(scheduler)
        self._schedulers.append(weakref.ref(scheduler))

    def remove(self, scheduler: _Scheduler) -> None:
        """Call this one no more, nor those that are dead."""
        self._schedulers = [each for each in self._schedulers if each() not in (None, scheduler)]

    def __len__(self) -> int:
        """Return how many are remembered; the dead among them are forgotten with the next."""
        return len(self._schedulers)

    def __call__(self, _: Optimizer) -> None:
        """Do what torch calls hooks for."""
        for each in self._schedulers:
            scheduler = each()
            if scheduler is not None:
                scheduler._after_load()


def call_after_load(scheduler: _Scheduler, optimizer: Optimizer) -> AfterLoad:
    """Have ``scheduler._after_load()`` called after each ``optimizer.load_state_dict``."""
    optimizer = unwrapped(optimizer)
    hooks = optimizer._optimizer_load_state_dict_post_hooks.values()
    found = next((hook for hook in hooks if isinstance(hook, AfterLoad)), None)
    if found is None:
        found = AfterLoad()
        optimizer.register_load_state_dict_post_hook(found)
    found.add(scheduler)
    return found


def call_no_more(scheduler: _Scheduler, optimizers: Iterable[Optimizer]) -> None:
    """Take back what ``call_after_load`` did with these, where it did."""
    for optimizer in optimizers:
        for hook in unwrapped(optimizer)._optimizer_load_state_dict_post_hooks.values():
            if isinstance(hook, AfterLoad):
                hook.remove(scheduler)
