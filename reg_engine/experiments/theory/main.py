"""`theory`: on mixtures where everything is known, what guidance should do, what CFG does, and what
REG repairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from ...oracles import GaussianMixture, one_d, two_class_2d
from ..report import Report
from . import figures, figures_1d
from .chains import Chain, Gap, paper_levels, two_class_1d, vp_levels
from .fields import field_errors, middle_third, renyi_sides, solver_levels
from .page import OURS, PAPER, claims, write
from .samples import Size, methods, plans, solvers
from .scores import grid_of

FULL = Size(4096, 3)
QUICK = Size(
    1024,
    1,
    plan_weights=(2.0,),
    solver_steps=(8, 18),
    solvers=3,
    intervals=4,
    chain_weights=(2.0,),
    chain_steps=(10, 20, 40),
    points=1024,
)
FIELD_LEVELS = (1.5, 0.6, 0.25)
RENYI_LEVELS = (2.0, 0.6, 0.2, 0.05, 0.02)
KINDS = ("cfg", "golden")  # marginal and joint scaling
ENDS = ("unguided", "cfg", "reg", "golden")

Gaps = dict[str, list[Gap]]  # of KINDS -> the gap of every step


def run(report: Report) -> None:
    """The page, its figures and claims; on one thread half a minute quick, 6 to 9 minutes full."""
    size = QUICK if report.quick else FULL
    mixture = two_class_2d()
    report.numbers["setting"] = asdict(size)
    clouds = methods(report, mixture, size)
    report.draw("clouds", figures.clouds(mixture, clouds, report.numbers["methods"]))
    solvers(report, mixture, size)
    report.draw("distances", figures.distances(report.numbers))
    _scaling(report, size)
    _renyi(report)
    _fields(report, mixture, size)
    plans(report, mixture, size)
    claims(report)
    write(report)


def _scaling(report: Report, size: Size) -> None:
    """Implied next to demanded rewards, over steps and whole chains, into the numbers; a figure.

    `chains.rows`: setting, w, steps, mismatch (CFG, golden; mean nats, summed over the steps),
    the worst kernel of `Chain.joint_run`, and for our setting the total variation to the target of
    whole chains, in the order of ENDS.
    """
    paper = Chain(one_d(), 1.0, paper_levels(), -3.0, 5.0)
    gaps, row, end = _measured(PAPER, paper, ends=False)
    rows, joint_ends = [row], [end]
    shown: dict[int, tuple[Chain, Gaps]] = {}
    for w in size.chain_weights:
        for steps in size.chain_steps:
            chain = Chain(two_class_1d(), w, vp_levels(steps), -7.0, 7.0)
            found, row, end = _measured(OURS, chain, ends=True)
            rows.append(row)
            joint_ends.append(end)
            if w == 2:
                shown[steps] = chain, found
        report.say(f"chains at w = {w:g}")
    report.numbers["chains"] = {
        "rows": rows,
        "paper_gaps": {kind: [gap._asdict() for gap in found] for kind, found in gaps.items()},
        "joint_end": joint_ends,
    }
    sums = {
        kind: [(steps, _total(found[kind])) for steps, (_, found) in shown.items()]
        for kind in KINDS
    }
    ours, ours_gaps = shown[20]
    both = {"paper": gaps, "two classes": ours_gaps}
    report.draw("scaling", figures_1d.scaling(paper, ours, both, sums))


def _measured(setting: str, chain: Chain, ends: bool) -> tuple[Gaps, list[Any], float]:
    """Gaps, row, and the distance where the joint chain ends; `ends`: run whole chains too."""
    steps = len(chain.levels) - 1
    gaps = {kind: [chain.gap(t, kind) for t in range(1, steps + 1)] for kind in KINDS}
    found = [chain.distance(chain.run(kind)) if ends else "" for kind in ENDS]
    kernel, end = chain.joint_run()
    totals = [_total(gaps[kind]) for kind in KINDS]
    return gaps, [setting, chain.w, steps, *totals, kernel, *found], end


def _total(gaps: list[Gap]) -> float:
    return sum(gap.mean for gap in gaps)


def _renyi(report: Report) -> None:
    """Both sides of the identity on both 1-D mixtures: the missing term relative to CFG's guidance
    (root mean square where x_t is), and the largest difference of the two sides."""
    x = torch.linspace(-1.5, 2.0, 71, dtype=torch.float64)
    rows: list[list[object]] = []
    worst = 0.0
    for name, mixture in ((PAPER, one_d()), (OURS, two_class_1d())):
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


def _fields(report: Report, mixture: GaussianMixture, size: Size) -> None:
    """Fields, their errors over noise levels, and the win ratio, at points of the whole mixture and
    of the guided distribution."""
    levels, grid = solver_levels(), grid_of(mixture)
    count = size.points
    found: dict[str, dict[str, Any]] = {"all": {}, "guided": {}}
    for w in size.weights:
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
