"""Methods during which no other thread steps or changes the same lanes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from torch.compiler import is_dynamo_compiling

__all__ = ["in_turn"]


class _Ordered(Protocol):
    @property
    def _turn(self) -> AbstractContextManager[Any]: ...


Self = TypeVar("Self", bound=_Ordered)
Args = ParamSpec("Args")
Result = TypeVar("Result")


def in_turn(
    method: Callable[Concatenate[Self, Args], Result],
) -> Callable[Concatenate[Self, Args], Result]:
    """Let a method have the turn that its object's ``_turn`` is; the same thread may nest them."""

    @functools.wraps(method)
    def ordered(self: Self, /, *args: Args.args, **kwargs: Args.kwargs) -> Result:
        if is_dynamo_compiling():
            return method(self, *args, **kwargs)
        with self._turn:
            return method(self, *args, **kwargs)

    return ordered
