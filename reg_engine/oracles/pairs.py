"""Products p_k^(1+w) p_j^(-w) of two components: the Gaussians that bound the tilted target.

With p_c = sum_k a_k p_k and p_ref = sum_j b_j p_j, convexity of u^(1+w) and p_ref >= b_j p_j give

    p_c^(1+w) / p_ref^w <= sum_k a_k b_j(k)^(-w) p_k^(1+w) p_j(k)^(-w)    for any choice j(k),

so the tilted target can be integrated if every component k of the class has one j whose precision
(1+w) P_k - w P_j is positive definite: always where the reference contains the class (j = k).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .closed import ClosedForms

__all__ = ["Pairs", "pairs"]


class Pairs(NamedTuple):
    """Products of components k and j (M, M): exp(-x^T precision x / 2 + linear^T x + constant)."""

    precision: Tensor  # (M, M, d, d)
    linear: Tensor  # (M, M, d)
    constant: Tensor  # (M, M)
    valid: Tensor  # (M, M): j is in the reference and the precision is positive definite

    def log_mass(self) -> Tensor:
        """Log of the integral of every product, (M, M); +inf where it does not exist."""
        dim = self.linear.shape[-1]
        safe = self.safe_precision()
        solved = torch.linalg.solve(safe, self.linear[..., None])[..., 0]
        exponent = 0.5 * (self.linear * solved).sum(-1) + self.constant
        mass = exponent + 0.5 * (dim * math.log(2 * math.pi) - torch.logdet(safe))
        return mass.where(self.valid, torch.inf)

    def safe_precision(self) -> Tensor:
        """The precisions, with the identity where they are not positive definite."""
        identity = torch.eye(self.linear.shape[-1], dtype=self.linear.dtype)
        return self.precision.where(self.valid[..., None, None], identity)


def pairs(mixture: ClosedForms, w: float, rows: Tensor, snr: float = 0.0) -> Pairs:
    """All products of the mixture's components, times the kernel exp(-snr |x|^2 / 2).

    Args:
        rows: labels that must be covered.
        snr: (alpha/sigma)^2 of the kernel p(x_t | x_0); 0 for the clean target.

    Raises:
        InputError: a class among `rows` has a component without a valid partner.
    """
    inverse = 1 / mixture.variances
    precision = (mixture.basis * inverse[:, None, :]) @ mixture.basis.mT
    linear = (precision @ mixture.means[..., None])[..., 0]
    log_norm = -0.5 * (2 * math.pi * mixture.variances).log().sum(-1)
    constant = log_norm - 0.5 * (linear * mixture.means).sum(-1)
    kernel = snr * torch.eye(mixture.dim, dtype=torch.float64)
    tilted = _tilt(precision, w) + kernel
    positive = torch.linalg.eigvalsh(tilted)[..., 0] > 1e-9 * precision.abs().amax()
    valid = positive & mixture.log_weights[-1].isfinite()
    for row in rows.unique().tolist():
        if not bool(valid[mixture.log_weights[row].isfinite()].any(-1).all()):
            raise InputError(
                "w",
                f"p(x_0|y)^(1+w) / p_ref(x_0)^w has no finite integral at {w:g}, y = {row}",
                "Lower w, or use a reference whose components are at least as wide as the class's",
            )
    return Pairs(tilted, _tilt(linear, w), _tilt(constant, w), valid)


def _tilt(value: Tensor, w: float) -> Tensor:
    return (1 + w) * value[:, None] - w * value[None]
