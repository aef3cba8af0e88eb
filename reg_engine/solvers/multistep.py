"""Solvers with a history across steps: DPM-Solver++ 2M and PNDM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from ..errors import InputError
from ..schedules import Schedule
from .onestep import Marginal, marginals_at, posterior_deviation, step
from .tables import Row

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "pndm"]

# Adams-Bashforth weights of the newest d first, by the number of d known.
ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
RUNGE_KUTTA_STEPS = 3
MOST_GROWTH = 1e5  # times 6e-8, float32's rounding, is 0.6 % of the state
FEW_STEPS = 15  # below this, diffusers' lower_order_final takes a first-order last step


def dpmpp_2m(
    schedule: Schedule, times: Sequence[float], lower_order_final: bool, euler_at_final: bool
) -> list[Row]:
    """DPM-Solver++ 2M, midpoint form (Lu et al. 2022b, Alg. 2); d is the denoised estimate.

    With h the step in log(alpha/sigma) and r = h / h_previous, the first-order step is taken with
    denoised + r/2 (denoised - denoised_previous). First order: the first step, a last one to sigma
    = 0, and any last one with euler_at_final, or with lower_order_final and fewer than 15 steps.
    """
    return _extrapolated(schedule, times, 0.0, lower_order_final, euler_at_final)


def dpmpp_2m_sde(
    schedule: Schedule, times: Sequence[float], lower_order_final: bool, euler_at_final: bool
) -> list[Row]:
    """SDE-DPM-Solver++ 2M (ibid., App. B.6): the same, on steps with the posterior's noise."""
    return _extrapolated(schedule, times, 1.0, lower_order_final, euler_at_final)


def _extrapolated(
    schedule: Schedule,
    times: Sequence[float],
    eta: float,
    lower_order_final: bool,
    euler_at_final: bool,
) -> list[Row]:
    marginals = marginals_at(schedule, times)
    last = len(marginals) - 2
    low_end = euler_at_final or (lower_order_final and len(marginals) - 1 < FEW_STEPS)
    rows: list[Row] = []
    previous = math.inf  # h of the step before; none yet
    for index, (t, s) in enumerate(pairwise(marginals)):
        h = math.log(t.level / s.level) if s.sigma else math.inf
        row = step(t, s, eta * posterior_deviation(t, s))
        if math.isfinite(h) and math.isfinite(previous) and not (low_end and index == last):
            half = h / previous / 2
            row = replace(row, b=(row.b[0] * (1 + half), -row.b[0] * half))
        rows.append(row)
        previous = h
    return rows


def pndm(schedule: Schedule, times: Sequence[float], skip_prk: bool) -> list[Row]:
    """PNDM (Liu et al. 2022): Adams-Bashforth of order 4 on epsilon, inside DDIM's transfer, Eq. 9.

    It starts with three pseudo Runge-Kutta steps of four evaluations (F-PNDM, Eq. 13); with
    skip_prk, as Stable Diffusion does, with one trapezoidal step of two and the shorter
    Adams-Bashforth formulas. The transfer makes it of order 2: the formulas are exact in the index,
    not in sigma/alpha.

    Raises:
        InputError: fewer than four steps without skip_prk, a first time with alpha = 0, or a first
            step over so many noise levels that rounding would swamp it.
    """
    marginals = marginals_at(schedule, times)
    if marginals[0].alpha == 0:
        raise InputError(
            "solver",
            f"'pndm' cannot start at t = {marginals[0].t:g}, where alpha = 0",
            "Use 'flow_heun' or 'dpmpp_2m', or give times that start later",
        )
    if not skip_prk and len(marginals) - 1 <= RUNGE_KUTTA_STEPS:
        raise InputError(
            "steps",
            f"{len(marginals) - 1} are too few for the Runge-Kutta start of 'pndm'",
            f"Take at least {RUNGE_KUTTA_STEPS + 1} steps, or skip_prk=True",
        )
    rows: list[Row] = []
    kept: list[int] = []  # the rows whose epsilon the Adams-Bashforth formulas use
    first = 1 if skip_prk else RUNGE_KUTTA_STEPS
    for t, s in pairwise(marginals[: first + 1]):
        kept.append(len(rows))
        rows += _trapezoid(t, s) if skip_prk else _runge_kutta(schedule, t, s)
    for t, s in pairwise(marginals[first:]):
        kept.append(len(rows))
        _, psi = _transfer(t, s)
        weights = [0.0] * (len(rows) - kept[-4:][0] + 1)
        for index, weight in zip(reversed(kept), ADAMS[min(len(kept), 4) - 1], strict=False):
            weights[len(rows) - index] = psi * weight
        rows.append(_epsilon_row(t, s, tuple(weights)))
    return rows


def _transfer(t: Marginal, s: Marginal) -> tuple[float, float]:
    """(phi, psi) with x_s = phi x_t + psi epsilon: DDIM, PNDM's Eq. 9 in closed form."""
    phi = s.alpha / t.alpha
    return phi, s.sigma - phi * t.sigma


def _epsilon_row(t: Marginal, s: Marginal, b: tuple[float, ...], a: float | None = None) -> Row:
    """A row that keeps epsilon; `a` is phi of the transfer unless given."""
    a = s.alpha / t.alpha if a is None else a
    p, q = 1 / t.sigma, -t.alpha / t.sigma
    return Row(t.t, t.alpha, t.sigma, s.t, s.alpha, s.sigma, p, q, a, b)


def _check_growth(first: float, second: float, t: Marginal, s: Marginal) -> None:
    """A stage of weight `second` on the slope at a state reached with weight `first`.

    Both weights, in units of sigma_s, are how much an error of epsilon grows in that stage.
    """
    growth = abs(first * second) / s.sigma**2
    if growth > MOST_GROWTH:
        raise InputError(
            "solver",
            f"the start of 'pndm' would amplify rounding by {growth:.0e} on its way from "
            f"sigma/alpha = {t.level:.3g} to {s.level:.3g}",
            "Use another solver, more steps, or a grid that starts later (spacing='leading')",
        )


def _trapezoid(t: Marginal, s: Marginal) -> list[Row]:
    """Euler to s, then the mean of both slopes; the second is not needed where sigma_s = 0."""
    _, psi = _transfer(t, s)
    rows = [_epsilon_row(t, s, (psi,))]
    if s.sigma == 0:
        return rows
    _check_growth(psi, psi / 2, t, s)
    return [*rows, _epsilon_row(s, s, (psi / 2, -psi / 2))]


def _runge_kutta(schedule: Schedule, t: Marginal, s: Marginal) -> list[Row]:
    """Stages k1..k4 at t, m, m, s (m midway in time); a row undoes what the one before assumed."""
    m = marginals_at(schedule, [(t.t + s.t) / 2])[0]
    _, half = _transfer(t, m)
    _, full = _transfer(t, s)
    on, _ = _transfer(m, s)
    _check_growth(half, full, t, s)
    return [
        _epsilon_row(t, m, (half,)),
        _epsilon_row(m, m, (half, -half)),
        _epsilon_row(m, s, (full, -on * half)),
        _epsilon_row(s, s, (full / 6, -full * 2 / 3, full / 3, full / 6)),
    ]
