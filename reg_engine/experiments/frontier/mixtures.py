"""The mixtures that methods are compared on: in one dimension with much overlap, in the plane along
the axes and turned, in eight and in sixteen dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ...oracles import GaussianMixture, two_class_2d

__all__ = ["MIXTURES", "overlapping_1d", "scattered", "turned"]


def overlapping_1d() -> GaussianMixture:
    """Two classes of two Gaussians each on a line, deviation 0.3, that lie between each other."""
    means = torch.tensor([[-0.7], [0.3], [-0.2], [0.8]], dtype=torch.float64)
    return GaussianMixture(means, 0.3, labels=torch.tensor([0, 0, 1, 1]))


def turned(mixture: GaussianMixture, degrees: float) -> GaussianMixture:
    """A mixture of the plane whose components are round, turned about the origin."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    deviations = mixture.variances[:, 0].sqrt()
    labels = mixture.log_weights[: mixture.num_classes].isfinite().int().argmax(0)
    return GaussianMixture(mixture.means @ turn, deviations, labels=labels)


def scattered(
    dim: int, classes: int, modes: int, shift: float, spread: float, deviation: float, seed: int
) -> GaussianMixture:
    """Round Gaussians at random places: `modes` for each class around its centre.

    Args:
        shift: distance of a class's centre from the origin.
        spread: of the modes around it, in the norm of a standard normal in three dimensions.
        deviation: mean of the components' own, which differ by up to 30 %.
    """
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 1, dim, generator=g)
    centres = centres - centres.mean(0)
    centres = shift * centres / centres.norm(dim=-1, keepdim=True)
    places = spread * math.sqrt(3 / dim) * torch.randn(classes, modes, dim, generator=g)
    sizes = deviation * (0.7 + 0.6 * torch.rand(classes * modes, generator=g))
    means = (centres + places).reshape(-1, dim).double()
    labels = torch.arange(classes).repeat_interleave(modes)
    return GaussianMixture(means, sizes.double(), labels=labels)


MIXTURES: dict[str, Callable[[], GaussianMixture]] = {
    "1-D": overlapping_1d,
    "2-D": two_class_2d,
    "2-D turned": lambda: turned(two_class_2d(), 45.0),
    "8-D": lambda: scattered(8, 2, 6, shift=0.35, spread=0.55, deviation=0.3, seed=1),
    "16-D": lambda: scattered(16, 3, 4, shift=0.3, spread=0.7, deviation=0.35, seed=3),
}
