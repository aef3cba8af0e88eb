"""A model's guided estimate, for a sampler of one's own: `denoised = guide(x, t)`.

    guide = Guide(model, labels, scale=4.0, schedule=schedules.EDM())
    for sigma, then in pairwise(sigmas):
        x = x + (then - sigma) * (x - guide(x, sigma)) / sigma

A call runs one row of the engine's loop, whose solver lands on the estimate itself.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import ops
from .adapters import denoiser_of
from .checks import adapted, as_device, as_guidance, as_plan, as_schedule, as_seeds, as_weight
from .errors import InputError
from .guidance import Guidance
from .guidance.terms import WeightedDirections
from .guidance.weights import SampleWeight, Weight, looks_at_samples, weights_of
from .loop.choices import Choices
from .loop.run import Run
from .loop.state import Memory, State
from .loop.stats import Stats
from .loop.step import own_copy
from .loop.watch import Watch
from .networks.answers import conditioned
from .networks.conditioning import Cond, as_cond
from .networks.counter import Counter
from .networks.frozen import frozen
from .networks.point import Point
from .noise import SampleNoise
from .plan import Plan
from .rectifiers import Rectifier
from .schedules import Schedule
from .solvers import Row, Table, table
from .values import as_bool, as_budget, as_float, as_tuple

__all__ = ["Guide"]

KEPT = 256  # times whose numbers a guide keeps


class Guide:
    """Guided estimates of one batch, asked for one after the other.

    It keeps what guidance keeps on the way (the previous delta, momentum, probes): one guide serves
    one batch on one way, and `reset` begins the next. Calls give no gradients.

    Args:
        model: a Denoiser, or what `denoiser_of` makes one of.
        cond: conditioning of the B samples, as `sample` takes it.
        scale, guidance, rectify, plan, device, memory_budget, backend, check: as for Engine.
        seeds: one a sample, of the probes (`diagonal`); None = 0 .. B-1.
        schedule: whose times and marginals (x, t) follow, x_t = alpha_t x_0 + sigma_t noise; None =
            the model's own. `schedules.EDM()` is k-diffusion's: t is sigma, and alpha = 1.
        times: that will be visited, noisiest first: for weights that follow the whole way (Linear,
            Cosine; CFGPlusPlus as Euler steps between them). Others need none.

    Raises:
        InputError: a bad argument.
    """

    def __init__(
        self,
        model: Any,
        cond: Any,
        *,
        scale: float | Weight | SampleWeight | None = None,
        guidance: Guidance | None = None,
        rectify: str | Rectifier | None = "auto",
        plan: Plan | None = None,
        seeds: Iterable[int] | None = None,
        schedule: Schedule | None = None,
        times: Iterable[float] | None = None,
        device: str | torch.device | None = None,
        memory_budget: float | None = None,
        backend: str | None = None,
        check: bool = True,
    ) -> None:
        network = denoiser_of(model)
        if network.adapter is not None:
            network, scale, rectify = adapted(network, scale, guidance, rectify, plan)
        self.denoiser = network.on(as_schedule(schedule, network))
        self.guidance = as_guidance(scale, guidance, rectify, network)
        modules = (*network.modules, *self.guidance.reference.modules)
        self.device = as_device(device, network.device, modules, torch.float32)
        self.seeds = as_seeds(seeds, cond)
        self._backend, self._plan = ops.resolve(self.device, backend), as_plan(plan)
        self._budget, self._check = as_budget(memory_budget), as_bool("check", check)
        self._way = None
        if times is not None:
            follows = as_tuple("times", times, "Give the times that will be visited")
            grid = [*follows, self.denoiser.schedule.clean_time]
            self._way = table("euler", self.denoiser.schedule, None, times=grid)
        count, classes, null = len(self.seeds), network.num_classes, network.null_cond
        self._cond = as_cond(cond, count, classes, null, self.device)
        self._first = lru_cache(self._settling)  # by dtype
        self._run = lru_cache(KEPT)(self._at)  # by time and dtype
        self.reset()

    def reset(self, seeds: Iterable[int] | None = None) -> None:
        """Begin a new way: nothing is kept of the calls before, and the figures start at zero.

        Args:
            seeds: of its samples; None = as before.
        """
        if seeds is not None:
            self.seeds = as_seeds(seeds, self._cond)
            self.__dict__.pop("_beside", None)  # what it draws belongs to the seeds
        self._memory, self._calls = Memory(), 0
        self._probes = SampleNoise(self.seeds, "probes")
        self.stats = Stats(solver="your own", backend=self._backend)

    def weigh(self, scale: float | Weight) -> None:
        """Go on at another scale, or another weight of the same kind; what is kept stays.

        Raises:
            InputError: another kind of weight; of several terms, or one that looks at the samples.
        """
        if self.denoiser.holds:
            problem = "cannot change: the network's weights hold it (an adapter)"
            raise InputError("scale", problem, "Make another Guide")
        weight = as_weight(scale)
        if type(weight) is not type(self.guidance.weight) or looks_at_samples(weight):
            problem = f"is {weight!r} beside {self.guidance.weight!r}"
            raise InputError("scale", problem, "Make another Guide")
        if weight != self.guidance.weight:
            self.guidance = replace(self.guidance, weight=weight)
            self._run.cache_clear()

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        """The guided E[x_0 | x_t, cond], (B, *sample_shape) in the dtype of x.

        Args:
            x: the state x_t, (B, *sample_shape).
            t: its time, a number, or a tensor of equal ones.

        Raises:
            InputError: a bad argument; NumericalError: NaN or Inf in a prediction.
        """
        return self.estimates(x, t)[1]

    def estimates(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t, cond] as it is, and guided; arguments and errors as of a call.

        Where there is no conditional one (scale 0), the reference's stands in its place.
        """
        if torch.compiler.is_dynamo_compiling():  # a break in a compiled loop
            broken: tuple[Tensor, Tensor] = torch.compiler.disable(self._asked)(x, t)
            return broken
        return self._asked(x, t)

    def _asked(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        time = self._time(t)
        shape = (len(self.seeds), *self.denoiser.sample_shape)
        if not isinstance(x, Tensor) or tuple(x.shape) != shape or not x.is_floating_point():
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError("x", f"is {got}", f"Give floating states of shape {shape}")
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        run = self._run(time, dtype)
        with frozen(run.modules), torch.inference_mode():
            found = self._evaluated(run, x.detach().to(self.device, dtype))
            cond, guided = (own_copy(one.to(x.device, x.dtype)) for one in found)
            return cond, guided

    def _evaluated(self, run: Run, x: Tensor) -> tuple[Tensor, Tensor]:
        beside = None if run.modes == ("cond",) else self._beside
        if "reg" in run.modes:
            self._first(run.dtype).prepare((self._cond, beside), len(x), self.stats)
        counter, step = Counter(), torch.zeros((), dtype=torch.int64, device=x.device)
        numbers, self._memory.state = run.coefficients, x
        state = State(x.clone(), numbers, None, Watch(run.table, x, numbers.w), self._memory)
        point = Point(
            x,
            run.table.rows[0],
            self._calls,
            run.denoiser,
            run.guidance.reference,
            self._cond,
            self._memory,
            counter,
            self._probes,
            numbers.estimates,
            step,
            run.backend,
            beside=beside,
            landing=numbers.landing,
            weights=run.terms_at(0),
        )
        estimate, _ = run.advance(state, point, run.modes[0], run.weights[0], None)
        state.watch.finish()
        self._calls += 1
        self.stats.add(counter, Tally(self.stats.modes) + Tally(run.modes), *run.chosen)
        self.stats.finish_batch(0 if self.stats.samples else len(x), 0.0, x.device)
        return estimate.denoised(point), state.x

    def _time(self, t: float | Tensor) -> float:
        if isinstance(t, Tensor) and t.numel():
            if bool((t != t.flatten()[0]).any()):
                raise InputError("t", "differs among the samples", "Give one time for the batch")
            t = t.flatten()[0]
        return as_float("t", t, "Give a time of the schedule")

    @cached_property
    def _beside(self) -> Cond:
        """The reference's own conditioning."""
        reference = self.guidance.reference
        return conditioned(reference, self.denoiser, self._cond, self.seeds, self.device)

    def _settling(self, dtype: torch.dtype) -> Run:
        """What settles the estimator, as an engine does: noise level 1, K neither 0 nor 1."""
        schedule = self.denoiser.schedule
        level = min(1.0, schedule.noise_level(schedule.prior_time))
        return Run(
            Choices(
                self.denoiser,
                self.guidance,
                Plan.full(),
                self._landing(self._row(schedule.time_of(level))),
                (1.0,),
                self.device,
                dtype,
                self._backend,
                memory_budget=self._budget,
                check=self._check,
                term_weights=((1.0,) * len(self._term_weights),) if self._term_weights else (),
            )
        )

    def _at(self, time: float, dtype: torch.dtype) -> Run:
        """The choices at one time."""
        row = self._row(time)
        terms = tuple(self._weight(one, row, dtype) for one in self._term_weights)
        w = float(any(terms)) if terms else self._weight(self.guidance.weight, row, dtype)
        return self._first(dtype).on(
            plan=self._plan,
            table=self._landing(row),
            weights=(w,),
            term_weights=(terms,) if terms else (),
        )

    @property
    def _term_weights(self) -> tuple[Any, ...]:
        """The weights of several terms; () = there is one."""
        direction = self.guidance.direction
        return direction.weights if isinstance(direction, WeightedDirections) else ()

    def _row(self, time: float) -> Row:
        """A row that lands on the estimate itself: x_s = denoised."""
        schedule = self.denoiser.schedule
        alpha, sigma = schedule(time)
        if sigma == 0:
            problem = f"is {time:g}, where x holds no noise and is the estimate"
            raise InputError("t", problem, "Ask at times before it")
        return Row(time, alpha, sigma, schedule.clean_time, 1.0, 0.0, 0.0, 1.0, 0.0, (1.0,))

    def _landing(self, row: Row) -> Table:
        """The table of one row."""
        start = math.hypot(row.alpha, row.sigma)
        return Table("your own", 1, (row,), start, schedule=self.denoiser.schedule)

    def _weight(self, weight: Any, row: Row, dtype: torch.dtype) -> float:
        largest = torch.finfo(dtype).max
        if not callable(weight):
            return 1.0  # it looks at the samples (SampleWeight)
        if self._way is None:
            value = weight(row, _NO_WAY)
            remedy = f"Give a scale whose weight is a finite number, {largest:.2g} at most"
            return as_float("weight", value, remedy, lambda v: abs(v) <= largest)
        weights = weights_of(weight, self._way, largest)
        for there, w in zip(self._way.rows, weights, strict=True):
            if math.isclose(there.t, row.t, rel_tol=1e-6):
                return w
        raise InputError("t", f"is {row.t:g}, which is not among the times", "Give times=[...]")


class _NoWay:
    """Stands for a solver's table where there is none: asking it for anything is an error."""

    def __getattr__(self, name: str) -> NoReturn:
        raise InputError(
            "times", "are not given, and the weight follows the whole way", "Give times=[...]"
        )


_NO_WAY: Any = _NoWay()
