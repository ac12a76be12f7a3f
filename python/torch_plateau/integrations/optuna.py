"""Optuna: a study whose trials are lanes, asked, trained, pruned and told together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from torch import Tensor

from ..lanes.device import check_device
from ..lanes.inputs import readable
from ..lanes.selection import Which, chosen
from ..lanes.table import whole_number
from ..lanes.values import shown

__all__ = ["LaneStudy"]
_DTYPES = {FloatDistribution: torch.float64, IntDistribution: torch.int64}


class LaneStudy:
    """The trials of a study in ``n`` lanes: ask, report and tell of optuna, for many at once.

    ::

        trials = LaneStudy(study, {"lr": FloatDistribution(1e-4, 1.0, log=True)}, n=64)
        asked, params = trials.ask()
        lanes = PlateauLanes(64, lr=params["lr"], max_steps=20)     of a LaneStack
        while trials.running.any():
            ...                                  train an epoch, validate, lanes.step(losses)
            trials.report(losses)                what the study's pruner prunes is free
            trials.tell(lanes.finished, lanes.best)
            asked, params = trials.ask(k)        while lanes are free and k > 0
            stack.refill(asked, new_models(k))
            lanes.set_lanes(asked, lr=params["lr"])

    Without ``max_steps`` or another limit the loop has no end. Trials advance side by side in an
    ordinary study, reported and told in the order of their numbers. Pruners that compare with
    completed trials (``MedianPruner``) prune nothing until some are: give them fewer lanes than
    trials. ``SuccessiveHalvingPruner`` compares with running ones too. What is asked for together
    does not learn from each other. Pickle it in one with the stack: a study in memory comes along.

    Args:
        study: Of one objective. If it maximizes, give the lanes ``mode="max"``: it cannot check.
        distributions: What each trial is asked for, by name, as ``Study.ask`` takes it.
        n: How many lanes, free at first. ``trials`` lists the trial of each, None where free.
        device: Where the lanes are.

    Raises TypeError or ValueError for other things than these.
    """

    def __init__(
        self,
        study: optuna.Study,
        distributions: Mapping[str, BaseDistribution],
        n: int,
        device: torch.device | str = "cpu",
    ) -> None:
        got = f"one of {len(study.directions)}" if isinstance(study, optuna.Study) else shown(study)
        if got != "one of 1":
            raise TypeError(f"study: expected one of one objective, got {got}")
        for name, each in dict(distributions).items():
            if not isinstance(each, BaseDistribution):
                raise TypeError(f"distributions[{name!r}]: expected one, got {shown(each)}")
        if not whole_number(n):
            raise ValueError(f"n: expected an integer of 0 or more, got {shown(n)}")
        self.study, self.device = study, check_device(device)
        self.distributions = dict(distributions)
        self.trials: list[optuna.Trial | None] = [None] * n
        self._steps: Counter[int] = Counter()

    @property
    def running(self) -> Tensor:
        """Which lanes have a trial, bool, ``(n,)``, on the device."""
        return torch.tensor([t is not None for t in self.trials], dtype=torch.bool).to(self.device)

    def ask(self, k: int | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Ask the study for ``k`` trials, or for one for each free lane; put them in free lanes.

        Returns the numbers of their lanes, ascending, and their parameters by name: float64 or
        int64 ``(k,)`` on the device, lists of categories. Raises ValueError if too few are free.
        """
        free = [lane for lane, trial in enumerate(self.trials) if trial is None]
        k = len(free) if k is None else k
        if not whole_number(k) or k > len(free):
            raise ValueError(f"k: expected at most the {len(free)} free lanes, got {shown(k)}")
        asked = [self.study.ask(self.distributions) for _ in range(k)]
        for lane, trial in zip(free, asked, strict=False):
            self.trials[lane] = trial
        params: dict[str, Any] = {}
        for name, each in self.distributions.items():
            params[name] = [trial.params[name] for trial in asked]
            if type(each) in _DTYPES:
                params[name] = torch.tensor(params[name], dtype=_DTYPES[type(each)]).to(self.device)
        return torch.tensor(free[:k], dtype=torch.int64, device=self.device), params

    def report(self, metrics: Any) -> Tensor:
        """Report a value for each trial there is; return which are pruned now, bool, ``(n,)``.

        A trial's first report is its step 0. What the study's pruner prunes is told, and its lane
        free. Synchronises. Raises TypeError or ValueError, with nothing reported, for metrics that
        ``PlateauLanes.step`` would not take; those of free lanes may be anything.
        """
        values = readable(metrics, len(self.trials), torch.float64, self.device).flatten().tolist()
        before = self.running
        for lane, trial in self._in_order():
            trial.report(values[lane], self._steps[trial.number])
            self._steps[trial.number] += 1
            if trial.should_prune():
                self._tell(lane, trial, None)
        return before & ~self.running

    def tell(self, lanes: Which, metrics: Any = None) -> None:
        """End the trials in these lanes, each with its value, and free the lanes.

        ``lanes`` are as in ``PlateauLanes.reset``, free ones passed by; ``metrics`` those of all
        lanes. NaN fails its trial. Without metrics they are pruned, as ``PlateauLanes.halve``
        found. Synchronises. Raises as :meth:`report` and ``reset`` do, with nothing told.
        """
        n, values = len(self.trials), None
        if metrics is not None:
            values = readable(metrics, n, torch.float64, self.device).flatten().tolist()
        told = chosen("lanes", lanes, n, self.device).mask.tolist()
        for lane, trial in self._in_order():
            if told[lane]:
                self._tell(lane, trial, None if values is None else values[lane])

    def keep(self, lanes: Which) -> None:
        """Keep these lanes, as ``LaneStack.keep`` does; the others must be free. Synchronises."""
        kept = chosen("lanes", lanes, len(self.trials), self.device).mask.tolist()
        if any(not kept[lane] for lane, _ in self._in_order()):
            raise ValueError("lanes: expected all that have a trial, got fewer")
        self.trials = [t for t, stays in zip(self.trials, kept, strict=True) if stays]

    def _in_order(self) -> list[tuple[int, optuna.Trial]]:
        pairs = ((lane, trial) for lane, trial in enumerate(self.trials) if trial is not None)
        return sorted(pairs, key=lambda pair: pair[1].number)

    def _tell(self, lane: int, trial: optuna.Trial, value: float | None) -> None:
        if value is None or math.isnan(value):
            self.study.tell(trial, state=TrialState.PRUNED if value is None else TrialState.FAIL)
        else:
            self.study.tell(trial, value)
        self.trials[lane] = None
