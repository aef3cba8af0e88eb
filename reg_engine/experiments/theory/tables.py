"""Energy distance to the tilted target: over estimators, plans, solvers and steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import schedules
from ...oracles import GaussianMixture
from ...plan import Plan
from ...rectifiers import RECTIFIERS
from ...schedules import Schedule
from ..report import Report
from .scores import SCHEDULE, Sampler, Target, sobol_noise

__all__ = [
    "HERO",
    "PlanScore",
    "Size",
    "Scores",
    "SolverScore",
    "best_interval",
    "method_scores",
    "plan_scores",
    "solver_scores",
]

# The rows that are repeated, and shown as clouds (there with K delta for REG).
HERO = ("unguided", "CFG", "interval", "vjp", "golden")
REPEATED = ("unguided", "CFG", "interval", "paper", "vjp", "golden")
INTERVALS = ((0.1, 0.6), (0.4, 1.0), (0.1, 1.0), (0.28, 0.6), (0.4, 0.6), (0.28, 1.0))

# Solvers with the schedule that they step through; in EDM time ddim is euler.
SOLVERS: tuple[tuple[str, Schedule], ...] = (
    ("euler", SCHEDULE),
    ("dpmpp_2m", SCHEDULE),
    ("heun", SCHEDULE),
    ("euler_ancestral", SCHEDULE),
    ("ddim", schedules.VPLinear()),
)


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        count: samples of every method, a power of two, and points of a target draw.
        replicas: independent noises and targets for the rows that are repeated.
        weights: w of the methods table. plan_weights: w of the plans.
        solver_weight: w of the solvers. solver_steps: their steps.
        solvers, intervals: how many of SOLVERS and of INTERVALS.
    """

    count: int
    replicas: int
    weights: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    plan_weights: tuple[float, ...] = (1.0, 2.0, 4.0)
    solver_weight: float = 2.0
    solver_steps: tuple[int, ...] = (8, 18, 36)
    solvers: int = len(SOLVERS)
    intervals: int = len(INTERVALS)


@dataclass
class Scores:
    """Of one weight.

    Attributes:
        values: method -> one score a replica ("CFG", "interval", "golden", estimators' names).
        floor: what as many independent target draws score on average.
        clouds: samples of the methods in HERO and of "target", (N, 2).
    """

    values: dict[str, list[float]]
    floor: float
    clouds: dict[str, Tensor]

    def mean(self, method: str) -> float:
        """Mean over the replicas."""
        return statistics.fmean(self.values[method])

    def spread(self, method: str) -> float:
        """Standard deviation over the replicas, 0 where there is one."""
        values = self.values[method]
        return statistics.stdev(values) if len(values) > 1 else 0.0


def method_scores(report: Report, mixture: GaussianMixture, size: Size) -> dict[float, Scores]:
    """Every method and estimator at every weight: w -> Scores."""
    found: dict[float, Scores] = {}
    for w in size.weights:
        values: dict[str, list[float]] = {}
        clouds: dict[str, Tensor] = {}
        floor = 0.0
        for replica in range(size.replicas):
            noise = sobol_noise(size.count, scramble=report.seed + replica)
            sampler, seed = Sampler(mixture, noise), 1000 * report.seed + 100 * replica
            target = Target(mixture, w, size.count, seed=seed)
            names = REPEATED if replica else ("unguided", "CFG", "interval", *RECTIFIERS, "golden")
            for name in names:
                samples = _runs(sampler, w)[name]()
                values.setdefault(name, []).append(target.score(samples))
                if not replica and name in HERO:
                    clouds[name] = samples
            if not replica:
                floor, clouds["target"] = target.floor(size.count), target.sets[0]
        found[w] = Scores(values, floor, clouds)
        report.say(f"w = {w:g}: CFG {found[w].mean('CFG'):.1e}, REG {found[w].mean('vjp'):.1e}")
    return found


