"""The engine: one loop over the rows of a solver's table, each row an evaluation and a guided step.

`sample(model, cond, ...)` is one call; `Engine(model, ...)` holds the choices and serves many.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import ops
from .checks import Watch, as_batch_size, as_dtype, as_noise, as_seeds
from .conditioning import Cond, as_cond, plain, take
from .denoisers import Denoiser
from .errors import InputError
from .frozen import frozen
from .guidance import EVALUATIONS, Guidance
from .noise import SampleNoise
from .plan import Plan
from .point import Counter, Point
from .progress import Progress
from .rectifiers import Rectifier, make
from .rectifiers.auto import choose
from .schedules import Schedule
from .solvers import Solver, Table, table
from .stats import Output, Stats
from .weights import Constant, weights_of

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
        progress: bool = True,
    ) -> None:
        denoiser = as_denoiser(model)
        self.denoiser = denoiser if schedule is None else denoiser.on(schedule)
        self.guidance = _guidance(scale, guidance, rectify)
        if plan is not None and not isinstance(plan, Plan):
            raise InputError("plan", f"is a {type(plan).__name__}", "Give a reg_engine.Plan")
        self.plan = plan or Plan.full()
        self.table: Table = table(solver, self.denoiser.schedule, steps, **(solver_options or {}))
        self.weights = weights_of(self.guidance.weight, self.table)  # type: ignore[arg-type]
        self.modes = self._modes()
        self.batch_size = as_batch_size(batch_size)
        self.dtype = as_dtype(dtype)
        self.device = self._place(device)
        self.memory_budget = memory_budget
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
        stats.begin(self.device)
        size = self.batch_size or len(seeds)
        modules = (*self.denoiser.modules, *self.guidance.reference.modules)
        with Progress(len(seeds) * len(self.table.rows), self.progress) as bar, frozen(modules):
            for start in range(0, len(seeds), size):
                part = slice(start, min(start + size, len(seeds)))
                begun = time.perf_counter()
                own = None if noise is None else noise[part]
                batch = self._batch(plain(take(rows, part)), seeds[part], own, stats, bar)
                stats.finish_batch(part.stop - part.start, time.perf_counter() - begun, self.device)
                yield part, batch

    @torch.inference_mode()
    def _batch(
        self, cond: Cond, seeds: Sequence[int], unit: Tensor | None, stats: Stats, bar: Progress
    ) -> Tensor:
        noise, probes = SampleNoise(seeds), SampleNoise(seeds, "probes")
        shape = torch.empty((len(seeds), *self.denoiser.sample_shape), dtype=self.dtype)
        shape = shape.to(self.device)
        x = self.table.init_scale * (noise.normal(shape) if unit is None else unit)
        counter, watch = Counter(), Watch(x.device)
        memory: dict[str, Any] = {}
        history: deque[Tensor] = deque(maxlen=max(self.table.history - 1, 0))
        for index, (row, mode, w) in enumerate(
            zip(self.table.rows, self.modes, self.weights, strict=True)
        ):
            point = Point(
                x, row, index, self.denoiser, self.guidance.reference, cond, memory, counter, probes
            )
            rectifier = self._ready(point) if mode == "reg" else None
            evaluate = EVALUATIONS[mode]
            cond_denoised, term = evaluate(point, self.guidance.direction, rectifier)
            watch.observe(index, row.t, cond_denoised, term)
            if w and self.guidance.adjust:
                cond_denoised, term = self._adjusted(point, cond_denoised, term, w), None
            drawn = noise.normal(x) if row.c else None
            x, d = ops.guided_step(
                x, cond_denoised, term, w, tuple(history), drawn, row.p, row.q, row.a, row.b, row.c
            )
            history.appendleft(d)
            bar.advance(len(seeds))
        watch.finish(self.table)
        stats.add(counter, Tally(self.modes), self._name(), self._reason)
        return x

    def _adjusted(self, point: Point, cond: Tensor, term: Tensor | None, w: float) -> Tensor:
        guided = ops.combine(cond, term, w)
        for adjustment in self.guidance.adjust:
            guided = adjustment(point, guided, cond)
        return guided

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

    def _ready(self, point: Point) -> Rectifier:
        if self._rectifier is None:
            size = self.batch_size or point.x.shape[0]
            self._rectifier, self._reason = choose(point, size, self.memory_budget)
        return self._rectifier

    def _name(self) -> str:
        return "none" if self._rectifier is None else self._rectifier.name

    def _place(self, device: str | torch.device | None) -> torch.device:
        if device is None:
            return self.denoiser.device or torch.device("cpu")
        try:
            place = torch.device(device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                "device",
                f"{device!r} cannot be used ({str(error).splitlines()[0]})",
                "Give 'cpu', or 'cuda' where torch.cuda.is_available()",
            ) from error
        for module in (*self.denoiser.modules, *self.guidance.reference.modules):
            module.to(place)
        return place


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
    known = set(Engine.__init__.__kwdefaults__ or {})
    for name in choices:
        if name not in known:
            raise InputError(
                name, "is not an argument of sample", f"Known: {', '.join(sorted(known))}"
            )
    return Engine(model, **choices).sample(cond, seeds, noise)


def as_denoiser(model: Any) -> Denoiser:
    """The Denoiser of a user's `model`.

    Raises:
        InputError: a bare network, of which prediction, schedule and shape are not known.
    """
    if isinstance(model, Denoiser):
        return model
    if hasattr(model, "denoiser") and callable(model.denoiser):
        return as_denoiser(model.denoiser())
    raise InputError(
        "model",
        f"a {type(model).__name__} does not say what it predicts, nor its schedule and shape",
        "Wrap it: reg_engine.Denoiser(net, prediction=..., schedule=..., sample_shape=..., "
        "null_cond=...)",
    )


def _guidance(
    scale: float | None, guidance: Guidance | None, rectify: str | Rectifier | None
) -> Guidance:
    if guidance is None:
        return Guidance(weight=Constant(2.0 if scale is None else scale), rectify=rectify)
    if not isinstance(guidance, Guidance):
        raise InputError(
            "guidance", f"is a {type(guidance).__name__}", "Give a reg_engine.Guidance"
        )
    if scale is not None:
        raise InputError("scale", "is given beside guidance", "Put it into Guidance(weight=scale)")
    if rectify != "auto":
        raise InputError("rectify", "is given beside guidance", "Put it into Guidance(rectify=...)")
    return guidance
