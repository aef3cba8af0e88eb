"""What reg-2d trains and samples: size, schedule, the two networks of a set, clouds of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...engine import Engine
from ...guidance.guidance import Guidance
from ...networks.denoisers import Denoiser
from ...oracles import SHAPES, Shape, energy_distance, grid_denoiser
from ...schedules import VPLinear
from ..report import Report
from ..toys import ToyTask, toy_denoiser, train_toy
from .golden import CFG, WORSE, target_draws
from .win import METHODS, Grids, Model

STEPS = 25
# The paper's betas are not known. These end at alpha = 0.05, sigma = 0.999: x_25 is noise.
SCHEDULE = VPLinear(beta_start=0.002, beta_end=0.4, train_steps=STEPS)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    shapes: tuple[str, ...]  # sets
    components: int  # Gaussians a class
    draws: int  # training points a class
    steps: int  # of training the network
    batch: int
    worse_steps: int  # of training the worse network
    points: int  # x_t a class and step for the win ratios
    repeats: int  # chains from each
    samples: int  # a class in a cloud
    target: int  # draws of the target to score against
    field: int  # points an axis of a field


FULL = Size(tuple(SHAPES), 128, 16384, 6000, 256, 2000, 64, 64, 1500, 2500, 19)
QUICK = Size(("ring_cross", "moons"), 48, 8192, 800, 256, 250, 16, 16, 300, 1000, 15)

# Cloud -> guidance method (None: see `_engine`), estimator, and whose target it aims at.
CLOUDS: dict[str, tuple[str | None, str | None, str]] = {
    "golden": (None, None, CFG),
    "unguided": (None, None, CFG),
    "cfg": ("vanilla", None, CFG),
    "interval": ("interval", None, CFG),
    "reg_paper": ("vanilla", "paper", CFG),
    "reg_vjp": ("vanilla", "vjp", CFG),
    "auto_golden": (None, None, WORSE),
    "auto_unguided": (None, None, WORSE),
    "auto": ("autoguidance", None, WORSE),
    "auto_paper": ("autoguidance", "paper", WORSE),
    "auto_vjp": ("autoguidance", "vjp", WORSE),
}


def trained_model(shape: Shape, size: Size, report: Report) -> Model:
    """A small network of the set, and a smaller one, trained shorter on the blurred set."""
    generator = report.generator(1)
    points, labels = shape.sample(size.draws, generator)
    blurred = torch.cat([shape.blurred.sample(size.draws, y, generator) for y in (0, 1)])

    def trained(data: Tensor, steps: int, name: str, **net: Any) -> Denoiser:
        net |= {"num_classes": 2, "embedding": 32, "name": name}
        task = ToyTask(data, labels, SCHEDULE, "v_prediction", **net)
        made = train_toy(task, report, steps=steps, batch_size=size.batch, lr=2e-3)
        return toy_denoiser(made, task)

    return Model(
        trained(points, size.steps, shape.name, width=64, label_dropout=0.1),
        trained(blurred, size.worse_steps, f"{shape.name}-worse", width=32),
    )


def exact_model(shape: Shape) -> Model:
    """The exact denoisers of the set and of the blurred set."""
    return Model(*(m.denoiser(schedule=SCHEDULE) for m in (shape.mixture, shape.blurred)))


def clouds(
    model: Model, grids: Grids, w: float, count: int, first_seed: int, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Samples of both classes by 25 ancestral steps, each (2, count, 2) float64 on the CPU.

    Args:
        model: guided; the golden clouds use the exact model with exact golden guidance instead.
        grids: of golden guidance.
        w: mean weight, scale - 1.
        count: samples a class; sample k has seed first_seed + k, whatever the method.
        names: keys of CLOUDS.
    """
    labels = torch.arange(2).repeat_interleave(count)
    seeds = range(first_seed, first_seed + 2 * count)
    found = {}
    for name in names:
        samples = _engine(name, model, grids, w).sample(labels, seeds).samples
        found[name] = samples.double().cpu().unflatten(0, (2, count))
    return found


def _engine(name: str, model: Model, grids: Grids, w: float) -> Engine:
    method, rectify, kind = CLOUDS[name]
    denoiser, guidance = model.denoiser, Guidance(1.0, rectify=None)
    if name.endswith("golden"):
        own = {label: grid for (of, label), grid in grids.items() if of == kind}
        denoiser = grid_denoiser(own, w, SCHEDULE)
    elif method is not None:
        guidance = Guidance(METHODS[method].weight(w), model.reference(kind), rectify)
    chain: dict[str, Any] = {"schedule": SCHEDULE, "solver": "ddpm", "steps": STEPS}
    return Engine(denoiser, guidance=guidance, progress=False, **chain)


def energies(
    grids: Grids, found: dict[str, Tensor], w: float, target: int, generator: torch.Generator
) -> dict[str, float]:
    """Energy distance of clouds to the targets that they aim at, mean over the classes.

    `floor` and `auto_floor` are what as many draws of the target itself score on average:
    E|x - x'| (1/n + 1/m), see `energy_distance`.
    """
    scores: dict[str, float] = {}
    count = next(iter(found.values())).shape[1]
    for kind, floor in ((CFG, "floor"), (WORSE, "auto_floor")):
        mine = {name: cloud for name, cloud in found.items() if CLOUDS[name][2] == kind}
        for label in (0, 1):
            wanted = target_draws(grids[kind, label], w, target, generator)
            spread = float(torch.pdist(wanted).mean())
            scores[floor] = scores.get(floor, 0.0) + spread * (1 / count + 1 / target) / 2
            for name, cloud in mine.items():
                scores[name] = scores.get(name, 0.0) + energy_distance(cloud[label], wanted) / 2
    return scores
