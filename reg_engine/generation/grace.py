"""SIGTERM, as schedulers send it: the shard in hand is finished, if there is time, and no other."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from ..values import as_float

__all__ = ["EXIT", "Grace"]

EXIT = 143  # what a shell says of a process that SIGTERM ended


class Grace:
    """While it is entered, SIGTERM only asks; called, it says whether it did. The process leaves
    with exit code 143: when the block ends, or after the grace time wherever it is, then without
    what it has in hand (the shard's lease is given back). A second SIGTERM ends it at once.

    Args:
        seconds: of grace, >= 0; a main thread enters it.
    """

    def __init__(self, seconds: float) -> None:
        remedy = "Give seconds >= 0"
        self.seconds = as_float("grace", seconds, remedy, lambda v: 0 <= v < float("inf"))
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> Grace:
        for number, handler in ((signal.SIGTERM, self._ask), (signal.SIGALRM, self._leave)):
            self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked and kind is None:
            raise SystemExit(EXIT)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.seconds:
            self._leave(number, frame)
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT)
