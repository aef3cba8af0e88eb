"""What a tab shows: pictures with their text, a table; and how a computation is given up."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..loop.step import Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Stale", "View", "always", "png", "stopping"]

Wanted = Callable[[], bool]
_PNG: dict[str, Any] = {"dpi": 110, "metadata": {"Software": None}}
_PNG |= {"pil_kwargs": {"compress_level": 1}}  # half the time of the default
_DRAWING = threading.Lock()  # matplotlib's caches of fonts and texts are shared by all threads


class Stale(Exception):
    """Nobody waits for this computation any more."""


@dataclass(frozen=True)
class Picture:
    """A PNG, and what it shows in words."""

    data: bytes
    alt: str


@dataclass(frozen=True)
class View:
    """Pictures, the head and rows of a table, and lines of text under it."""

    pictures: tuple[Picture, ...]
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def always() -> bool:
    """Wanted whatever happens."""
    return True


def stopping(wanted: Wanted) -> Callable[[Step], None]:
    """A callback for `Engine.sample` that raises Stale once nobody waits any more."""

    def look(_: Step) -> None:
        if not wanted():
            raise Stale

    return look


def png(draw: Callable[..., Figure], *arguments: Any) -> bytes:
    """The figure that `draw(*arguments)` makes, as PNG; one at a time."""
    file = io.BytesIO()
    with _DRAWING:
        draw(*arguments).savefig(file, format="png", **_PNG)
    return file.getvalue()
