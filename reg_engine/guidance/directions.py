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
from ..errors import InputError
from ..networks.answers import as_state
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample, widest
from ..values import as_float, as_int, as_tuple, shown, store

__all__ = ["APG", "APGMix", "DIRECTIONS", "TCFG", "CFGZeroStar", "Delta"]


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
        norm_dim: dimensions of the batch that norms and products are taken over, without 0; None =
            all of a sample. (-2, -1) treats every channel of an image on its own.
    """

    momentum: float = -0.5
    radius: float = math.inf
    parallel: float = 0.0
    norm_dim: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        remedy = "Give a number between -1 and 1"
        momentum = as_float("momentum", self.momentum, remedy, lambda v: -1 < v < 1)
        remedy = "Give a positive norm, inf = no limit"
        radius = as_float("radius", self.radius, remedy, lambda v: v > 0)
        remedy = "Give a share >= 0, usually in [0, 1]"
        parallel = as_float("parallel", self.parallel, remedy, lambda v: 0 <= v < math.inf)
        store(self, momentum=momentum, radius=radius, parallel=parallel)
        if self.norm_dim is not None:
            store(self, norm_dim=_as_dims(self.norm_dim))

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        delta = cond - ref
        if self.momentum and (running := point.memory.get("apg")) is not None:
            delta = delta + self.momentum * running
        point.memory["apg"] = delta
        if self.norm_dim is not None:
            return self._split(delta, cond, self.norm_dim)
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

    def _split(self, delta: Tensor, cond: Tensor, dims: int | tuple[int, ...]) -> Tensor:
        """The same with norms and products over some dimensions."""
        dims = (dims,) if isinstance(dims, int) else dims
        places = {dim % delta.dim() for dim in dims if -delta.dim() < dim < delta.dim()}
        if len(places) < len(dims):
            problem = f"is {shown(self.norm_dim)} for batches of {delta.dim()} dimensions"
            raise InputError("norm_dim", problem, "Name dimensions once, and not the batch's own")
        wide = widest(delta.device)
        d, c, over = delta.to(wide), cond.to(wide), tuple(places)
        if math.isfinite(self.radius):
            d = d * (self.radius / d.square().sum(over, True).sqrt().clamp_min(self.radius))
        share = (d * c).sum(over, True) / c.square().sum(over, True).clamp_min(
            torch.finfo(wide).tiny
        )
        return (d + (self.parallel - 1) * share * c).to(delta.dtype)


def _as_dims(value: object) -> int | tuple[int, ...]:
    """Numbers of dimensions, none of them 0, else InputError."""
    remedy = "Give dimensions of the batch such as (-2, -1), without 0"
    many = as_tuple("norm_dim", value, remedy) if isinstance(value, list | tuple) else (value,)
    dims = tuple(as_int("norm_dim", dim, -(2**31), remedy) for dim in many)
    if not dims or 0 in dims:
        raise InputError("norm_dim", f"is {shown(value)}", remedy)
    return dims if isinstance(value, list | tuple) else dims[0]


@dataclass(frozen=True)
class APGMix:
    """CFG in the first evaluations, then APG, each at its own scale: as HunyuanImage 2.1 samples.

    It brings its scales along: with w = 1 (scale 2, the default of Guidance) they are what stands
    here, and another w multiplies both scale - 1.

    Args:
        scales: guidance scales >= 0 of the two, counted from 1 as everywhere. (diffusers adds its
            scale to `cond` or `ref`, as it is told: with the former it counts from 0.)
        first, then: the directions.
        after: evaluations that belong to `first`, >= 0. `then` is asked from the beginning, so
            that its running mean is that of the whole way.
    """

    scales: tuple[float, float] = (3.5, 10.0)
    first: Direction = Delta()
    then: Direction = APG(momentum=-0.5, radius=10.0, parallel=0.0)
    after: int = 6

    def __post_init__(self) -> None:
        remedy = "Give two scales >= 0, such as (3.5, 10)"
        scales = as_tuple("scales", self.scales, remedy)
        if len(scales) != 2:
            raise InputError("scales", f"are {shown(self.scales)}", remedy)
        finite = (as_float("scales", v, remedy, lambda v: 0 <= v < math.inf) for v in scales)
        store(self, scales=tuple(finite), after=as_int("after", self.after, 0))
        for name in ("first", "then"):
            if not callable(getattr(self, name)) or isinstance(getattr(self, name), type):
                got = f"is {shown(getattr(self, name))}"
                raise InputError(name, got, "Give a direction, such as Delta() or APG()")

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        early, late = (
            (scale - 1) * as_state("direction", direction(point, cond, ref), cond)
            for scale, direction in zip(self.scales, (self.first, self.then), strict=True)
        )
        begun = point.number < self.after
        if isinstance(begun, Tensor):  # a graph serves every row
            return torch.where(begun, early, late)
        return early if begun else late


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


DIRECTIONS = {
    "cfg": Delta,
    "apg": APG,
    "apg_mix": APGMix,
    "cfg_zero_star": CFGZeroStar,
    "tcfg": TCFG,
}
