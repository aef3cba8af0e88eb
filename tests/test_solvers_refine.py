"""Gibbs rounds as rows: against the two tables run one after the other, by plain arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from bound_cases import LEAST, MOST, holds
from loop import run
from mixture import gaussian_variance
from nets import tiny
from rerun import Rerun
from torch import Tensor

import reg_engine
from reg_engine import (
    APG,
    SOLVERS,
    CFGPlusPlus,
    Delta,
    Engine,
    Gibbs,
    Guidance,
    InputError,
    oracles,
    schedules,
)
from reg_engine.loop.graphs import Graphs
from reg_engine.noise import SampleNoise
from reg_engine.solvers import Row, table

MIXTURE, SEEDS, W = oracles.two_class_2d(), [3, 4, 5, 6], 2.0
LEVEL = 0.7
SCHEDULES = {
    "edm": schedules.EDM(),
    "vp": schedules.ScaledLinear(),
    "sde": schedules.VPSDE(),
    "flow": schedules.Flow(3.0),
}


def guided(x: Tensor, row: Row) -> Tensor:
    cond, ref = (MIXTURE.denoised(x, row.alpha, row.sigma, y) for y in (0, None))
    return cond + W * (cond - ref)


def by_hand(solver: str, schedule: schedules.Schedule, rounds: int, **options: Any) -> Tensor:
    """Samples, then `rounds` times x_t = alpha_t x_0 + sigma_t noise and the times below t."""
    steps = 9
    first = table(solver, schedule, steps, **options)
    grid = schedule.grid(steps)
    below = [t for t in grid.tolist() if schedule.noise_level(t) < LEVEL]
    second = table(solver, schedule, times=[schedule.time_of(LEVEL), *below], **options)
    noise, like = SampleNoise(SEEDS), torch.empty(len(SEEDS), 2).double()
    draws = (noise.normal(like) for _ in iter(int, 1))
    x = run(first, guided, first.init_scale * next(draws), draws)
    for _ in range(rounds):
        start = second.rows[0]
        x = start.alpha * x + start.sigma * next(draws)
        x = run(second, guided, x, draws)
    return x


CHOICES = [(solver, kind) for solver in SOLVERS for kind in SCHEDULES
           if kind == "flow" or not SOLVERS[solver].flow_only]  # fmt: skip


@pytest.mark.parametrize(("solver", "kind"), CHOICES)
def test_every_solver_goes_on_from_the_level(solver: str, kind: str) -> None:
    schedule = SCHEDULES[kind]
    options = {"pndm": {"skip_prk": True}, "heun": {"s_churn": 2.0}, "ddim": {"eta": 0.5}}
    own = options.get(solver, {})
    if (solver, kind) == ("pndm", "flow"):
        pytest.skip("pndm cannot start where alpha = 0")
    choices = {"scale": 1 + W, "rectify": None, "solver": solver, "solver_options": own,
               "steps": 9, "dtype": torch.float64, "progress": False}  # fmt: skip
    model = MIXTURE.denoiser(schedule=schedule)
    for rounds in (1, 2):
        out = reg_engine.sample(model, 0, seeds=SEEDS, refine=Gibbs(LEVEL, rounds), **choices)
        wanted = by_hand(solver, schedule, rounds, **own)
        torch.testing.assert_close(out.samples, wanted, rtol=1e-9, atol=1e-9)
        rows = len(table(solver, schedule, 9, **own).rows)
        assert out.stats.nfe > 2 * rows and sum(out.stats.modes.values()) > rows


@pytest.mark.parametrize("solver", ["heun", "ddpm", "dpmpp_2m"])
@pytest.mark.parametrize("rectify", [None, "fd_batched"])
def test_a_sample_is_its_seeds(solver: str, rectify: str | None) -> None:
    """Whatever runs beside it, captured or row by row, and as far as the first pass goes, the same
    as without rounds."""
    choices = {"scale": 3.0, "rectify": rectify, "solver": solver, "steps": 5, "progress": False,
               "refine": Gibbs(1.0, 2)}  # fmt: skip
    labels, seeds = [0, 1, 2], [7, 8, 9]
    whole = Engine(tiny(), **choices).sample(labels, seeds)
    parts = Engine(tiny(), batch_size=2, **choices).sample(labels, seeds)
    torch.testing.assert_close(parts.samples, whole.samples, rtol=1e-4, atol=1e-4)
    assert parts.stats.nfe == whole.stats.nfe
    captured = Engine(tiny(), **choices)
    captured._graphs = Graphs(Rerun(), always=True)
    out = captured.sample(labels, seeds)
    assert out.stats.capture == "captured" and torch.equal(out.samples, whole.samples)
    assert out.stats.nfe == whole.stats.nfe
    engine = Engine(tiny(), **choices)
    steps = list(engine.steps(labels, seeds))
    assert torch.equal(steps[-1].x_next, whole.samples)
    plain = Engine(tiny(), **{**choices, "refine": None})
    before = list(plain.steps(labels, seeds))
    last = len(before) - 1
    assert torch.equal(steps[last].x, before[last].x)
    row, noised = (
        engine.table.rows[last],
        steps[last].x_next - before[last].x_next * (engine.table.rows[last].alpha_s),
    )
    assert row.s == engine.table.rows[last + 1].t and row.sigma_s == pytest.approx(row.c)
    noise, like = SampleNoise(seeds), torch.empty_like(noised)
    for _ in range(1 + sum(bool(r.c) for r in plain.table.rows)):
        noise.normal(like)
    torch.testing.assert_close(noised, row.c * noise.normal(like), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", [Delta(), APG()])
@pytest.mark.parametrize("rectify", [None, "fd_batched", "jvp", "blend", "alternate"])
def test_a_round_is_a_way_of_its_own(rectify: str | None, direction: Any) -> None:
    """No lag, momentum or measurement of the way before is left: a call from the noised samples."""
    model, cond = MIXTURE.denoiser(schedule=schedules.EDM()), [0] * len(SEEDS)
    choices = {
        "guidance": Guidance(3.0, rectify=rectify, direction=direction),
        **{"solver": "heun", "dtype": torch.float64, "progress": False, "check": False},
    }
    whole, captured = (Engine(model, steps=9, refine=Gibbs(LEVEL), **choices) for _ in range(2))
    found = whole.sample(cond, SEEDS).samples
    noise, like = SampleNoise(SEEDS), torch.empty(len(SEEDS), 2).double()
    _, again = noise.normal(like), noise.normal(like)
    below = [row.t for row in whole.table.rows if row.noise_level < LEVEL]
    times = [LEVEL, *sorted(set(below), reverse=True), 0.0]
    alone = Engine(model, solver_options={"times": times}, **choices)
    x = Engine(model, steps=9, **choices).sample(cond, SEEDS).samples + LEVEL * again
    wanted = alone.sample(cond, SEEDS, x / alone.table.init_scale).samples
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    if rectify != "alternate":
        captured._graphs = Graphs(Rerun(), always=True)
        assert torch.equal(captured.sample(cond, SEEDS).samples, found)


def test_the_rows_count_themselves() -> None:
    schedule = schedules.EDM()
    whole = table("heun", schedule, 9, refine=Gibbs(LEVEL, 3))
    first, below = table("heun", schedule, 9), sum(r.noise_level < LEVEL for r in whole.rows)
    per_round = (len(whole.rows) - len(first.rows)) // 3
    assert len(whole.rows) == len(first.rows) + 3 * per_round
    levels = [r.noise_level for r in whole.rows[len(first.rows) :]]
    assert levels[0] == pytest.approx(LEVEL) and max(levels) == levels[0] and below > per_round
    assert whole.stochastic and sum(bool(r.c) for r in whole.rows) == 3
    assert whole.init_scale == first.init_scale


def test_a_level_of_the_grid_is_not_a_step_of_its_own() -> None:
    schedule = schedules.ScaledLinear()
    grid = schedule.grid(10).tolist()
    level = schedule.noise_level(grid[6]) * (1 + 1e-9)  # a level computed elsewhere
    whole = table("ddim", schedule, 10, refine=Gibbs(level))
    assert [r.t for r in whole.rows[10:]] == pytest.approx(grid[6:-1])


@pytest.mark.parametrize("solver", ["euler_ancestral", "heun"])
def test_samples_that_end_noisy_are_brought_to_the_level(solver: str) -> None:
    """Noise that the last row adds, what is left in its state, and the round's: one draw. The table
    checks that together they are the level's."""
    times = [20.0, 5.0, 1.0, 0.1]
    plain = table(solver, schedules.EDM(), times=times)
    whole = table(solver, schedules.EDM(), times=times, refine=Gibbs(0.5))
    last = len(plain.rows) - 1
    assert whole.rows[last].sigma_s == 0.5 and whole.rows[-1].sigma_s == 0.1
    added = 0.5**2 - 0.1**2 + plain.rows[last].c ** 2
    assert whole.rows[last].c == pytest.approx(added**0.5)


