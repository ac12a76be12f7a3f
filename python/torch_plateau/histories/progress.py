"""A progress bar for work that may be over before anybody wonders."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any


class LateBar:
    """A bar on stderr that appears a second after the start, if there is a terminal and rich.

    ``total`` (None where it is unknown) and :meth:`advance` are in any unit. Use it in a ``with``
    statement.
    """

    AFTER = 1.0  # seconds

    def __init__(
        self, text: str, total: int | None, wanted: bool = True, console: Any = None
    ) -> None:
        self._text, self._total, self._done = text, total, 0
        self._wanted, self._console = wanted, console
        self._bar: Any = None
        self._begin = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count ``amount`` more as done."""
        self._done += amount
        if self._bar is None and self._wanted and time.monotonic() - self._begin >= self.AFTER:
            self._show()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def _show(self) -> None:
        self._wanted = False
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ModuleNotFoundError:
            return
        console = self._console or Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(console=console, transient=True)
            self._bar.add_task(self._text, total=self._total)
            self._bar.start()

    def __enter__(self) -> LateBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
