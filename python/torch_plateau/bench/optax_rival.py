"""The rule in JAX, as optax has it: timed only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .cases import Rule, Start, State

__all__ = ["Optax", "optax_versions"]


class Optax:
    """``jax.jit(jax.vmap(optax.contrib.reduce_on_plateau))`` with donated float32 state.

    For its time only: it compares in float32, has no ``eps`` and cuts on bad step number
    ``patience``, not ``patience + 1`` (so it gets one more here).
    """

    rival, variant = "optax", ""

    def __init__(self, rule: Rule, start: Start) -> None:
        jax, reduce_on_plateau = _optax()
        transform = reduce_on_plateau(
            factor=rule.factor,
            patience=rule.patience + 1,
            rtol=rule.threshold,
            cooldown=rule.cooldown,
            min_scale=rule.min_lr,
        )
        self.jnp = jax.numpy
        fresh = jax.vmap(lambda _: transform.init(()))(jax.numpy.zeros(len(start.best)))
        self.now = fresh._replace(
            best_value=self.feed(start.best.float()), plateau_count=self.feed(start.clock)
        )
        update = jax.vmap(lambda state, metric: transform.update((), state, value=metric)[1])
        self.update = jax.jit(update, donate_argnums=0)

    def feed(self, metrics: Tensor) -> Any:
        """Return a JAX array."""
        return self.jnp.array(metrics.numpy())

    def step(self, metrics: Any) -> None:
        """Advance, and wait until it is done."""
        self.now = self.update(self.now, metrics)
        self.now.scale.block_until_ready()

    def state(self) -> State:
        """Refuse: there is nothing to compare."""
        raise TypeError("optax is timed only: it counts patience otherwise")


def optax_versions() -> dict[str, str | None]:
    """Return the versions of jax and optax, None where they are not installed."""
    try:
        jax, _ = _optax()
        import optax
    except ImportError:
        return {"jax": None, "optax": None}
    return {"jax": jax.__version__, "optax": optax.__version__}


def _optax() -> tuple[Any, Callable[..., Any]]:
    """Import JAX with a thread pool of one: it has as many threads as it sees processors."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    pinnable = hasattr(os, "sched_setaffinity")
    processors = os.sched_getaffinity(0) if pinnable else set()
    try:
        if pinnable:
            os.sched_setaffinity(0, {min(processors)})
        import jax
        from optax.contrib import reduce_on_plateau

        config: Any = jax.config
        config.update("jax_cpu_enable_async_dispatch", False)  # no hop to another thread
        jax.devices()
    finally:
        if pinnable:
            os.sched_setaffinity(0, processors)
    return jax, reduce_on_plateau
