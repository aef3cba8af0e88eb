"""Gibbs rounds: finished samples are noised to a level and denoised again, as more rows of a table.

A round draws from p(x_t | x_0) and then, by the rows below t, from what the guided model makes of
it (Moufad et al. 2025, arXiv 2505.21101, alternate the two after an unguided start). Where guidance
has a wrong distribution of its own, a few rounds at a level where guidance is nearly right bring
samples nearer to the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..schedules import Schedule
from ..values import as_float, as_int, shown, store
from .onestep import marginals_at, noised
from .tables import Row

__all__ = ["Gibbs", "refined"]

SAME = 1 + 1e-6  # ratio of noise levels that are the same level


@dataclass(frozen=True)
class Gibbs:
    """`rounds` times: noise the samples to `level`, and denoise them with the same guidance.

    Every round begins at `level` and goes on at those times of the solver's grid that lie below it;
    a method with a history begins anew, and so does what guidance keeps from row to row. Noise is
    each sample's own, drawn after all that the rows before asked for: without the rounds the
    samples are what they would have been.

    Args:
        level: noise level sigma/alpha > 0, between the last and the first of the grid.
        rounds: >= 1.

    Raises:
        InputError: a value out of range; in use, a level outside of the grid.
    """

    level: float
    rounds: int = 1

    def __post_init__(self) -> None:
        remedy = "Give a noise level sigma/alpha > 0, such as 0.4"
        store(self, level=as_float("level", self.level, remedy, lambda v: 0 < v < math.inf))
        store(self, rounds=as_int("rounds", self.rounds))


def refined(
    refine: Gibbs | None,
    schedule: Schedule,
    times: Any,
    build: Callable[[Any], tuple[Row, ...]],
) -> tuple[Row, ...]:
    """What `build(times)` gives, and the rows of every round."""
    rows = build(times)
    if refine is None:
        return rows
    if not isinstance(refine, Gibbs):
        raise InputError("refine", f"is {shown(refine)}", "Give Gibbs(level, rounds), or None")
    levels = [schedule.noise_level(float(t)) for t in times]
    if not levels[-1] * SAME < refine.level < levels[0] / SAME:
        raise InputError(
            "refine",
            f"begins at noise level {refine.level:g}, the samples at {levels[0]:.3g} and end at "
            f"{levels[-1]:.3g}",
            "Give Gibbs(level) between them",
        )
    pairs = zip(times, levels, strict=True)
    below = [float(t) for t, level in pairs if level * SAME < refine.level]
    first, *rest = build([schedule.time_of(refine.level), *below])
    again = [replace(first, fresh=True), *rest]
    start = marginals_at(schedule, [again[0].t])[0]
    found = list(rows)
    for _ in range(refine.rounds):
        found[-1] = noised(found[-1], start)
        found += again
    return tuple(found)
