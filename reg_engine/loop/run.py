"""The running steps: one loop over a solver's table, each row an evaluation and a guided step.

What runs is decided before (engine.py); how a row runs is the same for the eager loop and for a
recorded one (capture.py).
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Generator, Iterator, Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ..guidance.adjustments import Clip
from ..guidance.directions import Delta
from ..guidance.guidance import EVALUATIONS, Guidance, as_state
from ..networks.conditioning import Cond, as_cond, take
from ..networks.denoisers import Denoiser
from ..networks.point import Counter, Point
from ..noise import SampleNoise
from ..plan import Plan
from ..profiling import ranges
from ..rectifiers import Rectifier, name_of
from ..rectifiers.auto import settled
from ..rectifiers.precision import autocast_dtype
from ..solvers import Table
from .progress import Progress
from .state import State
from .stats import Stats
from .step import Step, last_of, own_copy

__all__ = ["Conds", "Run"]

Conds = tuple[Cond, Cond]  # of the network, and of the reference where it has its own


class Run:
    """A denoiser, a guidance and a solver's table, resolved: everything that a row reads.

    Args:
        denoiser: on the schedule that is sampled in.
        guidance, plan, table: what every row does.
        weights: w of every row.
        coefficients: the rows' numbers on the device (ops/coefficients.py).
        dtype, backend: of the state; of the guidance step.
        batch_size, memory_budget: what `auto` sizes an estimator's memory by.
        check: whether derivatives are compared with differences first.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        guidance: Guidance,
        plan: Plan,
        table: Table,
        weights: tuple[float, ...],
        coefficients: Tensor,
        dtype: torch.dtype,
        backend: str,
        batch_size: int | None,
        memory_budget: float | None,
        check: bool,
    ) -> None:
        self.denoiser, self.guidance, self.plan, self.table = denoiser, guidance, plan, table
        self.weights, self.coefficients = weights, coefficients
        self.device, self.dtype, self.backend = coefficients.device, dtype, backend
        self.batch_size, self.memory_budget, self.check = batch_size, memory_budget, check
        self.clip = Clip(table.clip, table.keep_epsilon) if table.clip is not None else None
        self.tried = 1  # samples that an estimator is tried on; 0 = a whole batch
        self.looks = self.device.type == "cpu"  # elsewhere a look waits for the device
        self.modes = self._modes()
        rectify = guidance.rectify if "reg" in self.modes else None
        self._unsettled = (
            None if isinstance(rectify, str) else rectify,
            "no evaluation is rectified" if rectify is None else "not settled yet",
        )
        self._settled: dict[torch.dtype | None, tuple[Rectifier, str]] = {}  # by autocast
        self._settling = RLock()

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Every network that a row may run: frozen during a batch."""
        return (*self.denoiser.modules, *self.guidance.reference.modules)

    def loop(
        self, conds: Conds, seeds: Sequence[int], unit: Tensor | None, stats: Stats, bar: Progress
    ) -> Tensor:
        """Samples of one batch, (B, *sample_shape), row by row.

        On a GPU no row waits for the device; should a rectifier have needed a branch that only the
        host can take, the batch runs once more with a host that looks.
        """
        missed = None
        if not self.looks:
            missed = torch.zeros((), dtype=torch.bool, device=self.device)
        state, counter = last_of(self._rows(conds, seeds, unit, missed, bar))
        if missed is not None and bool(missed):
            state, counter = last_of(self._rows(conds, seeds, unit, None, bar))
        return self._finished(state, counter, stats)

    def rowwise(
        self,
        conds: Conds,
        seeds: Sequence[int],
        unit: Tensor | None,
        stats: Stats,
        bar: Progress,
        rows: slice,
    ) -> Generator[Step, None, Tensor]:
        """As `loop`, a Step for each row; the host looks at every one. `rows` name the samples."""
        state, counter = yield from self._rows(conds, seeds, unit, None, bar, rows)
        return self._finished(state, counter, stats)

    def _finished(self, state: State, counter: Counter, stats: Stats) -> Tensor:
        state.watch.finish()
        stats.add(counter, Tally(self.modes), *self.chosen)
        return state.x

    def _rows(
        self,
        conds: Conds,
        seeds: Sequence[int],
        unit: Tensor | None,
        missed: Tensor | None,
        bar: Progress,
        seen: slice | None = None,
    ) -> Generator[Step, None, tuple[State, Counter]]:
        """Run the rows: all in one turn, or one a turn, told as a Step of the samples `seen`."""
        cond, beside = conds
        draws, probes = self.draws(SampleNoise(seeds)), SampleNoise(seeds, "probes")
        with ranges.plan():
            start = self.start(next(draws), unit)
            state = State.new(start, self.table, self.coefficients)
        steps, counter = torch.arange(len(self.modes), device=state.x.device), Counter()
        for index, row in enumerate(self.table.rows):
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
                state.table,
                steps[index],
                self.backend,
                missed,
                beside,
            )
            drawn = next(draws) if row.c else None
            before = state.x if seen is None else own_copy(state.x)
            w = self.weights[index]
            evaluated, base, term = self.advance(state, point, self.modes[index], w, drawn)
            bar.advance(len(seeds))
            if seen is not None:
                guided = base if term is None else base + w * term
                tensors = (before, *map(own_copy, (evaluated, guided, state.x)))
                yield Step(seen, index, row.t, row.s, *tensors)
        return state, counter

    def conditions(self, cond: Any, count: int) -> Conds:
        """The user's conditioning with `count` rows, and the reference's own beside it.

        Raises:
            InputError: either cannot be used.
        """
        denoiser, reference = self.denoiser, self.guidance.reference
        cond = as_cond(cond, count, denoiser.num_classes, denoiser.null_cond, self.device)
        if set(self.modes) == {"cond"}:
            return cond, None
        return cond, reference.conditioning(denoiser, cond, count, self.device)

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
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One row: evaluate what its mode needs, guide, and step the state in place.

        Args:
            point: stands at the row.
            w: its weight; on the device while a graph is captured.
            drawn: the solver's noise, if the row adds any.

        Returns:
            (cond, cond, term): cond as evaluated; then what the solver took, cond + w term.
        """
        rectifier = self._estimator[0] if mode == "reg" else None
        with ranges.evaluate():
            cond, term = EVALUATIONS[mode](point, self.guidance.direction, rectifier)
        evaluated = cond
        assert point.step is not None
        with ranges.guided_step():
            if self.guidance.adjust and not (isinstance(w, float) and w == 0):
                guided = cond if term is None else cond + w * term
                for adjustment in self.guidance.adjust:
                    guided = as_state("adjust", adjustment(point, guided, cond), cond)
                cond, term = guided, None
            if self.clip is not None:
                guided = cond if term is None else cond + w * term
                cond, term = self.clip(point, guided, cond), None
            state.step(point.step, cond, term, drawn, self.backend)
        return evaluated, cond, term

    def _modes(self) -> tuple[str, ...]:
        """The plan's modes; w = 0 needs no reference, no rectifier makes `reg` a `cfg`.

        w = -1 (scale 0) is the reference alone: nothing is rectified there, and where neither
        direction nor adjustment looks at cond, the reference alone is evaluated.
        """
        guidance = self.guidance
        alone = "cfg" if guidance.adjust or not isinstance(guidance.direction, Delta) else "ref"

        def mode_of(planned: str, w: float) -> str:
            if w == 0 or planned == "cond":
                return "cond"
            if w == -1:
                return alone
            return "cfg" if guidance.rectify is None else planned

        planned = self.plan.modes_for(self.table)
        return tuple(mode_of(mode, w) for mode, w in zip(planned, self.weights, strict=True))

    def prepare(self, conds: Conds, count: int, stats: Stats) -> None:
        """Settle the estimator before the first row, where the host may still look: `auto` is
        decided, a derivative checked. Once, and once more under autocast.

        Args:
            conds, count: conditionings of a batch, and its samples.
        """
        rectify, context = self.guidance.rectify, autocast_dtype(self.device)
        with self._settling:
            if "reg" not in self.modes or rectify is None or context in self._settled:
                return
            point, size = self._trial(conds, self.tried or count), self.batch_size or count
            with ranges.check():
                self._settled[context] = settled(
                    rectify, point, size, self.memory_budget, self.check
                )
            stats.checks += point.counter.forward + point.counter.backward

    def _trial(self, conds: Conds, samples: int) -> Point:
        """A noisy point at the rectified row next to noise level 1, where K is neither 0 nor 1."""
        index = min(
            (index for index, mode in enumerate(self.modes) if mode == "reg"),
            key=lambda i: abs(math.log(min(max(self.table.rows[i].noise_level, 1e-9), 1e9))),
        )
        row, generator = self.table.rows[index], torch.Generator().manual_seed(0)
        unit = torch.randn((samples, *self.denoiser.sample_shape), generator=generator)
        cond, beside = take(conds, slice(0, samples))
        return Point(
            math.hypot(row.alpha, row.sigma) * unit.to(self.device, self.dtype),
            row,
            index,
            self.denoiser,
            self.guidance.reference,
            cond,
            {},
            backend=self.backend,
            beside=beside,
        )

    @property
    def _estimator(self) -> tuple[Rectifier | None, str]:
        return self._settled.get(autocast_dtype(self.device), self._unsettled)

    @property
    def chosen(self) -> tuple[str, str]:
        """The estimator's name, and why it was taken."""
        rectifier, reason = self._estimator
        return "none" if rectifier is None else name_of(rectifier), reason
