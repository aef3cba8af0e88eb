"""The engine: a call's choices, checked and resolved once, and the batches that run with them.

`sample(model, cond, ...)` is one call; `Engine(model, ...)` holds the choices and serves many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import ops
from .checks import (
    as_batch_size,
    as_denoiser,
    as_device,
    as_dtype,
    as_guidance,
    as_noise,
    as_options,
    as_plan,
    as_postprocess,
    as_schedule,
    as_seeds,
    known_names,
    postprocessed,
)
from .guidance.guidance import Guidance
from .guidance.weights import weights_of
from .loop.graphs import graphs_for
from .loop.progress import Progress
from .loop.run import Conds, Run
from .loop.stats import Output, Stats
from .networks.conditioning import plain, take
from .networks.frozen import Compiled, frozen
from .ops.coefficients import coefficient_table
from .plan import Plan
from .rectifiers import Rectifier
from .schedules import Schedule
from .solvers import Solver, Table, table
from .values import as_bool, as_budget

__all__ = ["Engine", "sample"]


class Engine(Run):
    """A model with the choices of a call; `sample` and `stream` serve many calls with them.

    Args:
        model: a Denoiser, or an object whose `denoiser()` gives one.
        scale: guidance scale >= 0, 1 = none; instead of `guidance`.
        guidance: a Guidance; then neither scale nor rectify is given.
        rectify: None, "auto", an estimator's name, or a Rectifier.
        plan: a Plan; None = Plan.full().
        solver: a name in SOLVERS; `solver_options` are its own (ddim: eta; heun: s_churn, ...).
        steps: number of solver steps >= 1; None = as many as solver_options' `times` have, or 32.
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
        check: the first time that an estimator meets a network, compare its derivative with
            differences, and find how finely the network computes: about 10 evaluations of one
            sample, counted in `out.stats.checks`.
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
        steps: int | None = None,
        schedule: Schedule | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        memory_budget: float | None = None,
        backend: str | None = None,
        capture: bool | str = "auto",
        compile: bool = False,
        check: bool = True,
        postprocess: Callable[[Tensor, Any], Tensor] | None = None,
        progress: bool = True,
    ) -> None:
        network = as_denoiser(model)
        denoiser = network.on(as_schedule(schedule, network))
        chosen = as_guidance(scale, guidance, rectify)
        rows: Table = table(solver, denoiser.schedule, steps, **as_options(solver_options))
        dtype = as_dtype(dtype)
        weights = weights_of(chosen.weight, rows, torch.finfo(dtype).max)  # type: ignore[arg-type]
        modules = (*network.modules, *chosen.reference.modules)
        device = as_device(device, denoiser.device, modules, dtype)
        places = [denoiser.at(row.t) for row in rows.rows]
        super().__init__(
            denoiser,
            chosen,
            as_plan(plan),
            rows,
            weights,
            coefficient_table(
                rows.rows,
                weights,
                predictions=[(p.c_in, 0.0, 1.0, p.time) for p in places],  # type: ignore[misc]
                device=device,
                dtype=dtype,
            ),
            dtype,
            ops.resolve(device, backend),
            as_batch_size(batch_size),
            as_budget(memory_budget),
            as_bool("check", check),
        )
        self._graphs, self._uncaptured = graphs_for(capture, device)
        compiled = as_bool("compile", compile)
        self._compiled = Compiled(network.modules) if compiled else nullcontext
        if compiled:
            self.tried = 0  # blocks are compiled for the shape of a batch
        self.postprocess = as_postprocess(postprocess)
        self.progress = as_bool("progress", progress)

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
        estimator, reason = self.chosen
        stats = Stats(solver=self.table.solver, estimator=estimator, reason=reason)
        seeds = as_seeds(seeds, cond)
        samples = torch.empty((len(seeds), *self.denoiser.sample_shape), dtype=self.dtype)
        samples = samples.to(self.device)
        for rows, batch in self.stream(cond, seeds, noise, stats):
            samples[rows] = batch
        return Output(samples, stats, self.denoiser.value_range)

    def stream(
        self,
        cond: Any,
        seeds: Iterable[int] | None = None,
        noise: Tensor | None = None,
        stats: Stats | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """As `sample`, batch by batch: yields (rows, samples) as they are finished.

        Between two batches the network is as the caller has it, for a backward pass of their own,
        say; a stream may be left unfinished. Calls may overlap, in threads too. What must not: a
        network is trained by one thread while it samples in another (its parameters are frozen,
        and it is in evaluation mode, until the last batch that runs is done).
        """
        seeds = as_seeds(seeds, cond)
        rows = self.conditions(cond, len(seeds))
        noise = as_noise(noise, (len(seeds), *self.denoiser.sample_shape), self.device, self.dtype)
        stats = Stats() if stats is None else stats
        stats.backend, stats.capture = self.backend, self._uncaptured
        stats.begin(self.device)
        size = self.batch_size or len(seeds)
        total = len(seeds) * len(self.table.rows)
        with Progress(total, self.progress) as bar:
            for start in range(0, len(seeds), size):
                part = slice(start, min(start + size, len(seeds)))
                own = None if noise is None else noise[part]
                given, beside = plain(take(rows, part))
                with frozen(self.modules), self._compiled():  # not while the caller has the turn
                    begun = time.perf_counter()
                    batch = self._batch((given, beside), seeds[part], own, stats, bar)
                    seconds = time.perf_counter() - begun
                    stats.finish_batch(part.stop - part.start, seconds, self.device)
                    batch = postprocessed(self.postprocess, batch, given, stats)
                yield part, batch

    @torch.inference_mode()
    def _batch(
        self, conds: Conds, seeds: Sequence[int], unit: Tensor | None, stats: Stats, bar: Progress
    ) -> Tensor:
        self.prepare(conds, len(seeds), stats)
        if self._graphs is not None:
            x = self._graphs.run(self, conds, seeds, unit, stats)
            if x is not None:
                bar.advance(len(seeds) * len(self.modes))
                return x
        return self.loop(conds, seeds, unit, stats, bar)


def sample(
    model: Any,
    cond: Any,
    *,
    seeds: Iterable[int] | None = None,
    noise: Tensor | None = None,
    scale: float | None = None,
    guidance: Guidance | None = None,
    rectify: str | Rectifier | None = "auto",
    plan: Plan | None = None,
    solver: str | Solver = "heun",
    solver_options: dict[str, Any] | None = None,
    steps: int | None = None,
    schedule: Schedule | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    memory_budget: float | None = None,
    backend: str | None = None,
    capture: bool | str = "auto",
    compile: bool = False,
    check: bool = True,
    postprocess: Callable[[Tensor, Any], Tensor] | None = None,
    progress: bool = True,
    **unknown: NoReturn,
) -> Output:
    """Sample from `model` under guidance: one call of an Engine with these choices.

    Args:
        cond, seeds, noise: as for `Engine.sample`; all others as for `Engine`.

    Raises:
        InputError: a bad argument (unknown ones are named); NumericalError: NaN or Inf in a
            prediction.
    """
    known_names(unknown, Engine.__init__, "sample")
    return Engine(
        model,
        scale=scale,
        guidance=guidance,
        rectify=rectify,
        plan=plan,
        solver=solver,
        solver_options=solver_options,
        steps=steps,
        schedule=schedule,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        memory_budget=memory_budget,
        backend=backend,
        capture=capture,
        compile=compile,
        check=check,
        postprocess=postprocess,
        progress=progress,
    ).sample(cond, seeds, noise)
