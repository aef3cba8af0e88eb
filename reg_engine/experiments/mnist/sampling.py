"""Resumable sampling of the `mnist` experiment's points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...engine import Engine
from ...plan import Plan
from ...resume import digest, run_resumable
from ...storage.shards import Shards
from ..classifier_guidance import unlabelled
from ..draws import SEEDS_A_RUN, Draws
from .grid import CLASSIFIER_METHODS, Point, guidance_of
from .models import Models

__all__ = ["TIMES", "Sampled", "Sampling", "sample_points"]

# Ten steps where a digit takes its shape: half of the rows lie within [0.28, 2.9]. The usual grid
# (rho 7) has as many of its rows above 3, where nothing is decided in MNIST.
TIMES = (80.0, 25.0, 9.0, 4.5, 2.6, 1.6, 1.0, 0.6, 0.3, 0.1, 0.0)
TOLERANCE = 0.02  # of calibrated plans, the default of `reg-engine calibrate`
CALIBRATION = 16  # samples that a plan is calibrated with


@dataclass(frozen=True)
class Sampling(Draws):
    """How every point is sampled.

    Args:
        count: samples a point, equally many of each label.
        times: noise levels from 80 to 0, one more than steps.
        solver: see Engine.
        seed: of the report.
        batch_size: samples a batch, one file each.
        device: where to sample.
    """

    count: int
    times: tuple[float, ...]
    solver: str = "dpmpp_2m"
    seed: int = 0
    batch_size: int = 50
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Steps of the solver."""
        return len(self.times) - 1


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
    folder: Path,
    say: Callable[[str], None],
) -> list[Sampled]:
    """The samples of every point; finished batches are read from `folder`, new ones written there.

    Raises:
        InputError: the folder holds samples made with other settings.
    """
    settings = asdict(sampling) | {
        "weights": digest(models.denoiser),
        "bad": None if models.bad is None else digest(models.bad),
        "trained": models.steps,
    }
    shards = Shards(folder, settings)
    free, found = unlabelled(models.denoiser), []
    for number, point in enumerate(points, 1):
        denoiser = free if point.method in CLASSIFIER_METHODS else models.denoiser
        solver, steps = point.solver or (sampling.solver, sampling.steps)
        grid = {} if point.solver else {"times": list(sampling.times)}
        choices: dict[str, Any] = {
            "guidance": guidance_of(point, models.bad, models.guides.get(point.method)),
            "solver": solver,
            "solver_options": grid,
            "steps": steps,
            "device": sampling.device,
            "progress": False,
        }
        plan = _plan(point, denoiser, choices, folder) if point.plan == "calibrated" else None
        engine = Engine(denoiser, **choices, plan=plan, batch_size=sampling.batch_size)
        samples, stats = run_resumable(
            engine, sampling.labels, sampling.seeds(point), shards, point.name
        )
        cost = stats.as_dict()
        say(f"{number}/{len(points)} {point.name}: nfe {cost['nfe']:.1f}, {cost['seconds']:.0f} s")
        found.append(Sampled(point, samples, cost))
    return found


def _plan(point: Point, denoiser: Any, choices: dict[str, Any], folder: Path) -> Plan:
    """The point's calibrated plan, kept in a file of its own."""
    key = digest(denoiser, sorted(choices.items()), TOLERANCE)
    file = folder / f"{point.name}-{key[:16]}.plan.json"
    if file.exists():
        return Plan.load(file)
    # Calibrated on seeds that no point is sampled with.
    seeds = range(2 * SEEDS_A_RUN - CALIBRATION, 2 * SEEDS_A_RUN)
    labels = torch.arange(CALIBRATION) % 10
    plan = Plan.calibrate(denoiser, labels, tolerance=TOLERANCE, seeds=seeds, **choices)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(file)
    return plan
