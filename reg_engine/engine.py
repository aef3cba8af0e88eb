"""The engine: one loop over the rows of a solver's table, each row an evaluation and a guided step.

`sample(model, cond, ...)` is one call; `Engine(model, ...)` holds the choices and serves many.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from . import ops, ranges
from .checks import (
    as_batch_size,
    as_denoiser,
    as_device,
    as_dtype,
    as_guidance,
    as_noise,
    as_plan,
    as_postprocess,
    as_seeds,
    known_names,
    postprocessed,
)
from .coefficients import coefficient_table
from .conditioning import Cond, as_cond, plain, take
from .frozen import Compiled, frozen
from .graphs import graphs_for
from .guidance import EVALUATIONS, Guidance
from .noise import SampleNoise
from .plan import Plan
from .point import Counter, Point
from .progress import Progress
from .rectifiers import Rectifier, make
from .rectifiers.auto import choose
from .schedules import Schedule
from .solvers import Solver, Table, table
from .state import State
from .stats import Output, Stats
from .weights import weights_of

__all__ = ["Engine", "sample"]


class Engine:
    """A model with the choices of a call; `sample` and `stream` serve many calls with them.

    Args:
        model: a Denoiser, or an object whose `denoiser()` gives one.
        scale: guidance scale >= 0, 1 = none; instead of `guidance`.
        guidance: a Guidance; then neither scale nor rectify is given.
        rectify: None, "auto", an estimator's name, or a Rectifier.
        plan: a Plan; None = Plan.full().
        solver: a name in SOLVERS; `solver_options` are its own (ddim: eta; heun: s_churn, ...).
        steps: number of solver steps >= 1.
        schedule: the schedule to sample in; None = the model's own.
        batch_size: samples a batch; None = all at once. Results do not depend on it.
        device: where to run; None = where the network is. The network is moved there.
        dtype: of the state: float32 (None) or float64.
        memory_budget: bytes that recorded activations may take (`auto`, `paper`, `vjp`,
            `diagonal`).
        backend: of the guidance step: one of `ops.BACKENDS`; None = the fastest that works here.
        capture: replay the steps from CUDA graphs: "auto" = on CUDA, from the second batch of a
            kind on; True = always, an error where that fails; False = never.
        postprocess: applied to each batch, (samples, cond) -> samples: a Postprocess, for one.
        compile: run the blocks of the network (its nn.ModuleLists) through torch.compile.
        progress: show a progress bar on standard error.

    Raises:
        InputError: an argument of the wrong kind, name or range.
    """

    def __init__(
        self,
        model: Any,
        *,
        scale: float | None = None,
        guidance: Guidance | None = None,
        rectify: str | Rectifier | None = "auto",
        plan: Plan | None = None,
        solver: str | Solver = "heun",
        solver_options: dict[str, Any] | None = None,
        steps: int = 32,
        schedule: Schedule | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        memory_budget: int | None = None,
        backend: str | None = None,
        capture: bool | str = "auto",
        compile: bool = False,
        postprocess: Callable[[Tensor, Any], Tensor] | None = None,
        progress: bool = True,
    ) -> None:
        denoiser = as_denoiser(model)
        self.denoiser = denoiser.on(schedule or denoiser.schedule)
        self.guidance = as_guidance(scale, guidance, rectify)
        self.plan = as_plan(plan)
        self.table: Table = table(solver, self.denoiser.schedule, steps, **(solver_options or {}))
        self.weights = weights_of(self.guidance.weight, self.table)  # type: ignore[arg-type]
        self.modes = self._modes()
        self.batch_size = as_batch_size(batch_size)
        self.dtype = as_dtype(dtype)
        self.device = as_device(
            device, self.denoiser.device, (*denoiser.modules, *self.guidance.reference.modules)
        )
        places = [self.denoiser.at(row.t) for row in self.table.rows]
        self.coefficients = coefficient_table(
            self.table.rows,
            self.weights,
            predictions=[(p.c_in, 0.0, 1.0, p.time) for p in places],  # type: ignore[misc]
            device=self.device,
            dtype=self.dtype,
        )
        self.memory_budget = memory_budget
        self.backend = ops.resolve(self.device, backend)
        self._graphs, self._uncaptured = graphs_for(capture, self.device)
        self._compiled = Compiled(denoiser.modules) if compile else nullcontext()
        self.postprocess = as_postprocess(postprocess)
        self.progress = progress
        self._rectifier, self._reason = self._chosen()

    def sample(
        self, cond: Any, seeds: Iterable[int] | None = None, noise: Tensor | None = None
    ) -> Output:
        """Sample one image a seed.

        Args:
            cond: labels (N,), a single label, or a dict of the network's own tensors with N rows.
            seeds: N integers in [0, 2^63); None = 0 .. N-1 of the conditioning's rows.
            noise: unit noise (N, *sample_shape) to start from instead of the seeds' own.

        Returns:
            Output with samples (N, *sample_shape) and stats.

        Raises:
            InputError: a bad argument; NumericalError: NaN or Inf in a prediction.
        """
        stats = Stats(solver=self.table.solver, estimator=self._name(), reason=self._reason)
        seeds = as_seeds(seeds, cond)
        samples = torch.empty((len(seeds), *self.denoiser.sample_shape), dtype=self.dtype)
        samples = samples.to(self.device)
        for rows, batch in self.stream(cond, seeds, noise, stats):
            samples[rows] = batch
        return Output(samples, stats)

    def stream(
        self,
        cond: Any,
        seeds: Iterable[int] | None = None,
        noise: Tensor | None = None,
        stats: Stats | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """As `sample`, batch by batch: yields (rows, samples) as they are finished."""
        seeds = as_seeds(seeds, cond)
        rows = as_cond(
            cond, len(seeds), self.denoiser.num_classes, self.denoiser.null_cond, self.device
        )
        noise = as_noise(noise, (len(seeds), *self.denoiser.sample_shape), self.device, self.dtype)
        stats = Stats() if stats is None else stats
        stats.backend, stats.capture = self.backend, self._uncaptured
        stats.begin(self.device)
        size = self.batch_size or len(seeds)
        modules = (*self.denoiser.modules, *self.guidance.reference.modules)
        total = len(seeds) * len(self.table.rows)
        with Progress(total, self.progress) as bar, frozen(modules), self._compiled:
            for start in range(0, len(seeds), size):
                part = slice(start, min(start + size, len(seeds)))
                begun = time.perf_counter()
                own = None if noise is None else noise[part]
                given = plain(take(rows, part))
                batch = self._batch(given, seeds[part], own, stats, bar)
                stats.finish_batch(part.stop - part.start, time.perf_counter() - begun, self.device)
                yield part, postprocessed(self.postprocess, batch, given, stats)

    @torch.inference_mode()
    def _batch(
        self, cond: Cond, seeds: Sequence[int], unit: Tensor | None, stats: Stats, bar: Progress
    ) -> Tensor:
        if self._graphs is not None:
            x = self._graphs.run(self, cond, seeds, unit, stats)
            if x is not None:
                bar.advance(len(seeds) * len(self.modes))
                return x
        noise, probes = SampleNoise(seeds), SampleNoise(seeds, "probes")
        with ranges.plan():
            state = State.new(self.start(noise, unit), self.table, self.coefficients)
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
            )
            drawn = noise.normal(state.x) if row.c else None
            self.advance(state, point, self.modes[index], self.weights[index], drawn)
            bar.advance(len(seeds))
        state.watch.finish()
        stats.add(counter, Tally(self.modes), *self.chosen)
        return state.x

    def start(self, noise: SampleNoise, unit: Tensor | None) -> Tensor:
        """The first state, from unit noise: drawn, or the user's own."""
        if unit is None:
            shape = (len(noise), *self.denoiser.sample_shape)
            unit = noise.normal(torch.empty(shape, dtype=self.dtype, device=self.device))
        return self.table.init_scale * unit

    def advance(
        self,
        state: State,
        point: Point,
        mode: str,
        w: float | Tensor,
        drawn: Tensor | None,
    ) -> None:
        """One row: evaluate what its mode needs, guide, and step the state in place.

        Args:
            point: stands at the row.
            w: its weight; on the device while a graph is captured.
            drawn: the solver's noise, if the row adds any.
        """
        rectifier = self.ready(point) if mode == "reg" else None
        with ranges.evaluate():
            cond, term = EVALUATIONS[mode](point, self.guidance.direction, rectifier)
        assert point.step is not None
        with ranges.guided_step():
            if self.guidance.adjust and not (isinstance(w, float) and w == 0):
                guided = cond if term is None else cond + w * term
                for adjustment in self.guidance.adjust:
                    guided = adjustment(point, guided, cond)
                cond, term = guided, None
            state.step(point.step, cond, term, drawn, self.backend)

    def _modes(self) -> tuple[str, ...]:
        """The plan's modes; w = 0 needs no reference, no rectifier makes `reg` a `cfg`."""
        planned = self.plan.modes_for(self.table)
        if self.guidance.rectify is None:
            planned = tuple("cfg" if mode == "reg" else mode for mode in planned)
        return tuple(mode if w else "cond" for mode, w in zip(planned, self.weights, strict=True))

    def _chosen(self) -> tuple[Rectifier | None, str]:
        rectify = self.guidance.rectify
        if "reg" not in self.modes or rectify is None:
            return None, "no evaluation is rectified"
        if rectify == "auto":
            return None, "auto"
        if isinstance(rectify, str):
            return make(rectify, self.memory_budget), "asked for"
        return rectify, "asked for"

    def ready(self, point: Point) -> Rectifier:
        """The rectifier; `auto` is decided at the first point that asks."""
        if self._rectifier is None:
            size = self.batch_size or point.x.shape[0]
            self._rectifier, self._reason = choose(point, size, self.memory_budget)
        return self._rectifier

    @property
    def chosen(self) -> tuple[str, str]:
        """The estimator's name, and why it was taken."""
        return self._name(), self._reason

    def _name(self) -> str:
        return "none" if self._rectifier is None else self._rectifier.name


def sample(
    model: Any,
    cond: Any,
    *,
    seeds: Iterable[int] | None = None,
    noise: Tensor | None = None,
    **choices: Any,
) -> Output:
    """Sample from `model` under guidance: `Engine(model, **choices).sample(cond, seeds, noise)`.

    Raises:
        InputError: a bad argument (unknown ones are named); NumericalError: NaN or Inf in a
            prediction.
    """
    known_names(choices, Engine.__init__, "sample")
    return Engine(model, **choices).sample(cond, seeds, noise)
