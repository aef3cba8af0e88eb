"""`theory`: on mixtures where everything is known, what guidance should do, what CFG does, and what
REG repairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from ...oracles import GaussianMixture, one_d, two_class_2d
from ..report import Report
from . import figures, figures_1d
from .chains import two_class_1d
from .fields import field_errors, middle_third, renyi_sides, solver_levels
from .page import claims, write
from .samples import Size, methods, plans, solvers
from .scaling import scaling
from .scores import grid_of

QUICK = Size(1024, 1, plan_weights=(2.0,), solver_steps=(8, 18), solvers=3, intervals=4)
FULL = Size(4096, 3)
FIELD_LEVELS = (1.5, 0.6, 0.25)
RENYI_LEVELS = (2.0, 0.6, 0.2, 0.05, 0.02)


def run(report: Report) -> None:
    """The page, its figures and claims; on one thread about half a minute quick, 6 minutes full."""
    size = QUICK if report.quick else FULL
    mixture = two_class_2d()
    report.numbers["setting"] = asdict(size)
    clouds = methods(report, mixture, size)
    report.draw("clouds", figures.clouds(mixture, clouds, report.numbers["methods"]))
    solvers(report, mixture, size)
    report.draw("distances", figures.distances(report.numbers))
    scaling(report)
    _renyi(report)
    _fields(report, mixture)
    plans(report, mixture, size)
    claims(report)
    write(report)


def _renyi(report: Report) -> None:
    """Both sides of the identity on both 1-D mixtures: the missing term relative to CFG's guidance
    (root mean square where x_t is), and the largest difference of the two sides."""
    x = torch.linspace(-1.5, 2.0, 71, dtype=torch.float64)
    rows: list[list[object]] = []
    worst = 0.0
    for name, mixture in (("paper's 1-D", one_d()), ("two classes", two_class_1d())):
        for sigma in RENYI_LEVELS:
            row: list[object] = [name, sigma]
            density = mixture.log_prob(x[:, None], 1.0, sigma, 0).exp()
            for w in (1.0, 2.0, 4.0):
                gap, term, cfg = renyi_sides(mixture, x, 1.0, sigma, w)
                sizes = [float((density * v.square()).sum().sqrt()) for v in (gap, cfg)]
                row.append(sizes[0] / sizes[1])
                worst = max(worst, float((gap - term).abs().max() / gap.abs().max()))
            rows.append(row)
    report.numbers["renyi"] = {"rows": rows, "largest_relative_error": worst}
    report.draw("renyi", figures_1d.renyi(two_class_1d(), RENYI_LEVELS[:3]))


def _fields(report: Report, mixture: GaussianMixture) -> None:
    """Fields, their errors over noise levels, and the win ratio, at points of the whole mixture and
    of the guided distribution."""
    levels, grid = solver_levels(), grid_of(mixture)
    count = 1024 if report.quick else 8192
    found: dict[str, dict[str, Any]] = {"all": {}, "guided": {}}
    for w in FULL.weights:
        starts = {
            "all": mixture.sample(count, None, report.generator(1)),
            "guided": mixture.target_sampler(w)(count, report.generator(2)),
        }
        noise = torch.randn(count, 2, dtype=torch.float64, generator=report.generator(3))
        for kind, x in starts.items():
            rows = [field_errors(grid, w, x + s * noise, s) for s in levels]
            found[kind][f"{w:g}"] = rows
    report.say("fields")
    report.numbers |= {"levels": levels, "middle_third": middle_third(levels)}
    report.numbers["field_errors"] = found
    report.draw("fields", figures.guidance_fields(grid, 2.0, FIELD_LEVELS))
    report.draw("errors", figures.errors(report.numbers))
