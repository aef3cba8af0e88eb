"""What a pickle says, in values that do nothing: names and records; and how much it may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["MOST_OPCODES", "MOST_TEXT", "NAMED", "Budget", "Name", "Record"]

MOST_OPCODES = 1 << 18  # the largest published snapshots have a fifth
NAMED = 32  # opcodes that a name counts for: it takes as long to read
MOST_TEXT = 1 << 24  # bytes of all strings
_LONGEST = 1 << 20  # bytes of one, which may be the source of a module


@dataclass(frozen=True, slots=True)
class Name:
    """A function or class that a file names; nothing more than its name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Record:
    """An object that a file describes: its class's name, arguments, state, items as of a dict."""

    kind: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Budget:
    """Opcodes and bytes of text that may still be read."""

    opcodes: int = MOST_OPCODES
    text: int = MOST_TEXT

    def spend(self, opcodes: int = 0, text: int = 0) -> None:
        """ValueError where they are used up."""
        self.opcodes -= opcodes
        self.text -= text
        if self.opcodes < 0:
            raise ValueError(f"more than {MOST_OPCODES} opcodes")
        if text > _LONGEST or self.text < 0:
            raise ValueError(f"a text of more than {_LONGEST} bytes, or {MOST_TEXT} in all")
