"""`frontier`: how near samples come to what guidance aims at, against what they cost, for every
method on mixtures of one to sixteen dimensions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...storage.shards import Shards
from ..report import Report
from ..theory.scores import Target
from .figures import fronts
from .methods import METHODS, STEPS, Draw, methods_for
from .mixtures import MIXTURES
from .page import claims, write

__all__ = ["FULL", "QUICK", "Size", "run"]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    count: int  # samples a cell, a power of two
    points: int  # of each of four target draws
    seeds: int  # noises, target draws and calibrations
    weights: tuple[float, ...] = (1.0, 2.0, 4.0, 7.0)
    calibration: tuple[int, int] = (64, 512)  # samples of rayleigh and of tilt
    mixtures: tuple[str, ...] = tuple(MIXTURES)


FULL = Size(512, 1024, 5)
QUICK = Size(256, 512, 2, (1.0, 4.0), (32, 128), ("1-D", "2-D", "2-D turned", "16-D"))


def run(report: Report) -> None:
    """The page, its figure and claims."""
    size = QUICK if report.quick else FULL
    settings: dict[str, Any] = {**asdict(size), "steps": STEPS, "seed": report.seed}
    shards = Shards(report.work / "cells", {**settings, "methods": list(METHODS)})
    found: dict[str, Any] = {}
    for name in size.mixtures:
        cells = [_cells(report, shards, size, name, k) for k in range(size.seeds)]
        found[name] = _summed(name, size, cells)
    report.numbers |= {"setting": settings, "titles": dict(METHODS), "mixtures": found}
    report.draw("fronts", fronts(report.numbers))
    claims(report)
    write(report)


def _cells(report: Report, shards: Shards, size: Size, name: str, replica: int) -> Tensor:
    """(methods + 1, weights, 2): distance and cost; the last row holds floor and headroom."""
    place = f"{name.replace(' ', '_')}-{replica}"
    kept = shards.load(place)
    if kept is not None:
        return kept[0]
    mixture, seed = MIXTURES[name](), 100 * report.seed + replica
    draw = Draw(mixture, size.count, seed, size.weights, size.calibration)
    methods = methods_for(mixture)
    cells = torch.zeros(len(methods) + 1, len(size.weights), 2, dtype=torch.float64)
    for column, w in enumerate(size.weights):
        target = Target(mixture, w, size.points, seed=10_000 + 100 * seed)
        for row, method in enumerate(methods):
            samples, cost = draw(method, w)
            cells[row, column] = torch.tensor([target.score(samples), cost])
        sampler = mixture.target_sampler(w)
        sampler(size.points, torch.Generator().manual_seed(seed))
        cells[-1, column] = torch.tensor([target.floor(size.count), 1 - sampler.acceptance])
    shards.store(place, cells, {})
    report.say(f"{name}, seed {replica + 1} of {size.seeds}")
    return cells


def _summed(name: str, size: Size, cells: list[Tensor]) -> dict[str, Any]:
    """Distances (mean and deviation over seeds) and cost of every method by weight; the floor, and
    what the target rejects of p(x_0|y)."""
    every = torch.stack(cells)
    mean, spread = every.mean(0), every.std(0)
    mixture = MIXTURES[name]()
    return {
        "dim": mixture.dim,
        "classes": mixture.num_classes,
        "floor": mean[-1, :, 0],
        "rejected": mean[-1, :, 1],
        "methods": {
            method: {
                "cost": float(mean[row, :, 1].mean()),
                "distance": mean[row, :, 0],
                "deviation": spread[row, :, 0],
            }
            for row, method in enumerate(methods_for(mixture))
        },
    }
