"""The engine: a call's choices, checked and resolved once, and the batches that run with them.

`sample(model, cond, ...)` is one call; `Engine(model, ...)` holds the choices and serves many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import ops
from .adapters import denoiser_of
from .checks import (
    adapted,
    as_batch_size,
    as_device,
    as_dtype,
    as_guidance,
    as_options,
    as_plan,
    as_postprocess,
    as_schedule,
    check_variance,
    known_names,
)
from .guidance.guidance import Guidance
from .guidance.terms import term_weights
from .guidance.weights import SampleWeight, Weight, weights_of
from .loop.batches import Batches
from .loop.choices import Choices
from .loop.graphs import graphs_for
from .loop.stats import Output
from .loop.step import Step
from .networks.frozen import Compiled
from .plan import Plan
from .rectifiers import Rectifier
from .schedules import Schedule
from .solvers import Gibbs, Solver, Table, table
from .values import as_bool, as_budget

__all__ = ["Engine", "sample"]


class Engine(Batches):
    """A model with the choices of a call; `sample` and `stream` serve many calls with them.

    Args:
        model: a Denoiser, or what `denoiser_of` makes one of.
        scale: guidance scale >= 0, 1 = none, or a weight (`Linear(...)`, `damping(4.0)`); instead
            of `guidance`.
        guidance: a Guidance; then neither scale nor rectify is given.
        rectify: None, "auto", an estimator's name, or a Rectifier. Beside a calibrated damping,
            which replaces the rectifier, "auto" is None.
        plan: a Plan; None = Plan.full().
        solver: a name in SOLVERS; `solver_options` are its own (ddim: eta; heun: s_churn, ...).
        steps: number of solver steps >= 1; None = as many as solver_options' `times` have, or 32.
        refine: Gibbs(level, rounds): finished samples are noised to a level and denoised again.
        schedule: the schedule to sample in; None = the model's own.
        batch_size: samples a batch; None = all at once. Results do not depend on it.
        device: where to run; None = where the network is. The network is moved there.
        dtype: of the state: float32 (None) or float64.
        memory_budget: bytes that recorded activations may take (`auto`, `paper`, `vjp`,
            `diagonal`).
        backend: of the guidance step: one of `ops.BACKENDS`; None = the fastest that works here.
        capture: replay the steps from CUDA graphs: "auto" = on CUDA, from the second batch of a
            kind on, where the estimator can be captured (`lazy` and its kin, which "auto" takes,
            cannot); True = always, an error where that fails; False = never.
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
        scale: float | Weight | SampleWeight | None = None,
        guidance: Guidance | None = None,
        rectify: str | Rectifier | None = "auto",
        plan: Plan | None = None,
        solver: str | Solver = "heun",
        solver_options: dict[str, Any] | None = None,
        steps: int | None = None,
        refine: Gibbs | None = None,
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
        network = denoiser_of(model)
        if network.adapter is not None:
            network, scale, rectify = adapted(network, scale, guidance, rectify, plan)
        denoiser = network.on(as_schedule(schedule, network))
        chosen = as_guidance(scale, guidance, rectify, network)
        options = as_options(solver_options)
        rows: Table = table(solver, denoiser.schedule, steps, refine=refine, **options)
        check_variance(rows, network, denoiser)
        dtype = as_dtype(dtype)
        modules = (*network.modules, *chosen.reference.modules)
        device = as_device(device, denoiser.device, modules, dtype)
        compiled = as_bool("compile", compile)
        self._graphs, self._uncaptured = graphs_for(capture, device)
        super().__init__(
            Choices(
                denoiser,
                chosen,
                as_plan(plan),
                rows,
                weights_of(chosen.weight, rows, torch.finfo(dtype).max),  # type: ignore[arg-type]
                device,
                dtype,
                ops.resolve(device, backend),
                as_batch_size(batch_size),
                as_budget(memory_budget),
                as_bool("check", check),
                compiled or (self._graphs is not None and self._graphs.always),
                term_weights(chosen.direction, rows, torch.finfo(dtype).max),
            )
        )
        self._compiled = Compiled(network.modules) if compiled else nullcontext
        if compiled:
            self.tried = 0  # blocks are compiled for the shape of a batch
        self.postprocess = as_postprocess(postprocess)
        self.progress = as_bool("progress", progress)


def sample(
    model: Any,
    cond: Any,
    *,
    seeds: Iterable[int] | None = None,
    noise: Tensor | None = None,
    callback: Callable[[Step], object] | None = None,
    scale: float | Weight | SampleWeight | None = None,
    guidance: Guidance | None = None,
    rectify: str | Rectifier | None = "auto",
    plan: Plan | None = None,
    solver: str | Solver = "heun",
    solver_options: dict[str, Any] | None = None,
    steps: int | None = None,
    refine: Gibbs | None = None,
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
        cond, seeds, noise, callback: as for `Engine.sample`; all others as for `Engine`.

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
        refine=refine,
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
    ).sample(cond, seeds, noise, callback)
