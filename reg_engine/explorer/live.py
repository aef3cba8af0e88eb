"""The newest choice wins: computations of one tab of one visitor, off the event loop."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ..errors import RegEngineError
from .view import Stale, View, Wanted

__all__ = ["Live", "said"]

# One core a visitor, two visitors at a time: the networks here are too small to share among cores.
_WORKERS = ThreadPoolExecutor(2, "explorer", lambda: torch.set_num_threads(1))


class Live:
    """Runs `compute` for the newest choices, and tells `shown` or `failed` what came of it.

    Args:
        compute: (choices, wanted) -> View, in a thread; may raise Stale once `wanted()` is false.
        shown: called on the event loop with the View.
        failed: called on the event loop with the error's text.
        busy: called with True when work begins and False when none is left.
        finish: let a computation end, though newer choices wait: for those that are quick, so that
            something is shown while a slider moves.
    """

    def __init__(
        self,
        compute: Callable[[Any, Wanted], View],
        shown: Callable[[View], None],
        failed: Callable[[str], None],
        busy: Callable[[bool], None] = lambda _: None,
        finish: bool = False,
    ) -> None:
        self.compute, self.shown, self.failed = compute, shown, failed
        self.busy, self.finish = busy, finish
        self._newest, self._running, self._open = 0, False, True
        self._ask: Callable[[], Any] | None = None

    def close(self) -> None:
        """The visitor has left: what still runs is given up."""
        self._open = False

    async def ask(self, choices: Callable[[], Any]) -> None:
        """Compute for what `choices()` gives; returns when nothing newer is left to do.

        `choices` is called on the event loop, and what it raises is shown as an error.
        """
        self._newest, self._ask = self._newest + 1, choices
        if self._running:
            return
        self._running = True
        self.busy(True)
        try:
            done = 0
            while self._open and done != self._newest:
                done = self._newest
                await self._once(done, self._ask)
        finally:
            self._running = False
            if self._open:
                self.busy(False)

    async def _once(self, number: int, choices: Callable[[], Any]) -> None:
        def wanted() -> bool:
            return self._open and (self.finish or number == self._newest)

        try:
            work = asyncio.get_running_loop().run_in_executor(
                _WORKERS, lambda chosen: self.compute(chosen, wanted), choices()
            )
            await self._show(work, wanted)
        except Exception as error:
            if self._open:
                self.failed(said(error))

    async def _show(self, work: Awaitable[View], wanted: Wanted) -> None:
        try:
            view = await work
        except Stale:
            return
        if wanted():
            self.shown(view)


def said(error: Exception) -> str:
    """An error for the page: its own words where it was raised on purpose; else its kind and words,
    and the traceback on standard error."""
    if isinstance(error, RegEngineError):
        return str(error)
    traceback.print_exception(error)
    text = " ".join(str(error).split())[:300]
    return f"This is a defect of the explorer: {type(error).__name__}: {text}"
