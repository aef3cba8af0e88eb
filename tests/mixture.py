"""A mixture of two Gaussians in two dimensions, whose denoiser is known in closed form."""

from __future__ import annotations

import math

import numpy as np
from loop import run

from reg_engine.solvers import Row, Table

WEIGHTS, SPREADS = np.array([0.3, 0.7]), np.array([0.25, 0.4])
CENTRES = np.array([[-1.0, 0.5], [0.8, -0.3]])


def denoise(x: np.ndarray, row: Row) -> np.ndarray:
    """E[x_0 | x_t] of the mixture, (N, 2)."""
    return mixture_denoised(x, row.alpha, row.sigma)


def mixture_denoised(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    variance = alpha**2 * SPREADS**2 + sigma**2
    offset = x[:, None, :] - alpha * CENTRES
    score = np.log(WEIGHTS / variance) - (offset**2).sum(-1) / (2 * variance)
    share = np.exp(score - score.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    means = CENTRES + (alpha * SPREADS**2 / variance)[:, None] * offset
    return (share[..., None] * means).sum(1)


def mixture_draws(count: int, generator: np.random.Generator) -> np.ndarray:
    which = (generator.random(count) > WEIGHTS[0]).astype(int)
    return CENTRES[which] + SPREADS[which][:, None] * generator.standard_normal((count, 2))


def gaussian_variance(built: Table, spread: float) -> float:
    """Variance of the last state for data N(0, spread^2), from the exact variance at the start."""
    first = built.rows[0]
    state = np.zeros(len(built.rows) + 1)  # the start, then the noise of each row
    state[0] = math.hypot(first.alpha * spread, first.sigma)
    unit = iter(np.eye(len(state))[1:])

    def linear(x: np.ndarray, row: Row) -> np.ndarray:
        return row.alpha * spread**2 / (row.alpha**2 * spread**2 + row.sigma**2) * x

    return float((run(built, linear, state, unit) ** 2).sum())
