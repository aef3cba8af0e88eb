"""Solvers without history across steps: DDPM, DDIM, Euler, ancestral Euler, Heun, flow forms.

Their d is the denoised estimate. With epsilon = (x - alpha_t denoised)/sigma_t put in, a step is

    x_s = (sigma_down/sigma_t) x + (alpha_s - alpha_t sigma_down/sigma_t) denoised + c noise,
    sigma_down^2 + c^2 = sigma_s^2,

which divides neither by alpha_t nor by sigma_s: it is exact from alpha_t = 0 (flow at t = 1), gives
x_s = denoised at sigma_s = 0, and never subtracts large numbers. First-order solvers differ in c
alone, so DDPM, DDIM with eta = 1 and ancestral Euler are one method; so are DDIM with eta = 0,
Euler in sigma/alpha and Euler in flow time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..schedules import Schedule
from .tables import Row

__all__ = [
    "Marginal",
    "ancestral",
    "ddpm",
    "flow_heun",
    "heun",
    "marginals_at",
    "noised",
    "posterior_deviation",
    "step",
]


@dataclass(frozen=True)
class Marginal:
    """A time and its marginal."""

    t: float
    alpha: float
    sigma: float

    @property
    def level(self) -> float:
        """sigma/alpha; infinite where alpha = 0."""
        return self.sigma / self.alpha if self.alpha else math.inf


def marginals_at(schedule: Schedule, times: Sequence[float]) -> list[Marginal]:
    """The marginals of `times` on `schedule`."""
    return [Marginal(float(t), *schedule(float(t))) for t in times]


def step(t: Marginal, s: Marginal, c: float = 0.0) -> Row:
    """One first-order step from t to s that replaces noise of deviation c (DDIM, Eq. 12)."""
    a = math.sqrt(max(s.sigma**2 - c**2, 0.0)) / t.sigma
    b = s.alpha - t.alpha * a
    return Row(t.t, t.alpha, t.sigma, s.t, s.alpha, s.sigma, p=0.0, q=1.0, a=a, b=(b,), c=c)


def posterior_deviation(t: Marginal, s: Marginal) -> float:
    """Deviation of q(x_s | x_t, x_0) (DDPM, Eq. 7; sigma_up of ancestral Euler)."""
    ratio = t.alpha * s.sigma / (s.alpha * t.sigma)
    return s.sigma * math.sqrt(1 - ratio**2)


def ancestral(schedule: Schedule, times: Sequence[float], eta: float) -> list[Row]:
    """First order with `eta` times the posterior's noise: 0 is DDIM and Euler, 1 is ancestral."""
    pairs = pairwise(marginals_at(schedule, times))
    return [step(t, s, eta * posterior_deviation(t, s)) for t, s in pairs]


def ddpm(schedule: Schedule, times: Sequence[float], variance: str) -> list[Row]:
    """Ho et al. 2020, Alg. 2: variance "small" is the posterior's, "large" is that of q(x_t | x_s).

    "large" keeps the posterior's mean, so it leaves too much noise; none is added on the way to
    sigma = 0. "learned": the network says where between their logarithms it is (Nichol & Dhariwal
    2021, Eq. 15).
    """
    rows = ancestral(schedule, times, eta=1.0)
    if variance == "large":
        return [replace(row, c=_large(row)) for row in rows]
    if variance == "learned":
        return [
            replace(row, spread=math.log(_large(row) / row.c)) if row.c else row for row in rows
        ]
    return rows


def _large(row: Row) -> float:
    if row.sigma_s == 0:
        return 0.0
    return math.sqrt(max(row.sigma**2 - (row.alpha / row.alpha_s * row.sigma_s) ** 2, 0.0))


def heun(
    schedule: Schedule,
    times: Sequence[float],
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
) -> list[Row]:
    """Karras et al. 2022, Alg. 1, and with s_churn > 0 Alg. 2; the noise level is n = sigma/alpha.

    The slope of x/alpha over n is (x/alpha - denoised)/n. The first row is Euler to s; there the
    slopes of both evaluations differ by (denoised_1 - denoised_2)/n_s, so the second row needs no
    earlier state. Churn raises the noise of the row before. A step from n = infinity (flow at
    t = 1) or to n = 0 is the single Euler row.
    """
    rows: list[Row] = []
    gamma = min(s_churn / (len(times) - 1), math.sqrt(2) - 1)
    for t, s in pairwise(marginals_at(schedule, times)):
        if gamma and s_tmin <= t.level <= s_tmax and t.alpha:
            hat = _raised(schedule, t, gamma)
            if rows:
                rows[-1] = noised(rows[-1], hat, s_noise)
        else:
            hat = t
        rows.append(step(hat, s))
        if s.sigma and hat.alpha:
            rows.append(_correction(s, s.alpha * (hat.level - s.level) / (2 * s.level)))
    return rows


def flow_heun(schedule: Schedule, times: Sequence[float]) -> list[Row]:
    """Heun (explicit trapezoid) in flow time: dx/dt = (x - denoised)/t; one row to t = 0."""
    rows: list[Row] = []
    for t, s in pairwise(marginals_at(schedule, times)):
        rows.append(step(t, s))
        if s.sigma:
            rows.append(_correction(s, (t.t - s.t) / (2 * s.t)))
    return rows


def _correction(s: Marginal, weight: float) -> Row:
    """x += weight (denoised at s - denoised before)."""
    return replace(step(s, s), a=1.0, b=(weight, -weight))


def _raised(schedule: Schedule, t: Marginal, gamma: float) -> Marginal:
    """The marginal of noise level (1 + gamma) n, or the schedule's noisiest."""
    highest = schedule.noise_level(schedule.last_valid_time)
    return marginals_at(schedule, [schedule.time_of(min((1 + gamma) * t.level, highest))])[0]


def noised(row: Row, hat: Marginal, s_noise: float = 1.0) -> Row:
    """`row` followed by fresh noise that brings its state to `hat`, of s_noise times the deviation
    that it takes."""
    growth = hat.alpha / row.alpha_s
    added = math.sqrt(max(hat.sigma**2 - (growth * row.sigma_s) ** 2, 0.0))
    return replace(
        row,
        s=hat.t,
        alpha_s=hat.alpha,
        sigma_s=hat.sigma,
        a=growth * row.a,
        b=tuple(growth * b for b in row.b),
        c=math.hypot(growth * row.c, s_noise * added),
    )
