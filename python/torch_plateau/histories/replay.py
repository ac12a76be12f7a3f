"""What lanes would have done with metrics that are known already: all epochs in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from ..lanes.device import check_device
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import check_readable
from ..lanes.settings import check_names
from ..lanes.state import IMPROVED, RAISED, REDUCED
from ..lanes.table import BITS
from ..lanes.values import shown
from .frame import frame_of
from .inputs import as_history

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..lanes.keywords import LaneSettings

__all__ = ["REASONS", "RECORDS", "Replay", "in_pieces", "replay"]

# Why a step did what it did, in the order of the codes in the low bits of ``why``.
REASONS = tuple(_core.REASONS.split())


class _Kept(NamedTuple):
    """Something that can be recorded: the rows of the core that it is read from, and how."""

    rows: str
    dtype: torch.dtype | None  # None for that of the lanes
    shown: Callable[[Tensor], Tensor] = lambda rows: rows


RECORDS = {
    "lr": _Kept("published", torch.float32),
    "improved": _Kept("outcome", torch.uint8, lambda rows: (rows & IMPROVED).bool()),
    "reduced": _Kept("outcome", torch.uint8, lambda rows: (rows & REDUCED).bool()),
    "raised": _Kept("outcome", torch.uint8, lambda rows: (rows & RAISED).bool()),
    "fired": _Kept("outcome", torch.uint8, lambda rows: (rows & BITS["fired"]).bool()),
    "best": _Kept("best", None),
    "num_bad_epochs": _Kept("clock", torch.int32, lambda rows: rows.clamp(min=0)),
    "cooldown_counter": _Kept("clock", torch.int32, lambda rows: rows.clamp(max=0).neg_()),
    "value": _Kept("value", torch.float64),
    "why": _Kept("why", torch.uint8),
    "gate": _Kept("gate", torch.float64),
    "count": _Kept("count", torch.int32),
    "limit": _Kept("limit", torch.int32),
}


def replay(
    history: Any,
    *,
    lr: Any = 1.0,
    record: str | Collection[str] = (),
    device: torch.device | str | None = None,
    threads: int | None = None,
    groups: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    **settings: Unpack[LaneSettings],
) -> Replay:
    """Take lanes through a whole history, as stepping ``PlateauLanes`` would, in one pass.

    ::

        lanes = PlateauLanes(n, lr, **settings)
        for metrics in history:
            lanes.step(metrics)

    Args:
        history: Metrics, oldest first: ``[epochs]`` for all lanes, or ``[epochs, lanes]``. Floats,
            bool or integers; a tensor, an array or a sequence. Fewer than 2**31 epochs.
        lr: Starting rates. With the 1.0 it is unless told, rates are shares of the first one (and
            ``eps`` and ``min_lr`` mean shares too).
        record: What to keep of every epoch: ``"all"``, or some of ``"lr"``, ``"improved"``,
            ``"reduced"``, ``"raised"``, ``"fired"`` (a cut or a raise was due, whether or not it
            moved a rate), ``"best"``, ``"num_bad_epochs"``, ``"cooldown_counter"``, ``"value"``
            (what decided: the metric, or the average of it), ``"why"``, ``"gate"``, ``"count"`` and
            ``"limit"``. Each is ``epochs * lanes`` values; asked for one of the last four, the
            lanes are taken one by one.
        device: Where the lanes live; where the history does unless told.
        threads: Threads to share lanes among on the CPU; ``torch.get_num_threads()`` unless told.
        groups: As for ``PlateauLanes``.
        dtype: As for ``PlateauLanes``.
        settings: As ``PlateauLanes`` takes them, one value or one per lane. (There are no events
            and no callback: ``record=("reduced",)`` shows every cut.) The number of lanes is that
            of the history's columns, or else of the values that a setting or ``lr`` has, or 1.

    Returns:
        A :class:`Replay`; nothing of it aliases the arguments. Bit for bit what stepping gives.

    Raises:
        TypeError, ValueError, RuntimeError: as ``PlateauLanes`` and its ``step`` do, before
            anything is computed.

    The interpreter lock is released meanwhile, and Ctrl-C ends it. On a CUDA device this is one
    launch on the current stream; building the lanes may synchronise.
    """
    names = _names(record)
    check_names("replay", settings)
    count = torch.get_num_threads() if threads is None else threads
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"threads: expected an integer of 1 or more, got {shown(threads)}")
    if isinstance(history, Tensor):
        check_readable(history, "history")
        device = history.device if device is None else device
    device = check_device(device or "cpu")
    metrics = as_history(history, dtype, device)
    n = (
        metrics.shape[1]
        if metrics.ndim == 2
        else _lanes_of({"groups": groups, "lr": lr, **settings})
    )
    lanes = PlateauLanes(n, lr, groups=groups, device=device, dtype=dtype, **settings)
    return Replay(lanes, metrics, names, count)


class Replay:
    """The outcome of a replay, in tensors.

    Attributes:
        lanes: :class:`PlateauLanes` as they are after the last epoch; they may be stepped on.
        epochs: How many there were.
        num_reductions: Steps that lowered a rate, int32 ``[lanes]``.
        first_cut: The step that first did, from 1; 0 for none; int32 ``[lanes]``.
        wasted: Steps without improvement up to the first cut, or to the end where there was none;
            int32 ``[lanes]``.
        recorded: Names of what was.
        final_lr: Rates after the last epoch, float64 ``[lanes]`` (``[groups]`` with ``groups``).

    What was recorded is there under its own name, each row the state after an epoch's step:
    ``lr`` float32 (published rates, ``[epochs, groups]``), ``improved``, ``reduced``, ``raised``
    and ``fired`` bool, ``best`` of the lanes' dtype, ``num_bad_epochs`` and ``cooldown_counter``
    int32, ``value`` float64; ``[epochs, lanes]`` each. So are the reasons: ``why`` uint8, a
    position in ``REASONS`` in its low bits and the bits of csrc/plateau/why.hpp above them;
    ``gate`` float64, what ``value`` had to beat, or the edge of a band; ``count`` and ``limit``
    int32, how far of how much (bad or good steps of the patience, steps of a warm-up or cooldown,
    values that were collected).
    """

    def __init__(
        self, lanes: PlateauLanes, history: Tensor, record: Collection[str], threads: int
    ) -> None:
        n, groups, epochs = len(lanes), len(lanes.lr), len(history)
        self.lanes, self.epochs = lanes, epochs
        self.first_cut = torch.zeros(n, dtype=torch.int32, device=lanes.device)
        self.wasted = torch.zeros(n, dtype=torch.int32, device=lanes.device)
        self.recorded = tuple(record)
        self._rows: dict[str, Tensor] = {}
        for rows, dtype, _ in {RECORDS[name] for name in record}:
            width = groups if rows == "published" else n
            self._rows[rows] = torch.empty(
                epochs, width, dtype=dtype or lanes.dtype, device=lanes.device
            )
        flat = {name: rows.view(-1) for name, rows in self._rows.items()}
        lanes._replay(
            history, {"first_cut": self.first_cut, "wasted": self.wasted, **flat}, threads
        )
        self.num_reductions = lanes.num_reductions
        self.final_lr = lanes.lr_master

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self.lanes)

    def __getattr__(self, name: str) -> Tensor:
        """Return what was recorded."""
        if name not in RECORDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name not in self.recorded:
            raise AttributeError(f"{name}: not recorded; replay with record=({name!r},)")
        kept = RECORDS[name]
        return kept.shown(self._rows[kept.rows])

    def table(self) -> dict[str, list[Any]]:
        """Return a column per setting that differs between lanes, and one per outcome.

        Synchronises. ``final_lr`` is left out where lanes own several rates.
        """
        columns: dict[str, list[Any]] = {"lane": list(range(len(self)))}
        for name, value in self.lanes.settings.items():
            values = value.tolist() if isinstance(value, Tensor) else value
            if isinstance(values, list) and len(values) == len(self):
                columns[name] = values
        for name in ("num_reductions", "first_cut", "wasted"):
            columns[name] = getattr(self, name).tolist()
        if self.lanes.groups is None:
            columns["final_lr"] = self.final_lr.tolist()
        return columns

    def to_pandas(self) -> Any:
        """Return :meth:`table` as a ``pandas.DataFrame``; raises ImportError without pandas."""
        return frame_of(self.table())

    def __repr__(self) -> str:
        """Show the sizes and what was recorded."""
        kept = f", recorded: {', '.join(self.recorded)}" if self.recorded else ""
        return f"Replay({len(self)} lanes, {self.epochs} epochs{kept})"


def in_pieces(
    lanes: PlateauLanes, history: Tensor, record: Collection[str], size: int
) -> Iterator[tuple[int, Replay]]:
    """Take lanes through a history; yield where each ``size`` epochs begin, and their replay.

    What is recorded takes memory for one piece only. On the calling thread.
    """
    for begin in range(0, len(history), size):
        part = history[begin : begin + size].to(lanes.dtype)
        yield begin, Replay(lanes, part, record, threads=1)


def _names(record: str | Collection[str]) -> tuple[str, ...]:
    given = tuple(RECORDS) if record == "all" else record
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TypeError(f"record: expected 'all' or names, got {shown(record)}")
    for name in given:
        if name not in RECORDS:
            raise ValueError(f"record: expected some of {', '.join(RECORDS)}, got {shown(name)}")
    return tuple(name for name in RECORDS if name in given)


def _lanes_of(given: dict[str, Any]) -> int:
    """Return how many values the first argument that has several has."""
    for value in given.values():
        several = getattr(value, "ndim", 0) == 1
        if several or (isinstance(value, Sequence) and not isinstance(value, str)):
            return len(value)
    return 1
