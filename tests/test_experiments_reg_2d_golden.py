"""Golden guidance on one shared grid, against the oracle and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from reg_2d_cases import CHAIN, F64, GRIDS, REWARDS, SHAPE, gen, points_at

from reg_engine import InputError
from reg_engine.errors import NumericalError
from reg_engine.experiments.reg_2d.golden import CFG, WORSE, Reward, TiltedGrid, golden_denoiser
from reg_engine.experiments.reg_2d.models import SCHEDULE
from reg_engine.oracles import GaussianMixture


@pytest.mark.parametrize("index", [1, 16, 22, 24])
def test_the_shared_grid_gives_the_oracles_golden_guidance(index: int) -> None:
    row = CHAIN.rows[index]
    x, labels = points_at(row, 2)
    for label in (0, 1):
        at = x[labels == label]
        for kind, mixture, y in (
            (CFG, SHAPE.mixture, label),
            (WORSE, SHAPE.against_blurred(label), 0),
        ):
            found = GRIDS[kind, label].golden(at, row.alpha, row.sigma, 2.0)
            wanted = mixture.golden(at, row.t, 2.0, y, SCHEDULE)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_without_weight_the_grid_gives_the_closed_form_even_far_away() -> None:
    far = torch.tensor([[2.6, 2.6], [-2.6, -2.6]], dtype=F64)  # products of kernels underflow
    row = CHAIN.rows[-1]
    for x in (points_at(row)[0], far):
        found = GRIDS[CFG, 1].denoised(x, row.alpha, row.sigma, 0.0)
        wanted = SHAPE.mixture.denoised(x, row.alpha, row.sigma, 1)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_result_keeps_the_dtype() -> None:
    x = torch.zeros(2, 2)
    assert GRIDS[CFG, 0].denoised(x, 0.5, 0.8, 1.0).dtype == torch.float32
    assert GRIDS[CFG, 0].golden(x.double(), 0.5, 0.8, 1.0).dtype == F64


@pytest.mark.parametrize("kind", [CFG, WORSE])
def test_target_draws_have_the_moments_of_the_tilted_density(kind: str) -> None:
    reward, w = REWARDS[kind, 1], 2.0
    axis = torch.linspace(-3.5, 3.5, 351, dtype=F64)
    nodes = torch.cartesian_prod(axis, axis)
    log_p = torch.cat(
        [
            reward.mixture.log_prob(part, y=reward.label) + w * reward.log_ratio(part)
            for part in nodes.split(8192)
        ]
    )
    p = log_p.softmax(0)
    draws = GRIDS[kind, 1].target(w, 20000, gen())
    assert draws.shape == (20000, 2)
    for power in (1, 2):
        wanted = p @ nodes**power
        deviation = (p @ nodes ** (2 * power) - wanted**2).sqrt()
        error = (draws**power).mean(0) - wanted
        assert (error.abs() < 5 * deviation / math.sqrt(20000)).all()


def test_the_golden_denoiser_serves_both_labels_and_several_times() -> None:
    denoiser = golden_denoiser({y: GRIDS[CFG, y] for y in (0, 1)}, 1.0, SCHEDULE)
    row = CHAIN.rows[12]
    x, labels = points_at(row, 3)
    found = denoiser(x, row.t, labels)
    for label in (0, 1):
        at = labels == label
        wanted = GRIDS[CFG, label].denoised(x[at], row.alpha, row.sigma, 1.0)
        torch.testing.assert_close(found[at], wanted)


def test_bad_input_of_the_grid_is_named() -> None:
    line = GaussianMixture(torch.zeros(1, 1), 1.0)
    with pytest.raises(InputError, match="dimensions"):
        TiltedGrid(Reward(line, 0))
    with pytest.raises(InputError, match="nodes"):
        TiltedGrid(REWARDS[CFG, 0], nodes=5)
    x = torch.zeros(1, 2, dtype=F64)
    for arguments, named in (((1.0, 0.0, 1.0), "sigma"), ((1.0, 0.5, -1.0), "w")):
        with pytest.raises(InputError, match=named):
            GRIDS[CFG, 0].denoised(x, *arguments)
    with pytest.raises(NumericalError, match="lower w"):
        GRIDS[WORSE, 0].target(60.0, 5000, gen())
