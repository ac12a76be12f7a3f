"""Many settings on one or several histories: the product of all values, and what came of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..lanes.settings import check_names, checked_setting, plain
from ..lanes.table import RATE, SETTINGS
from ..lanes.values import checked
from .frame import frame_of
from .inputs import as_histories
from .progress import LateBar
from .replay import replay

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..lanes.keywords import LaneSettings

__all__ = ["Sweep", "sweep"]

CHUNK = 1 << 16  # settings that are replayed at once: their lanes take some 10 MB
STEPS, FEW = 1 << 28, 64  # of lanes at once, between which Ctrl-C is heard; but not fewer lanes


def sweep(
    histories: Any,
    *,
    lr: Any = 1.0,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    progress: bool = True,
    **settings: Unpack[LaneSettings],
) -> Sweep:
    """Replay every combination of settings on every history, and keep a summary of each.

    ::

        for history in histories:
            for values in itertools.product(*axes):
                replay(history, lr, **values)          # float64 lanes, one of them

    Args:
        histories: Metrics, oldest first: ``[epochs]``; ``[epochs, histories]``; a sequence of
            vectors, which may differ in length; or a mapping from names to vectors. Several seeds,
            for instance, so that a setting is judged on all of them.
        lr: Starting rate, or an axis of them.
        device: Where to compute: ``"cpu"`` or a CUDA device. Results are copied to the CPU.
        threads: As for :func:`torch_plateau.replay`.
        progress: Whether to show a bar on stderr, if that is a terminal, from a second on; it
            takes rich.
        settings: Of ``PlateauLanes``, but ``groups``, ``device``, ``dtype``, ``events`` and
            ``on_reduce``. One value serves all; several (a sequence, a range, a 1-d tensor) are an
            axis.

    Returns:
        A :class:`Sweep`, 20 bytes a result; memory does not grow with the epochs.

    Raises:
        TypeError, ValueError, RuntimeError: as ``PlateauLanes`` does, before anything is computed.
    """
    named = as_histories(histories)
    axes, fixed = _axes_of({"lr": lr, **settings})
    shape = tuple(len(values) for values in axes.values())
    total = math.prod(shape)
    result = Sweep(list(named), axes, fixed, shape)
    replay(
        [], device=device, threads=threads, **fixed
    )  # refuse bad settings before the first result
    with LateBar("Sweeping", total * len(named), progress) as bar:
        for row, history in enumerate(named.values()):
            size = min(CHUNK, max(FEW, STEPS // max(len(history), 1)))
            for begin in range(0, total, size):
                end = min(begin + size, total)
                one = replay(
                    (history if axes else history[:, None]).to(device),
                    threads=threads,
                    **fixed,
                    **_settings_at(axes, begin, end),
                )
                for name in ("num_reductions", "first_cut", "wasted", "final_lr"):
                    getattr(result, name).view(len(named), -1)[row, begin:end] = getattr(one, name)
                bar.advance(end - begin)
    return result


class Sweep:
    """The outcome of a sweep, in tensors on the CPU of shape ``(histories, *sizes of the axes)``.

    Attributes:
        names: Of the histories.
        axes: The settings that have several values, in the order in which they were given.
        fixed: The other settings that were given.
        num_reductions: Steps that lowered the rate, int32.
        first_cut: The step that first did, from 1; 0 for none; int32.
        wasted: Steps without improvement up to the first cut, or to the end without one; int32.
        final_lr: The rate after the last epoch, float64.
    """

    def __init__(
        self, names: list[str], axes: dict[str, Tensor], fixed: dict[str, Any], shape: Sequence[int]
    ) -> None:
        self.names = names
        self.axes: dict[str, list[Any]] = {}
        for name, values in axes.items():
            listed = values if name == "lr" else plain(SETTINGS[name], values)
            self.axes[name] = listed.tolist() if isinstance(listed, Tensor) else listed
        self.fixed = fixed
        whole = (len(names), *shape)
        self.num_reductions, self.first_cut, self.wasted = (
            torch.zeros(whole, dtype=torch.int32) for _ in range(3)
        )
        self.final_lr = torch.zeros(whole, dtype=torch.float64)

    def __len__(self) -> int:
        """Return the number of results: histories times settings."""
        return self.final_lr.numel()

    def agreeing(self, within: int = 0) -> Tensor:
        """Return which settings treat all histories alike: bool, of the axes' sizes.

        Every history is cut as often, at least once, and the first cuts are at most ``within``
        steps apart.
        """
        cuts, first = self.num_reductions, self.first_cut
        if len(self.names) == 0:
            return torch.zeros(first.shape[1:], dtype=torch.bool)
        alike = (cuts == cuts[0]).all(0) & (cuts[0] > 0)
        return alike & (first.amax(0) - first.amin(0) <= within)

    def setting_at(self, index: int) -> dict[str, Any]:
        """Return the values that a setting has, by its place in the flattened axes."""
        values = {}
        for name, axis in reversed(self.axes.items()):
            index, at = divmod(index, len(axis))
            values[name] = axis[at]
        return dict(reversed(values.items()))

    def table(self) -> dict[str, list[Any]]:
        """Return a row per result: the history's name, the value of each axis, the outcome."""
        product = list(itertools.product(*self.axes.values()))
        columns: dict[str, list[Any]] = {"history": [name for name in self.names for _ in product]}
        for i, name in enumerate(self.axes):
            columns[name] = [values[i] for values in product] * len(self.names)
        for name in ("num_reductions", "first_cut", "wasted", "final_lr"):
            columns[name] = getattr(self, name).flatten().tolist()
        return columns

    def to_pandas(self) -> Any:
        """Return :meth:`table` as a ``pandas.DataFrame``; raises ImportError without pandas."""
        return frame_of(self.table())

    def __repr__(self) -> str:
        """Show the sizes."""
        axes = " x ".join(f"{len(axis)} {name}" for name, axis in self.axes.items()) or "1 setting"
        return f"Sweep({len(self.names)} histories, {axes})"


def _axes_of(given: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split settings into axes, checked, each a tensor of values or codes, and the rest."""
    check_names("sweep", given, "lr")
    axes, fixed = {}, {}
    for name, value in given.items():
        several = getattr(value, "ndim", 0) > 0 or isinstance(value, Sequence)
        if not several or isinstance(value, str):
            fixed[name] = value
            continue
        size = len(value)
        value = list(value) if isinstance(value, range) else value
        if name == "lr":
            axes[name] = checked(RATE, value, size, scalar=False, label=name)
        else:
            axes[name] = torch.as_tensor(checked_setting(SETTINGS[name], value, size))
    return axes, fixed


def _settings_at(axes: dict[str, Tensor], begin: int, end: int) -> dict[str, Any]:
    """Return settings ``begin`` to ``end`` of the product, of which the last axis is fastest."""
    place = torch.arange(begin, end)
    chosen = {}
    for name, values in reversed(axes.items()):
        chosen[name] = values[place % len(values)]
        place = place // len(values)
    return chosen
