"""Ranks that agree: one collective makes the metrics of all ranks one, and that decides."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from .comparison import State, compare, needs_numpy
from .inputs import mask_of, one_metric, readable
from .readable import kind_of
from .values import shown

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Agreement", "agreement_of"]

REDUCTIONS = ("mean", "max", "min", "ratio")
_TOP, _NONE = 2**63 - 1, -(2**63)  # the keys of NaN, and of a lane that is masked


class Agreement:
    """How the ranks of a process group come to one metric for each lane.

    ::

        scheduler = ReduceLROnPlateau(optimizer, process_group=group)         # the mean
        lanes = PlateauLanes(n, lr, process_group=Agreement(mesh, "max", check_every=1000))

    Each rank calls ``step`` with metrics of its own; before anything is decided one collective
    makes one vector of them, on the metrics' device, and every rank decides by that. So rates that
    are equal stay equal, bit for bit. Each rank has to step as often as the others, with as many
    lanes, and with a mask or without one.

    ::

        mean      sum(metrics) / ranks; with a mask, of the ranks that have the lane active
        max, min  the largest, the smallest
        ratio     sum(numerators) / sum(denominators): what means over shards of unequal size are;
                  metrics are two rows then, ``(2, n)``, for one model two numbers
        active    wherever a rank has the lane active

    A NaN of one rank is NaN for all, and then what the lanes do with one. Sums and quotients are
    float64; lanes of float32 take them rounded. A rank sends ``n`` values of 8 bytes; ``2 n`` with
    a mask where it is a mean, and for a ratio; ``3 n`` for a ratio with a mask.

    Args:
        group: A process group, a mesh of one dimension, or None for the default group.
        reduction: ``"mean"``, ``"max"``, ``"min"`` or ``"ratio"``.
        check_every: Compare the states of all ranks before the first step and then before every
            so many; 0 for never. Where they differ, because one rank has changed lanes or loaded
            another state, every rank raises RuntimeError that names a rank, a lane and both values,
            and none steps. A check synchronises, and takes a collective of its own.

    In a compiled function the graph breaks there. An object serves any number of schedulers.
    Copies of a scheduler keep the group; it cannot be pickled: save ``state_dict()``.

    Raises TypeError or ValueError for other arguments, RuntimeError if there is no such group, and
    ImportError for ``check_every`` where there is no numpy.
    In a step, RuntimeError if another rank died, hangs longer than the group's timeout, or raised.
    """

    def __init__(
        self,
        group: ProcessGroup | DeviceMesh | None = None,
        reduction: str = "mean",
        check_every: int = 0,
    ) -> None:
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {shown(reduction)}")
        if type(check_every) is not int or check_every < 0:
            raise ValueError(
                f"check_every: expected an integer of 0 or more, got {shown(check_every)}"
            )
        if check_every:
            needs_numpy("check_every")
        self.group = _group_of(group)
        self.reduction, self.check_every = reduction, check_every
        self.ranks = dist.get_world_size(self.group)
        self._steps = 0

    def __deepcopy__(self, memo: object) -> Agreement:
        """Return one for the same group, with its own count of steps."""
        return type(self)(self.group, self.reduction, self.check_every)

    def __reduce__(self) -> NoReturn:
        """Refuse: a process group is of its process."""
        raise TypeError(
            "process_group: cannot be pickled, as it is of this process; save state_dict() and "
            "load it into a scheduler that is built with one"
        )

    def __repr__(self) -> str:
        """Show the arguments."""
        return (
            f"{type(self).__name__}({dist.get_process_group_ranks(self.group)}, "
            f"{self.reduction!r}, check_every={self.check_every})"
        )

    # -- what schedulers call ---------------------------------------------------------------------

    def agree(
        self, metrics: Any, active: Any, n: int, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Return the metrics and the mask of all ranks for ``n`` lanes of ``dtype``.

        They stay on the device of a tensor; other metrics go to the lanes' ``device``. Raises as
        ``PlateauLanes.step`` does, before the collective.
        """
        rows = [
            readable(row, n, dtype, row.device if isinstance(row, Tensor) else device)
            for row in self._rows(metrics)
        ]
        here = rows[0].device
        if any(row.device != here for row in rows):
            raise ValueError(f"metrics: expected both on {here}, got one on {rows[1].device}")
        values = torch.stack([row.detach().double().reshape(n) for row in rows])
        mask = None if active is None else mask_of("active", active, n, here)
        agreed, mask = self._agree(values, mask)
        return agreed.to(dtype), mask

    def agree_on_one(self, metrics: Any) -> Tensor:
        """Return the metric of all ranks for one model, float64 of one element.

        It is where a tensor was, or where the group can send it from.
        """
        rows = self._rows(metrics)
        tensors = [row for row in rows if isinstance(row, Tensor)]
        here = tensors[0].device if tensors else self._device()
        given = [
            row.detach().double().reshape(1).to(here)
            if isinstance(row, Tensor) and not row.is_cpu and row.numel() == 1
            else torch.tensor([one_metric(row)], dtype=torch.float64, device=here)
            for row in rows
        ]
        return self._agree(torch.stack(given), None)[0]

    def check(self, state: Any) -> None:
        """Compare what ``state()`` returns on all ranks, if a comparison is due."""
        due = self.check_every and self._steps % self.check_every == 0
        self._steps += 1
        if due:
            found: State = state()
            compare(self.group, found, self._steps, self._device())

    # -- how --------------------------------------------------------------------------------------

    def _rows(self, metrics: Any) -> list[Any]:
        if self.reduction != "ratio":
            return [metrics]
        try:
            rows = list(metrics)
        except TypeError:
            rows = []
        if len(rows) != 2:
            raise ValueError(
                "metrics: expected two rows for reduction='ratio', numerators and denominators, "
                f"got {kind_of(metrics)}"
            )
        return rows

    def _agree(self, values: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.reduction in ("max", "min"):
            sign = 1.0 if self.reduction == "max" else -1.0
            keys = _keys(values[0] * sign)
            if active is not None:
                keys = torch.where(active, keys, _NONE)
            self._reduce(keys, dist.ReduceOp.MAX)
            return _values(keys) * sign, None if active is None else keys > _NONE
        if active is not None:
            values = torch.cat([torch.where(active, values, 0.0), active.double()[None]])
        self._reduce(values, dist.ReduceOp.SUM)
        if self.reduction == "ratio":
            agreed = values[0] / values[1]
        else:
            agreed = values[0] / (self.ranks if active is None else values[1])
        return agreed, None if active is None else values[-1] > 0.0

    def _reduce(self, values: Tensor, how: Any) -> None:
        try:
            dist.all_reduce(values, how, group=self.group)
        except RuntimeError as error:
            raise RuntimeError(
                f"process_group: rank {dist.get_rank(self.group)} of {self.ranks} could not agree "
                "on metrics with the others, and has not stepped: a rank died, raised, hangs or "
                f"steps other lanes ({error})"
            ) from error

    def _device(self) -> torch.device:
        """Where the group can send from: the CPU if it has a backend for it."""
        if "cpu:" in dist.get_backend_config(self.group):
            return torch.device("cpu")
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None  # the group is for one
        return torch.device(accelerator.type, torch.accelerator.current_device_index())


def agreement_of(given: Any, stacklevel: int) -> Agreement | None:
    """Return what an argument ``process_group`` says; warn if it says nothing and ranks may drift.

    Raises TypeError or RuntimeError, as Agreement does.
    """
    if given is None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            warnings.warn(
                f"process_group: {dist.get_world_size()} ranks step by metrics of their own, so "
                "rates may drift apart; pass torch.distributed.group.WORLD, which decides by the "
                "mean, or False if metrics are the same on all ranks (sync_dist=True in Lightning, "
                "AcceleratedPlateau) or lanes are of this rank",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
        return None
    if given is False:
        return None
    if isinstance(given, Agreement):
        return given.__deepcopy__(None)
    return Agreement(given)


def _group_of(given: Any) -> ProcessGroup:
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "process_group: expected torch.distributed to be initialised, which it is not; call "
            "torch.distributed.init_process_group() first"
        )
    from torch.distributed.device_mesh import DeviceMesh  # takes long, and few need it

    if isinstance(given, DeviceMesh):
        if given.ndim != 1:
            raise ValueError(
                f"process_group: expected a mesh of one dimension, got {given.ndim}; pass one of "
                f"them, as mesh[{(given.mesh_dim_names or ('dp',))[0]!r}]"
            )
        return given.get_group()
    if given is None:
        given = dist.group.WORLD
    if not isinstance(given, dist.ProcessGroup):
        raise TypeError(
            "process_group: expected a ProcessGroup that this rank is in, a DeviceMesh, an "
            f"Agreement, False or None, got {kind_of(given)}"
        )
    return given


def _keys(values: Tensor) -> Tensor:
    """Return float64 as int64 in the same order, NaN above all: their maximum is exact."""
    bits = values.view(torch.int64)
    return (bits ^ ((bits >> 63) & _TOP)).masked_fill(values.isnan(), _TOP)


def _values(keys: Tensor) -> Tensor:
    return (keys ^ ((keys >> 63) & _TOP)).view(torch.float64)
