"""Experiment `reg-2d`: REG's 2-D figure and win ratios, on sets whose golden guidance is exact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...solvers import Row, Table, table
from ..report import Report
from ..shapes import Shape, make_shape
from .figures import Fields, field_figure, lattice
from .golden import CFG, Reward, TiltedGrid, grids_of, rewards_of
from .models import (
    CLOUDS,
    FULL,
    QUICK,
    SCHEDULE,
    STEPS,
    Sizes,
    clouds,
    energies,
    exact_model,
    trained_model,
)
from .page import write_page
from .results import ENERGY_WEIGHTS, FIELD_STEP, FIELD_WEIGHT, WIN_WEIGHT, Results
from .win import (
    Chains,
    Model,
    Oracle,
    Points,
    rectified_terms,
    simulation_errors,
    win_ratios,
)

__all__ = ["run"]


def run(report: Report) -> None:
    """Train, measure and write the page; see page.py for what is shown."""
    sizes = QUICK if report.quick else FULL
    chain = table("ddpm", SCHEDULE, STEPS)
    results = Results(sizes)
    for name in sizes.shapes:
        shape = make_shape(name, sizes.components, seed=report.seed)
        trained, exact = trained_model(shape, sizes, report), exact_model(shape)
        rewards = rewards_of(shape)
        grids = grids_of(rewards)
        report.say(f"{name}: win ratios")
        _wins(results, shape, trained, exact, rewards, grids, chain, report)
        report.say(f"{name}: samples")
        for w in ENERGY_WEIGHTS:
            _samples(results, shape, {"trained": trained, "exact": exact}, grids, w, chain, report)
    write_page(report, results)


def _wins(
    results: Results,
    shape: Shape,
    trained: Model,
    exact: Model,
    rewards: Mapping[tuple[str, int], Reward],
    grids: Mapping[tuple[str, int], TiltedGrid],
    chain: Table,
    report: Report,
) -> None:
    """Win ratios in every view of `reg_2d_results.VIEWS`, into the results."""
    sizes, device = results.sizes, report.device
    drawn, square = marginal_points(shape, sizes, chain, report.generator(2)), square_points(shape)
    chains = Chains(trained.denoiser, chain, rewards, sizes.repeats, report.generator(4), device)
    oracle = Oracle(grids)
    found = {
        "chains": win_ratios(trained, chain, chains, drawn, WIN_WEIGHT, device=device),
        "oracle": win_ratios(trained, chain, oracle, drawn, WIN_WEIGHT, device=device),
        "exact": win_ratios(exact, chain, oracle, drawn, WIN_WEIGHT),
        "square": win_ratios(
            trained, chain, oracle, square, WIN_WEIGHT, estimators=("paper",), device=device
        ),
    }
    for view, scores in found.items():
        results.views.setdefault(view, {})[shape.name] = scores
    results.simulated[shape.name] = simulation_errors(chains, oracle, chain, drawn, WIN_WEIGHT)


def _samples(
    results: Results,
    shape: Shape,
    models: Mapping[str, Model],
    grids: Mapping[tuple[str, int], TiltedGrid],
    w: float,
    chain: Table,
    report: Report,
) -> None:
    """Clouds of both models at one weight, scored; the figure of the trained one's."""
    sizes, first_seed = results.sizes, report.seed << 20
    golden = ("golden", "auto_golden")  # the same whatever the model
    own = tuple(name for name in CLOUDS if name not in (*golden, "auto_unguided"))
    shared = clouds(models["exact"], grids, w, sizes.samples, first_seed, golden)
    for kind, model in models.items():
        found = shared | clouds(model, grids, w, sizes.samples, first_seed, own)
        found["auto_unguided"] = found["unguided"]
        scored = energies(grids, found, w, sizes.target, report.generator(3))
        results.energies.setdefault(kind, {}).setdefault(w, {})[shape.name] = scored
        if kind == "trained" and w == FIELD_WEIGHT:
            results.figures[shape.name] = _figure_of(shape, model, grids, chain, found, report)


def marginal_points(shape: Shape, sizes: Sizes, chain: Table, generator: torch.Generator) -> Points:
    """x_t of p_t(x_t|y), `sizes.points` of each class, the same at every call."""
    found = {}
    for row in chain.rows:
        x0, labels = shape.sample(sizes.points, generator)
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


def _figure_of(
    shape: Shape,
    model: Model,
    grids: Mapping[tuple[str, int], TiltedGrid],
    chain: Table,
    found: Mapping[str, Tensor],
    report: Report,
) -> object:
    """The figure of one set: fields of class 0 at step 9, clouds at the same weight."""
    sizes = QUICK if report.quick else FULL
    row = next(row for row in chain.rows if row.t == FIELD_STEP - 1)
    generator = report.generator(5)
    targets = [grids[CFG, y].target(FIELD_WEIGHT, sizes.samples, generator) for y in (0, 1)]
    x0 = shape.mixture.sample(sizes.samples, 0, generator)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    shown = {
        "target": torch.stack(targets),
        "golden": found["golden"],
        "reg": found["reg_paper"],
        "cfg": found["cfg"],
        "noised": row.alpha * x0 + row.sigma * noise,
    }
    fields = fields_at(shape, model, grids[CFG, 0], row, chain.rows.index(row), sizes.field, report)
    return field_figure(shape, fields, shown, FIELD_WEIGHT)


def fields_at(
    shape: Shape,
    model: Model,
    grid: TiltedGrid,
    row: Row,
    index: int,
    count: int,
    report: Report,
) -> Fields:
    """Golden (exact), REG (`paper`) and CFG fields of class 0 at one row, at FIELD_WEIGHT."""
    axis, points = lattice(shape, count)
    labels = torch.zeros(len(points), dtype=torch.long, device=report.device)
    x = points.to(report.device)
    delta, rectified = rectified_terms(model, CFG, row, index, x, labels, ("paper",))
    golden = grid.golden(points, row.alpha, row.sigma, FIELD_WEIGHT)
    reg, cfg = (FIELD_WEIGHT * part.cpu() for part in (rectified["paper"], delta))
    fine, dense = lattice(shape, 81)
    log_density = shape.mixture.log_prob(dense, row.alpha, row.sigma, 0).reshape(81, 81)
    found = (part.reshape(count, count, 2) for part in (golden, reg, cfg))
    return Fields(axis, fine, log_density, *found)
