"""Forward differences: a third evaluation at x_t + h d. Serves every network, also black boxes.

The step is relative: |h d| = rho |x_t| (root mean square, sample by sample). Too small a
step drowns in the network's rounding, so rho follows the network's dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..directions import Direction
from ..errors import InputError
from ..point import Point
from ..reference import per_sample
from .lag import lag_of, rectified_from_lag

__all__ = ["FD", "RHO", "FDBatched"]

# Best one-sided step by dtype: the sum of truncation and rounding error is least there.
RHO = {torch.float64: 1e-6, torch.float32: 1e-2, torch.float16: 0.03, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class _Difference:
    """Args: rho: relative step, > 0; None = by the network's dtype (RHO)."""

    rho: float | None = None

    def __post_init__(self) -> None:
        if self.rho is not None and not (math.isfinite(self.rho) and self.rho > 0):
            raise InputError("rho", f"is {self.rho}", "Give a positive relative step, or None")

    def moved(self, point: Point, d: Tensor) -> tuple[Tensor, Tensor]:
        """x_t + h d, and alpha_t / h per sample (0 where d vanishes): K d = that * (moved cond -
        cond)."""
        rho = self.rho or RHO.get(point.denoiser.dtype or point.x.dtype, RHO[torch.bfloat16])
        size = _rms(d)
        length = rho * _rms(point.x).clamp_min(torch.finfo(d.dtype).tiny)
        h = torch.where(size > 0, length / size.clamp_min(torch.finfo(d.dtype).tiny), size)
        inverse = torch.where(size > 0, point.alpha * size / length, size)
        return point.x + h * d, inverse

    def product(self, point: Point, d: Tensor, cond: Tensor) -> Tensor:
        """K d by one more conditional evaluation."""
        x, inverse = self.moved(point, d)
        return inverse * (point.cond_at(x) - cond)


@dataclass(frozen=True)
class FD(_Difference):
    """`fd`: K delta, the third evaluation after the other two."""

    name = "fd"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        return cond, self.product(point, delta, cond), delta


@dataclass(frozen=True)
class FDBatched(_Difference):
    """`fd_batched`: [ref(x); cond(x); cond(x + h p)] in one batch, p the previous delta
    (rectifiers/lag.py)."""

    name = "fd_batched"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        lag = lag_of(point)
        if lag is None:
            return FD(self.rho)(point, direction)
        x, inverse = self.moved(point, lag)
        ref, cond, cond_moved = point.stack(point.x, x)
        delta = direction(point, cond, ref)
        k_lag = inverse * (cond_moved - cond)
        rectified = rectified_from_lag(delta, lag, k_lag, lambda d: self.product(point, d, cond))
        return cond, rectified, delta


def _rms(value: Tensor) -> Tensor:
    return per_sample(value.flatten(1).square().mean(1).sqrt(), value)
