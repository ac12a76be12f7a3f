"""skorch: a callback that steps a plateau at the end of each epoch, and keeps its state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from skorch.callbacks import Callback

from ..lanes.readable import kind_of
from ..optim.plateau import ReduceLROnPlateau
from .plateaus import A_PLATEAU, check_plateau, rates_of

__all__ = ["PlateauScheduler"]


class PlateauScheduler(Callback):  # type: ignore[misc]  # skorch has no types
    """Step a plateau at the end of each epoch of a net, as skorch's ``LRScheduler`` does.

    Put it before ``Checkpoint`` and ``LoadInitState``, and have its state saved with the rest::

        checkpoint = Checkpoint(monitor=None, f_plateau="plateau.pt")
        callbacks=[PlateauScheduler(monitor="valid_loss"), checkpoint, LoadInitState(checkpoint)]

    A pickle or copy of the net has the state too, and so has another ``partial_fit``; ``fit``, and
    ``initialize``, begin anew. The scheduler itself is ``scheduler_``, the callback
    ``net.plateau_``, once training has begun.

    Args:
        policy: Called as ``policy(net.optimizer_, **kwargs)`` when training begins: a class such
            as ``BatchedReduceLROnPlateau`` or torch's own, or a function that returns one of
            these or ``PlateauLanes``.
        monitor: The metric: a column of the history, or a function of the net. For a batched
            scheduler or lanes a vector, one number for each lane. An accuracy needs ``mode="max"``
            among the settings.
        event_name: The column of the history for the rates that the epoch was trained with, before
            the step: a float, or a list where there are several. To read tensors on a GPU
            synchronises. None for no column.
        kwargs: The scheduler's settings, which ``net.set_params(callbacks__...)`` knows as well.

    Raises, when training begins, TypeError for another policy than these; in a step ValueError if
    the history has no such column, and what the scheduler raises. Warns if epochs were loaded and
    no state with them: then the plateau begins anew.
    """

    def __init__(
        self,
        policy: Callable[..., Any] = ReduceLROnPlateau,
        monitor: str | Callable[[Any], Any] = "train_loss",
        event_name: str | None = "event_lr",
        **kwargs: Any,
    ) -> None:
        self.policy = policy
        self.monitor = monitor
        self.event_name = event_name
        self.__dict__.update(kwargs)

    def initialize(self) -> PlateauScheduler:
        """Forget the scheduler and its state; called by ``net.initialize``."""
        self.scheduler_: Any = None
        self.optimizer_: Any = None  # that of the scheduler
        self.state_: Mapping[str, Any] | None = None  # of a scheduler that is not built yet
        return self

    def on_train_begin(self, net: Any, **_: Any) -> None:
        """Build the scheduler, with the state that was loaded, unless there is one."""
        net.plateau_ = self  # where skorch saves and loads f_plateau
        if self.scheduler_ is not None and self.optimizer_ is net.optimizer_:
            return
        if self.scheduler_ is not None:  # the net was given another optimizer
            self.state_ = self.scheduler_.state_dict()
        if not callable(self.policy):
            raise TypeError(
                "policy: expected a class or a function of the optimizer, got "
                f"{kind_of(self.policy)}"
            )
        named = ("policy", "monitor", "event_name")
        settings = {k: v for k, v in vars(self).items() if k not in named and not k.endswith("_")}
        scheduler = self.policy(net.optimizer_, **settings)
        check_plateau(scheduler, f"policy: expected a function that returns {A_PLATEAU}")
        self.scheduler_, self.optimizer_ = scheduler, net.optimizer_
        self.is_new_ = self.state_ is None
        if self.state_ is not None:
            self.load_state_dict(self.state_)

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        """Warn of epochs without a state; whatever loads them has done so by now."""
        if self.is_new_ and len(net.history) > 1:
            warnings.warn(
                f"{type(self).__name__}: the net has a history of {len(net.history) - 1} epochs, "
                'and the plateau begins anew; save it with Checkpoint(f_plateau="plateau.pt")',
                UserWarning,
                stacklevel=2,
            )
        self.is_new_ = False

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        """Record the rates of the epoch, and take one step."""
        if callable(self.monitor):
            metric = self.monitor(net)
        elif self.monitor in net.history[-1]:
            metric = net.history[-1, self.monitor]
        else:
            raise ValueError(
                f"monitor: expected one of {sorted(net.history[-1])}, which the history has, got "
                f"{self.monitor!r}; a callback that makes it belongs before this one"
            )
        rates = rates_of(self.scheduler_) if self.event_name is not None else []
        self.scheduler_.step(metric)
        if self.event_name is not None:
            net.history.record(self.event_name, rates[0] if len(rates) == 1 else rates)

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state; called by skorch for ``f_plateau``."""
        if self.scheduler_ is None:
            return dict(self.state_ or {})
        state: dict[str, Any] = self.scheduler_.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the scheduler's state, now or when it is built; raises what the scheduler does.

        A batched scheduler and lanes bring their rates along; else those of the optimizer stay.
        """
        if self.scheduler_ is None:
            self.state_ = state_dict
            return
        self.scheduler_.load_state_dict(dict(state_dict))
        self.state_, self.is_new_ = None, False

    def __getstate__(self) -> dict[str, Any]:
        # A pickled net holds its optimizer apart, so a scheduler would come back with another one.
        kept = {**self.__dict__}
        if kept.pop("optimizer_", None) is not None:
            kept.update(state_=self.state_dict(), scheduler_=None)
        return kept
