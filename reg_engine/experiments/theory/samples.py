"""Guided samples against the tilted target: over estimators, intervals, solvers and plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import schedules
from ...oracles import GaussianMixture
from ...plan import Plan
from ...rectifiers import PRODUCTS
from ...schedules import Schedule
from ..report import Report
from .scores import SCHEDULE, Sampler, Target, sobol_noise

# The rows that are repeated, and shown as clouds (there with K delta for REG).
HERO = ("unguided", "CFG", "interval", "vjp", "golden")
REPEATED = ("unguided", "CFG", "interval", "paper", "vjp", "golden")
METHODS = ("unguided", "CFG", "interval", *PRODUCTS, "golden")
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
    """How much of everything."""

    count: int  # samples of every method, a power of two, and points of a target draw
    replicas: int  # independent noises and targets for the rows that are repeated
    weights: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    plan_weights: tuple[float, ...] = (1.0, 2.0, 4.0)
    solver_weight: float = 2.0
    solver_steps: tuple[int, ...] = (8, 18, 36)
    solvers: int = len(SOLVERS)  # how many of SOLVERS
    intervals: int = len(INTERVALS)  # how many of INTERVALS
    chain_weights: tuple[float, ...] = (1.0, 2.0, 4.0)
    chain_steps: tuple[int, ...] = (10, 20, 40, 80)
    points: int = 8192  # where fields are compared


Clouds = dict[float, dict[str, Tensor]]  # w -> samples of HERO and of "target", each (N, 2)


def methods(report: Report, mixture: GaussianMixture, size: Size) -> Clouds:
    """Energy distance of every method and estimator at every weight, into the numbers.

    `methods` holds by weight: `floor`, what as many independent target draws score on average;
    `scores`, one a replica; `tuned_interval`: lo, hi and score of the best of INTERVALS, chosen by
    the score itself (the strongest case for interval guidance, not a fair one).
    """
    clouds: Clouds = {}
    report.numbers["methods"] = {}
    for w in size.weights:
        scores: dict[str, list[float]] = {}
        for replica in range(size.replicas):
            sampler = Sampler(mixture, sobol_noise(size.count, scramble=report.seed + replica))
            target = Target(mixture, w, size.count, seed=1000 * report.seed + 100 * replica)
            for name in REPEATED if replica else METHODS:
                samples = _run(sampler, name, w)()
                scores.setdefault(name, []).append(target.score(samples))
                if not replica and name in HERO:
                    clouds.setdefault(w, {})[name] = samples
            if not replica:
                floor, clouds[w]["target"] = target.floor(size.count), target.sets[0]
        report.numbers["methods"][f"{w:g}"] = {"floor": floor, "scores": scores}
        report.say(f"w = {w:g}: CFG {scores['CFG'][0]:.1e}, REG {scores['vjp'][0]:.1e}")
    for w in size.weights:
        sampler, target = _first(report, mixture, size, w)
        tried = [
            (target.score(sampler.interval(1 + w, lo, hi)), lo, hi)
            for lo, hi in INTERVALS[: size.intervals]
        ]
        score, lo, hi = min(tried)
        report.numbers["methods"][f"{w:g}"]["tuned_interval"] = [lo, hi, score]
    return clouds


def _first(
    report: Report, mixture: GaussianMixture, size: Size, w: float
) -> tuple[Sampler, Target]:
    """The sampler and the target of the first replica."""
    noise = sobol_noise(size.count, scramble=report.seed)
    return Sampler(mixture, noise), Target(mixture, w, size.count, seed=1000 * report.seed)


def _run(sampler: Sampler, name: str, w: float) -> Callable[[], Tensor]:
    """The samples of a method, not yet made."""
    return {
        "unguided": sampler.unguided,
        "CFG": lambda: sampler.guided(1 + w, None)[0],
        "interval": lambda: sampler.interval(1 + w),
        "golden": lambda: sampler.golden(w),
    }.get(name, lambda: sampler.guided(1 + w, name)[0])


def solvers(report: Report, mixture: GaussianMixture, size: Size) -> None:
    """CFG, REG (`vjp`) and golden guidance under every solver and number of steps.

    `visits` are evaluations of the guided model: visits of its row, whatever one costs.
    """
    w = size.solver_weight
    first, target = _first(report, mixture, size, w)
    rows = report.numbers["solvers"] = []
    for solver, schedule in SOLVERS[: size.solvers]:
        for steps in size.solver_steps:
            sampler = Sampler(mixture, first.noise, solver, steps, schedule)
            cfg, nfe = sampler.guided(1 + w, None)
            found = {
                "cfg": cfg,
                "reg": sampler.guided(1 + w, "vjp")[0],
                "golden": sampler.golden(w),
            }
            scores = {name: target.score(samples) for name, samples in found.items()}
            rows.append({"solver": solver, "steps": steps, "visits": round(nfe / 2), **scores})
        report.say(f"solver {solver}")


def plans(report: Report, mixture: GaussianMixture, size: Size) -> None:
    """Evaluations and energy distance of CFG, full REG, intervals and calibrated plans."""
    rows = report.numbers["plans"] = []
    for w in size.plan_weights:
        sampler, target = _first(report, mixture, size, w)
        tried: dict[str, Plan] = {
            "CFG at every step": Plan.full(),
            "REG at every step": Plan.full(),
            "REG in [0.1, 2], below CFG, above none": Plan.interval(0.1, 2.0),
            "REG in [0.28, 2.9], below CFG, above none": Plan.interval(0.28, 2.9),
        }
        common: dict[str, Any] = {"solver": "heun", "steps": 18, "dtype": torch.float64}
        for tolerance in (0.02, 0.05, 0.1):
            tried[f"calibrated, tolerance {tolerance:g}"] = Plan.calibrate(
                mixture.denoiser(schedule=SCHEDULE),
                torch.zeros(32, dtype=torch.long),
                tolerance=tolerance,
                scale=1 + w,
                rectify="fd_batched",
                progress=False,
                **common,
            )
        for name, plan in tried.items():
            rectify = None if name.startswith("CFG") else "fd_batched"
            samples, nfe = sampler.guided(1 + w, rectify, plan=plan)
            rows.append({"name": name, "w": w, "nfe": nfe, "score": target.score(samples)})
        report.say(f"plans at w = {w:g}")
