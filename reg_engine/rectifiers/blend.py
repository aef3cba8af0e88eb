"""Damping by two Rayleigh quotients: how much K shortens delta, and how much more the reference's
own K would.

On Gaussians of variances v_c and v_u the optimum is delta times k_c / (k_c + (1 + w)(k_u - k_c)),
k = v / (v + level^2). It assumes that one Gaussian is all there is, and guides too little where
the classes have several modes; K delta knows nothing of the reference, and guides too much at low
noise. Between the two stands (design of this engine)

    rectified = r_c / (1 + w (r_u - r_c)+) delta,    r = <K p, p> / <p, p>,

whose denominator is 1 wherever the reference is no wider than the condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample
from .difference import Difference
from .lag import lag_of

__all__ = ["Blend"]


@dataclass(frozen=True)
class Blend(Difference):
    """`blend`: r_c / (1 + w (r_u - r_c)+) delta, from [ref(x); cond(x); ref(x + h p); cond(x + h
    p)] in one batch, p the previous delta; 4 evaluations.

    r_c is the condition's Rayleigh quotient along p and r_u the reference's. A negative w counts
    as 0. Where there is no p, or it vanished, delta takes its place in a second batch of two.

    Args: rho: relative step, > 0; None = by what the network computes in (precision.py).
    """

    name = "blend"
    lagged = True
    follows_w = True

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        lag = lag_of(point)
        if lag is None:
            ref, cond = point.stack(point.x)
            delta = direction(point, cond, ref)
            return cond, self._factor_along(delta, point, cond, ref) * delta, delta
        h, inverse = self.lengths(point, lag)
        ref, cond, ref_ahead, cond_ahead = point.stack_pair(point.x + per_sample(h, lag) * lag)
        delta = direction(point, cond, ref)
        factor, size = self._factor(point, lag, inverse, cond_ahead - cond, ref_ahead - ref)
        vanished = (size == 0) & (ops.reduce(delta, backend=point.backend)[:, 1, 1] > 0)
        if point.any(vanished):
            exact = self._factor_along(delta, point, cond, ref)
            factor = torch.where(per_sample(vanished, delta), exact, factor)
        return cond, factor * delta, delta

    def _factor_along(self, delta: Tensor, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        """The factor with p = delta, by one more batch."""
        h, inverse = self.lengths(point, delta)
        moved = point.x + per_sample(h, delta) * delta
        ref_ahead, cond_ahead = point.at(moved).stack(moved)
        return self._factor(point, delta, inverse, cond_ahead - cond, ref_ahead - ref)[0]

    def _factor(
        self, point: Point, p: Tensor, inverse: Tensor, cond_gain: Tensor, ref_gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, 1, ..., 1) factor of delta, and <p, p> (B,)."""
        gram = ops.reduce(p, cond_gain, ref_gain, backend=point.backend)
        size = gram[:, 1, 1]
        scale = inverse.to(gram.dtype) / size.clamp_min(torch.finfo(p.dtype).tiny)
        r_c, r_u = scale * gram[:, 1, 2], scale * gram[:, 1, 3]
        w = point.w.to(gram.dtype).clamp_min(0)
        return per_sample((r_c / (1 + w * (r_u - r_c).clamp_min(0))).to(p.dtype), p), size
