"""Gaussian mixtures with classes: every quantity of a diffusion model in closed form.

x_t = alpha x_0 + sigma eps with x_0 of component k, N(m_k, U_k diag(l_k) U_k^T). In the component's
own axes, z = U^T (x_t - alpha m), x_t has the variances v = alpha^2 l + sigma^2, so one
eigendecomposition serves all noise levels:

    score_k    = -U (z / v)
    denoised_k = m + U (alpha l / v) z
    Cov_k[x_0] = U diag(l sigma^2 / v) U^T
    K          = sum_k r_k U diag(alpha^2 l / v) U^T + sigma^2 Cov_r[score_k]

with r_k the posterior weights. That form of K divides by neither sigma nor alpha: it holds at both
ends.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..values import as_int
from .checks import (
    Labels,
    check_level,
    check_points,
    component_labels,
    component_weights,
    eigen,
    label_rows,
)

__all__ = ["ClosedForms", "Posterior", "draw"]


class Posterior(NamedTuple):
    """p(x_0 | x_t, y), itself a Gaussian mixture."""

    log_weights: Tensor  # (B, M); -inf for components of other classes
    means: Tensor  # (B, M, d)
    covariances: Tensor  # (B, M, d, d)


class ClosedForms:
    """What GaussianMixture knows without guidance; documented there."""

    means: Tensor  # (M, d), with the reference's components where it is another mixture
    variances: Tensor  # (M, d): eigenvalues of the covariances
    basis: Tensor  # (M, d, d): their eigenvectors, in columns
    log_weights: Tensor  # (num_classes + 1, M): log p(component | y), the last row the null label
    log_prior: Tensor  # (num_classes,): log p(y)

    def __init__(
        self,
        means: Tensor,
        covariance: float | Tensor,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
        reference: ClosedForms | None = None,
    ) -> None:
        means = torch.as_tensor(means, dtype=torch.float64)
        if means.dim() != 2 or 0 in means.shape or not bool(means.isfinite().all()):
            raise InputError("means", f"has shape {tuple(means.shape)}", "Give finite means (M, d)")
        count, self.dim = means.shape
        variances, basis = eigen(covariance, count, self.dim)
        weights = component_weights(weights, count)
        labels = component_labels(labels, count)
        self.num_classes = int(labels.max()) + 1
        member = labels == torch.arange(self.num_classes)[:, None]
        prior = (member * weights).sum(-1)
        table = torch.cat([member * weights / prior[:, None], weights[None]])
        self.own_reference = reference is None
        if reference is not None:
            if reference.dim != self.dim:
                raise InputError(
                    "reference", f"has {reference.dim} dimensions, not {self.dim}", "Use one space"
                )
            # More components, which belong to the null label alone.
            means = torch.cat([means, reference.means])
            variances = torch.cat([variances, reference.variances])
            basis = torch.cat([basis, reference.basis])
            table[-1] = 0
            table = torch.block_diag(table[:-1], reference.log_weights[-1:].exp())
        self.means, self.variances, self.basis = means, variances, basis
        self.log_weights = table.log()
        self.log_prior = prior.log()
        self._axes = basis.permute(1, 0, 2).reshape(self.dim, -1)  # (d, M d): all z in one product
        self._centres = (means[:, None] @ basis)[:, 0]  # (M, d): the means in those axes

    def log_prob(
        self,
        x_t: Tensor,
        alpha: float | Tensor = 1.0,
        sigma: float | Tensor = 0.0,
        y: Labels = None,
    ) -> Tensor:
        """log p(x_t | y), (B,); the defaults give the density of clean data."""
        rows = self._checked(x_t, alpha, sigma, y)
        return self._log_joint(x_t, alpha, sigma, rows).logsumexp(-1)

    def log_ratio(
        self,
        x_t: Tensor,
        alpha: float | Tensor = 1.0,
        sigma: float | Tensor = 0.0,
        y: Labels = 0,
    ) -> Tensor:
        """log p(x_t | y) / p_ref(x_t), (B,): log R_t of guidance of weight 1 (REG, Eq. 9)."""
        return self.log_prob(x_t, alpha, sigma, y) - self.log_prob(x_t, alpha, sigma)

    def class_posterior(self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """log p(y | x_t), (B, num_classes), under the mixture's own class weights."""
        self._checked(x_t, alpha, sigma, None)
        _, _, log_components = self._components(x_t, alpha, sigma)
        by_class = log_components[:, None] + self.log_weights[:-1].to(x_t)
        return (by_class.logsumexp(-1) + self.log_prior.to(x_t)).log_softmax(-1)

    def posterior(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels = None
    ) -> Posterior:
        """The components of p(x_0 | x_t, y)."""
        rows = self._checked(x_t, alpha, sigma, y)
        alpha, sigma = _column(alpha, x_t), _column(sigma, x_t)
        z, v, log_components = self._components(x_t, alpha, sigma)
        variances, basis = self.variances.to(x_t), self.basis.to(x_t)
        shift = (basis @ (alpha * variances / v * z)[..., None])[..., 0]
        covariances = (basis * (variances * sigma**2 / v)[..., None, :]) @ basis.mT
        return Posterior(
            (log_components + self.log_weights.to(x_t)[rows]).log_softmax(-1),
            self.means.to(x_t) + shift,
            covariances.expand(*z.shape, self.dim),
        )

    def denoised(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels = None
    ) -> Tensor:
        """E[x_0 | x_t, y], (B, d)."""
        return self._moments(x_t, alpha, sigma, self._checked(x_t, alpha, sigma, y))[0]

    def score(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels = None
    ) -> Tensor:
        """grad log p(x_t | y), (B, d)."""
        return self._moments(x_t, alpha, sigma, self._checked(x_t, alpha, sigma, y))[1]

    def covariance(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels = None
    ) -> Tensor:
        """Cov[x_0 | x_t, y], (B, d, d)."""
        log_weights, means, covariances = self.posterior(x_t, alpha, sigma, y)
        return _total_covariance(log_weights.exp(), means, covariances)

    def jacobian(
        self, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels = None
    ) -> Tensor:
        """K = alpha d denoised / d x_t = (alpha/sigma)^2 Cov[x_0 | x_t, y], (B, d, d) (Eq. 22)."""
        rows = self._checked(x_t, alpha, sigma, y)
        alpha, sigma = _column(alpha, x_t), _column(sigma, x_t)
        z, v, log_components = self._components(x_t, alpha, sigma)
        r = (log_components + self.log_weights.to(x_t)[rows]).softmax(-1)
        basis = self.basis.to(x_t)
        scores = -(basis @ (z / v)[..., None])[..., 0]
        within = (basis * (alpha**2 * self.variances.to(x_t) / v)[..., None, :]) @ basis.mT
        return _total_covariance(r, sigma * scores, within)

    def sample(
        self, count: int, y: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """`count` draws of p(x_0 | y), (count, d), float64."""
        count = as_int("count", count)
        row = int(label_rows(y, 1, self.num_classes, self.means.device)[0])
        factors = self.basis * self.variances.sqrt()[:, None, :]
        return draw(self.log_weights[row], self.means, factors, count, generator)

    def _checked(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, y: Labels
    ) -> Tensor:
        check_points(x, self.dim)
        check_level(alpha, sigma)
        return label_rows(y, x.shape[0], self.num_classes, x.device)

    def _components(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z (B, M, d), v (1 or B, M, d) and log p(x_t | component) (B, M)."""
        alpha, sigma = _column(alpha, x), _column(sigma, x)
        projected = (x @ self._axes.to(x)).unflatten(-1, (-1, self.dim))
        z = projected - alpha * self._centres.to(x)
        v = alpha**2 * self.variances.to(x) + sigma**2
        return z, v, -0.5 * (z * z / v + (2 * math.pi * v).log()).sum(-1)

    def _log_joint(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, rows: Tensor
    ) -> Tensor:
        return self._components(x, alpha, sigma)[2] + self.log_weights.to(x)[rows]

    def _moments(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t, y] and grad log p(x_t | y), each (B, d)."""
        z, v, log_components = self._components(x, alpha, sigma)
        r = (log_components + self.log_weights.to(x)[rows]).softmax(-1)
        weighted = r[..., None] * (z / v)
        axes = self._axes.to(x).mT
        shift = (_column(alpha, x) * self.variances.to(x) * weighted).flatten(1) @ axes
        return r @ self.means.to(x) + shift, -(weighted.flatten(1) @ axes)


def _column(value: float | Tensor, like: Tensor) -> Tensor:
    """A level as (1 or B, 1, 1); a level already in that form passes."""
    # The dtype is given at once: a Python float would pass through float32 first.
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)


def _total_covariance(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Covariance (B, d, d) of a mixture with weights (B, M) and means (B, M, d)."""
    centred = means - (weights[..., None] * means).sum(1, keepdim=True)
    between = (weights[..., None] * centred).mT @ centred
    return between + (weights[..., None, None] * covariances).sum(1)


def draw(
    log_weights: Tensor,
    means: Tensor,
    factors: Tensor,
    count: int,
    generator: torch.Generator | None,
) -> Tensor:
    """`count` draws (count, d) of a Gaussian mixture with covariances factor factor^T."""
    weights = (log_weights - log_weights.max()).exp()
    index = torch.multinomial(weights, count, replacement=True, generator=generator)
    unit = torch.randn(count, means.shape[1], dtype=torch.float64, generator=generator)
    return means[index] + (factors[index] @ unit[..., None])[..., 0]
