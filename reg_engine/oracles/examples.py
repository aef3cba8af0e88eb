"""The two mixtures that the tests and the experiments share."""

from __future__ import annotations

import torch

from .mixture import GaussianMixture

__all__ = ["one_d", "two_class_2d"]


def two_class_2d() -> GaussianMixture:
    """Two classes of four Gaussians each in the plane, deviation 0.18, all of equal weight.

    The classes touch at the origin (components 0.18 apart), where CFG leaves the target most.
    """
    first = torch.tensor([[-1.0, 0.0], [-0.6, 0.8], [-0.2, -0.6], [0.2, 0.2]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0.0], [0.6, -0.8], [0.2, 0.6], [0.35, 0.1]], dtype=torch.float64)
    return GaussianMixture(torch.cat([first, second]), 0.18, labels=torch.arange(8) // 4)


def one_d() -> GaussianMixture:
    """The paper's 1-D setting: one class, means 0.5 and 1.5 of deviation 0.25.

    The unconditional reference is a mixture of its own, means -2 and 0 of deviation 0.5, as in the
    networks that the authors shipped.
    """
    reference = GaussianMixture(torch.tensor([[-2.0], [0.0]], dtype=torch.float64), 0.5)
    means = torch.tensor([[0.5], [1.5]], dtype=torch.float64)
    return GaussianMixture(means, 0.25, reference=reference)
