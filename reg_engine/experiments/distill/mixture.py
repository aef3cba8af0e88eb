"""The 2-D mixture: energy distance to the target against evaluations, for a network's students,
their teachers, CFG, intervals and the cheap estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...distillation import Distillation, Teacher
from ...engine import Engine
from ...guidance.weights import Interval
from ...networks.denoisers import Denoiser
from ...oracles import two_class_2d
from ...storage.shards import Shards
from ..report import Report
from ..theory.scores import INTERVAL, Target, sobol_noise
from .students import LEARNED, STUDENTS, shortfall, student_of, teacher_of, trained

__all__ = ["LOW", "METHODS", "Size", "measured"]

LOW = (0.05, 0.4)  # noise levels of an interval that suits this mixture
CHEAP = ("lazy", "alternate", "lazy_blend")
METHODS = {
    "unguided": "no guidance",
    "cfg": "CFG",
    "interval": f"interval {INTERVAL[0]:g} to {INTERVAL[1]:g}, as published",
    "low": f"interval {LOW[0]:g} to {LOW[1]:g}",
    **{name: f"`{name}`" for name in (*CHEAP, "vjp")},
    "rayleigh": "damping, rayleigh",
    "golden": "golden guidance, exact",
    **{name: f"student of {teacher}" for name, teacher in STUDENTS.items()},
}


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    learning: Distillation
    width: int = 128  # of the network
    training: int = 6000  # steps of the network
    count: int = 1024  # samples a cell, a power of two
    points: int = 2048  # of each of four target draws
    seeds: int = 3  # noises and target draws
    weights: tuple[float, ...] = (1.0, 2.0, 4.0)
    steps: tuple[int, ...] = (5, 9, 18)  # of heun
    students: tuple[str, ...] = tuple(STUDENTS)


def measured(report: Report, size: Size) -> dict[str, Any]:
    """Distances, costs and shortfalls, for numbers.json."""
    mixture = two_class_2d()
    model = trained(mixture, size.width, size.training, report)
    report.say("the network is trained")
    teachers = {name: teacher_of(name, model, mixture) for name in ("golden", "vjp", "rayleigh")}
    students = {
        name: student_of(name, teachers[STUDENTS[name]], size.learning, report)
        for name in size.students
    }
    draw = Draw(model, teachers, students)
    methods = [name for name in METHODS if name in students or name not in STUDENTS]
    cells = torch.stack([_cells(report, size, draw, methods, k) for k in range(size.seeds)])
    mean, spread = cells.mean(0), cells.std(0)
    return {
        "network": sum(p.numel() for module in model.modules for p in module.parameters()),
        "weights": list(size.weights),
        "steps": list(size.steps),
        "floor": mean[-1, 0, :, 0],
        "methods": {
            name: {
                "cost": mean[row, :, 0, 1],
                "distance": mean[row, :, :, 0],  # (steps, weights)
                "deviation": spread[row, :, :, 0],
            }
            for row, name in enumerate(methods)
        },
        "shortfall": {
            name: shortfall(each, teachers[STUDENTS[name]], (1.5, 2.0, 3.0, 5.0), size.count)
            for name, each in students.items()
        },
    }


@dataclass(frozen=True)
class Draw:
    """Samples of class 0 under every method.

    Args:
        model: the network. teachers, students: by name.
    """

    model: Denoiser
    teachers: dict[str, Teacher]
    students: dict[str, Denoiser]

    def __call__(self, name: str, w: float, steps: int, noise: Tensor) -> tuple[Tensor, float]:
        """Samples (N, 2) from unit noise (N, 2), and what one costs: evaluations and backward
        passes."""
        engine = self._engine(name, 1 + w, steps)
        out = engine.sample(torch.zeros(len(noise), dtype=torch.long), noise=noise)
        return out.samples, out.stats.nfe + out.stats.backward

    def _engine(self, name: str, scale: float, steps: int) -> Engine:
        if name in self.teachers:
            return self.teachers[name].engine(scale, "heun", steps)
        own: dict[str, Any] = {"solver": "heun", "steps": steps, "progress": False}
        if name in self.students:
            return Engine(self.students[name], scale=scale, **own)
        weights: dict[str, Any] = {
            "unguided": 1.0,
            "interval": Interval(scale, *INTERVAL),
            "low": Interval(scale, *LOW),
        }
        rectify = name if name in CHEAP else None
        return Engine(self.model, scale=weights.get(name, scale), rectify=rectify, **own)


def _cells(report: Report, size: Size, draw: Draw, methods: list[str], replica: int) -> Tensor:
    """(methods + 1, steps, weights, 2): distance and cost; the last row holds the floor."""
    settings = {"size": size, "learned": LEARNED, "methods": methods, "seed": report.seed}
    shards, place = Shards(report.work / "cells", settings), f"seed-{replica}"
    kept = shards.load(place)
    if kept is not None:
        return kept[0]
    seed = 100 * report.seed + replica
    noise = sobol_noise(size.count, 2, seed).float()
    shape = (len(methods) + 1, len(size.steps), len(size.weights), 2)
    cells = torch.zeros(shape, dtype=torch.float64)
    for column, w in enumerate(size.weights):
        target = Target(two_class_2d(), w, size.points, seed=10_000 + 100 * seed)
        cells[-1, :, column, 0] = target.floor(size.count)
        for line, steps in enumerate(size.steps):
            for row, name in enumerate(methods):
                samples, cost = draw(name, w, steps, noise)
                cells[row, line, column] = torch.tensor([target.score(samples), cost])
    shards.store(place, cells, {})
    report.say(f"distances, seed {replica + 1} of {size.seeds}")
    return cells
