"""A step of ours beside its rivals' and beside a copy of as many bytes: equality first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...bench.cases import Case, Rule, Start, bytes_a_lane, scenario
from ...bench.device_timing import Timed, host_and_device
from ...bench.equal import DifferenceError, check_lanes, settled
from ...bench.figures import Row, reason
from ...bench.optax_rival import Optax, optax_versions
from ...bench.rivals import OURS, Copy, Ours, Schedulers
from ...bench.timing import Call, on_host
from ...bench.vectorised import Compiled, Where

__all__ = ["Steps"]

DTYPES = "f32"  # of lanes and metrics
LOOPED = 50_000  # lanes up to which N torch schedulers are timed: beyond, a step takes 50 ms or so
LEAST_COPY = 1 << 18  # bytes; the time of a smaller copy is that of the call

Made = TypeVar("Made")
Name = tuple[str, str]


class Steps:
    """One run: what is compared, what was found, and what had to be left out.

    ``rows`` has one for each size, scenario and competitor; ``bandwidth`` one for each size and
    scenario: what a copy moves, and the least time that the bytes of a step take at that.
    """

    def __init__(self, device: torch.device, per_lane: bool, quick: bool) -> None:
        self.device, self.per_lane, self.quick = device, per_lane, quick
        self.on_gpu = device.type == "cuda"
        self.scenarios = ["mixed"] if quick else ["quiet", "mixed", "cut"]
        self.compiled = ["in place"] if quick else ["functional", "in place", "two graphs"]
        self.rows: list[Row] = []
        self.bandwidth: list[Row] = []
        self.not_run: list[Row] = []
        why_not = {
            "not installed (pip install jax optax)": optax_versions()["optax"] is None,
            "it is timed on the CPU only": self.on_gpu,
            "its settings are constants, not one per lane": per_lane,
        }
        reasons = [why for why, holds in why_not.items() if holds]
        self.optax = not reasons
        if reasons:
            self._leave_out("optax", "everything", reasons[0])

    def _leave_out(self, rival: str, what: str, reason: str) -> None:
        self.not_run.append({"rival": rival, "what": what, "reason": reason})

    # -- who competes -----------------------------------------------------------------------------

    def _written(self, rule: Rule, start: Start) -> list[Case]:
        """Return ours and the rule in torch, as it is written."""
        variants = ["plain", "tuned", *(["in place"] if self.on_gpu else [])]
        return [Ours(rule, start), *(Where(rule, start, variant) for variant in variants)]

    def _unless_it_fails(self, what: str, make: Callable[[], Made]) -> Made | None:
        """Return what ``make`` does; None, and no more of torch.compile, where that fails."""
        try:
            return make()
        except DifferenceError:
            raise
        except Exception as error:  # no compiler, or one that fails: the others go on
            self._leave_out("torch.compile", what, reason(error))
            self.compiled = []
            return None

    # -- equality ---------------------------------------------------------------------------------

    def check(self) -> int:
        """Hold all but optax to torch's schedulers; return the steps of lanes that were equal.

        Raises DifferenceError, which says what differs.
        """
        alike = partial(check_lanes, DTYPES, self.per_lane, device=self.device)
        steps = alike(self._written) + alike(_looped)
        for variant in self.compiled:
            torch._dynamo.reset()
            one = partial(_compiled, variant)
            steps += self._unless_it_fails("everything", partial(alike, one)) or 0
        return steps

    # -- times ------------------------------------------------------------------------------------

    def size(self, n: int) -> None:
        """Time all competitors at one size; raises DifferenceError as ``check`` does."""
        for name in self.scenarios:
            torch._dynamo.reset()  # no entry of another size in the caches of compiled code
            rule, start, metrics = scenario(name, n, DTYPES, self.per_lane, self.device)
            cases = self._competitors(rule, start, metrics)
            calls: dict[Name, Call] = {
                (case.rival, case.variant): (case.step, case.feed(metrics)) for case in cases
            }
            a_lane = bytes_a_lane(DTYPES, name, self.per_lane)
            for copy in self._copies(a_lane * n):
                calls[copy.rival, copy.variant] = copy.step, copy.argument()
            where = {
                "lanes": n,
                "dtypes": DTYPES,
                "settings": "per lane" if self.per_lane else "uniform",
                "scenario": name,
            }
            times = self._times(calls)
            copies = {key: times.pop(key) for key in list(times) if key[0] == Copy.rival}
            self.rows += [
                {**where, "rival": rival, "variant": variant, **figures}
                for (rival, variant), figures in times.items()
            ]
            (_, variant), figures = min(copies.items(), key=lambda each: each[1]["median_us"])
            per_s = max(a_lane * n, LEAST_COPY) / figures["median_us"] / 1e3
            self.bandwidth.append(
                {
                    **where,
                    "bytes_a_lane": a_lane,
                    "copy": variant,
                    "gb_per_s": float(f"{per_s:.4g}"),
                    "least_us": float(f"{a_lane * n / per_s / 1e3:.4g}"),
                }
            )
        if n > LOOPED:
            why = f"with more than {LOOPED:,} lanes a Python call for each takes too long"
            self._leave_out("N torch schedulers", f"{n:,} lanes", why)

    def _competitors(self, rule: Rule, start: Start, metrics: Tensor) -> list[Case]:
        """Return them after three steps that left all in one state."""
        n = len(metrics)
        cases = self._written(rule, start)
        if n <= LOOPED:
            variants = ["tolist"] if self.on_gpu else ["list of floats", "tolist"]
            cases[1:1] = [Schedulers(rule, start, variant) for variant in variants]
        for case in cases:
            settled(case, metrics, cases[0])

        def compiled(variant: str) -> list[Case]:
            made = _compiled(variant, rule, start)
            settled(made[0], metrics, cases[0])
            return made

        for variant in self.compiled:
            cases += self._unless_it_fails(f"{n:,} lanes", partial(compiled, variant)) or []
        return [*cases, Optax(rule, start)] if self.optax else cases

    def _copies(self, traffic: int) -> list[Copy]:
        variants = ["torch copy_"] if self.on_gpu else ["torch copy_", "memmove"]
        return [Copy(max(traffic, LEAST_COPY), each, self.device) for each in variants]

    def _times(self, calls: dict[Name, Call]) -> dict[Name, dict[str, Any]]:
        """Return the figures of each; on a GPU those of the device, and ``host_us`` besides."""
        rounds, burst, most = (9, 0.001, 0.15) if self.quick else (31, 0.002, 0.4)
        ours = (OURS, "")
        if not self.on_gpu:
            return on_host(calls, rounds, burst, most, against=ours)
        timed = {}
        for key, (step, argument) in calls.items():
            once = partial(step, argument)
            timed[key] = Timed(once, once)
        both = host_and_device(timed, self.device, rounds, burst, most, against=ours)
        return {
            key: {**figures["device"], "host_us": figures["host"]["median_us"]}
            for key, figures in both.items()
        }


def _looped(rule: Rule, start: Start) -> list[Case]:
    return [Schedulers(rule, start, "tolist")]


def _compiled(variant: str, rule: Rule, start: Start) -> list[Case]:
    return [Compiled(rule, start, variant)]
