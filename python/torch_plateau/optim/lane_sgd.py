"""SGD over stacked parameters, with a rate per lane in the kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _core
from ..lanes.lanes import PlateauLanes
from .lane_optimizer import FACTOR, LaneOptimizer, PerLane, finite

__all__ = ["LaneSGD"]


class LaneSGD(LaneOptimizer):
    """``torch.optim.SGD`` for ``n`` models in stacked ``[n, ...]`` parameters, a lane each.

    For each lane that is not finished, and each of its elements::

        step = step + 1                                                  where there is momentum
        rate = lanes' rate * lr
        g    = (-grad if maximize else grad) + weight_decay*p
        momentum_buffer = g                                              in a lane's first step
                          momentum*momentum_buffer + (1 - dampening)*g   later
        u    = g + momentum*momentum_buffer if nesterov else momentum_buffer;   g without momentum
        p    = p - rate * u

    Types, threads, launches (one where there is no momentum), copies, state dicts, GradScaler and
    settings per lane are as with :class:`LaneAdam`.

    Args:
        params: Stacked parameters ``[n, ...]``, contiguous, on the lanes' device; or param groups.
        lanes: ``n`` lanes of one rate each.
        lr: A factor of all rates: 1 unless told. Schedules of torch may drive it, as in a warm-up.
        momentum: A number or one per lane. The number 0 keeps no state.
        dampening: A number or one per lane. A lane without momentum has none.
        weight_decay: A number or one per lane.
        nesterov: Look ahead; needs momentum and no dampening.
        maximize: Ascend.

    The state of a parameter is ``step`` (float32, ``(n,)``) and ``momentum_buffer``;
    :meth:`reset_lanes` makes rows of it new.

    Raises:
        TypeError: ``lanes`` are no PlateauLanes, or a setting is not numeric.
        ValueError: lanes with several rates, a setting out of range or of a wrong shape, nesterov
            without momentum or with dampening, or parameters that are not as above.
    """

    _settings = {  # noqa: RUF012 - declared in the base
        "lr": FACTOR,
        "momentum": finite("momentum"),
        "dampening": finite("dampening", low=-float("inf")),
        "weight_decay": finite("weight_decay"),
    }

    def __init__(
        self,
        params: Any,
        lanes: PlateauLanes,
        *,
        lr: float | Tensor = 1.0,
        momentum: PerLane = 0.0,
        dampening: PerLane = 0.0,
        weight_decay: PerLane = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, lanes, defaults)

    def _settle(self, group: dict[str, Any]) -> None:
        super()._settle(group)
        momentum, dampening = (torch.as_tensor(group[k]) for k in ("momentum", "dampening"))
        if group["nesterov"] and not ((momentum > 0).all() and (dampening == 0).all()):
            raise ValueError(
                "nesterov: expected momentum above 0 and dampening 0, got "
                f"momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def _states(self, group: dict[str, Any]) -> tuple[str, ...]:
        momentum = group["momentum"]
        return ("momentum_buffer",) if isinstance(momentum, Tensor) or momentum != 0 else ()

    def _built(
        self, group: dict[str, Any], lanes: Any, amp: Any, lr: Any, tensors: list[tuple[Any, ...]]
    ) -> _core.SgdStep:
        settings = {
            "lr": lr,
            "momentum": group["momentum"],
            "dampening": group["dampening"],
            "weight_decay": group["weight_decay"],
        }
        return _core.SgdStep(
            lanes,
            amp,
            settings,
            tensors,
            bool(self._states(group)),
            bool(group["maximize"]),
            bool(group["nesterov"]),
        )
