"""The state machine itself: N plateaus in tensors, one fused pass a step, no optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .. import _core
from .agreement import agreement_of
from .device import check_device, check_dtype
from .inputs import mask_of, readable
from .life import LivingLanes
from .memory import kept_for_spawn
from .operator import step_
from .placed import Move
from .readable import kind_of
from .saved import restored, snapshot
from .settings import (
    check_names,
    checked_settings,
    count_groups,
    offsets_of,
    per_group,
)
from .state import LaneState
from .table import RATE, whole_number
from .turns import in_turn
from .values import check_keys, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LaneSettings

__all__ = ["PlateauLanes"]


class PlateauLanes(LivingLanes):
    """``n`` independent plateaus: each decides as ``ReduceLROnPlateau`` of torch does.

    Args:
        n: Number of lanes, 0 or more.
        lr: Starting rate of every group: a number, one per lane, or one per group.
        groups: How many rates each lane owns, one count per lane; one each unless told.
        device: Where the lanes live and their metrics must: ``"cpu"`` or a CUDA device.
        dtype: What ``best`` is kept in. ``torch.float64`` takes every metric; ``torch.float32``
            moves fewer bytes and takes metrics that it holds exactly (float32, float16, bfloat16,
            bool, integers up to 16 bits). The arithmetic is float64 either way.
        events: Record the last so many cuts, at least one per group, for :meth:`events`.
        on_reduce: Called as ``on_reduce(lanes, index)`` after a step that lowered rates, with the
            numbers of these lanes, int64. On a GPU every step then synchronises. If it raises, the
            step was whole.
        process_group: Ranks that decide alike: before each step, and each :meth:`halve`, metrics
            and mask become those of all ranks, by one collective. A process group or a mesh of one
            dimension takes the mean;
            :class:`~torch_plateau.distributed.Agreement` has others. None, where there are several
            ranks, warns that rates may drift apart; False says that they do not, since metrics are
            the same on all ranks or lanes are this rank's own.
        settings: ``mode``, ``factor``, ``patience`` and the others of torch, and more: see
            :class:`torch_plateau.lanes.keywords.LaneSettings` or docs/settings.md. Each is a number
            or a word, or has one value per lane, shape ``(n,)`` (``min_lr`` and ``max_lr``: per
            lane or group; where these are equally many, per group).

    ``rule`` says what moves the rates of all lanes; what others than the plateau do with a metric::

        band      metric > width * target:              lr = max(min_lr, lr / growth)
                  0 < metric < target / width:          lr = min(max_lr, lr * growth)
        greedy    more than patience bad steps in a row: a cut, as ever
                  more than patience better ones:       lr = min(max_lr, lr / factor)

    The first is how PPO code holds the KL divergence of a step, the second GreedyLR of
    transformers. Both take the other settings, averages and limits too. In a cooldown of theirs
    greedy lanes find no new best.

    Settings beyond torch's are off unless told and then cost nothing. With most of them (the table
    in docs/settings.md says which) a step takes more passes on the CPU, and is still one launch on
    a GPU. Averages (``smoothing``, ``accumulate``, ``window``) need ``dtype=
    torch.float64``; of several, metrics are accumulated first, then windowed, then smoothed. A NaN
    does not enter an average that would remember it, nor an infinite metric the exponential one: it
    decides as it is.

    Numbers are taken as float64 whatever the default dtype; a float32 tensor of settings is
    widened, so ``torch.tensor(0.1)`` is not 0.1.

    :attr:`lr` and :attr:`best` are live: the same tensors until lanes are added, removed or moved.
    Everything else that is read is a copy. If their memory is moved, to share it with another
    process for instance, the next call goes on there.

    ``lanes``, where methods take it, says which: a bool tensor of shape ``(n,)``, an integer tensor
    of lane numbers, both on the lanes' device, a sequence of either, or one number. Numbers in a
    tensor on a GPU are not checked, since that would wait for it; one out of range ends in a
    device-side assertion. Whatever changes lanes is all or nothing, and waits for a step that
    another thread is in.

    Raises:
        ValueError, TypeError: a setting is unknown, out of range, of a wrong shape or not a number.
        RuntimeError: ``device`` is neither the CPU nor a CUDA device that can be used.

    Nothing that reads or steps lanes synchronises with a CUDA device, except where it says so;
    building, loading and moving them may. A step can be captured in a CUDA graph: replays keep
    deciding and counting (:attr:`num_steps` too). Settings that are one number for all lanes are
    constants of the captured graph; those with a value per lane are read from memory that keeps
    its place when a state is loaded. Capture again after loading a state of other numbers.
    """

    def __init__(
        self,
        n: int,
        lr: float | Sequence[float] | Tensor,
        *,
        groups: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        events: int = 0,
        on_reduce: Callable[[PlateauLanes, Tensor], object] | None = None,
        process_group: Any = None,
        **settings: Unpack[LaneSettings],
    ) -> None:
        check_names(type(self).__name__, settings)
        device = _checked_device(n, device, dtype, events, on_reduce)
        offsets = offsets_of(n, groups)
        given = checked_settings(n, offsets, settings, dtype)
        rate = per_group(RATE, lr, n, offsets, "lr").expand(count_groups(n, offsets))
        self._on_reduce = on_reduce
        self._agreement = agreement_of(process_group, stacklevel=2)
        self._place(LaneState.begin(n, rate, given, offsets, events, dtype, device))

    # -- stepping ---------------------------------------------------------------------------------

    def step(self, metrics: Any, active: Any = None) -> Tensor:
        """Advance every lane by one metric, in place, and return :attr:`lr`.

        ::

            better = metric < best*gate_scale + gate_shift     (> for mode "max"; NaN never is)
            best   = metric                   where better, also during cooldown
            clock  = clock + 1                where clock < 0  (cooling: the step is ignored)
                     0                        else where better
                     clock + 1                else
            where clock > patience:
                new = max(lr*factor, min_lr); lr = new if lr - new > eps     for each group
                clock = -cooldown

        Args:
            metrics: Shape ``(n,)``, any stride, on the lanes' device; float64, float32, float16,
                bfloat16, bool or any integer type. A tensor is read in place, with no copy and no
                reference kept; arrays of other libraries (``__dlpack__``) and sequences of ``n``
                numbers work too. For one lane also a number or a 0-d tensor.
            active: Which lanes have a metric now: bool, shape ``(n,)``, on the lanes' device, or a
                sequence of bools; all unless told. The others keep their state, whatever their
                entry in ``metrics``, and read False in :attr:`improved` and :attr:`reduced`.

        Returns:
            The live float32 vector of rates, the same tensor each time; clone it to keep a history.

        Never synchronises. On a CUDA device this is one kernel launch on torch's current stream of
        that device, and may be captured in a graph. On the CPU, from 16,384 lanes or rates on, the
        interpreter lock is released meanwhile, and from 262,144 lanes on, on Linux, a step takes up
        to ``torch.get_num_threads()`` threads of those that torch's operations run on. In a
        compiled function it is one operator, ``torch_plateau::step_`` (lanes with ``on_reduce``
        cannot be compiled). Autograd is told of what is written: a gradient that needs rates from
        before a cut is refused, not wrong.

        Raises TypeError or ValueError, with nothing changed, for metrics of a wrong shape, type or
        device, and RuntimeError if the launch fails, or if ``lr`` or ``best`` were resized or given
        other data.
        """
        if self._agreement is not None:
            metrics, active = self._agree(metrics, active, self._agreement)
        if is_dynamo_compiling():
            self._step_traced(metrics, active)
        elif self._on_reduce is not None:
            self._step_and_tell(self._on_reduce, metrics, active)
        elif active is not None:
            self._step_some(metrics, active)
        elif (answer := self._advance(metrics)) < 0:
            self._step_again(answer, metrics)
        return self._lr

    def _step_and_tell(
        self, tell: Callable[[PlateauLanes, Tensor], object], metrics: Any, active: Any
    ) -> None:
        index: Tensor | tuple[()] = ()
        with self._core:  # so that what is told is of this step
            reduced = self._step_some(metrics, active)
            if reduced > 0 or self.device.type != "cpu":
                index = self.reduced.nonzero().flatten()  # a GPU has to be asked
        if isinstance(index, Tensor) and len(index):
            tell(self, index)

    def _step_some(self, metrics: Any, active: Any) -> int:
        """Step the active lanes, all for None; return how many had a rate lowered."""
        if active is None:
            answer = self._core.step(metrics)
        else:
            answer = self._core.step_masked(metrics, active)
            if answer == _core.UNREADABLE:
                active = mask_of("active", active, len(self), self.device)
                answer = self._core.step_masked(metrics, active)
        return answer if answer >= 0 else self._step_again(answer, metrics, active)

    def _step_again(
        self, answer: int, metrics: Any, active: Tensor | None = None, fetch: bool = False
    ) -> int:
        """Step after the core refused to; return how many lanes had a rate lowered."""
        with self._core:
            if answer == _core.MOVED:
                self._take_moved()
            else:
                metrics = readable(metrics, len(self), self.dtype, self.device, fetch)
            if active is None:
                reduced = self._core.step(metrics)
            else:
                reduced = self._core.step_masked(metrics, active)
            if reduced < 0 and reduced != answer:
                reduced = self._step_again(reduced, metrics, active, fetch)
        if reduced < 0:
            raise RuntimeError(f"metrics: cannot read this {kind_of(metrics)}; report a bug")
        return reduced

    def _replay(self, history: Tensor, rows: dict[str, Tensor], threads: int) -> None:
        """Step through a history and fill the flat tensors in ``rows``; see ``replay``."""
        with self._core:
            self._take_moved()
            self._core.replay(history, rows, threads)

    def _step_traced(self, metrics: Any, active: Any) -> None:
        if self._on_reduce is not None:
            raise RuntimeError(
                "PlateauLanes.step: lanes with on_reduce cannot be compiled; call it outside the "
                "compiled function"
            )
        state = self._state
        step_(
            metrics.detach(),
            active,
            list(state.fields.values()),
            self._names,
            state.offsets,
            self._uniform,
            self._each,
            self._has_parts,
        )

    # -- saving -----------------------------------------------------------------------------------

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot: tensors (clones) and primitives only, safe for ``weights_only=True``.

        Keys: ``best``, ``num_bad_epochs``, ``cooldown_counter``, ``improved``, ``reduced``,
        ``num_reductions``, ``num_steps``, ``lr`` and ``start_lr`` (float64, one per group),
        ``groups`` (rates per lane, or None for one each), ``settings`` (words per lane as codes)
        and ``options``, everything else that these lanes remember; ``raised`` where rates may rise.
        Does not synchronise: tensors stay on their device.
        """
        return snapshot(self._state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot in place: ``lr`` and ``best`` keep their identity.

        The snapshot's hyper-parameters replace these lanes' own, as torch's schedulers do; those
        beyond torch's that it does not have are as they are unless told. Tensors may lie on any
        device (this synchronises then). How many events are recorded stays; those of the snapshot
        are taken over if it recorded as many.

        Raises KeyError, TypeError or ValueError, with nothing changed, for a snapshot of another
        number of lanes or groups, missing or unknown keys, numbers out of range, or a ``best``
        that float32 lanes cannot hold exactly.
        """
        self._change(self._restored(state_dict))

    def _restored(self, state_dict: Any) -> Move:
        return lambda state: restored(
            state_dict, state.n, state.groups, state.capacity, state.dtype, state.device
        )

    @in_turn
    def __getstate__(self) -> dict[str, Any]:
        state = self._state
        return {
            "state": kept_for_spawn(snapshot(state)),
            "n": state.n,
            "groups": self.groups,
            "events": state.capacity,
            "dtype": state.dtype,
            "device": str(state.device),
            "on_reduce": self._on_reduce,
            "agreement": self._agreement,
        }

    def __setstate__(self, saved: Any) -> None:
        names = ("n", "device", "dtype", "events", "on_reduce")
        check_keys("state", saved, ("state", "groups", "agreement", *names))
        device = _checked_device(*(saved[name] for name in names))
        n, groups, events, dtype = (saved[name] for name in ("n", "groups", "events", "dtype"))
        state = restored(saved["state"], n, groups, events, dtype, device, all_events=True)
        self._on_reduce, self._agreement = saved["on_reduce"], saved["agreement"]
        self._place(state)


def _checked_device(n: Any, device: Any, dtype: Any, events: Any, on_reduce: Any) -> torch.device:
    """Check what lanes are built with besides their settings; return where they live."""
    for name, value in (("n", n), ("events", events)):
        if not whole_number(value):
            raise ValueError(f"{name}: expected an integer of 0 or more, got {shown(value)}")
    if on_reduce is not None and not callable(on_reduce):
        raise TypeError(f"on_reduce: expected a function or None, got {kind_of(on_reduce)}")
    check_dtype(dtype)
    return check_device(device)
