"""The clean samples that a damping is measured on, given or the model's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import as_seeds
from ..engine import Engine
from ..errors import InputError
from ..guidance.damped import as_increasing
from ..guidance.references import Unconditional
from ..networks.answers import conditioned
from ..networks.conditioning import Cond, as_cond, each, plain, size, take
from ..networks.point import Point
from ..noise import SampleNoise
from ..schedules import Schedule
from ..schedules.base import spaced
from ..solvers import Row, table
from ..values import shown

__all__ = ["Samples", "levels_of", "samples_of"]

RANGE = 0.02, 80.0  # noise levels of a table, for data of deviation 0.3 to 1


@dataclass(frozen=True)
class Samples:
    """Clean samples x0 (N, *sample_shape), their conditioning and seeds, who evaluates them, and
    what the unconditional model is told beside each."""

    engine: Engine
    x0: Tensor
    cond: Cond
    seeds: list[int]
    beside: Cond

    def batches(self, repeat: int = 0) -> Iterator[tuple[slice, Tensor, Cond, SampleNoise]]:
        """Rows, x_0, conditioning and noise, batch by batch; results do not depend on the size."""
        step = self.engine.batch_size or len(self.seeds)
        for start in range(0, len(self.seeds), step):
            rows = slice(start, start + step)
            # Repeats are paths of their own: seeds below 2^63 leave room above.
            seeds = [seed + (repeat << 63) for seed in self.seeds[rows]]
            noise = SampleNoise(seeds, "calibration")
            yield rows, self.x0[rows], plain(take(self.cond, rows)), noise

    def rows_at(self, levels: tuple[float, ...]) -> list[Row]:
        """One row at each noise level, as they come, on the schedule that is sampled in."""
        schedule = self.engine.denoiser.schedule
        times = [schedule.time_of(level) for level in reversed(levels)]
        made = table("euler", schedule, None, times=[*times, schedule.clean_time])
        return list(reversed(made.rows))

    def point(self, state: Tensor, row: Row, part: slice, cond: Cond) -> Point:
        """The point x_t = alpha_t `state` of the samples `part`, where the reference is the
        unconditional model."""
        return Point(
            row.alpha * state,
            row,
            0,
            self.engine.denoiser,
            Unconditional(),
            cond,
            {},
            backend=self.engine.backend,
            beside=plain(take(self.beside, part)),
        )


def levels_of(levels: Any, schedule: Schedule, count: int) -> tuple[float, ...]:
    """The levels asked for, or `count` in equal ratios; each must be one of the schedule's."""
    if levels is None:
        top = min(RANGE[1], float(schedule.noise_level(schedule.prior_time)))
        return tuple(float(v) for v in spaced("exponential", RANGE[0], top, count))
    found = as_increasing("levels", levels)
    if len(found) < 2:
        raise InputError("levels", f"are {shown(found)}", "Give two levels or more")
    for level in found:
        schedule.time_of(level)  # InputError: the model knows no such level
    return found


def samples_of(
    engine: Engine, cond: Any, x0: Any, seeds: Iterable[int] | None, least: int
) -> Samples:
    """The clean samples, given or sampled, one row of `cond` and one seed each."""
    denoiser, device = engine.denoiser, engine.device
    rows = as_cond(cond, None, denoiser.num_classes, denoiser.null_cond, device)
    if x0 is not None:
        x0 = _checked(x0, engine)
        least = len(x0)
        if size(rows) not in (1, least):
            raise InputError("x0", f"has {least} rows, cond {size(rows)}", "Give one row a row")
    numbers = as_seeds(range(max(least, size(rows))) if seeds is None else seeds, cond)
    if len(numbers) < 2:
        raise InputError("seeds", "are one, and F is a mean", "Give dozens, such as range(64)")
    if x0 is not None and len(numbers) != len(x0):
        raise InputError("seeds", f"are {len(numbers)} for {len(x0)} rows of x0", "Give as many")
    whole = _repeated(rows, len(numbers))
    if x0 is None:
        x0 = engine.sample(whole, numbers).samples
    beside = conditioned(Unconditional(), denoiser, whole, numbers, device)
    return Samples(engine, x0, whole, numbers, beside)


def _checked(x0: Any, engine: Engine) -> Tensor:
    shape = engine.denoiser.sample_shape
    if not isinstance(x0, Tensor) or tuple(x0.shape[1:]) != shape or not len(x0):
        got = tuple(x0.shape) if isinstance(x0, Tensor) else type(x0).__name__
        raise InputError("x0", f"is {got}", f"Give clean samples (N, {', '.join(map(str, shape))})")
    if not x0.is_floating_point() or not bool(torch.isfinite(x0).all()):
        raise InputError("x0", "is not floating and finite throughout", "Give finite floats")
    return x0.to(engine.device, engine.dtype)


def _repeated(cond: Cond, count: int) -> Cond:
    """Rows in turn until there are `count`."""

    def turns(rows: Tensor) -> Tensor:
        return rows[torch.arange(count, device=rows.device) % len(rows)]

    return each(turns, cond)
