"""The engine's arithmetic in plain torch: the CPU path, and the oracle of every kernel.

Every function takes primal tensors of one shape (B, *sample_shape) and host scalars, and returns
new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["combine", "guided_step", "lagged_product", "per_sample", "solver_step"]


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to broadcast against `like` (B, ...)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def combine(cond: Tensor, term: Tensor | None, w: float) -> Tensor:
    """guided = cond + w * term; `term` None or w = 0 returns `cond` itself, bitwise."""
    if term is None or w == 0:
        return cond
    return cond + w * term


def solver_step(
    x: Tensor,
    denoised: Tensor,
    history: Sequence[Tensor],
    noise: Tensor | None,
    p: float,
    q: float,
    a: float,
    b: Sequence[float],
    c: float,
) -> tuple[Tensor, Tensor]:
    """One row of a solver's table.

    d_0 = p x + q denoised;  x_s = a x + sum_j b_j d_j + c noise, with history = [d_1, d_2, ...].

    Returns:
        (x_s, d_0), both (B, *sample_shape).
    """
    d = q * denoised if p == 0 else p * x + q * denoised
    x_s = a * x
    for coefficient, slope in zip(b, (d, *history), strict=False):
        if coefficient:
            x_s = x_s + coefficient * slope
    if c:
        assert noise is not None
        x_s = x_s + c * noise
    return x_s, d


def guided_step(
    x: Tensor,
    cond: Tensor,
    term: Tensor | None,
    w: float,
    history: Sequence[Tensor],
    noise: Tensor | None,
    p: float,
    q: float,
    a: float,
    b: Sequence[float],
    c: float,
) -> tuple[Tensor, Tensor]:
    """The whole guidance step: `combine`, then `solver_step`."""
    return solver_step(x, combine(cond, term, w), history, noise, p, q, a, b, c)


def lagged_product(delta: Tensor, lag: Tensor, k_lag: Tensor) -> Tensor:
    """K delta from the product with an earlier direction: a K p + r (delta - a p), sample by
    sample.

    With p = lag, a = <delta,p>/<p,p>, r = <Kp,p>/<p,p>: exact along p, and the mean stretch of K
    along p for what is orthogonal to it. Samples with p = 0 give 0: the caller must give those an
    exact product.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return per_sample((u * v).flatten(1).sum(1), u)

    norm = dot(lag, lag).clamp_min(torch.finfo(lag.dtype).tiny)
    a, r = dot(delta, lag) / norm, dot(k_lag, lag) / norm
    return a * k_lag + r * (delta - a * lag)
