"""The points of the `mnist` experiment, and their resumable sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...engine import Engine
from ...plan import Plan
from ...resume import digest, engine_key, run_resumable
from ...storage.shards import Shards
from ..draws import CLASSIFIER_METHODS, SEEDS_A_RUN, Point, Sampling, engine_of, pairs
from .models import Models

CHEAP = "fd_batched"  # the estimator of the fronts: 3F an evaluation, no backward pass
ESTIMATORS = ("paper", "vjp", "jvp", "fd", "diagonal", "diagonal_batched")  # beside CHEAP
HEUN = ("heun", 18)  # what docs/models.md evaluates with: shows what the cheaper solver changes
SOLVER = "dpmpp_2m"
# Ten steps where a digit takes its shape: half of the rows lie within [0.28, 2.9]. The usual grid
# (rho 7) has as many of its rows above 3, where nothing is decided in MNIST.
TIMES = (80.0, 25.0, 9.0, 4.5, 2.6, 1.6, 1.0, 0.6, 0.3, 0.1, 0.0)
TOLERANCE = 0.02  # of calibrated plans, the default of `reg-engine calibrate`
CALIBRATION = 16  # samples that a plan is calibrated with


def full_grid(dense: bool) -> list[Point]:
    """Points of a full run, the most telling first.

    Args:
        dense: scales 1 to 8 in more steps, where a GPU samples.
    """
    scales = (1.25, 1.5, 2, 3, 5, 8) if not dense else (1.125, 1.25, 1.5, 1.75, 2, 3, 4, 5, 8)
    fewer = (1.5, 2, 3, 5, 8) if not dense else scales
    points = [Point("vanilla", 1), *pairs("vanilla", scales, CHEAP)]
    points += pairs("interval", fewer, CHEAP) + pairs("autoguidance", fewer, CHEAP)
    for method in CLASSIFIER_METHODS:
        # REG damps: it gets larger weights too. 5, 12 and 24 show where a front bends.
        points += pairs(method, (1, 2, 4, 8, 16), CHEAP)
        points += [Point(method, 32, CHEAP), Point(method, 24, CHEAP)]
        points += [Point(method, 5), Point(method, 12)]
    points += [Point("cg", 0)]  # the unconditional model, judged by labels it never saw
    points += pairs("cosine", scales, CHEAP)
    # In the noise level 80 -> 0.002 a linear weight is small where digits form: larger scales.
    points += pairs("linear", (*fewer, 16, 32, 100) if dense else (4, 8, 16, 32, 100), CHEAP)
    points += [Point("linear", 6), Point("linear", 12), Point("linear", 64, CHEAP)]
    points += [Point("vanilla", scale, CHEAP, "calibrated") for scale in (1.5, 3)]
    points += [Point("vanilla", 3, estimator) for estimator in ESTIMATORS]
    points += [Point("vanilla", 1.5, estimator) for estimator in ("paper", "vjp")]
    return points + [Point("vanilla", 3, each, solver=HEUN) for each in ("none", CHEAP)]


def pool_grid() -> list[Point]:
    """Points whose samples train one postprocessing flow: at scales that are not evaluated but 1,
    and without REG, so that the flow never saw its kind."""
    scales = {"vanilla": (1.0, 2.5, 6.0), "cg-linear": (3.0, 6.0)}
    return [Point(method, each, pool=True) for method, own in scales.items() for each in own]


def quick_grid() -> list[Point]:
    """A few points of every method, for a machine in a hurry."""
    scales = {"vanilla": 4, "interval": 4, "autoguidance": 3, "cosine": 4, "linear": 8}
    scales |= dict.fromkeys(CLASSIFIER_METHODS, 2)
    both = [point for method in scales for point in pairs(method, (scales[method],), CHEAP)]
    more = [Point("vanilla", 4, CHEAP, "calibrated"), Point("vanilla", 4, "vjp")]
    return [Point("vanilla", 1), *both, *more]


@dataclass(frozen=True)
class Sampled:
    """Samples (count, 1, 28, 28) of a point, and what they cost (Stats.as_dict)."""

    point: Point
    samples: Tensor
    cost: dict[str, Any]


def sample_points(
    points: Sequence[Point],
    models: Models,
    sampling: Sampling,
    times: Sequence[float],
    folder: Path,
    say: Callable[[str], None],
) -> list[Sampled]:
    """The samples of every point; finished batches are read from `folder`, new ones written there.

    Args:
        times: noise levels from 80 to 0, of all points without a solver of their own.

    Raises:
        InputError: the folder holds samples made with other settings.
    """
    settings = asdict(sampling) | {
        "times": list(times),
        "weights": digest(models.denoiser),
        "bad": None if models.bad is None else digest(models.bad),
        "trained": models.steps,
    }
    shards, found = Shards(folder, settings), []
    for number, point in enumerate(points, 1):
        solver, steps = point.solver or (SOLVER, len(times) - 1)
        choices: dict[str, Any] = {
            "bad": models.bad,
            "guide": models.guides.get(point.method),
            "solver": solver,
            "steps": steps,
            "solver_options": {} if point.solver else {"times": list(times)},
        }
        engine = engine_of(models.denoiser, point, sampling, **choices)
        if point.plan == "calibrated":
            plan = _plan(point, engine, choices, folder)
            engine = engine_of(models.denoiser, point, sampling, **choices, plan=plan)
        samples, stats = run_resumable(
            engine, sampling.labels, sampling.seeds(point), shards, point.name
        )
        cost = stats.as_dict()
        done = f"{number}/{len(points)} {point.title} ({point.estimator}, {point.plan} plan)"
        say(f"{done}: nfe {cost['nfe']:.1f}, {cost['seconds']:.0f} s")
        found.append(Sampled(point, samples, cost))
    return found


def _plan(point: Point, engine: Engine, choices: dict[str, Any], folder: Path) -> Plan:
    """The point's calibrated plan, kept in a file of its own."""
    key = digest(engine_key(engine), TOLERANCE)
    file = folder / f"{point.name}-{key[:16]}.plan.json"
    if file.exists():
        return Plan.load(file)
    # Calibrated on seeds that no point is sampled with.
    seeds = range(2 * SEEDS_A_RUN - CALIBRATION, 2 * SEEDS_A_RUN)
    labels = torch.arange(CALIBRATION) % 10
    own = {name: choices[name] for name in ("solver", "steps", "solver_options")}
    own |= {"guidance": engine.guidance, "device": str(engine.device), "progress": False}
    plan = Plan.calibrate(engine.denoiser, labels, tolerance=TOLERANCE, seeds=seeds, **own)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(file)
    return plan
