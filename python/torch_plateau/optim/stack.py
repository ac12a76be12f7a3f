"""A stacked model as one thing: lanes, optimizer, parameters, buffers and the best of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import _core
from ..lanes.lanes import PlateauLanes
from ..lanes.readable import kind_of
from ..lanes.selection import Which, chosen, last_of, numbers_of
from ..lanes.settings import check_names
from ..lanes.table import whole_number
from ..lanes.turns import in_turn
from ..lanes.values import shown
from ..lanes.writes import Write
from .best import LaneBest
from .lane_lr import lane_lr_of
from .optimizers import unwrapped
from .rows import across, appending, copying_rows, filling, keeping, options_of, state_rows
from .stack_state import load, snapshot
from .stacked import check_stacked, checked_rows, named_tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..lanes.keywords import LaneSettings

__all__ = ["LaneStack"]

Module = TypeVar("Module", bound=nn.Module)
Tensors = Iterable[Tensor] | Mapping[str, Tensor]


class LaneStack:
    """``n`` models in stacked ``[n, ...]`` parameters, whose lanes are moved as a whole.

    ::

        params, buffers = torch.func.stack_module_state(models)
        lanes = PlateauLanes(len(models), lr=rates, patience=3)
        optimizer = torch.optim.AdamW(params.values(), lr=1.0)
        LaneLR(optimizer, lanes)
        stack = LaneStack(lanes, optimizer, params, buffers)
        ...                                        backward
        stack.step(); lanes.step(losses)
        stack.copy(winners, losers)                a population exploits
        stack.keep(~lanes.finished)                models that are done leave
        model = stack.unstack(0, models[0])        an ordinary module again

    What belongs to a lane and moves with it: its rows of the parameters, of their gradients and of
    the buffers; its rows of the optimizer's state and of options that have one number per lane; its
    rate, settings and counters in ``lanes``; its row of ``best``; its count in :attr:`skipped`.

    Rows of an optimizer's state are tensors shaped as their parameter or ``[n]``. Tensors of no
    dimension belong to all lanes: torch's Adam counts its steps in one. A lane that is refilled or
    reset is then no new one for Adam: its averages are zero, but their correction is that of an old
    run. Optimizers that count steps per lane (``[n]``) begin anew. Zero is also not what SGD with a
    dampening and Adagrad with an ``initial_accumulator_value`` begin with.

    Parameters and buffers stay the same objects in all that happens, and so do tensors of the
    optimizer's state. Where the number of lanes does not change nothing synchronises if lanes are
    given as tensors on their device, and all can be captured in a CUDA graph.

    Args:
        lanes: ``n`` lanes of one rate each.
        optimizer: Of ``params``, with a :class:`LaneLR` of these lanes, or one that has ``lanes``.
            Of one that is wrapped (by Fabric, Lightning, accelerate or others, as for
            :class:`LaneLR`) :meth:`step` takes the step, as scaling and counting of theirs need
            it; all else, copies and pickles too, is done with the one inside, ``stack.optimizer``.
        params: What is trained, ``[n, ...]`` each on the lanes' device: a mapping, as
            ``torch.func.stack_module_state`` returns, or tensors. All of the optimizer's are among
            them; others may be.
        buffers: What else the models consist of, in the same way.
        best: A :class:`LaneBest` of these lanes and of tensors among these.

    Raises TypeError or ValueError for other things than these.
    """

    def __init__(
        self,
        lanes: PlateauLanes,
        optimizer: Optimizer,
        params: Tensors,
        buffers: Tensors | None = None,
        best: LaneBest | None = None,
    ) -> None:
        if not isinstance(lanes, PlateauLanes):
            raise TypeError(f"lanes: expected PlateauLanes, got {kind_of(lanes)}")
        given, optimizer = optimizer, unwrapped(optimizer)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {kind_of(optimizer)}")
        if best is not None and not isinstance(best, LaneBest):
            raise TypeError(f"best: expected a LaneBest or None, got {kind_of(best)}")
        self.lanes, self.optimizer, self.best = lanes, optimizer, best
        self._given = given
        self.params = named_tensors("params", params)
        self.buffers = named_tensors("buffers", {} if buffers is None else buffers)
        # kept so that copies and pickles of a stack have it too
        self._rates = lane_lr_of(optimizer)
        self._skipped = torch.zeros(len(lanes), dtype=torch.int64, device=lanes.device)
        self._check_parts()
        self._rows()

    def _check_parts(self) -> None:
        holder = self.optimizer if self._rates is None else self._rates
        if getattr(holder, "lanes", None) is not self.lanes:
            raise ValueError(
                "optimizer: expected one that takes its rates from these lanes, got "
                f"{kind_of(self.optimizer)}; make LaneLR(optimizer, lanes) first"
            )
        here = {id(tensor) for tensor in (*self.params.values(), *self.buffers.values())}
        for number, group in enumerate(self.optimizer.param_groups):
            for param in group["params"]:
                if id(param) not in here:
                    raise ValueError(
                        f"params: expected all that the optimizer has, got none of shape "
                        f"{tuple(param.shape)}, which is in param_groups[{number}]"
                    )
        if self.best is None:
            return
        if self.best.lanes is not self.lanes:
            raise ValueError("best: expected a LaneBest of these lanes, got one of others")
        for name, tensor in self.best.params.items():
            if id(tensor) not in here:
                raise ValueError(f"best: expected tensors of this stack, got another as {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        # wrappers cannot be copied, as Fabric's cannot
        return {**self.__dict__, "_given": self.optimizer}

    def __len__(self) -> int:
        """Return the number of lanes."""
        return len(self.lanes)

    @property
    def _turn(self) -> _core.Lanes:
        return self.lanes._core

    @property
    def skipped(self) -> Tensor:
        """Steps that each lane skipped for gradients that are not finite, int64, ``(n,)``."""
        return self._skipped.clone()

    # -- training ---------------------------------------------------------------------------------

    @torch.no_grad()
    @in_turn
    def step(self) -> None:
        """``optimizer.step()`` for the lanes that can take it; the others stay as they are.

        ::

            bad = any gradient of the lane is inf or NaN
            optimizer.step()
            where bad or lanes.finished: parameters and state are what they were before
            skipped = skipped + 1       where bad and not finished

        So a lane that diverged harms no other, and one that is finished moves no more: not even by
        momentum or weight decay. (Give ``lanes`` its metric even so: its ``nan`` rule says what
        becomes of it.) What the optimizer keeps for all lanes, torch's count of steps, goes on.

        On the CPU this costs a look at each gradient, and a copy of the rows that stay. On a GPU it
        costs a copy of all parameters and states and a pass over them, since nothing waits for the
        device; call ``optimizer.step()`` where gradients cannot be bad. In place. An optimizer's
        step that is interrupted on its way is half taken; lanes that stay are put back even so.

        Raises ValueError, with nothing changed, if lanes, parameters and state do not have equally
        many rows any more, and what the optimizer's step does.
        """
        self._rows()
        bad, finished = self._bad(), self.lanes.finished
        stay = bad | finished
        asks = self._asks_host()
        if asks and not stay.any():
            self._given.step()
            return
        which = stay.nonzero().flatten() if asks else None
        before = {
            key: rows.clone() if which is None else rows[which] for key, rows in self._trained()
        }
        skips = bad & ~finished
        writes: list[Write] = []
        try:
            self._given.step()
            writes.append(partial(self._skipped.add_, skips))
        finally:  # also where that failed on its way
            for key, rows in self._trained():
                old = before.get(key)
                if old is None:  # a state that is new was zero before
                    writes.append(partial(rows.masked_fill_, across(stay, rows), 0))
                elif which is None:
                    writes.append(partial(torch.where, across(stay, rows), old, rows, out=rows))
                else:
                    writes.append(partial(rows.index_copy_, 0, which, old))
            _core.call_each(writes)

    def _asks_host(self) -> bool:
        """Return whether it costs nothing to know which lanes stay."""
        return self.lanes.device.type == "cpu"

    def _bad(self) -> Tensor:
        """Return which lanes have a gradient that is not finite."""
        bad = torch.zeros(len(self), dtype=torch.bool, device=self.lanes.device)
        for param in self.params.values():
            if param.grad is not None and param.numel():
                # both are NaN where anything is; faster than isfinite() of all
                grad, inside = param.grad[..., None], tuple(range(1, param.ndim + 1))
                bad |= ~(grad.amax(inside).isfinite() & grad.amin(inside).isfinite())
        return bad

    def _trained(self) -> Iterator[tuple[tuple[int, str], Tensor]]:
        """Yield what a step writes, with a key that stays."""
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                yield (id(param), ""), param.detach()
        for param, name, rows in state_rows(self.optimizer):
            yield (id(param), name), rows

    # -- the life of lanes ------------------------------------------------------------------------

    @torch.no_grad()
    @in_turn
    def copy(self, src: Which, dst: Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before: a population exploits.

        In place. ``src`` and ``dst`` may overlap; where ``dst`` names a lane twice the last counts.

        Args:
            src: Lane numbers; or one, for all of ``dst``.
            dst: As many lane numbers.

        Raises as :meth:`PlateauLanes.copy_lanes` does, with nothing changed.
        """
        rows, n, device = self._rows(), len(self), self.lanes.device

        def writes() -> list[Write]:
            to = numbers_of("dst", dst, n, device)
            come_from = numbers_of("src", src, n, device).expand(len(to))
            come_from = last_of(to, n).spread(come_from)[to]  # the same for a lane named twice
            return [copying_rows(tensor, come_from, to) for tensor in rows]

        self.lanes._change(self.lanes._copied(src, dst), also=writes)

    @torch.no_grad()
    @in_turn
    def keep(self, lanes: Which) -> Tensor:
        """Keep these lanes, in their order, and let the others go; return their old numbers.

        Everything has fewer rows from now on, in new memory; a CUDA graph must be captured again.
        Synchronises. The numbers are int64 on the lanes' device, so ``names = names[stack.keep(~
        lanes.finished)]`` keeps track of who is who.

        Raises as :meth:`PlateauLanes.remove` does, with nothing changed.
        """
        rows = self._rows()
        mask = chosen("lanes", lanes, len(self), self.lanes.device).mask
        numbers = mask.nonzero().flatten()
        self.lanes._change(
            self.lanes._without(~mask), False, lambda: [keeping(each, numbers) for each in rows]
        )
        return numbers

    @torch.no_grad()
    @in_turn
    def refill(self, lanes: Which, params: Tensors, buffers: Tensors | None = None) -> None:
        """Put new models in the place of these lanes: other weights, and all else as it began.

        ::

            parameters, buffers = the given rows;   best = the same rows
            the optimizer's state, gradients = 0;   skipped = 0;   lanes.reset(lanes)

        Rates return to the starting rate, settings and the optimizer's options stay; set others
        with :meth:`PlateauLanes.set_lanes`. In place.

        Args:
            lanes: Which, as in :meth:`PlateauLanes.reset`.
            params: New rows by the names of this stack's, ``[k, ...]`` for ``k`` lane numbers and
                ``[n, ...]`` for a mask, on the lanes' device. Where a number comes twice the last
                row counts.
            buffers: The same for the buffers, if this stack has any.

        Raises KeyError, TypeError, ValueError or IndexError, with nothing changed, for other names,
        shapes or types, or lanes that do not exist.
        """
        self._rows()
        which = chosen("lanes", lanes, len(self), self.lanes.device)
        new = self._checked_models(params, buffers, which.size)
        self.lanes._change(
            self.lanes._anew(lanes),
            also=lambda: [
                *(filling(which, tensor, rows) for tensor, rows in new),
                *(filling(which, tensor) for tensor in (*self._gradients(), *self._forgotten())),
                *([] if self.best is None else self.best._anew(lanes)),
            ],
        )

    @torch.no_grad()
    @in_turn
    def reset(self, lanes: Which) -> None:
        """Begin anew with the weights there are: :meth:`PlateauLanes.reset`, and more.

        ::

            lanes.reset(lanes);   the optimizer's state = 0;   best = the parameters;   skipped = 0

        In place. Raises as :meth:`PlateauLanes.reset` does, with nothing changed.
        """
        self._rows()
        which = chosen("lanes", lanes, len(self), self.lanes.device)
        self.lanes._change(
            self.lanes._anew(lanes),
            also=lambda: [
                *(filling(which, tensor) for tensor in self._forgotten()),
                *([] if self.best is None else self.best._anew(lanes)),
            ],
        )

    @torch.no_grad()
    @in_turn
    def append(
        self,
        k: int,
        lr: float | Sequence[float] | Tensor,
        params: Tensors,
        buffers: Tensors | None = None,
        **settings: Unpack[LaneSettings],
    ) -> None:
        """Add ``k`` models at the end, as :meth:`PlateauLanes.append` adds lanes.

        Everything has more rows from now on, in new memory. Their rows of the optimizer's state and
        of gradients are 0; of its options they have what the last lane has. Synchronises.

        Args:
            k: How many.
            lr: Their rates: one, or one for each.
            params: Their rows by the names of this stack's, ``[k, ...]``, on the lanes' device.
            buffers: The same for the buffers, if this stack has any.
            settings: Theirs, as :meth:`PlateauLanes.append` takes them.

        Raises as that does, and KeyError for other names; with nothing changed.
        """
        self._rows()
        if not whole_number(k):
            raise ValueError(f"k: expected an integer of 0 or more, got {shown(k)}")
        added: list[tuple[Tensor, Tensor]] = self._checked_models(params, buffers, k)
        given = {id(tensor): rows for tensor, rows in added}
        if self.best is not None:
            added += [
                (best, given[id(self.best.params[name])]) for name, best in self.best.best.items()
            ]
        for tensor in (*self._gradients(), *self._forgotten()):
            added.append((tensor, tensor.new_zeros(k, *tensor.shape[1:])))
        for option in options_of(self.optimizer, len(self)):
            added.append((option, option[-1:].expand(k)))
        check_names("append", settings)
        self.lanes._change(
            self.lanes._appended(k, lr, None, settings),
            False,
            lambda: [appending(tensor, rows) for tensor, rows in added],
        )

    # -- one lane, and all of them ----------------------------------------------------------------

    @torch.no_grad()
    @in_turn
    def unstack(self, lane: int, module: Module) -> Module:
        """Return an ordinary module of one lane: a copy of ``module`` with the lane's weights.

        The copy is on the lanes' device and shares no memory with the stack; ``module`` itself,
        which may be on device meta, stays as it is.

        Args:
            lane: Its number.
            module: One of the models that were stacked, or one like them.

        Raises TypeError or IndexError for a lane that does not exist, and KeyError or ValueError if
        the module's parameters and buffers have other names, shapes or types than the stack's.
        """
        if not whole_number(lane, -(2**63)):
            raise TypeError(f"lane: expected a lane number, got {kind_of(lane)}")
        numbers_of("lane", lane, len(self), self.lanes.device)
        if not isinstance(module, nn.Module):
            raise TypeError(f"module: expected a Module, got {kind_of(module)}")
        alone = copy.deepcopy(module)
        is_meta = any(tensor.is_meta for tensor in (*alone.parameters(), *alone.buffers()))
        alone = alone.to_empty(device=self.lanes.device) if is_meta else alone.to(self.lanes.device)
        own = {**dict(alone.named_parameters()), **dict(alone.named_buffers())}
        rows = {**self.params, **self.buffers}
        found = checked_rows("module", {name: own[name][None] for name in own}, rows, 1)
        for name, target in found.items():
            target[0].copy_(rows[name][lane])
        return alone

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot: tensors (clones) and primitives only, safe for ``weights_only=True``.

        Keys: ``lanes``, ``optimizer``, ``best`` (None without one), ``params``, ``buffers`` and
        ``skipped``. Does not synchronise: tensors stay on their device.
        """
        return snapshot(self)

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot of as many lanes; the parts load as they do by themselves.

        Parameters, buffers, ``lanes`` and ``best`` in place; the optimizer gets other state
        tensors, as torch's do. Tensors may lie on any device (this synchronises then). For a
        snapshot of fewer lanes, as after :meth:`keep`, ``stack.keep(range(k))`` first.

        Raises KeyError, TypeError or ValueError, with nothing changed, for other names, shapes or
        types, or what a part refuses.
        """
        load(self, state_dict)

    # -- what a lane consists of ------------------------------------------------------------------

    def _rows(self) -> list[Tensor]:
        """Return all tensors that have a row for each lane, checked to have one."""
        for label, named in (("params", self.params), ("buffers", self.buffers)):
            for name, tensor in named.items():
                check_stacked(f"{label}[{name!r}]", tensor, self.lanes)
        best = [] if self.best is None else self.best.best.values()
        return [
            *self.params.values(),
            *self.buffers.values(),
            *self._gradients(),
            *self._forgotten(),
            *options_of(self.optimizer, len(self)),
            *best,
        ]

    def _gradients(self) -> list[Tensor]:
        return [param.grad for param in self.params.values() if param.grad is not None]

    def _forgotten(self) -> list[Tensor]:
        """Return what is zero in a lane that is new: the optimizer's state and our own counts."""
        return [*(rows for *_, rows in state_rows(self.optimizer)), self._skipped]

    def _checked_models(
        self, params: Tensors, buffers: Tensors | None, size: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each parameter and buffer with the rows given for it."""
        given = (
            ("params", self.params, params),
            ("buffers", self.buffers, {} if buffers is None else buffers),
        )
        found = [(own, checked_rows(label, new, own, size)) for label, own, new in given]
        return [(own[name], rows[name]) for own, rows in found for name in own]