def _runs(sampler: Sampler, w: float) -> dict[str, Callable[[], Tensor]]:
    """Method -> its samples, not yet made."""

    def estimator(name: str) -> Callable[[], Tensor]:
        return lambda: sampler.guided(1 + w, name)[0]

    return {
        "unguided": sampler.unguided,
        "CFG": lambda: sampler.guided(1 + w, None)[0],
        "interval": lambda: sampler.interval(1 + w),
        **{name: estimator(name) for name in RECTIFIERS},
        "golden": lambda: sampler.golden(w),
    }


def best_interval(
    report: Report, mixture: GaussianMixture, size: Size
) -> dict[float, tuple[float, float, float]]:
    """w -> (lo, hi, score) of the best of INTERVALS, chosen by the score itself.

    Tuned on what it is judged by: the strongest case for interval guidance, not a fair one.
    """
    found = {}
    sampler = Sampler(mixture, sobol_noise(size.count, scramble=report.seed))
    for w in size.weights:
        target = Target(mixture, w, size.count, seed=1000 * report.seed)
        scored = [
            (target.score(sampler.interval(1 + w, lo, hi)), lo, hi)
            for lo, hi in INTERVALS[: size.intervals]
        ]
        score, lo, hi = min(scored)
        found[w] = (lo, hi, score)
    return found


@dataclass(frozen=True)
class PlanScore:
    """A plan with `fd_batched`: evaluations a sample and energy distance."""

    name: str
    w: float
    nfe: float
    score: float


def plan_scores(report: Report, mixture: GaussianMixture, size: Size) -> list[PlanScore]:
    """CFG, full REG, intervals and calibrated plans, 18 Heun steps each."""
    sampler = Sampler(mixture, sobol_noise(size.count, scramble=report.seed))
    found = []
    for w in size.plan_weights:
        target = Target(mixture, w, size.count, seed=1000 * report.seed)
        plans: list[tuple[str, str | None, Plan]] = [
            ("CFG at every step", None, Plan.full()),
            ("REG at every step", "fd_batched", Plan.full()),
            ("REG in [0.1, 2], below CFG, above none", "fd_batched", Plan.interval(0.1, 2.0)),
            ("REG in [0.28, 2.9], below CFG, above none", "fd_batched", Plan.interval(0.28, 2.9)),
        ]
        for tolerance in (0.02, 0.05, 0.1):
            plan = Plan.calibrate(
                mixture.denoiser(schedule=SCHEDULE),
                torch.zeros(32, dtype=torch.long),
                tolerance=tolerance,
                scale=1 + w,
                rectify="fd_batched",
                solver="heun",
                steps=18,
                dtype=torch.float64,
                progress=False,
            )
            plans.append((f"calibrated, tolerance {tolerance:g}", "fd_batched", plan))
        for name, rectify, plan in plans:
            samples, nfe = sampler.guided(1 + w, rectify, plan=plan)
            found.append(PlanScore(name, w, nfe, target.score(samples)))
        report.say(f"plans at w = {w:g}")
    return found


@dataclass(frozen=True)
class SolverScore:
    """One solver and number of steps: evaluations of the guided model (visits of the network's
    row, whatever a visit costs) and energy distances."""

    solver: str
    steps: int
    visits: int
    cfg: float
    reg: float
    golden: float


def solver_scores(report: Report, mixture: GaussianMixture, size: Size) -> list[SolverScore]:
    """CFG, REG (`vjp`) and golden guidance under every solver and number of steps."""
    noise, w = sobol_noise(size.count, scramble=report.seed), size.solver_weight
    target = Target(mixture, w, size.count, seed=1000 * report.seed)
    found = []
    for solver, schedule in SOLVERS[: size.solvers]:
        for steps in size.solver_steps:
            sampler = Sampler(mixture, noise, solver, steps, schedule)
            cfg, nfe = sampler.guided(1 + w, None)
            reg, _ = sampler.guided(1 + w, "vjp")
            golden = sampler.golden(w)
            scores = [target.score(samples) for samples in (cfg, reg, golden)]
            found.append(SolverScore(solver, steps, round(nfe / 2), *scores))
        report.say(f"solver {solver}")
    return found
