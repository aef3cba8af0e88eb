"""How much the networks were asked."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, field

__all__ = ["Counter"]


@dataclass
class Counter:
    """Work done, in rows of a batch: forward evaluations and backward passes; and the calls of ops
    for which forward mode has no rule of its own."""

    forward: int = 0
    backward: int = 0
    fallbacks: Tally[str] = field(default_factory=Tally)
