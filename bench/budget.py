"""How long `pytest bench/ --benchmark` may take: what is quick comes first, the rest is named."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["GATE", "Budget", "rank"]

GATE = 0.4  # of the time: for the tests that come first
GENEROUS = 3.0  # times an equal share of what is left, for one group
LEAST = 10.0  # seconds that a group is given if there are as many


class Budget:
    """Time for groups of benchmarks that are measured together.

    Args:
        minutes: for everything, from now on; 0 = no limit.
        now: a clock, in seconds.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self.minutes, self._now = minutes, now
        self._end = now() + 60 * minutes if minutes else math.inf
        self._until: dict[Hashable, float] = {}
        self._left_out: Counter[str] = Counter()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self._end)

    def gate(self) -> float:
        """Seconds for the tests."""
        return GATE * 60 * self.minutes if self.limited else math.inf

    def until(self, group: Hashable, groups: int) -> float | None:
        """When a group should end, by the clock; None: it does not begin.

        Args:
            groups: how many are to come, this one included.
        """
        if group not in self._until:
            left = self._end - self._now()
            if left <= 0:
                return None
            share = max(GENEROUS * left / max(groups, 1), LEAST)
            self._until[group] = min(self._end, self._now() + share)
        return self._until[group]

    def leave(self, what: str) -> None:
        """Note one benchmark that found no time."""
        self._left_out[what] += 1

    def before(self) -> str:
        """What to expect, in one line."""
        if not self.limited:
            return "all benchmarks, however long they take"
        return (
            f"about {self.minutes:g} minutes: the tests first (at most {self.gate() / 60:.2g}), "
            "then what is quick; --bench-minutes 0 measures all, -k a part"
        )

    def after(self) -> list[str]:
        """What was left out, a line for each kind."""
        return [f"{count:4} of {what}" for what, count in sorted(self._left_out.items())]


def rank(params: dict[str, Any], sixteen_bits_are_slow: bool) -> tuple[bool, bool, bool, int]:
    """Where a benchmark stands: eager before compiled and planned, what this processor has
    instructions for before what it emulates, the packaged model before the others, small first."""
    case = params.get("kernel_case") or params.get("model_case")
    contender = params.get("contender")
    late = params.get("provider") == "compile" or getattr(contender, "mode", "") in (
        "compiled",
        "planned",
    )
    emulated = sixteen_bits_are_slow and getattr(case, "dtype", "float32") != "float32"
    size = getattr(case, "numel", 0)
    return late, emulated, contender is not None and case.family != "mnist", size
