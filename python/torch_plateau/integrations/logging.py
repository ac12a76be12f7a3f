"""TensorBoard and CSV: rates, cuts and stops of lanes, of each for few, in short for many."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..lanes.inputs import readable
from ..lanes.lanes import PlateauLanes
from ..lanes.table import STOP_REASONS, whole_number
from ..lanes.values import shown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["LaneLog"]

LONGEST = 1 << 20  # bytes of a row

_VALUES, _SHORT = ("lr", "cuts", "metric"), ("min", "median", "max")
_EACH = ["step", "lane", "group", "lr", "cuts", "metric", "stop"]
_MANY = ["step", *(f"{name}_{each}" for name in _VALUES for each in _SHORT), "stopped"]


class LaneLog:
    """Write what lanes do to TensorBoard, to a CSV file, or to both.

    ::

        log = LaneLog(lanes, SummaryWriter("runs/7"), "runs/7/lanes.csv")
        for epoch in range(epochs):
            ...
            lanes.step(losses)
            log.write(epoch, losses)

    Of up to ``few`` lanes TensorBoard gets scalars for each (of a second rate as ``lanes/lr/0.1``;
    a stop is the code in ``STOP_REASONS``, 0 for none), and the file a row for each rate::

        lanes/lr/0   lanes/cuts/0   lanes/metric/0   lanes/stop/0                and so on
        step,lane,group,lr,cuts,metric,stop

    Of more it gets three scalars and a histogram of each of these, and the file a row a call; of
    two in the middle the lower is the median, and NaN is left out::

        lanes/lr/min   lanes/lr/median   lanes/lr/max   lanes/lr, a histogram    and so on
        step,lr_min,lr_median,lr_max,cuts_min,...,metric_max,stopped

    And of any how many have stopped, ``lanes/stopped``, and why, ``lanes/stopped/patience``. A rate
    is the full one, float64, or what a warm-up or noise publishes instead.

    Rows are added to a file that is there, as of a run that is resumed, and are in it after each
    call: all of a call or, if the disk is full, none. A row at its end that a process was killed in
    is dropped. ``torch_plateau.histories.files.read_histories`` reads both.

    Args:
        lanes: May be added, removed and moved meanwhile.
        writer: A ``torch.utils.tensorboard.SummaryWriter``, or one with its methods.
        path: Of the file.
        few: Up to how many lanes are logged each; decided once, here. ``tag`` begins the tags.

    Raises TypeError or ValueError for other things than these, or a file with another header.
    """

    def __init__(
        self,
        lanes: PlateauLanes,
        writer: SummaryWriter | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        few: int = 16,
        tag: str = "lanes",
    ) -> None:
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {shown(lanes)}")
        if not whole_number(few):
            raise ValueError(f"few: expected an integer of 0 or more, got {shown(few)}")
        self.lanes, self.writer, self.tag, self.each = lanes, writer, tag, len(lanes) <= few
        self.path, header = None if path is None else Path(path), _EACH if self.each else _MANY
        if self.path is not None and not _goes_on(self.path, header):
            self._add([header])

    def write(self, step: int, metrics: Any = None, names: Sequence[object] | None = None) -> None:
        """Log the lanes as they are, as of ``step``; one transfer from the device.

        ``metrics`` are what the lanes were given, as ``PlateauLanes.step`` takes them, and
        ``names`` what lanes that are logged each are called, as folds or trials, not by numbers.
        Raises TypeError or ValueError, with nothing written, for other things than these.
        """
        n = len(self.lanes)
        if names is not None and len(names) != n:
            raise ValueError(f"names: expected {n}, got {len(names)}")
        read = self._read(metrics)
        counts = read["stop"].long().bincount(minlength=len(STOP_REASONS)).tolist()
        scalars = {"stopped": n - counts[0]}
        scalars |= {f"stopped/{STOP_REASONS[i]}": k for i, k in enumerate(counts) if i and k}
        if self.each:
            rows = self._rows(step, read, list(map(str, range(n) if names is None else names)))
            for _, lane, group, lr, cuts, metric, reason in rows:
                scalars[f"lr/{lane}.{group}" if group else f"lr/{lane}"] = lr
                scalars[f"cuts/{lane}"] = cuts
                scalars[f"stop/{lane}"] = STOP_REASONS.index(reason or "none")
                if metric != "":
                    scalars[f"metric/{lane}"] = metric
        else:
            short: dict[str, float] = {}
            for name in _VALUES:
                values = read.get(name, torch.empty(0))
                ordered = values[~values.isnan()].sort().values
                if len(ordered):
                    three = ordered[[0, (len(ordered) - 1) // 2, -1]].tolist()
                    short |= {f"{name}/{_SHORT[i]}": value for i, value in enumerate(three)}
                    if self.writer is not None:
                        self.writer.add_histogram(f"{self.tag}/{name}", ordered, step)
            cells = (short.get(column.replace("_", "/"), "") for column in _MANY[1:-1])
            rows, scalars = [[step, *cells, n - counts[0]]], scalars | short
        self._add(rows)
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(f"{self.tag}/{name}", value, step)

    def _read(self, metrics: Any) -> dict[str, Tensor]:
        lanes, published, master = self.lanes, self.lanes.lr, self.lanes.lr_master
        rates = torch.where(master.float() == published, master, published.double())
        parts = {"lr": rates, "cuts": lanes.num_reductions, "stop": lanes.stop_reason}
        if metrics is not None:
            parts["metric"] = readable(metrics, len(lanes), torch.float64, lanes.device).flatten()
        host = torch.cat([part.double() for part in parts.values()]).cpu()
        return dict(zip(parts, host.split([len(p) for p in parts.values()]), strict=True))

    def _rows(self, step: int, read: dict[str, Tensor], labels: list[str]) -> list[list[Any]]:
        rates, rows = iter(read["lr"].tolist()), []
        cuts, stops = (read[name].long().tolist() for name in ("cuts", "stop"))
        metrics = read["metric"].tolist() if "metric" in read else [""] * len(labels)
        for lane, count in enumerate(self.lanes.groups or [1] * len(labels)):
            rest = cuts[lane], metrics[lane], STOP_REASONS[stops[lane]] if stops[lane] else ""
            rows += [[step, labels[lane], group, next(rates), *rest] for group in range(count)]
        return rows

    def _add(self, rows: Iterable[Sequence[Any]]) -> None:
        if self.path is None:
            return
        text = _text(rows)
        with self.path.open("ab", buffering=0) as file:
            before = file.tell() if file.seekable() else None
            try:
                while text:
                    text = text[file.write(text) :]
            except BaseException:
                if before is not None:
                    file.truncate(before)
                raise


def _text(rows: Iterable[Sequence[Any]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


def _goes_on(path: Path, header: list[str]) -> bool:
    """Whether a file has this header; a row at its end that was not written to its end is cut off.

    Raises ValueError where it has another.
    """
    if not path.is_file():
        return False
    with path.open("r+b") as file:
        first = file.readline()
        if not first.endswith(b"\n") and _text([header]).startswith(first):
            file.truncate(0)
            return False
        if (found := next(csv.reader([first.decode("utf-8", "replace")]))) != header:
            raise ValueError(f"path: expected a file of {header}, got one of {found}")
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - LONGEST, 0))
        last = file.read()
        if not last.endswith(b"\n"):
            file.truncate(end - len(last) + last.rfind(b"\n") + 1)
    return True
