"""Forward mode: K times tangents in the pass that gives the predictions (../forward/)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import choice
from ..forward import passed, rows_of, scale_for, stack
from ..networks.conditioning import Cond, concat
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample
from ..profiling import ranges
from ..values import as_bool, as_int, store
from .difference import lengths
from .lag import lag_of, rectified_from_lag
from .precision import precision_of

__all__ = ["JVP", "DiagonalJVP", "product", "products", "stacked"]

ALONG = ("lag", "delta", "ones")


@dataclass(frozen=True)
class JVP:
    """`jvp`: K delta by one pass of stacked rows [ref; cond; tangent].

    Args:
        along: "lag" takes the product along the previous delta, which is known before cond is, and
            corrects it (rectifiers/lag.py): 3 evaluations in one pass. "delta" takes it along delta
            itself, in a second pass of [cond; tangent] (4 evaluations). "ones" takes K 1, the sums
            of K's rows, and multiplies delta by it: the twin of `paper`, which has the sums of K's
            columns.
        apart: True evaluates the reference in a pass of its own: two passes of 2 and 1 rows a
            sample, in CFG's memory, instead of one of 3.
    """

    along: str = "lag"
    apart: bool = False
    name = "jvp"

    def __post_init__(self) -> None:
        store(self, along=choice("along", self.along, ALONG), apart=as_bool("apart", self.apart))

    @property
    def lagged(self) -> bool:
        """Whether the previous delta is kept for it."""
        return self.along == "lag"

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        if self.along == "ones":
            ref, cond, sums = self._one(point, torch.ones_like(point.x))
            delta = direction(point, cond, ref)
            return cond, sums * delta, delta
        lag = lag_of(point) if self.along == "lag" else None
        if lag is None:
            ref, cond = point.stack(point.x)
            delta = direction(point, cond, ref)
            return cond, product(point, delta)[1], delta
        ref, cond, k_lag = self._one(point, lag)
        delta = direction(point, cond, ref)
        rectified = rectified_from_lag(point, delta, lag, k_lag, lambda d: product(point, d)[1])
        return cond, rectified, delta

    def _one(self, point: Point, tangent: Tensor) -> tuple[Any, Tensor, Tensor]:
        """(ref, cond, K tangent)."""
        if self.apart:
            cond, found = product(point, tangent)
            return point.ref(cond), cond, found
        ref, cond, (found,) = products(point, tangent)
        return ref, cond, found


@dataclass(frozen=True)
class DiagonalJVP:
    """`diagonal_jvp`: diag(K) * delta by Hutchinson's estimate mean_i z_i * (K z_i), z_i = +-1, the
    probes being tangents of one pass [ref; cond; z_1; ...].

    Args:
        probes: number n >= 1 of tangents a sample; each sample has its own, from its seed.
    """

    probes: int = 1
    name = "diagonal_jvp"
    lagged = False

    def __post_init__(self) -> None:
        store(self, probes=as_int("probes", self.probes))

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        assert point.probes is not None
        signs = [point.probes.signs(point.x) for _ in range(self.probes)]
        ref, cond, found = products(point, *signs)
        delta = direction(point, cond, ref)
        total = sum(sign * k for sign, k in zip(signs, found, strict=True))
        return cond, total / self.probes * delta, delta


def products(point: Point, *tangents: Tensor) -> tuple[Any, Tensor, list[Tensor]]:
    """(ref, cond, K times each tangent) from one pass; a row of each is one evaluation.

    Raises:
        EstimatorError: an op mixes rows, or its tangent is lost; op and module are named.
        torch.OutOfMemoryError: as PyTorch raised it.
    """
    nulls = point.nulls()
    states, conds = [point.x] * (len(nulls) + 1), [*nulls, point.cond]
    with ranges.cond_ref() if nulls else ranges.cond():
        (*own, cond), found = stacked(point, states, conds, tangents)
    return point.gathered(own, cond), cond, found


def product(point: Point, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """(cond, K tangent) from one pass [cond; tangent], counted as two evaluations; raises as
    `products`."""
    with ranges.cond():
        (cond,), (found,) = stacked(point, [point.x], [point.cond], (tangent,))
    return cond, found


def stacked(
    point: Point,
    states: Sequence[Tensor],
    conds: Sequence[Cond],
    tangents: Sequence[Tensor],
    rows_of_cond: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The network's denoised at each of the states, and K times tangents at the last of them, from
    one pass; raises as `products`. `rows_of_cond`: cond's at x_t; None = those of the last state.
    """
    denoiser, place, last = point.denoiser, point.place(point.denoiser), point.at(states[-1])
    scale = scale_for(precision_of(denoiser, point.x))
    sizes = [lengths(last, tangent, scale) for tangent in tangents]
    steps = [per_sample(h, t) * t for t, (h, _) in zip(tangents, sizes, strict=True)]
    inputs = [denoiser.scaled(x, place) for x in states]
    moving = [(place.c_in * step).to(inputs[-1].dtype) for step in steps]
    rows = stack(inputs, moving)
    told = concat([*conds, *[conds[-1]] * len(tangents)])
    point.counter.forward += len(rows)
    (output, beside), met = passed(lambda: denoiser.answer(rows, place, told))
    point.counter.fallbacks.update(met)
    if beside is not None:
        block = len(states) - 1 if rows_of_cond is None else rows_of_cond
        point.heard.keep(rows_of(beside, rows), block, len(point.x))
    *outs, out_t = rows_of(output, rows).split([*map(len, states), sum(map(len, tangents))])
    primals = [point.estimate(denoiser, x, out, place) for x, out in zip(states, outs, strict=True)]
    found = [  # the view of a network is linear in both
        per_sample(inverse, step) * denoiser.denoised(step, out, place)
        for step, (_, inverse), out in zip(steps, sizes, out_t.chunk(len(tangents)), strict=True)
    ]
    return primals, found
