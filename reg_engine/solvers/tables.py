"""A solver as data: one row per network evaluation, and a table that checks itself when built.

The loop of the engine, for every solver; `denoised` is the (guided) estimate of x_0 at (x, row.t):

    d = p x + q denoised                                what the solver keeps a history of
    x = a x + b_0 d + b_1 d_previous + ... + c noise    from time t to time s

d is the denoised estimate itself (p = 0, q = 1), epsilon = (x - alpha denoised)/sigma, or the
velocity epsilon - denoised. A method of several stages (Heun, Runge-Kutta) is several rows; a row
whose s equals its t corrects the state where it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..schedules import Schedule

__all__ = ["Row", "Table"]

RTOL = 1e-9  # of alpha_s and sigma_s; coefficients are float64, their rounding is 1e-16 to 1e-12
QUANTITIES = ((1.0, 0.0), (0.0, 1.0), (-1.0, 1.0))  # denoised, epsilon, velocity in (x_0, epsilon)


@dataclass(frozen=True)
class Row:
    """One evaluation and the update after it; every number is a float of the host, in float64.

    Args:
        t, alpha, sigma: where the network is evaluated, and the marginal of the state there.
        s, alpha_s, sigma_s: where the state goes.
        p, q: d = p x + q denoised.
        a, b, c: x_s = a x + sum_j b[j] d_j + c noise, d_0 of this row, d_1 of the previous one, ...
        fresh: a way begins here: what guidance kept of earlier rows is forgotten.
        spread: the noise may be up to exp(spread) times as large, where the network says so.
    """

    t: float
    alpha: float
    sigma: float
    s: float
    alpha_s: float
    sigma_s: float
    p: float
    q: float
    a: float
    b: tuple[float, ...]
    c: float = 0.0
    fresh: bool = False
    spread: float = 0.0

    @property
    def noise_level(self) -> float:
        """sigma_t / alpha_t; infinite where alpha_t = 0."""
        return self.sigma / self.alpha if self.alpha else math.inf


@dataclass(frozen=True)
class Table:
    """The rows of one solver on one grid, checked.

    Each row is run on the exact denoiser of a single point, denoised = x_0, from x = alpha x_0 +
    sigma epsilon: the state must be alpha_s x_0 plus noise of deviation sigma_s after it (to 1e-9),
    so that one wrong coefficient cannot pass. Rows must join, and the noise level may rise only in
    a row that adds noise (churn).

    Args:
        solver: its name.
        order: its order of convergence in the number of steps (weak order where it adds noise).
        rows: one per network evaluation.
        init_scale: the first state is init_scale times unit noise.
        preserves_marginals: False where noise of another deviation than sigma_s is wanted (ddpm's
            "large" variance, heun's s_noise); then only the signal part alpha_s is demanded.
        clip: the denoised estimates are clipped to [-clip, clip] before they are used; None: not.
        keep_epsilon: the direction of a step stays that of the estimate before it was clipped.
        schedule: whose times the rows are at, for weights that follow it; None: not known.

    Raises:
        InputError: a row that does not do what it says.
    """

    solver: str
    order: float
    rows: tuple[Row, ...]
    init_scale: float
    preserves_marginals: bool = True
    clip: float | None = None
    keep_epsilon: bool = False
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError("rows", "is empty", "Give one row per network evaluation")
        for index, row in enumerate(self.rows):
            _check_values(index, row)
        for index, (row, after) in enumerate(pairwise(self.rows)):
            if (row.s, row.alpha_s, row.sigma_s) != (after.t, after.alpha, after.sigma):
                raise _bad(index, f"ends at s = {row.s:g}, the next starts at t = {after.t:g}")
        first = self.rows[0]
        high = max(math.hypot(first.alpha, first.sigma), 1.0) * (1 + RTOL)
        if self.preserves_marginals and not first.sigma * (1 - RTOL) <= self.init_scale <= high:
            raise InputError(
                "init_scale",
                f"{self.init_scale:g} is not in [sigma, max(sqrt(alpha^2 + sigma^2), 1)]",
                f"The first row starts at alpha = {first.alpha:g}, sigma = {first.sigma:g}",
            )
        self._check_marginals()
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError("clip", f"is {self.clip}", "Give a positive number, or None")
        if self.keep_epsilon and (self.clip is None or self.history > 1):
            raise InputError(
                "keep_epsilon", f"does not suit {self.solver!r}", "Use it with 'ddim' and clip"
            )

    @property
    def history(self) -> int:
        """How many d the longest row reads, its own included."""
        return max(len(row.b) for row in self.rows)

    @property
    def learned(self) -> bool:
        """Whether the network says how much noise any row adds."""
        return any(row.spread for row in self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether any row adds noise."""
        return any(row.c for row in self.rows)

    def _check_marginals(self) -> None:
        """Run the rows on the vector (x_0, epsilon, noise of each row that adds some)."""
        place = {index: n for n, index in enumerate((i for i, r in enumerate(self.rows) if r.c), 2)}
        state = np.zeros(len(place) + 2)
        state[:2] = self.rows[0].alpha, self.rows[0].sigma
        history: list[NDArray[np.float64]] = []
        longest = self.history
        largest = max(row.sigma for row in self.rows)
        for index, row in enumerate(self.rows):
            if len(row.b) > index + 1:
                raise _bad(index, f"reads {len(row.b)} values of d, there are {index + 1}")
            d = row.p * state
            d[0] += row.q
            history = [d, *history[: longest - 1]]
            state = row.a * state
            for coefficient, slope in zip(row.b, history, strict=False):
                state = state + coefficient * slope
            if row.c:
                state[place[index]] += row.c
            deviation = float(np.linalg.norm(state[1:]))
            if not math.isclose(state[0], row.alpha_s, rel_tol=RTOL, abs_tol=1e-12):
                raise _bad(index, f"leaves {state[0]:.12g} x_0 instead of {row.alpha_s:.12g} x_0")
            if self.preserves_marginals and not math.isclose(
                deviation, row.sigma_s, rel_tol=RTOL, abs_tol=1e-12 * largest
            ):
                raise _bad(index, f"leaves noise {deviation:.12g} instead of {row.sigma_s:.12g}")


def _check_values(index: int, row: Row) -> None:
    """Finite numbers, d one of the known quantities, and no noise level that rises by itself."""
    numbers = [getattr(row, f.name) for f in fields(row) if f.name != "b"]
    if not row.b or not all(map(math.isfinite, (*numbers, *row.b))):
        raise _bad(index, "holds a number that is not finite, or no b")
    if row.alpha_s <= 0 or row.sigma <= 0 or min(row.alpha, row.sigma_s, row.c, row.spread) < 0:
        raise _bad(index, "needs alpha, sigma_s, c, spread >= 0 and sigma, alpha_s > 0")
    quantity = (row.p * row.alpha + row.q, row.p * row.sigma)
    scale = max(1.0, abs(row.p * row.alpha), abs(row.q))
    if not any(np.allclose(quantity, known, RTOL, RTOL * scale) for known in QUANTITIES):
        raise _bad(index, "p and q give neither denoised, nor epsilon, nor the velocity")
    rises = row.sigma_s * row.alpha > row.sigma * row.alpha_s * (1 + RTOL)
    if rises and row.c == 0:
        raise _bad(index, "raises the noise level without adding noise")


def _bad(index: int, problem: str) -> InputError:
    return InputError(f"rows[{index}]", problem, "Correct this row or one before it")
