"""Guidance directions: what is added to `cond`, weighted and rectified. `Delta` is CFG itself.

A direction is a value: `direction(point, cond, ref) -> (B, *sample_shape)`, a difference of
denoised. Methods that are defined on the network's own prediction convert to it and back: at
fixed x_t a difference of predictions is the difference of denoised times a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..networks.point import Point
from ..ops.formulas import per_sample
from ..values import as_float, store

__all__ = ["APG", "DIRECTIONS", "TCFG", "CFGZeroStar", "Delta"]


@dataclass(frozen=True)
class Delta:
    """cond - ref: classifier-free guidance (Ho & Salimans, arXiv 2207.12598)."""

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        return cond - ref


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance (Sadat et al., arXiv 2410.02416), in denoised space as published.

    Args:
        momentum: beta of the running mean over evaluations, in (-1, 1); negative pushes away from
            it.
        radius: largest norm of the direction, > 0; inf = not limited.
        parallel: share eta of the part along cond that is kept, >= 0; 1 with the rest neutral is
            CFG.
    """

    momentum: float = -0.5
    radius: float = math.inf
    parallel: float = 0.0

    def __post_init__(self) -> None:
        remedy = "Give a number between -1 and 1"
        momentum = as_float("momentum", self.momentum, remedy, lambda v: -1 < v < 1)
        remedy = "Give a positive norm, inf = no limit"
        radius = as_float("radius", self.radius, remedy, lambda v: v > 0)
        remedy = "Give a share >= 0, usually in [0, 1]"
        parallel = as_float("parallel", self.parallel, remedy, lambda v: 0 <= v < math.inf)
        store(self, momentum=momentum, radius=radius, parallel=parallel)

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        delta = cond - ref
        if self.momentum and (running := point.memory.get("apg")) is not None:
            delta = delta + self.momentum * running
        point.memory["apg"] = delta
        gram = ops.reduce(delta, cond, backend=point.backend)
        shrink = torch.ones_like(gram[:, 0, 0])
        if math.isfinite(self.radius):
            shrink = self.radius / gram[:, 1, 1].sqrt().clamp_min(self.radius)
        # Projections lose digits where cond and delta are nearly parallel: float64, as the
        # paper's code, where there is one.
        d, c = per_sample(shrink, delta) * delta.to(gram.dtype), cond.to(gram.dtype)
        share = shrink * gram[:, 1, 2] / gram[:, 2, 2].clamp_min(torch.finfo(c.dtype).tiny)
        along = per_sample(share, c) * c
        return (d - along + self.parallel * along).to(delta.dtype)


@dataclass(frozen=True)
class CFGZeroStar:
    """CFG-Zero* (Fan et al., arXiv 2503.18886): the reference scaled to fit cond, s = <c,u>/<u,u>.

    On the network's own prediction (the velocity of flow models, for which it was made). The
    paper's second part, no motion in the first steps, is the adjustment `ZeroInit`.
    """

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        c, u = point.to_prediction(cond), point.to_prediction(ref)
        gram = ops.reduce(c, u, backend=point.backend)
        fit = gram[:, 1, 2] / gram[:, 2, 2].clamp_min(torch.finfo(u.dtype).tiny)
        return point.delta_from_prediction(c - per_sample(fit.to(u.dtype), u) * u)


@dataclass(frozen=True)
class TCFG:
    """Tangential damping (Kwon et al., arXiv 2503.18137): ref projected on the main direction of
    [c; u].

    The first right singular vector of the 2 x n matrix [cond; ref] (network's own prediction) is
    kept, the second is dropped from ref. The 2 x 2 Gram matrix has the same singular vectors and
    costs three dots.
    """

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        c, u = point.to_prediction(cond), point.to_prediction(ref)
        gram = ops.reduce(c, u, backend=point.backend)[:, 1:, 1:]
        # The eigenvector (cos a, sin a) of the larger eigenvalue in closed form: a solver's would
        # wait for the device.
        angle = torch.atan2(2 * gram[:, 0, 1], gram[:, 0, 0] - gram[:, 1, 1]) / 2
        main = (angle.cos(), angle.sin())
        # first = main_0 c + main_1 u: the first right singular vector times its singular value, so
        # <u, first> / <first, first> = main_1 and u keeps main_1 first.
        kept = sum(
            per_sample(main[1] * share, c) * v.to(gram.dtype)
            for share, v in zip(main, (c, u), strict=True)
        )
        return point.delta_from_prediction((c - kept).to(cond.dtype))


DIRECTIONS = {"cfg": Delta, "apg": APG, "cfg_zero_star": CFGZeroStar, "tcfg": TCFG}
