"""Guidance by frequency: a scale of its own for each level of a Laplacian pyramid.

The pyramid is linear and adds up to the image again, so the differences of its levels are the
levels of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..networks.point import Point
from ..ops.formulas import per_sample, widest
from ..values import as_float, as_tuple, store

__all__ = ["FDG", "pyramid"]

KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt and Adelson's, as in OpenCV and kornia


@dataclass(frozen=True)
class FDG:
    """Frequency-decoupled guidance (Sadat et al., arXiv 2506.19713): sum_l (scale_l - 1) delta_l.

    delta_l is level l of the difference of the network's own predictions, in the Laplacian pyramid
    over the last two dimensions. It brings its scales along: with w = 1 (scale 2, the default of
    Guidance) they are what stands here, and another w multiplies every scale - 1.

    Args:
        scales: guidance scales >= 0, one a level, the finest first; their number is that of the
            levels. (10, 5) are the paper's for Stable Diffusion XL.
        parallel: share of the part along cond's level that is kept, >= 0; 1 keeps all.

    Raises:
        InputError: a bad number; samples that are no images, or too small for the levels.
    """

    scales: tuple[float, ...] = (10.0, 5.0)
    parallel: float = 1.0

    def __post_init__(self) -> None:
        remedy = "Give one scale >= 0 a level, the finest first, such as (10, 5)"
        scales = as_tuple("scales", self.scales, remedy)
        if not scales:
            raise InputError("scales", "are none", remedy)
        finite = (as_float("scales", v, remedy, lambda v: 0 <= v < math.inf) for v in scales)
        remedy = "Give a share >= 0, usually in [0, 1]"
        parallel = as_float("parallel", self.parallel, remedy, lambda v: 0 <= v < math.inf)
        store(self, scales=tuple(finite), parallel=parallel)

    def __call__(self, point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        levels = pyramid(point.delta_to_prediction(cond - ref), len(self.scales))
        if self.parallel != 1:
            own = pyramid(point.to_prediction(cond), len(self.scales))
            levels = [self._split(*pair) for pair in zip(levels, own, strict=True)]
        scaled = [(scale - 1) * one for scale, one in zip(self.scales, levels, strict=True)]
        whole = scaled.pop()
        while scaled:
            finer = scaled.pop()
            whole = finer + _grown(whole, finer)
        return point.delta_from_prediction(whole)

    def _split(self, delta: Tensor, cond: Tensor) -> Tensor:
        wide = widest(delta.device)
        d, c = delta.flatten(1).to(wide), cond.flatten(1).to(wide)
        share = (d * c).sum(1) / c.square().sum(1).clamp_min(torch.finfo(wide).tiny)
        return delta + per_sample(((self.parallel - 1) * share).to(delta.dtype), delta) * cond


def pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """The Laplacian pyramid, the finest level first; the last is the coarse image itself.

    Args:
        images: (B, ..., H, W).
        levels: >= 1.

    Raises:
        InputError: samples that are no images, or too small.
    """
    if images.dim() < 3:
        problem = f"FDG takes images, and samples are {tuple(images.shape[1:])}"
        raise InputError("direction", problem, "Use another direction")
    found: list[Tensor] = []
    for _ in range(levels - 1):
        if min(images.shape[-2:]) < 3:
            problem = (
                f"FDG has {levels} scales, and a level of {tuple(images.shape[-2:])} no finer one"
            )
            raise InputError("direction", problem, f"Give {len(found) + 1} scales at most")
        coarse = _shrunk(images)
        found.append(images - _grown(coarse, images))
        images = coarse
    return [*found, images]


def _shrunk(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return _resized(_blurred(images), (height // 2, width // 2))


def _grown(coarse: Tensor, like: Tensor) -> Tensor:
    return _blurred(_resized(coarse, tuple(like.shape[-2:])))


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    planes = images.reshape(-1, 1, *images.shape[-2:])
    return F.interpolate(planes, size, mode="bilinear").reshape(*images.shape[:-2], *size)


def _blurred(images: Tensor) -> Tensor:
    planes = F.pad(images.reshape(-1, 1, *images.shape[-2:]), (2, 2, 2, 2), "reflect")
    kernel = planes.new_ones(1, 1, 5, 5)
    for place, weight in enumerate(KERNEL):
        kernel[..., place, :] *= weight
        kernel[..., place] *= weight
    return F.conv2d(planes, kernel).reshape(images.shape)
