"""What some methods do to the guided estimate before the solver sees it.

An adjustment is a value: `adjustment(point, guided, cond) -> guided`, in denoised space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import ops
from ..errors import InputError
from ..networks.point import Point
from ..ops.coefficients import COLUMNS, FIRST_B
from ..ops.formulas import per_sample
from ..values import as_bool, as_float, as_int, store

__all__ = ["Adjustment", "Clip", "Rescale", "ZeroInit"]


class Adjustment(Protocol):
    """Anything that corrects the guided denoised at a point."""

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        """The corrected guided denoised, (B, *sample_shape)."""
        ...


@dataclass(frozen=True)
class Clip:
    """The guided denoised clipped to [-limit, limit] (`clip_sample`, `clip_denoised`).

    As a solver's option, `solver_options={"clip": 1.0}`, it holds at every evaluation; as an
    adjustment of Guidance where there is guidance.

    Args:
        limit: of the data, > 0.
        keep_epsilon: step on with epsilon of the unclipped estimate, alpha_s clipped + sigma
            epsilon, as DDIMScheduler does; otherwise with the one that belongs to the clipped
            estimate. With x_s = a x + b denoised, that adds alpha_s/b times what was clipped off.

    Raises:
        InputError: a bad limit, or keep_epsilon with a solver of several stages.
    """

    limit: float = 1.0
    keep_epsilon: bool = False

    def __post_init__(self) -> None:
        remedy = "Give a positive number"
        limit = as_float("limit", self.limit, remedy, lambda v: 0 < v < math.inf)
        store(self, limit=limit, keep_epsilon=as_bool("keep_epsilon", self.keep_epsilon))

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        clipped = guided.clamp(-self.limit, self.limit)
        if not self.keep_epsilon:
            return clipped
        if point.table is None or point.step is None or point.table.shape[1] > FIRST_B + 1:
            raise InputError(
                "keep_epsilon", "is for solvers of one stage without history", "Use 'ddim'"
            )
        row = point.table.index_select(0, point.step.reshape(1))[0]
        a, alpha, b = row[COLUMNS.index("a")], row[COLUMNS.index("alpha")], row[FIRST_B]
        return guided + (b + a * alpha) / b * (clipped - guided)


@dataclass(frozen=True)
class Rescale:
    """Guidance rescale (Lin et al., arXiv 2305.08891, Eqs. 15-16), on the network's own prediction.

    The guided prediction is scaled to the standard deviation of cond's (one number a sample), and
    mixed with the unscaled one by `share` in [0, 1].
    """

    share: float = 0.7

    def __post_init__(self) -> None:
        remedy = "Give a number in [0, 1]; 0.7 is published"
        store(self, share=as_float("share", self.share, remedy, lambda v: 0 <= v <= 1))

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        prediction = point.to_prediction(guided)
        gram = ops.reduce(prediction, point.to_prediction(cond), backend=point.backend)
        # n^2 times the variances: the quotient needs no more
        squares = gram[:, 0, 0, None] * gram.diagonal(0, 1, 2)[:, 1:]
        spread = (squares - gram[:, 0, 1:].square()).clamp_min(0)
        flat = spread[:, 0] <= 8 * torch.finfo(gram.dtype).eps * squares[:, 0]
        # a flat prediction (after ZeroInit, say) has no deviation to stretch
        ratio = torch.where(flat, 1.0, (spread[:, 1] / spread[:, 0]).sqrt())
        factor = (self.share * ratio + (1 - self.share)).to(guided.dtype)
        return point.from_prediction(per_sample(factor, guided) * prediction)


@dataclass(frozen=True)
class ZeroInit:
    """Zero-init of CFG-Zero* (arXiv 2503.18886): a zero prediction in the first `evaluations`."""

    evaluations: int = 1

    def __post_init__(self) -> None:
        store(self, evaluations=as_int("evaluations", self.evaluations, 0))

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        if point.index >= self.evaluations:
            return guided
        return point.from_prediction(torch.zeros_like(guided))
