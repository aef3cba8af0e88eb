"""Mixtures and points that the tests of the oracles share."""

from __future__ import annotations

import torch
from torch import Tensor

from reg_engine.oracles import GaussianMixture

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(dim: int = 2) -> GaussianMixture:
    """Five components with full covariances and unequal weights, in three classes."""
    g = generator(3)
    means = torch.randn(5, dim, dtype=F64, generator=g)
    factors = 0.4 * torch.randn(5, dim, dim, dtype=F64, generator=g)
    covariance = factors @ factors.mT + 0.02 * torch.eye(dim, dtype=F64)
    weights = torch.tensor([1.0, 2.0, 3.0, 1.5, 0.5])
    return GaussianMixture(means, covariance, weights, torch.tensor([0, 1, 1, 2, 0]))


def noisy(mixture: GaussianMixture, alpha: float, sigma: float, count: int = 12) -> Tensor:
    g = generator(1)
    x = mixture.sample(count, generator=g)
    return alpha * x + sigma * torch.randn(x.shape, dtype=F64, generator=g)


def labels(mixture: GaussianMixture, count: int = 12) -> Tensor:
    """Every label and the null label, different in every row."""
    return torch.arange(count) % (mixture.num_classes + 1)


def embedded(m: GaussianMixture) -> GaussianMixture:
    """`m` in one dimension more, which is the same N(0.3, 0.5^2) for everyone and independent."""
    means = torch.cat([m.means, torch.full((len(m.means), 1), 0.3, dtype=F64)], 1)
    covariance = torch.zeros(len(means), m.dim + 1, m.dim + 1, dtype=F64)
    covariance[:, :-1, :-1] = m.basis @ torch.diag_embed(m.variances) @ m.basis.mT
    covariance[:, -1, -1] = 0.25
    own = m.log_weights[0].isfinite()

    def part(keep: Tensor, row: int, reference: GaussianMixture | None = None) -> GaussianMixture:
        weights = m.log_weights[row].exp()[keep]
        return GaussianMixture(means[keep], covariance[keep], weights, reference=reference)

    if m.own_reference:
        return GaussianMixture(means, covariance, m.log_weights[-1].exp(), torch.arange(8) // 4)
    return part(own, 0, part(~own, 1))
