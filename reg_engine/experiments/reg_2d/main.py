"""Experiment `reg-2d`: REG's 2-D figure and win ratios, on sets whose golden guidance is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...oracles import Shape, TiltedGrid, make_shape
from ...solvers import Row, Table, table
from ..report import Report
from .figures import Fields, energy_figure, field_figure, lattice, steps_figure
from .golden import CFG, grids_of, target_draws
from .models import (
    CLOUDS,
    FULL,
    QUICK,
    SCHEDULE,
    STEPS,
    Size,
    clouds,
    energies,
    exact_model,
    trained_model,
)
from .page import ENERGY_WEIGHTS, FIELD_STEP, FIELD_WEIGHT, WIN_WEIGHT, claims, write
from .win import (
    Chains,
    Grids,
    Model,
    Oracle,
    Points,
    Scores,
    rectified_terms,
    simulation_errors,
    win_ratios,
)

CHAIN = table("ddpm", SCHEDULE, STEPS)
FIELD_ROW = STEPS - FIELD_STEP  # of the chain


@dataclass(frozen=True)
class Case:
    """One set: its models, "trained" and "exact", and its exact golden guidance."""

    size: Size
    shape: Shape
    models: Mapping[str, Model]
    grids: Grids


def run(report: Report) -> None:
    """Train, measure and write the page; see page.md for what is shown."""
    size = QUICK if report.quick else FULL
    report.numbers["setting"] = {
        "steps": STEPS,
        "win_weight": WIN_WEIGHT,
        "field_weight": FIELD_WEIGHT,
        "sizes": asdict(size),
    }
    for name in size.shapes:
        shape = make_shape(name, size.components, seed=report.seed)
        models = {"trained": trained_model(shape, size, report), "exact": exact_model(shape)}
        case = Case(size, shape, models, grids_of(shape))
        report.say(f"{name}: win ratios")
        _wins(report, case)
        report.say(f"{name}: samples")
        for w in ENERGY_WEIGHTS:
            _samples(report, case, w)
    report.draw("win_steps", steps_figure(report.numbers["win_ratio"]))
    report.draw("energy", energy_figure(report.numbers["energy_distance"]["trained"]))
    claims(report)
    write(report)


def _wins(report: Report, case: Case) -> None:
    """Win ratios of one set in every view of `page.VIEWS`, into the numbers."""
    trained, device = case.models["trained"], report.device
    drawn = marginal_points(case.shape, case.size, CHAIN, report.generator(2))
    square = square_points(case.shape)
    draws = (case.size.repeats, report.generator(4))
    chains = Chains(trained.denoiser, CHAIN, case.grids, *draws, device)
    oracle, w = Oracle(case.grids), WIN_WEIGHT
    found = {
        "chains": win_ratios(trained, CHAIN, chains, drawn, w, device=device),
        "oracle": win_ratios(trained, CHAIN, oracle, drawn, w, device=device),
        "exact": win_ratios(case.models["exact"], CHAIN, oracle, drawn, w),
        "square": win_ratios(
            trained, CHAIN, oracle, square, w, estimators=("paper",), device=device
        ),
    }
    for view, methods in found.items():
        kept = {method: plain(scores) for method, scores in methods.items()}
        report.numbers.setdefault("win_ratio", {}).setdefault(view, {})[case.shape.name] = kept
    simulated = simulation_errors(chains, oracle, CHAIN, drawn, w)
    report.numbers.setdefault("simulated_golden", {})[case.shape.name] = simulated
    scores = found["oracle"]["vanilla"]["paper"]
    report.numbers.setdefault("field_step", {})[case.shape.name] = {
        "error_ratio": scores.errors[FIELD_ROW] / scores.baseline[FIELD_ROW],
        "win": scores.wins[FIELD_ROW],
    }


def plain(estimators: Mapping[str, Scores]) -> dict[str, Any]:
    """For JSON: a method's steps, its errors without REG, and each estimator's scores."""
    first = next(iter(estimators.values()))
    common = {"steps": [STEPS - index for index in first.steps], "error_plain": first.baseline}
    return common | {name: scores.plain() for name, scores in estimators.items()}


def _samples(report: Report, case: Case, w: float) -> None:
    """Clouds of both models at one weight, scored; the figure of the trained one's."""
    grids, given = case.grids, (w, case.size.samples, report.seed << 20)
    golden = ("golden", "auto_golden")  # the same whatever the model
    own = tuple(name for name in CLOUDS if name not in (*golden, "auto_unguided"))
    shared = clouds(case.models["exact"], grids, *given, golden)
    distances = report.numbers.setdefault("energy_distance", {})
    for kind, model in case.models.items():
        found = shared | clouds(model, grids, *given, own)
        found["auto_unguided"] = found["unguided"]
        scored = energies(grids, found, w, case.size.target, report.generator(3))
        distances.setdefault(kind, {}).setdefault(f"w={w:g}", {})[case.shape.name] = scored
        if kind == "trained" and w == FIELD_WEIGHT:
            _draw_fields(report, case, found)


