"""Draws of the targets that the sets' golden guidance aims at."""

from __future__ import annotations

import math

import pytest
import torch
from reg_2d_cases import F64, GRIDS, gen

from reg_engine.errors import NumericalError
from reg_engine.experiments.reg_2d.golden import CFG, WORSE, target_draws


@pytest.mark.parametrize("kind", [CFG, WORSE])
def test_target_draws_have_the_moments_of_the_tilted_density(kind: str) -> None:
    grid, w = GRIDS[kind, 1], 2.0
    axis = torch.linspace(-3.5, 3.5, 351, dtype=F64)
    nodes = torch.cartesian_prod(axis, axis)
    log_p = torch.cat(
        [
            grid.mixture.log_prob(part, y=grid.label) + w * grid.log_ratio(part)
            for part in nodes.split(8192)
        ]
    )
    p = log_p.softmax(0)
    draws = target_draws(grid, w, 20000, gen())
    assert draws.shape == (20000, 2)
    for power in (1, 2):
        wanted = p @ nodes**power
        deviation = (p @ nodes ** (2 * power) - wanted**2).sqrt()
        error = (draws**power).mean(0) - wanted
        assert (error.abs() < 5 * deviation / math.sqrt(20000)).all()


def test_a_target_too_far_away_is_given_up() -> None:
    with pytest.raises(NumericalError, match="lower w"):
        target_draws(GRIDS[WORSE, 0], 60.0, 5000, gen())
