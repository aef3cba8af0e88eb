"""The continuous VP and VE schedules, against their stochastic differential equations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

from reg_engine.errors import InputError
from reg_engine.schedules import EDM, VESDE, VPSDE, Schedule, VPLinear


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.3, 1.0])
def test_vp_solves_its_equation(t: float) -> None:
    """dx = -beta/2 x dt + sqrt(beta) dW: alpha = exp(-1/2 int beta), sigma^2 = 1 - alpha^2."""
    integral = quad(lambda u: 0.1 + u * (20.0 - 0.1), 0, t, epsabs=1e-14)[0]
    alpha, sigma = VPSDE()(t)
    assert alpha == pytest.approx(math.exp(-integral / 2), rel=1e-12)
    assert sigma == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-12)


def test_vp_is_the_limit_of_the_chain() -> None:
    """1,000 betas from 0.1/1000 to 20/1000 sample the same beta(t)."""
    chain, continuous = VPLinear(1e-4, 0.02), VPSDE()
    # Of first order: the chain takes beta at the ends of its intervals.
    assert chain(999.0)[0] == pytest.approx(continuous(1.0)[0], rel=0.05)
    assert chain(499.0)[0] == pytest.approx(continuous(0.5)[0], rel=0.01)


def test_ve_by_formula() -> None:
    schedule = VESDE(0.01, 50.0)
    assert schedule(1.0) == (1.0, 50.0) and schedule(0.0) == (1.0, 0.01)
    assert schedule(0.5)[1] == pytest.approx(math.sqrt(0.01 * 50.0), rel=1e-14)
    assert schedule(-1.0) == (1.0, 0.0) and schedule(-0.5) == (1.0, 0.005)
    levels = schedule.noise_level(schedule.grid(6))
    same = EDM(0.01, 50.0, spacing="exponential").grid(6)
    assert levels == pytest.approx(same, rel=1e-12)


@pytest.mark.parametrize("schedule", [VPSDE(), VPSDE(1.0, 5.0), VESDE(), VESDE(0.1, 2.0)])
def test_levels_rise_and_are_inverted(schedule: Schedule) -> None:
    t = np.linspace(schedule.clean_time, schedule.prior_time, 501)
    level = schedule.noise_level(t)
    assert level[0] == 0 and np.all(np.diff(level) > 0)
    assert schedule.time_of(level) == pytest.approx(t, rel=1e-10, abs=1e-12)


def test_grids() -> None:
    assert VPSDE().grid(3) == pytest.approx([1, 0.5005, 0.001, 0], rel=1e-12)
    assert VPSDE(grid_end=0.5).grid(2).tolist() == [1, 0.5, 0]
    assert VESDE().grid(3).tolist() == [1, 0.5, 0, -1] and VESDE().grid(1).tolist() == [1, -1]
    assert VPSDE().prior_scale(1.0) == pytest.approx(1.0) and VESDE().prior_scale(1.0) == 50.0


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        (VPSDE, {"beta_min": 0.0}, "beta_min"),
        (VPSDE, {"beta_max": 0.05}, "beta_max"),
        (VPSDE, {"grid_end": 1.0}, "grid_end"),
        (VESDE, {"sigma_min": -1.0}, "sigma_min"),
        (VESDE, {"sigma_max": 0.001}, "sigma_max"),
    ],
)
def test_bad_fields_are_named(kind: Any, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        kind(**fields)