def marginal_points(shape: Shape, size: Size, chain: Table, generator: torch.Generator) -> Points:
    """x_t of p_t(x_t|y), `size.points` of each class, the same at every call."""
    found = {}
    for row in chain.rows:
        x0, labels = shape.sample(size.points, generator)
        noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
        found[row.t] = (row.alpha * x0 + row.sigma * noise, labels)
    return lambda row: found[row.t]


def square_points(shape: Shape, count: int = 10) -> Points:
    """A square lattice around the set for each class, the same at every step.

    An even count leaves out the origin, where a relative finite difference has no step.
    """
    points = lattice(shape, count)[1]
    labels = torch.arange(2).repeat_interleave(len(points))
    return lambda row: (points.repeat(2, 1), labels)


def _draw_fields(report: Report, case: Case, found: Mapping[str, Tensor]) -> None:
    """The figure of one set: fields of class 0 at FIELD_STEP, clouds at the same weight."""
    row, generator, count = CHAIN.rows[FIELD_ROW], report.generator(5), case.size.samples
    targets = [target_draws(case.grids[CFG, y], FIELD_WEIGHT, count, generator) for y in (0, 1)]
    x0 = case.shape.mixture.sample(count, 0, generator)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    shown = {
        "target": torch.stack(targets),
        "golden": found["golden"],
        "reg": found["reg_paper"],
        "cfg": found["cfg"],
        "noised": row.alpha * x0 + row.sigma * noise,
    }
    at = (row, FIELD_ROW, case.size.field, report.device)
    fields = fields_at(case.shape, case.models["trained"], case.grids[CFG, 0], *at)
    figure = field_figure(case.shape, fields, shown, FIELD_WEIGHT)
    report.draw(f"fields_{case.shape.name}", figure)


def fields_at(
    shape: Shape,
    model: Model,
    grid: TiltedGrid,
    row: Row,
    index: int,
    count: int,
    device: torch.device,
) -> Fields:
    """Golden (exact), REG (`paper`) and CFG fields of class 0 at one row, at FIELD_WEIGHT."""
    axis, points = lattice(shape, count)
    labels = torch.zeros(len(points), dtype=torch.long, device=device)
    terms = rectified_terms(model, CFG, row, index, points.to(device), labels, ("paper",))
    golden = grid.golden(points, row.alpha, row.sigma, FIELD_WEIGHT)
    reg, cfg = (FIELD_WEIGHT * part.cpu() for part in (terms[1]["paper"], terms[0]))
    fine, dense = lattice(shape, 81)
    log_density = shape.mixture.log_prob(dense, row.alpha, row.sigma, 0).reshape(81, 81)
    found = (part.reshape(count, count, 2) for part in (golden, reg, cfg))
    return Fields(axis, fine, log_density, *found)
