"""Characteristic Guidance (Zheng & Lan, ICML 2024, arXiv 2312.07586): a fixed point in place of K.

The paper asks for a shift of the state, D_t, with D_t = sigma_t (eps_u(x_2) - eps_c(x_1)), x_1 =
x_t + w D_t and x_2 = x_t + (1 + w) D_t, and guides by (1 + w) eps_c(x_1) - w eps_u(x_2). With
eps = (x - alpha_t denoised) / sigma_t that is

    cond(x_t + w D_t) = ref(x_t + (1 + w) D_t),

and the guided estimate is their common value. It is exact where both distributions are Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.point import Direction, Point
from ..values import as_float, as_int, store

__all__ = ["Characteristic"]


@dataclass(frozen=True)
class Characteristic:
    """`characteristic`: guided = cond(x_t + w D_t), so that rectified = (guided - cond) / w.

    D_t = alpha_t p, and from p = 0 on p moves by `step` times direction(cond(x_1), ref(x_2)),
    `iterations` times, where a difference vanishes at the fixed point. One iteration of step 1 is
    `fd` with a difference of w. Costs 2 `iterations` + 1 evaluations. The iteration contracts where
    the Jacobians keep (1 + w) K_u - w K_c in (0, 2 / step); begun anew at every row, it does not
    inherit the shift of a higher noise level, which is longer by the square of the level.

    Args:
        iterations: >= 1.
        step: in (0, 1].
    """

    iterations: int = 2
    step: float = 0.5
    name = "characteristic"
    lagged = False
    follows_w = True

    def __post_init__(self) -> None:
        store(self, iterations=as_int("iterations", self.iterations))
        remedy = "Give a number in (0, 1], such as 0.5"
        store(self, step=as_float("step", self.step, remedy, lambda v: 0 < v <= 1))

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        x, w = point.x, point.w
        ref, cond = point.stack(x)
        delta = direction(point, cond, ref)
        p = self.step * delta
        for _ in range(self.iterations - 1):
            ahead = point.at(x + (1 + w) * point.alpha * p)
            ref, one = ahead.stack_elsewhere(x + w * point.alpha * p)
            p = p + self.step * direction(ahead, one, ref)
        guided = point.cond_at(x + w * point.alpha * p)
        least = math.sqrt(torch.finfo(x.dtype).tiny)  # a weight below it moves nothing
        return cond, (guided - cond) / torch.where(w.abs() > least, w, math.inf), delta