def test_a_gaussian_keeps_its_variance() -> None:
    """A round leaves p(x_0) where it is, if the denoiser is right: up to the solver's error."""
    for refine in (None, Gibbs(0.5, 4)):
        built = table("heun", schedules.EDM(0.002, 20.0), 120, refine=refine)
        assert gaussian_variance(built, 0.4) == pytest.approx(0.16, rel=2e-3)


def test_it_brings_weakly_guided_samples_nearer_to_the_target() -> None:
    """Guidance below a level alone, which leaves samples between no guidance and the target."""
    target = MIXTURE.target_sampler(W)(3000, torch.Generator().manual_seed(0))
    weight = reg_engine.Interval(1 + W, 0.0, 0.4)
    distance = []
    for refine in (None, Gibbs(0.4, 4)):
        out = reg_engine.sample(MIXTURE.denoiser(), 0, seeds=range(1500), scale=weight,
                                rectify=None, steps=18, progress=False, refine=refine)  # fmt: skip
        distance.append(oracles.energy_distance(out.samples, target))
    assert distance[1] < 0.5 * distance[0]


def test_weights_follow_the_way_whichever_round_it_is() -> None:
    refine = Gibbs(LEVEL, 2)
    engines = [
        Engine(tiny(), scale=weight, rectify=None, solver="euler", steps=9, refine=refine)
        for weight in (reg_engine.Linear(1.0, 4.0), CFGPlusPlus(0.6))
    ]
    for engine in engines:
        by_time = {}
        for row, w in zip(engine.table.rows, engine.weights, strict=True):
            assert by_time.setdefault(row.t, w) == pytest.approx(w)


def test_bad_input() -> None:
    holds(Gibbs, "level", (LEAST, MOST), (0.0, math.inf))
    holds(Gibbs, "rounds", (1, 3), (0, 1.0), level=1.0)
    assert Gibbs(0.4).rounds == 1
    for level in (81.0, 80.0, 0.001):
        with pytest.raises(InputError, match="^refine: begins at noise level"):
            table("euler", schedules.EDM(), times=[80.0, 5.0, 0.001], refine=Gibbs(level))
    for wrong in (0.4, Gibbs, "gibbs"):
        with pytest.raises(InputError, match="^refine: "):
            Engine(tiny(), refine=wrong)
    with pytest.raises(InputError, match="^refine: is no solver option"):
        Engine(tiny(), solver_options={"refine": Gibbs(0.4)})
