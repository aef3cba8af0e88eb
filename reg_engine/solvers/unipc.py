"""UniPC (Zhao et al. 2023): a multistep predictor, and a corrector that asks the network no more.

With h = log(alpha/sigma) at s minus at t, r_k the offset of an earlier time k in units of h, D_k =
(d_k - d_0)/r_k and a = sigma_s/sigma_t, both are

    x_s = a x_t + alpha_s (1 - e^-h) d_0 - alpha_s B(h) sum_k rho_k D_k        (Eqs. 3 and 9),

d the denoised estimate. The predictor sums over earlier estimates, the corrector also over the
estimate at s itself, which the next step needs anyway: it is added to that step's row. So a row
reads corrected state + predictor, and the corrected state is x plus a sum of d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest

import numpy as np

from ..schedules import Schedule
from .onestep import Marginal, marginals_at, step
from .tables import Row

__all__ = ["unipc"]


def unipc(
    schedule: Schedule, times: Sequence[float], order: int, variant: str, lower_order_final: bool
) -> list[Row]:
    """UniPC of `order` 1 to 3, B(h) of `variant` "bh1" (h) or "bh2" (e^-h - 1).

    The first steps have the order that the estimates so far allow; with lower_order_final the last
    ones too, down to 1. It converges with order + 1, thanks to the corrector; with
    lower_order_final, where the last time has sigma > 0, with 2: the last step is the worst. No
    formula reaches over an infinite step: from alpha = 0 or to sigma = 0 the step is of first
    order, and nothing is corrected after it.
    """
    marginals = marginals_at(schedule, times)
    first = 0 if marginals[0].alpha else 1  # of the marginals whose estimates a formula may use
    last = len(marginals) - 2
    rows: list[Row] = []
    correction: list[float] = []  # of x, by d_0, d_1, ...
    for index, (t, s) in enumerate(pairwise(marginals)):
        used = min(order, index - first + 1, last + 1 - index if lower_order_final else order)
        if not (t.alpha and s.sigma and s.level < t.level):
            used = 0
        row = step(t, s)
        earlier = marginals[max(index - used + 1, 0) : index][::-1]
        predictor = _sum(row.b[0], _weights(t, s, earlier, variant))
        carried = [row.a * e for e in correction if row.a]
        b = [e + p for e, p in zip_longest(carried, predictor, fillvalue=0.0)]
        rows.append(replace(row, b=tuple(b)))
        correction = []
        if used:
            *rest, ahead = _sum(row.b[0], _weights(t, s, [*earlier, s], variant))
            correction = [ahead, *(c - p for c, p in zip(rest, predictor, strict=True))]
    return rows


def _weights(t: Marginal, s: Marginal, others: Sequence[Marginal], variant: str) -> list[float]:
    """The weight of d_k - d_0 for each of `others`: earlier ones, and s itself in a corrector."""
    if not others:
        return []
    h = math.log(t.level / s.level)
    r = np.array([math.log(t.level / place.level) / h for place in others])
    growth = math.expm1(-h)
    scale = growth if variant == "bh2" else -h
    if len(others) == 1:
        rho = np.array([0.5])  # of order 2 whatever B(h), as the authors take it
    else:
        phi, moments = growth, []
        for k in range(1, len(others) + 1):
            phi = phi / -h - 1 / math.factorial(k)
            moments.append(phi * math.factorial(k) / scale)
        rho = np.linalg.solve(np.vander(r, increasing=True).T, np.array(moments))
    return [float(w) for w in -s.alpha * scale * rho / r]


def _sum(first: float, weights: Sequence[float]) -> list[float]:
    """first d_0 + sum_k weights_k (d_k - d_0), by d."""
    return [first - math.fsum(weights), *weights]
