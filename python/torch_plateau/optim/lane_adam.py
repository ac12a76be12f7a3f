"""Adam and AdamW over stacked parameters, with a rate per lane in the kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import _core
from ..lanes.lanes import PlateauLanes
from .lane_optimizer import FACTOR, SHARE, LaneOptimizer, PerLane, finite

__all__ = ["LaneAdam", "LaneAdamW"]


class LaneAdam(LaneOptimizer):
    """``torch.optim.Adam`` for ``n`` models in stacked ``[n, ...]`` parameters, a lane each.

    The rates are those of ``lanes``, read at every step where they lie. For each lane that is not
    finished, and each of its elements, with the lane's own count of steps::

        step = step + 1                                                  per lane and parameter
        rate = lanes' rate * lr;   g = -grad if maximize else grad
        p    = p * (1 - rate*weight_decay)     decoupled      g = g + weight_decay*p     otherwise
        exp_avg    = exp_avg + (1 - beta1) * (g - exp_avg)
        exp_avg_sq = beta2*exp_avg_sq + (1 - beta2) * g*g
        largest    = max(max_exp_avg_sq, exp_avg_sq) if amsgrad else exp_avg_sq
        p    = p - rate/(1 - beta1**step) * exp_avg / (sqrt(largest / (1 - beta2**step)) + eps)

    Float64 parameters get the float64 rate and float64 arithmetic; float32, bfloat16 and float16
    ones float32 arithmetic and states. What a row shares is worked out in float64.

    On the CPU a step takes up to ``torch.get_num_threads()`` threads, without the interpreter lock.
    On a GPU it is two launches for up to 60 tensors of a type, waits for nothing and can be
    captured in a CUDA graph after a first step (settings that are numbers are constants of it).
    Works with ``torch.amp.GradScaler`` as torch's fused optimizers do.

    A copy or pickle carries its lanes with it. A state dict does not: save theirs beside it.

    Args:
        params: Stacked parameters ``[n, ...]``, contiguous, on the lanes' device; or param groups.
        lanes: ``n`` lanes of one rate each.
        lr: A factor of all rates: 1 unless told. Schedules of torch may drive it, as in a warm-up.
        betas: Two numbers; either may be one per lane.
        eps: A number or one per lane.
        weight_decay: A number or one per lane.
        amsgrad: Divide by the largest ``exp_avg_sq`` so far.
        maximize: Ascend.
        decoupled_weight_decay: As AdamW has it.

    One per lane is a sequence or tensor of shape ``(n,)``; it becomes a float64 tensor on the
    lanes' device, kept in the param group, which may be written to in place.

    The state of a parameter is ``step`` (float32, ``(n,)``), ``exp_avg``, ``exp_avg_sq`` and with
    amsgrad ``max_exp_avg_sq``; :meth:`reset_lanes` makes rows of it new.

    Raises:
        TypeError: ``lanes`` are no PlateauLanes, or a setting is not numeric.
        ValueError: lanes with several rates, a setting out of range or of a wrong shape, or
            parameters that are not as above.
    """

    _settings = {  # noqa: RUF012 - declared in the base
        "lr": FACTOR,
        "betas": SHARE,
        "eps": finite("eps"),
        "weight_decay": finite("weight_decay"),
    }

    def __init__(
        self,
        params: Any,
        lanes: PlateauLanes,
        *,
        lr: float | Tensor = 1.0,
        betas: tuple[PerLane, PerLane] = (0.9, 0.999),
        eps: PerLane = 1e-8,
        weight_decay: PerLane = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, lanes, defaults)

    def _states(self, group: dict[str, Any]) -> tuple[str, ...]:
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        return ("exp_avg", "exp_avg_sq", *largest)

    def _built(
        self, group: dict[str, Any], lanes: Any, amp: Any, lr: Any, tensors: list[tuple[Any, ...]]
    ) -> _core.AdamStep:
        beta1, beta2 = group["betas"]
        settings = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
        }
        return _core.AdamStep(
            lanes,
            amp,
            settings,
            tensors,
            bool(group["amsgrad"]),
            bool(group["maximize"]),
            bool(group["decoupled_weight_decay"]),
        )


class LaneAdamW(LaneAdam):
    """:class:`LaneAdam` with decoupled weight decay, 0.01 unless told: ``torch.optim.AdamW``."""

    def __init__(
        self,
        params: Any,
        lanes: PlateauLanes,
        *,
        lr: float | Tensor = 1.0,
        betas: tuple[PerLane, PerLane] = (0.9, 0.999),
        eps: PerLane = 1e-8,
        weight_decay: PerLane = 1e-2,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lanes,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
