"""Solvers converge at their stated order, and the stochastic ones to the distribution itself."""

from __future__ import annotations

import math
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from loop import run
from mixture import denoise, gaussian_variance, mixture_denoised, mixture_draws
from scipy.integrate import solve_ivp
from scipy.spatial.distance import cdist

from reg_engine.schedules import EDM, Cosine, Flow, Schedule, VPLinear, karras
from reg_engine.solvers import SOLVERS, table

DETERMINISTIC: list[tuple[str, dict[str, Any]]] = [
    ("ddim", {}),
    ("pndm", {}),
    ("pndm", {"skip_prk": True}),
    ("euler", {}),
    ("heun", {}),
    ("dpmpp_2m", {}),
    ("unipc", {}),
    ("flow_euler", {}),
    ("flow_heun", {}),
]


def test_every_deterministic_solver_is_measured() -> None:
    named = {name for name, _ in DETERMINISTIC}
    assert named == {name for name, solver in SOLVERS.items() if not solver.stochastic}


@pytest.mark.parametrize(
    ("name", "options", "schedule"),
    [
        (name, options, schedule)
        for name, options in DETERMINISTIC
        for schedule in (VPLinear(), EDM(), Flow())
        if isinstance(schedule, Flow) or not name.startswith("flow_")
    ],
)
def test_order_of_convergence(name: str, options: dict[str, Any], schedule: Schedule) -> None:
    """log error against log steps has the stated slope; the reference is DOP853 at rtol 1e-12."""
    first, last = 10.0, 0.1
    start = np.array([[-1.7, 0.4], [-0.4, 1.1], [0.5, -0.9], [1.8, 0.2]])
    counts, errors = (64, 128, 256, 512), []
    for steps in counts:
        if name.startswith("flow_"):
            ends = schedule.time_of(first), schedule.time_of(last)
            times = np.linspace(*ends, steps + 1)
        else:
            times = schedule.time_of(karras(first, last, steps + 1))
        built = table(name, schedule, steps, times=times, **options)
        alpha, sigma = schedule(float(times[0]))
        x = start * math.hypot(alpha, sigma)
        alpha_s = schedule(float(times[-1]))[0]
        exact = alpha_s * exact_flow(x / alpha, first, last)
        errors.append(np.sqrt(np.mean((run(built, denoise, x) - exact) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(SOLVERS[name].order, abs=0.15), errors


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_converges_with_one_order_more(order: int, variant: str) -> None:
    """The corrector adds one (Zhao et al. 2023, Thm. 3.1)."""
    schedule, start = VPLinear(), np.array([[-1.7, 0.4], [0.5, -0.9]])
    options = {"order": order, "variant": variant, "lower_order_final": False}
    counts, errors = (64, 128, 256, 512), []
    for steps in counts:
        times = schedule.time_of(karras(10.0, 0.1, steps + 1))
        built = table("unipc", schedule, steps, times=times, **options)
        alphas = schedule(times[[0, -1]])[0]
        exact = alphas[1] * exact_flow(start / alphas[0], 10.0, 0.1)
        errors.append(np.sqrt(np.mean((run(built, denoise, start) - exact) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order + 1, abs=0.15), errors


def exact_flow(x: np.ndarray, first: float, last: float) -> np.ndarray:
    """x/alpha at noise level n = `last`, from `first`: d(x/alpha)/dn = (x/alpha - denoised)/n."""

    def slope(n: float, flat: np.ndarray) -> np.ndarray:
        points = flat.reshape(-1, 2)
        return ((points - mixture_denoised(points, 1.0, n)) / n).ravel()

    solved = solve_ivp(slope, (first, last), x.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return solved.y[:, -1].reshape(-1, 2)


@pytest.mark.parametrize("name", ["flow_euler", "flow_heun", "heun", "euler", "dpmpp_2m", "unipc"])
def test_flow_solvers_start_at_pure_noise(name: str) -> None:
    """From t = 1, where alpha = 0, to t = 0.1 the error falls, and nothing is divided by zero."""
    schedule = Flow()
    x = np.array([[-1.7, 0.4], [0.5, -0.9]])

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        points = flat.reshape(-1, 2)
        return ((points - mixture_denoised(points, 1 - t, t)) / t).ravel()

    solved = solve_ivp(slope, (1.0, 0.1), x.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    exact = solved.y[:, -1].reshape(-1, 2)
    errors = []
    for steps in (64, 128, 256):
        built = table(name, schedule, steps, times=np.linspace(1.0, 0.1, steps + 1))
        errors.append(np.sqrt(np.mean((run(built, denoise, x) - exact) ** 2)))
    slopes = -np.diff(np.log2(errors))
    assert slopes == pytest.approx(SOLVERS[name].order, abs=0.15), errors


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("ddpm", {}, 1.0),
        ("ddim", {"eta": 1.0}, 1.0),
        ("ddim", {"eta": 0.5}, 1.0),
        ("euler_ancestral", {}, 1.0),
        ("dpmpp_2m_sde", {}, 2.0),
        ("heun", {"s_churn": 10.0}, 2.0),
    ],
)
def test_weak_order_on_a_gaussian(name: str, options: dict[str, Any], order: float) -> None:
    """Data N(0, 1) has a linear denoiser, so the state's variance is known after every row."""
    counts, errors = (128, 256, 512), []
    for steps in counts:
        schedule = EDM()
        built = table(name, schedule, steps, times=karras(20.0, 0.01, steps + 1), **options)
        last = built.rows[-1]
        exact = last.alpha_s**2 + last.sigma_s**2
        errors.append(abs(gaussian_variance(built, 1.0) / exact - 1))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15), errors


COUNT = 4000


@cache
def exact_draws() -> np.ndarray:
    return mixture_draws(COUNT, np.random.default_rng(0))


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| >= 0 over all pairs; 0 only for equal samples."""
    return float(2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())


@cache
def sampling_floor() -> float:
    """The largest distance that exact draws have from `exact_draws`, of eight sets (about 1e-3)."""
    others = (mixture_draws(COUNT, np.random.default_rng(seed)) for seed in range(1, 9))
    return max(energy_distance(exact_draws(), other) for other in others)


@pytest.mark.parametrize(
    ("name", "options", "schedule"),
    [
        ("ddpm", {}, Cosine(spacing="trailing")),
        ("ddim", {"eta": 1.0}, VPLinear(spacing="trailing")),
        ("euler_ancestral", {}, EDM()),
        ("dpmpp_2m_sde", {}, EDM()),
        ("heun", {"s_churn": 10.0}, EDM()),
    ],
)
def test_stochastic_samples_reach_the_floor(
    name: str, options: dict[str, Any], schedule: Schedule
) -> None:
    """8 steps miss the mixture by 10 floors and more; 200 are as close as exact draws."""
    distances = []
    for steps in (8, 200):
        generator = np.random.default_rng(5)
        built = table(name, schedule, steps, **options)
        assert built.stochastic
        start = built.init_scale * generator.standard_normal((COUNT, 2))
        noises = (generator.standard_normal((COUNT, 2)) for _ in repeat(None))
        distances.append(energy_distance(run(built, denoise, start, noises), exact_draws()))
    few, many = distances
    assert few > 10 * sampling_floor(), distances
    assert many <= sampling_floor(), distances
