"""The best parameters so far: of each lane of a stacked model, or of one ordinary model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from .. import _core
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.selection import Which, chosen
from ..lanes.turns import in_turn
from ..lanes.values import check_keys, checked_word
from ..lanes.writes import Write
from .batched import BatchedReduceLROnPlateau
from .fields import as_dict, checked_field, checked_rates
from .plateau import ReduceLROnPlateau
from .stacked import check_like, check_stacked, named_tensors

__all__ = ["LaneBest"]


class LaneBest:
    """Keep the parameters with which each lane had its best metric.

    ::

        best = LaneBest(lanes, params)     params: stacked, [n, ...] each
        for epoch in range(epochs):
            ...                            train; losses = one per lane
            lanes.step(losses)
            best.update()                  where a lane improved, its row is kept
        best.restore()

    Until a lane first improves its best are the parameters as they were at the start. What is kept
    costs as much memory as ``params``. The parameters must be the tensors that are trained, in
    place (as torch's optimizers do); what the optimizer itself remembers, momentum for instance,
    is neither kept nor restored.

    Args:
        lanes: ``n`` lanes; or, for one ordinary model, its ``ReduceLROnPlateau`` (this package's
            or torch's).
        params: Tensors, or a mapping from names to tensors: parameters, buffers, anything that is
            of the model. With lanes of shape ``[n, ...]`` on their device; with a scheduler of any
            shape and anywhere.
        on_cut: What :meth:`update` does with a lane whose rate was just lowered: ``"keep"`` its
            parameters, or ``"rollback"`` to its best ones.

    With lanes nothing synchronises, and :meth:`update` and :meth:`restore` can be captured in a
    CUDA graph. A scheduler decides on the host: ``update`` compares its ``best`` with that of the
    call before, and with tensor rates on a GPU a rollback synchronises.

    Raises TypeError or ValueError for other things than these.
    """

    def __init__(
        self,
        lanes: PlateauLanes | lr_scheduler.ReduceLROnPlateau,
        params: Iterable[Tensor] | Mapping[str, Tensor],
        *,
        on_cut: Literal["keep", "rollback"] = "keep",
    ) -> None:
        known = isinstance(lanes, (PlateauLanes, lr_scheduler.ReduceLROnPlateau))
        if not known or isinstance(lanes, BatchedReduceLROnPlateau):
            cure = "; pass its lanes" if known else ""
            raise TypeError(
                f"lanes: expected PlateauLanes or a ReduceLROnPlateau, got {kind_of(lanes)}{cure}"
            )
        self.lanes = lanes
        self.on_cut = checked_word("on_cut", on_cut, ("keep", "rollback"))
        self._params = named_tensors("params", params)
        if not self._params:
            raise ValueError("params: expected at least one tensor, got none")
        self._check_size()
        self._best = {name: param.detach().clone() for name, param in self._params.items()}
        self._seen = None if isinstance(lanes, PlateauLanes) else _seen(lanes)

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters that are watched, by name: the tensors themselves."""
        return dict(self._params)

    @property
    def best(self) -> dict[str, Tensor]:
        """The best parameters by name (``"0"``, ``"1"``, ... for those without): live tensors."""
        return dict(self._best)

    @property
    def _turn(self) -> AbstractContextManager[Any]:
        """That of what decides; torch's own scheduler has none."""
        if isinstance(self.lanes, PlateauLanes):
            return self.lanes._core
        return self.lanes._lane if isinstance(self.lanes, ReduceLROnPlateau) else nullcontext()

    @torch.no_grad()
    @in_turn
    def update(self) -> None:
        """Keep the parameters of the lanes that improved in their last step; roll back the cut.

        Call it once after each ``step``, before the parameters change again. Raises ValueError,
        with nothing changed, if lanes were added or removed meanwhile.
        """
        improved, reduced, seen = self._outcome()
        writes = []
        for name, param in self._params.items():
            writes += _taking(improved, param.detach(), self._best[name])
            if self.on_cut == "rollback":
                writes += _taking(reduced, self._best[name], param.detach())
        _core.call_each([*writes, partial(setattr, self, "_seen", seen)])

    @torch.no_grad()
    @in_turn
    def restore(self, lanes: Which | None = None) -> None:
        """Write the best parameters back, in place.

        Args:
            lanes: Which, as in :meth:`PlateauLanes.reset`; all unless told.

        Raises TypeError, ValueError or IndexError, with nothing changed, for lanes that do not
        exist, for ``lanes`` with one ordinary model, and if lanes were added or removed meanwhile.
        """
        which, writes = self._mask_of(lanes), []
        for name, param in self._params.items():
            writes += _taking(which, self._best[name], param.detach())
        _core.call_each(writes)

    @torch.no_grad()
    @in_turn
    def reset(self, lanes: Which | None = None) -> None:
        """Begin anew: the best of these lanes (all unless told) are their parameters as of now.

        For lanes that were reset, or got other weights. In place, without a synchronisation; raises
        as :meth:`restore` does.
        """
        _core.call_each(self._anew(lanes))

    def _anew(self, lanes: Which | None) -> list[Write]:
        which, writes = self._mask_of(lanes), []
        for name, param in self._params.items():
            writes += _taking(which, param.detach(), self._best[name])
        return writes

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of clones and primitives, safe for ``weights_only=True``.

        Keys: ``best``, by name, and ``seen``, what was last read of a scheduler (None for lanes).
        The parameters themselves are not in it.
        """
        best = {name: tensor.clone() for name, tensor in self._best.items()}
        return {"best": best, "seen": None if self._seen is None else dict(self._seen)}

    @torch.no_grad()
    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot in place; the scheduler or lanes and the parameters load their own.

        Tensors may lie on any device (this synchronises then). Raises KeyError, TypeError or
        ValueError, with nothing changed, for other names, shapes or types.
        """
        _core.call_each(self._restoring(state_dict))

    def _restoring(self, state_dict: Any) -> list[Write]:
        best, seen = self._checked(state_dict)
        copies = [partial(kept.copy_, best[name]) for name, kept in self._best.items()]
        return [*copies, partial(setattr, self, "_seen", seen)]

    def _checked(self, state_dict: Any) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """Return what a snapshot holds, checked as ``load_state_dict`` says."""
        check_keys("state_dict", state_dict, ("best", "seen"))
        state_dict = {**state_dict, "best": as_dict("state_dict['best']", state_dict["best"])}
        check_keys("state_dict['best']", state_dict["best"], self._best)
        for name, kept in self._best.items():
            check_like(f"state_dict['best'][{name!r}]", state_dict["best"][name], kept)
        seen = state_dict["seen"]
        if self._seen is not None:
            check_keys("state_dict['seen']", seen, self._seen)
            seen = {name: _checked_seen(name, seen[name]) for name in self._seen}
        elif seen is not None:
            raise ValueError("state_dict['seen']: expected None for lanes, got one of a scheduler")
        return state_dict["best"], seen

    def __setstate__(self, state: Any) -> None:
        given = as_dict("state", state)
        missing = sorted({"lanes", "on_cut", "_params", "_best", "_seen"} - given.keys())
        if missing:
            raise KeyError(f"state: missing keys {missing}")
        LaneBest.__init__(self, given["lanes"], given["_params"], on_cut=given["on_cut"])
        self.load_state_dict({"best": given["_best"], "seen": given["_seen"]})
        self.__dict__.update({name: given[name] for name in given.keys() - self.__dict__.keys()})

    def _mask_of(self, lanes: Which | None) -> Tensor | bool:
        self._check_size()
        if lanes is None:
            return True
        if not isinstance(self.lanes, PlateauLanes):
            raise TypeError(f"lanes: expected None for one model, got {kind_of(lanes)}")
        return chosen("lanes", lanes, len(self.lanes), self.lanes.device).mask

    def _outcome(self) -> tuple[Tensor | bool, Tensor | bool, dict[str, Any] | None]:
        """Which lanes improved, and of which a rate was lowered, since the last call.

        Besides, what is seen of a scheduler now.
        """
        if isinstance(self.lanes, PlateauLanes):
            self._check_size()
            return self.lanes.improved, self.lanes.reduced, None
        assert self._seen is not None
        old, new = self._seen, _seen(self.lanes)
        if new["last_epoch"] == old["last_epoch"]:
            return False, False, new
        improved = new["best"] != old["best"]
        # a step that is neither better nor in cooldown leaves the count at zero only by a cut
        fired = not improved and old["cooldown_counter"] == 0 and new["num_bad_epochs"] == 0
        rates = zip(new["rates"], old["rates"], strict=False)
        return improved, fired and any(float(now) < float(before) for now, before in rates), new

    def _check_size(self) -> None:
        if not isinstance(self.lanes, PlateauLanes):
            return
        for name, param in self._params.items():
            check_stacked(f"params[{name!r}]", param, self.lanes)


def _taking(which: Tensor | bool, source: Tensor, into: Tensor) -> list[Write]:
    """Return what writes the rows of ``source`` that ``which`` chooses (all or none for a bool)."""
    if isinstance(which, Tensor):
        rows = which.view(-1, *[1] * (into.ndim - 1))
        return [partial(torch.where, rows, source, into, out=into)]
    return [partial(into.copy_, source)] if which else []


def _seen(scheduler: lr_scheduler.ReduceLROnPlateau) -> dict[str, Any]:
    """What tells after the next step what that step did."""
    return {
        "best": float(scheduler.best),
        "last_epoch": scheduler.last_epoch,
        "num_bad_epochs": scheduler.num_bad_epochs,
        "cooldown_counter": scheduler.cooldown_counter,
        "rates": scheduler.get_last_lr(),
    }


def _checked_seen(name: str, value: Any) -> Any:
    label = f"state_dict['seen'][{name!r}]"
    return checked_rates(value, label) if name == "rates" else checked_field(name, value, label)
