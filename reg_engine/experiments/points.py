"""Guidance at given points of one noise level, by the engine's own code."""

from __future__ import annotations

import torch
from torch import Tensor

from ..guidance.directions import Delta
from ..networks.denoisers import Denoiser
from ..networks.frozen import frozen
from ..networks.point import Point, Reference
from ..noise import SampleNoise
from ..rectifiers import Rectifier
from ..solvers import Row

__all__ = ["guidance_terms"]


def guidance_terms(
    denoiser: Denoiser,
    reference: Reference,
    row: Row,
    index: int,
    x: Tensor,
    labels: Tensor,
    rectifier: Rectifier,
) -> tuple[Tensor, Tensor]:
    """(delta, K^T delta) in units of grad log for w = 1, each as x (G, dim), at row `index`.

    The points have no past: estimators that use the previous step's direction (`jvp`, `fd_batched`)
    take the exact one in a second pass. A `diagonal` draws one probe a point, always the same.
    """
    probes = SampleNoise(range(len(x)), "probes")
    point = Point(x, row, index, denoiser, reference, labels, {}, probes=probes)
    with torch.no_grad(), frozen((*denoiser.modules, *reference.modules)):
        _, rectified, delta = rectifier(point, Delta())
    unit = row.alpha / row.sigma**2  # score = (alpha denoised - x) / sigma^2
    return unit * delta, unit * rectified
