"""Lanes, or stacks of models with them, of which each rank has some: a population on many GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from ..lanes.comparison import needs_numpy
from ..lanes.events import Cuts
from ..lanes.halving import finishing, maximizes, worst
from ..lanes.inputs import readable
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.selection import Which, numbers_of
from ..lanes.state import LaneState
from ..lanes.table import SETTINGS, whole_number
from ..lanes.values import check_keys, checked, shown
from ..optim.stack import LaneStack
from .layout import Layout, joined, laid_out
from .spread import Spread, lanes_of

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["LaneShard"]

_KEEP = SETTINGS["factor"]._replace(name="keep", open_high=False, expected="above 0 and at most 1")
_ROOM = 1 << 16  # bytes of which what is no tensor is a multiple: so others as long are read too


class LaneShard:
    """This rank's part of ``n`` lanes that are spread over the ranks of a mesh.

    ::

        mesh = init_device_mesh("cuda", (ranks,))
        mine = LaneShard.numbers_of(n, mesh)                    the lanes that this rank has
        lanes = PlateauLanes(len(mine), lr=rates[mine.start : mine.stop], process_group=False)
        stack = LaneStack(lanes, optimizer, params)
        shard = LaneShard(stack, n, mesh)                       or of lanes alone
        for epoch in range(100):
            ...                                                 train and validate own models
            stack.step(); lanes.step(losses)                    nothing is sent
            everyone = shard.gather(losses)                     those of all lanes
            shard.copy(everyone.argsort()[:8], everyone.argsort()[-8:])
            shard.save("population")

    Ranks have lanes as ``torch.chunk`` splits them, the last ones fewer or none. A step is one of
    the rank's own lanes and sends nothing; rates, results and settings are read there. Methods of
    this class are called by all ranks together, with the same arguments but for metrics, and speak
    of lanes by their numbers among all ``n``.

    Args:
        part: This rank's :class:`PlateauLanes`, built with ``process_group=False``, or its
            :class:`LaneStack`. Lanes own equally many rates.
        n: How many lanes there are on all ranks.
        mesh: Of one dimension.

    Raises TypeError or ValueError for another part, or one of another number of lanes than this
    rank has, and ImportError where there is no numpy. A rank that raises in a method, or is gone,
    is an error for the others after the timeout of the mesh's process group.
    """

    def __init__(self, part: PlateauLanes | LaneStack, n: int, mesh: DeviceMesh) -> None:
        if not isinstance(part, (PlateauLanes, LaneStack)):
            raise TypeError(f"part: expected PlateauLanes or a LaneStack, got {kind_of(part)}")
        needs_numpy("LaneShard")
        self.numbers = self.numbers_of(n, mesh)
        self.part, self.n, self.mesh = part, n, mesh
        if len(self.lanes) != len(self.numbers):
            raise ValueError(
                f"part: expected {len(self.numbers)} lanes, which rank {mesh.get_local_rank()} of "
                f"{mesh.size()} has of {n}, got {len(self.lanes)}"
            )
        if self.lanes._agreement is not None:
            raise ValueError("part: expected lanes with process_group=False, got some that agree")
        if len(set(self.lanes.groups or [1])) > 1:
            raise ValueError("part: expected lanes of equally many rates, got some with others")
        self._spread = Spread(n, mesh.get_group())

    @staticmethod
    def numbers_of(n: int, mesh: DeviceMesh) -> range:
        """Return the numbers of the lanes that this rank has of ``n``."""
        if not isinstance(mesh, DeviceMesh) or mesh.ndim != 1:
            raise TypeError(f"mesh: expected a DeviceMesh of one dimension, got {shown(mesh)}")
        if not whole_number(n):
            raise ValueError(f"n: expected an integer of 0 or more, got {shown(n)}")
        return lanes_of(n, mesh.size(), mesh.get_local_rank())

    @property
    def lanes(self) -> PlateauLanes:
        """This rank's lanes."""
        return self.part if isinstance(self.part, PlateauLanes) else self.part.lanes

    def __len__(self) -> int:
        """Return how many lanes there are on all ranks."""
        return self.n

    def __repr__(self) -> str:
        """Show which lanes are here."""
        name, few = type(self).__name__, self.numbers
        return f"{name}({self.part!r}, lanes {few.start} to {few.stop} of {self.n})"

    # -- all lanes --------------------------------------------------------------------------------

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of all ranks, ``(n, ...)``, on each, from this rank's, in one collective.

        Raises ValueError if ``values`` does not have a row for each of this rank's lanes.
        """
        if values.ndim == 0 or len(values) != len(self.numbers):
            raise ValueError(
                f"values: expected {len(self.numbers)} rows, one for each lane here, got shape "
                f"{tuple(values.shape)}"
            )
        return self._spread.gathered(values.detach())

    def events(self) -> Cuts:
        """Return this rank's :meth:`PlateauLanes.events`, by the numbers of all lanes.

        Checkpoints do not hold them.
        """
        cuts, overwritten = self.lanes.events()
        first, each = self.numbers.start, (self.lanes.groups or [1])[0]
        moved = [
            cut._replace(lane=cut.lane + first, group=cut.group + first * each) for cut in cuts
        ]
        return Cuts(moved, overwritten)

    def copy(self, src: Which, dst: Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before, wherever both are.

        What moves is what :meth:`PlateauLanes.copy_lanes` or :meth:`LaneStack.copy` moves: weights,
        rows of the optimizer, lane state and settings; what leaves a rank goes in one collective.
        In place. Synchronises.

        Args:
            src: Numbers of all ``n`` lanes, the same on every rank; or one, for all of ``dst``.
            dst: As many. Where one comes twice the last counts.

        Raises as those do, and RuntimeError if ranks have states of different kinds, as where the
        optimizer of one has not stepped; with nothing changed.
        """
        to, come_from = (_numbers("dst", dst, self.n), _numbers("src", src, self.n))
        if len(come_from) not in (1, len(to)):
            raise ValueError(f"src: expected 1 or {len(to)} lanes, as in dst, got {len(come_from)}")
        come_from = come_from * len(to) if len(come_from) == 1 else come_from
        last = dict(zip(to, come_from, strict=True))
        self._make_alike()
        layout = self._alike(laid_out(self.lanes.state_dict(), len(self.lanes)))
        ours = [layout.rows[name] for name in sorted(layout.rows)]
        stacked = self.part._rows() if isinstance(self.part, LaneStack) else []
        kinds = [(str(each.dtype), tuple(each.shape[1:])) for each in stacked]
        if len({str(each) for each in self._of_those_with_lanes(kinds)}) > 1:
            raise RuntimeError(
                "copy: expected stacks of the same tensors on all ranks, got others; has every "
                "optimizer stepped, or none?"
            )
        if not self.numbers:
            stacked = []  # nothing comes or goes
        pairs = [(s, d) for d, s in last.items()]
        self._spread.copy(pairs, [*ours, *stacked])
        if self.numbers:
            state = joined(layout, len(self.lanes))
            own = self.lanes.state_dict()["options"]
            state["options"] |= {k: v for k, v in own.items() if k.startswith("events_")}
            self.lanes.load_state_dict(state)

    def halve(self, metrics: Any, keep: float = 0.5) -> Tensor:
        """Finish the worst of all live lanes; return which of this rank's, bool.

        As :meth:`PlateauLanes.halve`, with ties by their numbers among all. One collective of two
        numbers a lane. In place; does not synchronise by itself.

        Args:
            metrics: One for each of this rank's lanes.
            keep: The share of all live lanes that stays.

        Raises as that does, with nothing changed.
        """
        share = float(checked(_KEEP, keep, label="keep"))
        lanes = self.lanes
        values = readable(metrics, len(lanes), lanes.dtype, lanes.device).double()
        maximize = maximizes(lanes._state)
        every = self._spread.gathered(torch.stack([values, lanes.finished.double()], 1))
        found = worst(every[:, 0], every[:, 1] > 0.0, share, maximize)
        mine = found[self.numbers.start : self.numbers.stop]
        lanes._change(lambda state: finishing(state, mine))
        return mine

    # -- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what torch.distributed.checkpoint saves: DTensors with a row for each lane.

        Keys: ``n``, ``rows`` (DTensors ``(n, ...)`` of placement ``Shard(0)``, of which each rank
        has its own rows, as clones), ``scalars`` (the same on all ranks) and ``rest`` (what is no
        tensor, as bytes). Called by all ranks together; synchronises.
        """
        self._make_alike()
        layout = self._alike(laid_out(self.part.state_dict(), len(self.lanes)))
        rest = layout.rest.encode()
        rest = rest.ljust(-(-len(rest) // _ROOM) * _ROOM)
        return {
            "n": torch.tensor(self.n),
            "rows": {name: self._spread_out(each) for name, each in layout.rows.items()},
            "scalars": dict(layout.scalars),
            "rest": torch.frombuffer(bytearray(rest), dtype=torch.uint8),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, on any number of ranks.

        Raises KeyError, TypeError or ValueError, with nothing changed, for another number of lanes,
        and as the ``load_state_dict`` of lanes or stacks does.
        """
        check_keys("state_dict", state_dict, ("n", "rows", "scalars", "rest"))
        if int(state_dict["n"]) != self.n:
            raise ValueError(f"n: expected a state of {self.n} lanes, got {int(state_dict['n'])}")
        rows = {
            name: each.to_local() if isinstance(each, DTensor) else each[self._slice()]
            for name, each in state_dict["rows"].items()
        }
        rest = bytes(state_dict["rest"].cpu().tolist()).decode()
        layout = Layout(rows, dict(state_dict["scalars"]), rest)
        self.part.load_state_dict(joined(layout, len(self.lanes)))

    def save(self, path: str | PathLike[str], key: str = "shard") -> None:
        """Write a checkpoint of all lanes, a directory; see :mod:`torch_plateau.distributed`.

        Each rank writes its own rows. The checkpoint that was at ``path`` stays until the new one
        is whole. Other state is saved by ``torch.distributed.checkpoint`` itself, into another
        directory, or with this object as one of what it is given.
        """
        from .checkpoint import save

        save(self, path, key)

    def load(self, path: str | PathLike[str], key: str = "shard") -> None:
        """Read a checkpoint that any number of ranks wrote, each rank its own rows.

        Raises FileNotFoundError or ValueError, with nothing changed, if there is none, or if it is
        of another number of lanes; and as :meth:`load_state_dict`.
        """
        from .checkpoint import load

        load(self, path, key)

    # -- ranks that have the same kinds of state --------------------------------------------------

    def _slice(self) -> slice:
        return slice(self.numbers.start, self.numbers.stop)

    def _spread_out(self, rows: Tensor) -> DTensor:
        shape = torch.Size([self.n, *rows.shape[1:]])
        rows = rows.contiguous()
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            rows, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )

    def _of_those_with_lanes(self, mine: Any) -> list[Any]:
        every = self._spread.objects(mine if self.numbers else None)
        return [each for each in every if each is not None]

    def _make_alike(self) -> None:
        """Give each lane a setting of its own where ranks have different numbers, or some have."""
        state = self.lanes._state
        mine = {
            name: None if isinstance(value, Tensor) else value
            for name, value in state.settings.items()
        }
        every = self._of_those_with_lanes(mine)
        differ = [name for name in mine if any(each[name] != every[0][name] for each in every[1:])]
        each_its_own = [name for name in differ if mine[name] is not None]
        for name in differ:
            row = SETTINGS[name]
            if row.of == "batch" or (row.may_be_none and row.first in [e[name] for e in every]):
                raise ValueError(f"{name}: expected the same kind of it on all ranks, got others")
        if self.numbers and each_its_own:

            def expanded(state: LaneState) -> LaneState:
                own = {
                    name: state.setting(name).expand(state.size_of(SETTINGS[name])).contiguous()
                    for name in each_its_own
                }
                return state.replaced({}, own).complete()

            self.lanes._change(expanded)

    def _alike(self, layout: Layout) -> Layout:
        """Return the layout, as others have it where this rank has no lanes; refuse others."""
        kinds = {
            name: (each.dtype, tuple(each.shape[1:])) for name, each in sorted(layout.rows.items())
        }
        scalars = {name: each.cpu() for name, each in layout.scalars.items()}
        every = self._of_those_with_lanes((kinds, scalars, layout.rest))
        if not every:
            return layout
        first, *others = every
        if any((*each[0::2], each[1].keys()) != (*first[0::2], first[1].keys()) for each in others):
            raise RuntimeError(
                "part: expected the same kinds of state on all ranks, got others; has every "
                "optimizer stepped, or none?"
            )
        if self.numbers:
            return layout
        device = self.lanes.device
        empty = {
            name: torch.empty(0, *shape, dtype=dtype, device=device)
            for name, (dtype, shape) in first[0].items()
        }
        there = {name: each.to(device) for name, each in first[1].items()}
        return Layout(empty, there, first[2])


def _numbers(name: str, lanes: Which, n: int) -> list[int]:
    here = lanes.cpu() if isinstance(lanes, Tensor) else lanes
    found: list[int] = numbers_of(name, here, n, torch.device("cpu")).tolist()
    return found
