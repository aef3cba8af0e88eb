"""What some methods do to the guided estimate before the solver sees it.

An adjustment is a value: `adjustment(point, guided, cond) -> guided`, in denoised space. One that
only multiplies the guided prediction may say by how much: `prediction_gain(point, cond, ref,
before)`, (B,) or None; after plain CFG the fused step then does it.
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
from ..ops.formulas import per_sample
from ..solvers import Row, Table
from ..values import as_bool, as_float, as_int, store

__all__ = ["TAG", "Adjustment", "Clip", "GuidedChannels", "Rescale", "ZeroInit", "clips_of"]


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
            estimate. With x_s = a x + b denoised, that adds a alpha/b times what was clipped off.

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
        return self.clipped(guided, self.kept(point.row))

    def clipped(self, guided: Tensor, keep: float) -> Tensor:
        """Within the limit, plus `keep` times what was cut off."""
        within = guided.clamp(-self.limit, self.limit)
        return within + keep * (within - guided) if keep else within

    def kept(self, row: Row) -> float:
        """How much of what is cut off at a row the step takes with it, a alpha/b.

        Raises:
            InputError: keep_epsilon with a solver of several stages or with history.
        """
        if not self.keep_epsilon:
            return 0.0
        if len(row.b) > 1 or row.p or row.q != 1:
            raise InputError(
                "keep_epsilon", "is for solvers of one stage without history", "Use 'ddim'"
            )
        return row.a * row.alpha / row.b[0] if row.b[0] else 0.0


def clips_of(
    adjust: tuple[Adjustment, ...], table: Table, weights: tuple[float, ...]
) -> tuple[list[tuple[float, float]], tuple[Adjustment, ...]]:
    """(limit, keep) of every row, for the fused step, and the adjustments that this leaves.

    The solver's own clip holds at every row; one that is the last adjustment, where there is
    guidance.
    """
    last = adjust[-1] if adjust else None
    if table.clip is not None:
        clip, guided = Clip(table.clip, table.keep_epsilon), [True] * len(table.rows)
    elif isinstance(last, Clip):
        clip, guided, adjust = last, [w != 0 for w in weights], adjust[:-1]
    else:
        return [(math.inf, 0.0)] * len(table.rows), adjust
    pairs = zip(table.rows, guided, strict=True)
    return [(clip.limit, clip.kept(row)) if yes else (math.inf, 0.0) for row, yes in pairs], adjust


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
        factor = self._factor(gram).to(guided.dtype)
        return point.from_prediction(per_sample(factor, guided) * prediction)

    def prediction_gain(
        self, point: Point, cond: Tensor, ref: Tensor, before: Tensor | None
    ) -> Tensor:
        """(B,) the factor for before (cond + w (cond - ref)), predictions: one pass over both."""
        gram = ops.reduce(cond, ref, backend=point.backend)
        # Gram of (1, guided, cond): both are combinations of cond and ref.
        change = gram.new_zeros(len(gram), 3, 3)
        scale, w = 1.0 if before is None else before.to(gram), point.w.to(gram)
        change[:, 0, 0] = change[:, 2, 1] = 1
        change[:, 1, 1], change[:, 1, 2] = scale * (1 + w), -scale * w
        factor = self._factor(change @ gram @ change.mT).to(point.x.dtype)
        return factor if before is None else before * factor

    def _factor(self, gram: Tensor) -> Tensor:
        """From the Gram matrix of (1, guided, cond), both as predictions."""
        # n^2 times the variances: the quotient needs no more
        squares = gram[:, 0, 0, None] * gram.diagonal(0, 1, 2)[:, 1:]
        spread = (squares - gram[:, 0, 1:].square()).clamp_min(0)
        flat = spread[:, 0] <= 8 * torch.finfo(gram.dtype).eps * squares[:, 0]
        # a flat prediction (after ZeroInit, say) has no deviation to stretch
        ratio = torch.where(flat, 1.0, (spread[:, 1] / spread[:, 0]).sqrt())
        return self.share * ratio + (1 - self.share)


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

    def prediction_gain(
        self, point: Point, cond: Tensor, ref: Tensor, before: Tensor | None
    ) -> Tensor | None:
        """(B,) zeros in the first evaluations, then what was there before."""
        return before if point.index >= self.evaluations else point.x.new_zeros(len(point.x))


@dataclass(frozen=True)
class TAG:
    """Tangential amplifying guidance (Cho et al., arXiv 2510.04533, Eq. 7): what of the guided
    estimate is orthogonal to x_t is multiplied.

    For a solver of one stage it is the paper's step, whose part along x_t stays as it is.

    Args:
        amplify: eta >= 0, 1 = nothing changes; the paper's table for EDM2 has 1.3.
    """

    amplify: float

    def __post_init__(self) -> None:
        remedy = "Give a finite number >= 0, such as 1.3; 1 changes nothing"
        amplify = as_float("amplify", self.amplify, remedy, lambda v: 0 <= v < math.inf)
        store(self, amplify=amplify)

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        gram = ops.reduce(guided, point.x, backend=point.backend)
        share = gram[:, 1, 2] / gram[:, 2, 2].clamp_min(torch.finfo(gram.dtype).tiny)
        along = per_sample(share.to(guided.dtype), guided) * point.x
        return along + self.amplify * (guided - along)


@dataclass(frozen=True)
class GuidedChannels:
    """Guidance of the first channels alone; the others stay as cond predicts them.

    Args:
        count: channels >= 1 that are guided: 3 of DiT's and SiT's 4, in their released samplers.

    Raises:
        InputError: a bad count; in a call, more channels than a sample has.
    """

    count: int = 3

    def __post_init__(self) -> None:
        store(self, count=as_int("count", self.count))

    def __call__(self, point: Point, guided: Tensor, cond: Tensor) -> Tensor:
        if self.count > cond.shape[1]:
            remedy = f"Give at most {cond.shape[1]}"
            raise InputError("count", f"is {self.count} of {cond.shape[1]} channels", remedy)
        return torch.cat([guided[:, : self.count], cond[:, self.count :]], 1)
