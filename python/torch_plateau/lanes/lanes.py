"""The state machine itself: N plateaus in tensors, one fused pass a step, no optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from typing_extensions import Self

from .. import _core
from .agreement import Agreement, agreement_of
from .changes import changed, changed_for_all
from .comparison import State
from .device import check_device, check_dtype
from .events import Cuts, read_events
from .halving import halved
from .inputs import mask_of, readable
from .memory import kept_for_spawn
from .operator import step_
from .placed import Placed
from .readable import kind_of
from .saved import check_held, restored, snapshot
from .selection import Which, alike, chosen, numbers_of
from .settings import (
    check_averages,
    check_names,
    checked_settings,
    count_groups,
    offsets_of,
    per_group,
    plain,
)
from .state import FINISHED, IMPROVED, RAISED, REDUCED, LaneState
from .table import RATE, SETTINGS, STOP_REASONS, whole_number
from .turns import in_turn
from .values import brief, check_keys, checked, shown
from .writes import Write, beginning_anew, copying

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import LaneSettings

__all__ = ["PlateauLanes"]

Move = Callable[[LaneState], LaneState | list[Write]]

_SHARE = SETTINGS["factor"]._replace(name="keep", open_high=False, expected="above 0 and at most 1")


class PlateauLanes(Placed):
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

    def _agree(
        self, metrics: Any, active: Any, agreement: Agreement
    ) -> tuple[Tensor, Tensor | None]:
        agreement.check(self._compared)
        return agreement.agree(metrics, active, len(self), self.dtype, self.device)

    def _compared(self) -> State:
        return State(self._state.compared(), self._state.place)

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

    # -- reading ----------------------------------------------------------------------------------

    @property
    def lr(self) -> Tensor:
        """Published rates, float32, shape ``(groups,)``: live, and what optimizers read.

        Writing to it in place is allowed (``lanes.lr[3] = 0.01``): the next cut of that group
        starts from the written value. (Lanes in a warm-up or with noise write it at every step.)
        """
        return self._lr

    @property
    @in_turn
    def lr_master(self) -> Tensor:
        """Rates at full precision, float64, ``(groups,)``; without a warm-up's factor or noise."""
        return self._state.master()

    @property
    def best(self) -> Tensor:
        """Best metric of each lane, ``dtype``, shape ``(n,)``: live. Infinite before the first."""
        self._core.watch_best()
        return self._state.fields["best"]

    @property
    @in_turn
    def num_bad_epochs(self) -> Tensor:
        """Bad steps in a row, int32, shape ``(n,)``; 0 with ``rule="band"``, which counts none."""
        return self._state.fields["clock"].clamp(min=0)

    @property
    @in_turn
    def cooldown_counter(self) -> Tensor:
        """Cooldown steps that are left, after a cut or a raise, int32, shape ``(n,)``."""
        return -self._state.fields["clock"].clamp(max=0)

    @property
    @in_turn
    def improved(self) -> Tensor:
        """Whether the last metric was better than best; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & IMPROVED).bool()

    @property
    @in_turn
    def reduced(self) -> Tensor:
        """Whether the last step lowered a rate of the lane; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & REDUCED).bool()

    @property
    @in_turn
    def raised(self) -> Tensor:
        """Whether the last step raised a rate of the lane; bool, shape ``(n,)``."""
        return (self._state.fields["outcome"] & RAISED).bool()

    @property
    @in_turn
    def num_reductions(self) -> Tensor:
        """Steps so far that lowered a rate of the lane, int32, shape ``(n,)``."""
        return self._state.fields["num_reductions"].clone()

    @property
    @in_turn
    def num_increases(self) -> Tensor:
        """Steps so far that raised a rate of the lane, int32, shape ``(n,)``."""
        counts = self._state.fields.get("num_increases")
        if counts is None:
            return torch.zeros(len(self), dtype=torch.int32, device=self.device)
        return counts.clone()

    @property
    @in_turn
    def num_steps(self) -> Tensor:
        """Steps taken by the batch, int64, 0-d."""
        return self._state.fields["num_steps"][0].clone()

    @property
    @in_turn
    def last_reduction(self) -> Tensor:
        """The lane's step (from 1) that last lowered a rate, 0 for none; int64, ``(n,)``.

        A lane counts the steps that it takes: not those for which it was masked or finished.
        """
        return self._state.fields["last_cut"] - self._state.fields["born"]

    @property
    @in_turn
    def finished(self) -> Tensor:
        """Whether steps pass the lane by, for its :attr:`stop_reason`; bool, ``(n,)``."""
        flags = self._state.fields.get("flags")
        if flags is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return (flags & FINISHED).bool()

    def all_finished(self) -> bool:
        """Return whether every lane is finished; the one call in a loop that asks the device."""
        return bool(self.finished.all())

    @property
    @in_turn
    def stop_reason(self) -> Tensor:
        """What finished the lane, a position in ``STOP_REASONS``, 0 for none; uint8, ``(n,)``.

        The first of these that held, in the order in which a step asks::

            nan              NaN, where nan is freeze
            diverged         worse than diverge_at, infinite, or NaN where nan is bad
            target           better than stop_at (and finite, where there is a diverge_at);
                             also where it is worse than diverge_at
            patience         stop_patience bad steps in a row, from step min_steps on
            floor            patience_at_min bad steps at the floor
            max_reductions   so many cuts
            max_steps        so many steps
            pruned           finished from outside

        A step that ends a lane is whole: ``best`` and rates are as ever. Only a metric that
        diverged counts for nothing else, and NaN that freezes is no step.
        """
        codes = self._state.fields.get("stop_reason")
        if codes is None:
            return torch.zeros(len(self), dtype=torch.uint8, device=self.device)
        return codes.clone()

    def stop_reasons(self) -> list[str | None]:
        """Return :attr:`stop_reason` in words, None for lanes that go on; synchronises."""
        return [STOP_REASONS[code] if code else None for code in self.stop_reason.tolist()]

    @property
    @in_turn
    def best_step(self) -> Tensor:
        """The lane's step (from 1) of its :attr:`best`, 0 for none; int64, ``(n,)``.

        Counted for lanes with optional parts or events only, from when they have them: writing it
        would cost other lanes more than all else that an improvement writes. Raises RuntimeError
        for those.
        """
        steps = self._state.fields.get("best_step")
        if steps is None:
            raise RuntimeError(
                "best_step: expected lanes with an optional part (as max_steps) or events, got "
                "plain ones, which do not count it"
            )
        return steps.clone()

    @property
    @in_turn
    def at_min_lr(self) -> Tensor:
        """Whether no rate of the lane can be lowered, by floor or ``eps``; bool, ``(n,)``."""
        return self._state.at_min()

    @in_turn
    def events(self) -> Cuts:
        """Return the recorded cuts, oldest first, and how many of them were overwritten.

        One for each rate that was lowered, or raised. Those of one step come in the order of their
        lanes on the CPU, and in any order on a GPU. Synchronises. Raises RuntimeError if ``events``
        was 0.
        """
        if not self._state.capacity:
            raise RuntimeError("events: none are recorded; build the lanes with events=1 or more")
        return read_events(self._state)

    @property
    @in_turn
    def settings(self) -> dict[str, Any]:
        """The hyper-parameters: numbers and words where uniform, else one value per lane.

        Words per lane are kept as codes on the device: to read them synchronises.
        """
        return {name: plain(SETTINGS[name], each) for name, each in self._state.settings.items()}

    @in_turn
    def settings_of(self, lane: int) -> dict[str, Any]:
        """Return the hyper-parameters of one lane: numbers, words and None.

        ``min_lr`` is a list where the lane does not own just one rate. Synchronises where there are
        some per lane. Raises TypeError or IndexError for a lane that does not exist.
        """
        if not whole_number(lane, -(2**63)):
            raise TypeError(f"lane: expected a lane number, got {kind_of(lane)}")
        numbers_of("lane", lane, len(self), self.device)
        groups = self.groups
        first, count = (lane, 1) if groups is None else (sum(groups[:lane]), groups[lane])
        found: dict[str, Any] = {}
        for name, value in self._state.settings.items():
            row = SETTINGS[name]
            if isinstance(value, Tensor):
                at = slice(first, first + count) if row.of == "group" else slice(lane, lane + 1)
                values = [plain(row, float(each)) for each in value[at].tolist()]
            else:
                values = [plain(row, value)] * (count if row.of == "group" else 1)
            found[name] = values[0] if len(values) == 1 else values
        return found

    @property
    def groups(self) -> list[int] | None:
        """How many rates each lane owns; None for one each."""
        return None if self._state.groups is None else list(self._state.groups)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self._state.device

    @property
    def dtype(self) -> torch.dtype:
        """What ``best`` is kept in."""
        return self._state.dtype

    def __len__(self) -> int:
        """Return the number of lanes."""
        return self._state.n

    def __repr__(self) -> str:
        """Show the settings; synchronises where there are some per lane, to show their range."""
        settings = "".join(
            f", {name}={brief(value)}"
            for name, value in self.settings.items()
            if isinstance(each := self._state.settings[name], Tensor)
            or each != SETTINGS[name].first
        )
        groups = "" if self._state.offsets is None else f", groups={self._state.num_groups}"
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        name = type(self).__name__
        return f"{name}({len(self)}{groups}{settings}, dtype={self.dtype}{where})"

    # -- the life of lanes ------------------------------------------------------------------------

    def reset(self, lanes: Which) -> None:
        """Begin anew: the starting rate, no best, no counts, no averages; settings stay.

        Recorded events and ``num_steps`` stay too. In place, without a synchronisation, and may be
        captured in a CUDA graph if ``lanes`` is a tensor. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        self._change(self._anew(lanes))

    def _anew(self, lanes: Which) -> Move:
        return lambda state: beginning_anew(
            state, chosen("lanes", lanes, state.n, state.device).mask
        )

    def copy_lanes(self, src: Which, dst: Which) -> None:
        """Make each lane ``dst[i]`` what lane ``src[i]`` was before: state, rates and settings.

        ``src`` and ``dst`` may overlap; where ``dst`` names a lane twice the last counts.
        ``num_steps`` and recorded events stay, and so does the optimizer's own state (copy the
        rows of stacked parameters with it). In place, without a synchronisation, and may be
        captured in a CUDA graph if both are tensors.

        Args:
            src: Lane numbers; or one, for all of ``dst``.
            dst: As many lane numbers.

        Raises TypeError, ValueError or IndexError, with nothing changed, for masks, different
        lengths, lanes that do not exist or lanes with unequal numbers of groups.
        """
        self._change(self._copied(src, dst))

    def _copied(self, src: Which, dst: Which) -> Move:
        def copied(state: LaneState) -> list[Write]:
            to = numbers_of("dst", dst, state.n, state.device)
            come_from = numbers_of("src", src, state.n, state.device)
            if len(come_from) not in (1, len(to)):
                raise ValueError(
                    f"src: expected 1 or {len(to)} lanes, as in dst, got {len(come_from)}"
                )
            if len(set(state.groups or [1])) > 1:
                raise ValueError(
                    "src: expected lanes with equally many groups, got some with others"
                )
            return copying(state, alike(to, come_from.expand(len(to)), state.n), to)

        return copied

    def set_lanes(self, lanes: Which, **changes: Any) -> None:
        """Give lanes other rates or other hyper-parameters; uniform ones become one per lane.

        ::

            lanes.set_lanes(losers, lr=lanes.lr_master[winners] * 1.2, patience=3)

        The state stays, ``best`` too: a lane whose ``mode`` changes wants a :meth:`reset`. So does
        the starting rate, to which a reset returns. In place, without a synchronisation but for the
        first ``window`` of lanes that had none, and may be captured in a CUDA graph if all are
        tensors.

        Args:
            lanes: Which. Where a number comes twice the last value counts.
            changes: ``lr`` or any setting of the constructor: one value, or one for each lane in
                ``lanes`` (for a mask: for every lane). ``lr`` and ``min_lr`` are set for all groups
                of the lane. Numbers and CPU tensors are checked; a tensor on a GPU is not.

        Capture a CUDA graph of the step again when a uniform setting became one per lane.

        Raises TypeError, ValueError or IndexError, with nothing changed, for an unknown name, a
        value of a wrong shape or out of range, None, a setting that is None in the other lanes, or
        a longer window than the longest so far.
        """
        check_names("set_lanes", changes, "lr")
        self._change(
            lambda state: changed(state, chosen("lanes", lanes, state.n, state.device), changes)
        )

    def halve(self, metrics: Any, keep: float = 0.5) -> Tensor:
        """Finish the worst of the live lanes; return which, bool ``(n,)``.

        ::

            live  = lanes that are not finished, the best metric first, NaN last, ties by number
            kept  = max(1, round(len(live) * keep))          halves to the even number
            finished = finished or in live[kept:]

        Successive halving, a third of the lanes three times as long in each rung::

            for rung in range(4):
                for epoch in range(3**rung):
                    losses = ...                    train and validate the live lanes
                    lanes.step(losses)
                lanes.halve(losses, keep=1 / 3)

        Finished lanes are passed by, as those are that a limit finished; a :meth:`reset` or
        :meth:`copy_lanes` brings them back. In place, without a synchronisation, and may be
        captured in a CUDA graph. Lanes without optional parts get ``nan`` as a setting per lane at
        their first halving, since plain steps know no finished lanes: capture a graph of the step
        again then.

        Args:
            metrics: One for each lane, as :meth:`step` takes them; those of finished lanes may be
                anything.
            keep: The share of the live lanes that stays, above 0 and at most 1.

        Raises TypeError or ValueError, with nothing changed, for other metrics or shares, and for
        lanes of which each has its own ``mode``.
        """
        share = float(checked(_SHARE, keep, label="keep"))
        if self._agreement is not None:
            metrics, _ = self._agree(metrics, None, self._agreement)
        values = readable(metrics, len(self), self.dtype, self.device)
        found: list[Tensor] = []

        def finished(state: LaneState) -> LaneState:
            new, worst = halved(state, values, share)
            found.append(worst)
            return new

        self._change(finished)
        return found[0]

    def _set_settings(self, **changes: Any) -> None:
        """Change settings of all lanes: one value stays one, as the constructor takes it."""
        self._change(lambda state: changed_for_all(state, changes))

    def _set_rates(self, rates: Mapping[int, float]) -> None:
        """Set the rates of groups by their numbers, in place; they are checked already."""
        if not rates:
            return

        def written(state: LaneState) -> LaneState:
            index = torch.tensor(list(rates), dtype=torch.int64).to(state.device)
            values = torch.tensor(list(rates.values()), dtype=torch.float64).to(state.device)
            fields = {name: state.fields[name].clone() for name in ("rate", "published")}
            fields["rate"][index], fields["published"][index] = values, values.float()
            return state.replaced(fields)

        self._change(written)

    def append(
        self,
        k: int,
        lr: float | Sequence[float] | Tensor,
        *,
        groups: Sequence[int] | None = None,
        **settings: Unpack[LaneSettings],
    ) -> None:
        """Add ``k`` lanes at the end, built as by the constructor with ``lr`` and ``settings``.

        Settings that are not given are those of the lanes there are, if these are uniform, else
        the constructor's; ``groups``, one each. Every tensor is replaced, ``lr`` too. Synchronises.

        Raises as the constructor does, and ValueError for a setting that is None in some lanes
        only, or a longer window than the longest so far; with nothing changed.
        """
        self._change(self._appended(k, lr, groups, settings), in_place=False)

    def _appended(self, k: int, lr: Any, groups: Any, settings: Mapping[str, Any]) -> Move:
        if not whole_number(k):
            raise ValueError(f"k: expected an integer of 0 or more, got {shown(k)}")
        check_names("append", settings, "groups")

        def joined(state: LaneState) -> LaneState:
            uniform = {
                name: plain(SETTINGS[name], value)
                for name, value in state.settings.items()
                if not isinstance(value, Tensor)
            }
            counts = [1] * k if groups is None and state.groups is not None else groups
            offsets = offsets_of(k, counts)
            given = checked_settings(k, offsets, {**uniform, **settings}, state.dtype)
            rate = per_group(RATE, lr, k, offsets, "lr").expand(count_groups(k, offsets))
            added = LaneState.begin(k, rate, given, offsets, 0, state.dtype, state.device)
            return state.join(added)

        return joined

    def remove(self, lanes: Which) -> None:
        """Take lanes out; the others move up. Every tensor is replaced, ``lr`` too. Synchronises.

        Recorded events keep the numbers that lanes had. Raises TypeError, ValueError or
        IndexError, with nothing changed, for lanes that do not exist.
        """
        self._change(self._without(lanes), in_place=False)

    def _without(self, lanes: Which) -> Move:
        return lambda state: state.select(~chosen("lanes", lanes, state.n, state.device).mask)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the lanes, or change what ``best`` is kept in, and return ``self``.

        With ``dtype`` only ``best`` is replaced; on another device every tensor is, ``lr`` too.
        Raises RuntimeError for a device that cannot be used and ValueError, with nothing changed,
        for a ``best`` that float32 cannot hold exactly. Synchronises.
        """
        new_device = self.device if device is None else check_device(device)
        new_dtype = self.dtype if dtype is None else dtype
        check_dtype(new_dtype)

        def moved(state: LaneState) -> LaneState:
            check_averages(state.settings, new_dtype)
            check_held(state.fields["best"], new_dtype)
            return state.to(new_device, new_dtype)

        self._change(moved, in_place=False)
        return self

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
