"""The lagged direction: K delta from K applied to the previous evaluation's delta, in one pass.

The tangent direction of a one-pass estimator must be known before cond is. The previous delta p
is; with a = <delta,p>/<p,p> and r = <Kp,p>/<p,p>, K delta ~ a K p + r (delta - a p) (design of
this engine; on the exact mixture it scores as the exact product does). Where there is no previous
delta, or it vanished, the exact product is taken in a second pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import ops
from ..networks.point import Point
from ..ops.formulas import per_sample

__all__ = ["lag_of", "rectified_from_lag"]


def lag_of(point: Point) -> Tensor | None:
    """The previous evaluation's delta, or None if there is none."""
    return point.memory.get("delta")


def rectified_from_lag(
    point: Point, delta: Tensor, lag: Tensor, k_lag: Tensor, exact: Callable[[Tensor], Tensor]
) -> Tensor:
    """The lagged product, with `exact(delta)` for the samples whose lag vanished (and only for
    those)."""
    gram = ops.reduce(delta, lag, k_lag, backend=point.backend)
    rectified = ops.lagged_product(gram, delta, lag, k_lag)
    vanished = (gram[:, 2, 2] == 0) & (gram[:, 1, 1] > 0)
    if point.any(vanished):
        rectified = torch.where(per_sample(vanished, delta), exact(delta), rectified)
    return rectified
