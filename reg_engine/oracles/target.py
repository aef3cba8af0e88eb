"""Exact samples of the tilted target p(x_0|y)^(1+w) / p_ref(x_0)^w, by rejection.

Where the reference is the whole mixture, p(x_0|y)/p(x_0) = p(y|x_0)/p(y): a draw of p(x_0|y) is
kept with probability p(y|x_0)^w. For another reference the proposal is the Gaussian envelope of
pairs.py. Both are exact in any dimension: no grid, no cell, no weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NumericalError
from ..values import as_int
from .checks import check_weight
from .closed import ClosedForms, draw
from .pairs import pairs

__all__ = ["TargetSampler"]

CHUNK = 1 << 16
PATIENCE = 1 << 24  # proposals without enough acceptances after which a target is given up


class TargetSampler:
    """Callable (n, generator) -> samples (n, d), float64; `acceptance` is the share kept so far."""

    def __init__(self, mixture: ClosedForms, w: float, y: int) -> None:
        self.mixture, self.w, self.y = mixture, check_weight(w), int(y)
        self.proposed = self.accepted = 0
        self._class = mixture.log_weights[self.y].isfinite().nonzero()[:, 0]
        self._exact_bound = mixture.own_reference or self.y == mixture.num_classes
        if self._exact_bound:
            index = self._class
            self._log_masses = mixture.log_weights[self.y, index]
            self._means = mixture.means[index]
            self._factors = mixture.basis[index] * mixture.variances[index].sqrt()[:, None, :]
        else:
            self._envelope()

    @property
    def acceptance(self) -> float:
        """Share of the proposals kept; NaN before the first call."""
        return self.accepted / self.proposed if self.proposed else float("nan")

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent samples; `generator` (CPU) makes them repeatable.

        Raises:
            InputError: n < 1. NumericalError: fewer than n acceptances in 2^24 proposals.
        """
        n = as_int("n", n)
        kept: list[Tensor] = []
        found = proposed = 0
        while found < n:
            if proposed >= PATIENCE:
                raise NumericalError(
                    f"the target at w = {self.w:g} kept {found} of {proposed} proposals: too far "
                    "from p(x_0|y) to be sampled by rejection. Lower w."
                )
            x = draw(self._log_masses, self._means, self._factors, CHUNK, generator)
            uniform = torch.rand(CHUNK, dtype=torch.float64, generator=generator)
            keep = x[uniform.log() < self._log_acceptance(x)]
            kept.append(keep)
            found += len(keep)
            proposed += CHUNK
        self.proposed += proposed
        self.accepted += found
        return torch.cat(kept)[:n]

    def _log_acceptance(self, x: Tensor) -> Tensor:
        m = self.mixture
        if self._exact_bound:
            if self.y == m.num_classes:  # the reference against itself
                return torch.zeros(len(x), dtype=torch.float64)
            return self.w * m.class_posterior(x, 1.0, 0.0)[:, self.y]
        log_components = m._components(x, 1.0, 0.0)[2]
        log_class, log_ref = (
            (log_components + m.log_weights[row]).logsumexp(-1) for row in (self.y, -1)
        )
        own, partner = log_components[:, self._class], log_components[:, self._partner]
        bound = (self._log_factor + (1 + self.w) * own - self.w * partner).logsumexp(-1)
        return (1 + self.w) * log_class - self.w * log_ref - bound

    def _envelope(self) -> None:
        """For every component of the class, the partner whose bound has the least mass."""
        m = self.mixture
        products = pairs(m, self.w, torch.tensor([self.y]))
        log_factor = m.log_weights[self.y][:, None] - self.w * m.log_weights[-1][None]
        masses = (log_factor + products.log_mass())[self._class]
        masses = masses.where(products.valid[self._class], torch.inf)
        self._partner = masses.argmin(-1)
        at = (self._class, self._partner)
        self._log_masses, self._log_factor = masses.amin(-1), log_factor[at]
        precision = products.precision[at]
        self._means = torch.linalg.solve(precision, products.linear[at][..., None])[..., 0]
        # precision = L L^T, so L^-T unit noise has the covariance precision^-1.
        self._factors = torch.linalg.inv(torch.linalg.cholesky(precision)).mT
