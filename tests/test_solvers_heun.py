"""Heun's rows against Karras et al. 2022, Alg. 2, churn included."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from loop import run
from mixture import denoise, mixture_denoised

from reg_engine.schedules import EDM, Cosine, Flow, Schedule, VPLinear
from reg_engine.solvers import table


@pytest.mark.parametrize("churn", [3.0, 6.0])  # below the cap sqrt(2) - 1 a step, and above
@pytest.mark.parametrize("s_noise", [1.0, 1.003])
@pytest.mark.parametrize("schedule", [EDM(), VPLinear(spacing="trailing"), Flow(2.0)])
def test_heun_is_algorithm_2_of_edm(schedule: Schedule, s_noise: float, churn: float) -> None:
    """Karras et al. 2022, Alg. 2, written out with its own anchor state, on x/alpha."""
    steps, low, high = 12, 0.05, 20.0
    built = table("heun", schedule, steps, s_churn=churn, s_tmin=low, s_tmax=high, s_noise=s_noise)
    assert built.preserves_marginals == (s_noise == 1.0)
    times = schedule.grid(steps)
    start = 1 if math.isinf(schedule.noise_level(float(times[0]))) else 0
    levels = schedule.noise_level(times)
    generator = np.random.default_rng(2)
    draws = list(generator.standard_normal((2 * steps, 5, 2)))
    x = built.init_scale * draws[0]
    ours = run(built, denoise, x, draws[1:])
    supply = iter(draws[1:])
    if start:  # flow at t = 1: x = epsilon, one exact DDIM step to the first finite level
        clean = mixture_denoised(x, 0.0, 1.0)
        y = clean + levels[1] * x
    else:
        y = x / schedule(float(times[0]))[0]
    for n, n_next in pairwise(levels[start:]):
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= n <= high else 0.0
        n_hat = n * (1 + gamma)
        if gamma:
            y = y + s_noise * math.sqrt(n_hat**2 - n**2) * next(supply)
        slope = (y - mixture_denoised(y, 1.0, n_hat)) / n_hat
        y_next = y + (n_next - n_hat) * slope
        if n_next:
            second = (y_next - mixture_denoised(y_next, 1.0, n_next)) / n_next
            y_next = y + (n_next - n_hat) * (slope + second) / 2
        y = y_next
    assert ours == pytest.approx(y, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("s_noise", [1.0, 1.1])
def test_churn_of_the_first_step_is_in_the_first_state(s_noise: float) -> None:
    gamma = math.sqrt(2) - 1
    built = table("heun", EDM(), 8, s_churn=40.0, s_noise=s_noise)
    assert built.rows[0].t == pytest.approx(80 * (1 + gamma), rel=1e-12)
    assert built.init_scale == pytest.approx(80 * math.sqrt(1 + s_noise**2), rel=1e-12)
    capped = table("heun", Cosine(spacing="trailing"), 8, s_churn=40.0)
    assert capped.rows[0].t == 999.0  # no noisier than the schedule goes
    assert capped.init_scale == pytest.approx(1.0, rel=1e-12)
