"""Forward differences: a third evaluation at x_t + h d. Serves every network, also black boxes.

The step is relative: |h d| = rho |x_t| (root mean square, sample by sample). Too small a
step drowns in the network's rounding, so rho follows what the network computes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample
from ..values import as_float, as_int, store
from .lag import lag_of, rectified_from_lag
from .precision import precision_of

__all__ = ["FD", "RHO", "DiagonalBatched", "Difference", "FDBatched", "lengths", "rho_of"]

# Best one-sided step by dtype: the sum of truncation and rounding error is least there.
RHO = {torch.float64: 1e-6, torch.float32: 1e-2, torch.float16: 0.03, torch.bfloat16: 0.1}
FLOOR = 0.1  # of sigma_t: the least rms of x that a step is relative to


def rho_of(precision: torch.dtype) -> float:
    """The step for a network that computes in `precision`."""
    return RHO.get(precision, RHO[torch.bfloat16])


def lengths(point: Point, d: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """(B,) h with |h d| = rho |x|, and alpha_t / h (0 where d vanishes): K d = alpha_t / h *
    (moved cond - cond)."""
    tiny = torch.finfo(d.dtype).tiny
    gram = ops.reduce(point.x, d, backend=point.backend)
    count = gram[:, 0, 0].clamp_min(1)
    state, size = ((gram[:, i, i] / count).sqrt().to(d.dtype) for i in (1, 2))
    # A small x (few dimensions, or 0) must not make the step vanish in rounding: the network
    # changes over lengths of sigma.
    length = rho * state.clamp_min(FLOOR * point.sigma).clamp_min(tiny)
    h = torch.where(size > 0, length / size.clamp_min(tiny), 0)
    return h, torch.where(size > 0, point.alpha * size / length, 0)


@dataclass(frozen=True)
class Difference:
    """Args: rho: relative step, > 0; None = by what the network computes in (precision.py)."""

    rho: float | None = None
    lagged = False

    def __post_init__(self) -> None:
        if self.rho is not None:
            remedy = "Give a positive relative step, or None"
            store(self, rho=as_float("rho", self.rho, remedy, lambda v: 0 < v < math.inf))

    def lengths(self, point: Point, d: Tensor) -> tuple[Tensor, Tensor]:
        """As the function `lengths`, with the estimator's own step."""
        return lengths(point, d, self.rho or rho_of(precision_of(point.denoiser, point.x)))

    def product(self, point: Point, d: Tensor, cond: Tensor) -> Tensor:
        """K d by one more conditional evaluation."""
        h, inverse = self.lengths(point, d)
        moved = point.cond_at(point.x + per_sample(h, d) * d)
        return per_sample(inverse, d) * (moved - cond)


@dataclass(frozen=True)
class FD(Difference):
    """`fd`: K delta, the third evaluation after the other two."""

    name = "fd"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        return cond, self.product(point, delta, cond), delta


@dataclass(frozen=True)
class FDBatched(Difference):
    """`fd_batched`: [ref(x); cond(x); cond(x + h p)] in one batch, p the previous delta
    (rectifiers/lag.py)."""

    name = "fd_batched"
    lagged = True

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        lag = lag_of(point)
        if lag is None:
            return FD(self.rho)(point, direction)
        h, inverse = self.lengths(point, lag)
        ref, cond, moved = point.stack_probe(lag, h)
        delta = direction(point, cond, ref)
        k_lag = per_sample(inverse, lag) * (moved - cond)
        rectified = rectified_from_lag(
            point, delta, lag, k_lag, lambda d: self.product(point, d, cond)
        )
        return cond, rectified, delta


@dataclass(frozen=True)
class DiagonalBatched(Difference):
    """`diagonal_batched`: diag(K) * delta without a backward pass and in one batch.

    Hutchinson's estimate mean_i z_i * (K z_i), z_i = +-1, waits for nothing that cond would have to
    give first: [ref(x); cond(x); cond(x + h z_1); ...] go through the network together.

    Args:
        probes: number n >= 1 of moved rows a sample; each sample has its own, from its seed.
    """

    probes: int = 1
    name = "diagonal_batched"

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, probes=as_int("probes", self.probes))

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        assert point.probes is not None
        signs = [point.probes.signs(point.x) for _ in range(self.probes)]
        h, inverse = (per_sample(value, point.x) for value in self.lengths(point, signs[0]))
        if self.probes == 1:
            ref, cond, *moved = point.stack_probe(signs[0], h.flatten())
        else:
            ref, cond, *moved = point.stack(point.x, *(point.x + h * sign for sign in signs))
        delta = direction(point, cond, ref)
        products = (sign * (state - cond) for sign, state in zip(signs, moved, strict=True))
        return cond, inverse / self.probes * sum(products) * delta, delta
