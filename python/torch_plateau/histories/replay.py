"""What lanes would have done with metrics that are known already: all epochs in one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lanes._checks import check_device
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import check_readable
from .inputs import as_history

__all__ = ["RECORDS", "Replay", "replay"]

# What can be recorded, and the rows of the core that it is read from.
RECORDS = {
    "lr": "published",
    "improved": "outcome",
    "reduced": "outcome",
    "best": "best",
    "num_bad_epochs": "clock",
    "cooldown_counter": "clock",
    "value": "value",
}
_REFUSED = ("events", "on_reduce")


def replay(
    history: Any,
    *,
    lr: Any = 1.0,
    record: str | Collection[str] = (),
    device: torch.device | str | None = None,
    threads: int | None = None,
    **settings: Any,
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
            ``"reduced"``, ``"best"``, ``"num_bad_epochs"``, ``"cooldown_counter"`` and ``"value"``
            (what decided: the metric, or the average of it). Each is ``epochs * lanes`` values.
        device: Where the lanes live; where the history does unless told.
        threads: Threads to share lanes among on the CPU; ``torch.get_num_threads()`` unless told.
        settings: As ``PlateauLanes`` takes them, one value or one per lane; all its parts but
            ``events`` and ``on_reduce``. The number of lanes is that of the history's columns, or
            else of the values that a setting or ``lr`` has, or 1.

    Returns:
        A :class:`Replay`; nothing of it aliases the arguments. Bit for bit what stepping gives.

    Raises:
        TypeError, ValueError, RuntimeError: as ``PlateauLanes`` and its ``step`` do, before
            anything is computed.

    The interpreter lock is released meanwhile. On a CUDA device this is one launch on the current
    stream; building the lanes may synchronise.
    """
    names = _names(record)
    for name in _REFUSED:
        if settings.get(name):
            raise ValueError(f"{name}: a replay has none; record=('reduced',) shows every cut")
    count = torch.get_num_threads() if threads is None else threads
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"threads: expected an integer of 1 or more, got {threads!r}")
    if isinstance(history, Tensor):
        check_readable(history, "history")
        device = history.device if device is None else device
    device = check_device(device or "cpu")
    metrics = as_history(history, settings.get("dtype", torch.float64), device)
    n = metrics.shape[1] if metrics.ndim == 2 else _lanes_of({"lr": lr, **settings})
    lanes = PlateauLanes(n, lr, device=device, **settings)
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
        final_lr: Rates after the last epoch, float64 ``[lanes]`` (``[groups]`` with ``groups``).

    What was recorded is there under its own name, each row the state after an epoch's step:
    ``lr`` float32 (published rates, ``[epochs, groups]``), ``improved`` and ``reduced`` bool,
    ``best`` of the lanes' dtype, ``num_bad_epochs`` and ``cooldown_counter`` int32, ``value``
    float64; ``[epochs, lanes]`` each.
    """

    def __init__(
        self, lanes: PlateauLanes, history: Tensor, record: Collection[str], threads: int
    ) -> None:
        n, groups, epochs = len(lanes), len(lanes.lr), len(history)
        kinds = {
            "published": (torch.float32, groups),
            "outcome": (torch.uint8, n),
            "best": (lanes.dtype, n),
            "clock": (torch.int32, n),
            "value": (torch.float64, n),
        }
        self.lanes, self.epochs = lanes, epochs
        self.first_cut = torch.zeros(n, dtype=torch.int32, device=lanes.device)
        self.wasted = torch.zeros(n, dtype=torch.int32, device=lanes.device)
        self._record = record
        self._rows: dict[str, Tensor] = {}
        for name in sorted({RECORDS[each] for each in record}):
            dtype, width = kinds[name]
            self._rows[name] = torch.empty(epochs, width, dtype=dtype, device=lanes.device)
        flat = {name: rows.view(-1) for name, rows in self._rows.items()}
        lanes._replay(
            history, {"first_cut": self.first_cut, "wasted": self.wasted, **flat}, threads
        )
        self.num_reductions = lanes.num_reductions.clone()
        self.final_lr = lanes.lr_master

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self.lanes)

    def __getattr__(self, name: str) -> Tensor:
        """Return what was recorded."""
        if name not in RECORDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name not in self._record:
            raise AttributeError(f"{name}: not recorded; replay with record=({name!r},)")
        rows = self._rows[RECORDS[name]]
        if name in ("improved", "reduced"):
            return rows.bitwise_and(1 if name == "improved" else 2).bool()
        if name == "num_bad_epochs":
            return rows.clamp(min=0)
        return -rows.clamp(max=0) if name == "cooldown_counter" else rows

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
        """Return :meth:`table` as a ``pandas.DataFrame``; needs pandas."""
        import pandas

        return pandas.DataFrame(self.table())

    def __repr__(self) -> str:
        """Show the sizes and what was recorded."""
        kept = f", recorded: {', '.join(self._record)}" if self._record else ""
        return f"Replay({len(self)} lanes, {self.epochs} epochs{kept})"


def _names(record: str | Collection[str]) -> tuple[str, ...]:
    given = tuple(RECORDS) if record == "all" else record
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TypeError(f"record: expected 'all' or names, got {record!r}")
    for name in given:
        if name not in RECORDS:
            raise ValueError(f"record: expected some of {', '.join(RECORDS)}, got {name!r}")
    return tuple(name for name in RECORDS if name in given)


def _lanes_of(settings: dict[str, Any]) -> int:
    """Return how many values the first setting that has several has."""
    if isinstance(settings.get("groups"), Sequence):
        return len(settings["groups"])
    for value in settings.values():
        several = getattr(value, "ndim", 0) == 1
        if several or (isinstance(value, Sequence) and not isinstance(value, str)):
            return len(value)
    return 1
