"""The running steps: one loop over a solver's table, each row an evaluation and a guided step.

What runs is decided before (engine.py); how a row runs is the same for the eager loop and for a
recorded one (capture.py).
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..guidance.adjustments import Clip
from ..guidance.estimate import EVALUATIONS, Estimate, adjusted
from ..networks.answers import conditioned
from ..networks.conditioning import as_cond
from ..networks.counter import Counter
from ..networks.point import Point
from ..noise import SampleNoise
from ..profiling import ranges
from ..rectifiers import looks
from .progress import Progress
from .rows import Conds, Rows
from .state import State
from .stats import Stats
from .step import Step, last_of, own_copy

__all__ = ["Batch", "Run"]


@dataclass(frozen=True)
class Batch:
    """Samples that run together.

    Args:
        rows: which samples of the call they are.
        conds: their conditionings.
        seeds: one a sample.
        unit: unit noise to start from, (B, *sample_shape); None = the seeds' own.
        bar: advanced by a sample a row.
    """

    rows: slice
    conds: Conds
    seeds: Sequence[int]
    unit: Tensor | None
    bar: Progress


class Run(Rows):
    """The rows of a batch, run one after the other."""

    def loop(self, batch: Batch, stats: Stats) -> Tensor:
        """Samples of one batch, (B, *sample_shape), row by row.

        On a GPU no row waits for the device; should a rectifier have needed a branch that only the
        host can take, the batch runs once more with a host that looks.
        """
        missed = None
        if not (self.looks or looks(self._estimator[0])):
            missed = torch.zeros((), dtype=torch.bool, device=self.device)
        state, counter = last_of(self._rows(batch, missed))
        if missed is not None and bool(missed):
            state, counter = last_of(self._rows(batch, None))
        return self._finished(state, counter, stats)

    def rowwise(self, batch: Batch, stats: Stats) -> Generator[Step, None, Tensor]:
        """As `loop`, a Step for each row; the host looks at every one."""
        state, counter = yield from self._rows(batch, None, told=True)
        return self._finished(state, counter, stats)

    def _finished(self, state: State, counter: Counter, stats: Stats) -> Tensor:
        state.watch.finish()
        stats.add(counter, Tally(self.modes), *self.chosen)
        return state.x

    def _rows(
        self, batch: Batch, missed: Tensor | None, told: bool = False
    ) -> Generator[Step, None, tuple[State, Counter]]:
        """Run the rows: all in one turn, or one a turn, each `told` as a Step."""
        (cond, beside), seeds = batch.conds, batch.seeds
        draws, probes = self.draws(SampleNoise(seeds)), SampleNoise(seeds, "probes")
        with ranges.plan():
            start = self.start(next(draws), batch.unit)
            state = State.new(start, self.table, self.coefficients)
        steps, counter = torch.arange(len(self.modes), device=state.x.device), Counter()
        for index, row in enumerate(self.table.rows):
            if row.fresh:
                state.memory.forget()
            point = Point(
                state.x,
                row,
                index,
                self.denoiser,
                self.guidance.reference,
                cond,
                state.memory,
                counter,
                probes,
                self.coefficients.estimates,
                steps[index],
                self.backend,
                missed,
                beside,
                self.coefficients.landing,
                self.terms_at(index),
            )
            drawn = next(draws) if row.c else None
            if told:
                point.x = own_copy(state.x)
            w = self.weights[index]
            estimate, taken = self.advance(state, point, self.modes[index], w, drawn)
            batch.bar.advance(len(seeds))
            if told:
                looked = estimate.denoised(point), self._guided(point, taken), state.x
                tensors = (point.x, *map(own_copy, looked))
                yield Step(batch.rows, index, row.t, row.s, *tensors)
        return state, counter

    def _guided(self, point: Point, estimate: Estimate) -> Tensor:
        """The guided estimate that the solver took at a row, clipped as the fused step does."""
        guided = estimate.guided(point, self.weights[point.index])
        limit, keep = self.clips[point.index]
        return guided if limit == math.inf else Clip(limit).clipped(guided, keep)

    def conditions(self, cond: Any, count: int, seeds: Sequence[int] | None = None) -> Conds:
        """The user's conditioning with `count` rows, and the reference's own beside it; what of it
        is drawn belongs to the seeds (None = 0 .. count-1).

        Raises:
            InputError: either cannot be used.
        """
        denoiser, reference = self.denoiser, self.guidance.reference
        cond = as_cond(cond, count, denoiser.num_classes, denoiser.null_cond, self.device)
        if set(self.modes) == {"cond"}:
            return cond, None
        seeds = range(count) if seeds is None else seeds
        return cond, conditioned(reference, denoiser, cond, seeds, self.device)

    def draws(self, noise: SampleNoise) -> Iterator[Tensor]:
        """Unit noise of a batch: the start's, then that of each row which adds any."""
        shape = (len(noise), *self.denoiser.sample_shape)
        like = torch.empty(shape, dtype=self.dtype, device=self.device)
        return noise.ahead(like, 1 + sum(bool(row.c) for row in self.table.rows))

    def start(self, drawn: Tensor, unit: Tensor | None) -> Tensor:
        """The first state, from unit noise: the seeds' own, or the user's."""
        return self.table.init_scale * (drawn if unit is None else unit)

    def advance(
        self,
        state: State,
        point: Point,
        mode: str,
        w: float | Tensor,
        drawn: Tensor | None,
    ) -> tuple[Estimate, Estimate]:
        """One row: evaluate what its mode needs, guide, and step the state in place.

        Args:
            point: stands at the row.
            w: its weight; on the device while a graph is captured.
            drawn: the solver's noise, if the row adds any.

        Returns:
            What was evaluated, and the same adjusted: what the solver took.
        """
        mode = "cond" if mode in ("cfg", "reg") and self._ended(point) else mode
        rectifier = self._estimator[0] if mode == "reg" else None
        with ranges.evaluate():
            own = mode == "cfg" and self.fused
            estimate = EVALUATIONS[mode](point, self.guidance, rectifier, own)
        assert point.step is not None
        assert point.step is not None
        if drawn is not None and self.table.learned:
            spread = self.coefficients.spread.index_select(0, point.step.reshape(1))
            drawn = drawn * point.heard.gain(spread)
        with ranges.guided_step():
            guided = not (isinstance(w, float) and w == 0)
            taken = adjusted(estimate, self.adjust if guided else (), point, w)
            state.step(point.step, taken, drawn, self.backend)
        return estimate, taken

    def _ended(self, point: Point) -> bool:
        """Whether the weight says that no sample will be guided any more, where the host looks."""
        finished = getattr(self.guidance.weight, "finished", None)
        looks = self.looks and isinstance(point.index, int)  # a graph is recorded once
        return finished is not None and looks and bool(finished(point))
