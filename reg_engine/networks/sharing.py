"""Changes to a network that overlapping calls share, and those that one thread sees alone.

Calls overlap in threads, and in one thread where a network or a postprocess samples itself. What a
call changes in a network is made by the first that needs it and undone by the last that leaves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["LOCK", "Change", "as_it_was", "forward_of", "held", "rerouted"]

LOCK = threading.RLock()  # one for all that calls share of the process
Forward = Callable[..., Any]
Change = tuple[object, str, Callable[[], Callable[[], None] | None]]


@dataclass
class _Held:
    owner: object  # kept alive, so that its id stays its own
    undo: Callable[[], None]
    users: int = 0


_HELD: dict[tuple[int, str], _Held] = {}


@contextmanager
def held(changes: Iterable[Change]) -> Iterator[None]:
    """Make changes for the block; the last of overlapping blocks undoes them, also on an error.

    Args:
        changes: (owner, name, make) each. `make()` gives what undoes the change, or None where the
            owner needs none; it is asked by every block that enters.
    """
    mine: list[tuple[int, str]] = []
    try:
        with LOCK:
            for owner, name, make in changes:
                key = id(owner), name
                undo = make()
                if undo is not None and key not in _HELD:
                    _HELD[key] = _Held(owner, undo)
                if key in _HELD:
                    _HELD[key].users += 1
                    mine.append(key)
        yield
    finally:
        with LOCK:
            for key in reversed(mine):
                _HELD[key].users -= 1
                if not _HELD[key].users:
                    _HELD.pop(key).undo()


class _Routes(threading.local):
    """This thread's forwards, by block."""

    def __init__(self) -> None:
        self.forwards: dict[int, Forward] = {}


_ROUTES = _Routes()


class _Switch:
    """Stands as a block's forward: the calling thread's own, or else what was there."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.original = id(block), block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ROUTES.forwards.get(self.block, self.original)(*args, **kwargs)


def forward_of(block: nn.Module) -> Forward:
    """The block's forward in this thread, whatever other threads put in its place."""
    with LOCK:
        forward: Forward = block.forward
    if isinstance(forward, _Switch):
        return _ROUTES.forwards.get(id(block), forward.original)
    return forward


@contextmanager
def rerouted(forwards: dict[nn.Module, Forward]) -> Iterator[None]:
    """Blocks that run another forward in the block, in this thread alone."""
    routes = _ROUTES.forwards | {id(block): forward for block, forward in forwards.items()}
    with held((block, "forward", _switch(block)) for block in forwards), _routes(routes):
        yield


def as_it_was() -> AbstractContextManager[None]:
    """Context in which this thread runs every block as its network has it."""
    return _routes({})


@contextmanager
def _routes(forwards: dict[int, Forward]) -> Iterator[None]:
    before, _ROUTES.forwards = _ROUTES.forwards, forwards
    try:
        yield
    finally:
        _ROUTES.forwards = before


def _switch(block: nn.Module) -> Callable[[], Callable[[], None] | None]:
    def make() -> Callable[[], None] | None:
        before = block.__dict__.get("forward")  # somebody else's patch, to be put back
        if isinstance(before, _Switch):
            return None
        switch = block.__dict__["forward"] = _Switch(block)

        def undo() -> None:
            if block.__dict__.get("forward") is not switch:
                return  # patched meanwhile, on top of ours
            del block.__dict__["forward"]  # the class's forward shows again
            if before is not None:
                block.__dict__["forward"] = before

        return undo

    return make
