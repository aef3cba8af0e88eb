"""One progress bar (rich) for a call; silent when not asked for or when nobody looks."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress:
    """Context manager with `advance(n)`; draws on standard error if that is a terminal.

    Args:
        total: units of work.
        shown: False draws nothing.
        label: text before the bar.
    """

    def __init__(self, total: int, shown: bool = True, label: str = "sampling") -> None:
        self._bar: Bar | None = None
        if shown and (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
            self._bar = _bar(label)
            self._task = self._bar.add_task(label, total=total)

    def advance(self, amount: int) -> None:
        """Count `amount` more units."""
        if self._bar is not None:
            self._bar.advance(self._task, amount)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(label: str) -> Bar:
    # Here: rich takes longer to import than the rest of the package, and most calls show nothing.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn(label),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
