"""GaussianMixture: the closed forms, and the guidance that follows from them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..networks.denoisers import Denoiser
from ..schedules import EDM, Schedule
from . import networks
from .checks import label_rows
from .closed import ClosedForms
from .target import TargetSampler
from .tilted import TiltedPosterior, tilted_posterior

__all__ = ["GaussianMixture"]


class GaussianMixture(ClosedForms):
    """A Gaussian mixture in d dimensions whose components belong to classes.

    Points are (B, d) in float32 or float64 and results have their dtype and device; the mixture
    itself is float64. `alpha` and `sigma` are numbers or tensors (B,). A label `y` is an int, a
    LongTensor (B,), or None; `num_classes` (or None) is the null label: the unconditional
    reference, which is the whole mixture unless `reference` says otherwise. The closed forms are
    differentiable in x_t.

    Args:
        means: (M, d).
        covariance: one deviation, deviations (M,), or covariance matrices (M, d, d).
        weights: (M,), positive, normalised here; None = equal.
        labels: class of each component (M,), from 0 without gaps; None = one class.
        reference: the reference distribution, all its classes together; None = this mixture.

    Raises:
        InputError: wrong shapes, weights that are not positive, classes with gaps, a covariance
            that is not symmetric positive definite; in the methods: wrong shapes, sigma < 0,
            unknown labels.
    """

    def tilted_posterior(
        self,
        x_t: Tensor,
        alpha: float,
        sigma: float,
        w: float,
        y: int | Tensor = 0,
        *,
        nodes: int | None = None,
        samples: int = 4096,
        generator: torch.Generator | None = None,
    ) -> TiltedPosterior:
        """p(x_0|x_t,y) (p(x_0|y)/p_ref(x_0))^w: its mass E_t and mean (tilted.py says how).

        Args:
            x_t: (B, d). alpha: >= 0. sigma: > 0. w: >= 0.
            y: class, an int or LongTensor (B,).
            nodes: quadrature nodes an axis (d <= 2), odd; None = 513 in 1-D, 97 in 2-D.
            samples, generator: draws a row and their source (d > 2); None = seeded with 0.
        """
        rows = self._checked(x_t, alpha, sigma, y)
        return tilted_posterior(
            self,
            x_t,
            float(alpha),
            float(sigma),
            w,
            rows,
            nodes=nodes,
            samples=samples,
            generator=generator,
        )

    def golden(
        self,
        x_t: Tensor,
        t: float,
        w: float,
        y: int | Tensor = 0,
        schedule: Schedule | None = None,
        **accuracy: Any,
    ) -> Tensor:
        """grad log E_t(x_t, y), (B, d): the optimal guidance of Theorem 4.1.

        E_t = integral p(x_0|x_t,y) (p(x_0|y)/p_ref(x_0))^w dx_0, at time t of `schedule`
        (None = EDM()). `accuracy` goes to `tilted_posterior`.
        """
        alpha, sigma = (schedule or EDM())(t)
        x = x_t.double()
        mean = self.tilted_posterior(x, alpha, sigma, w, y, **accuracy).mean
        return (alpha / sigma**2 * (mean - self.denoised(x, alpha, sigma, y))).to(x_t)

    def denoiser(
        self, y: int | None = None, prediction: str = "sample", schedule: Schedule | None = None
    ) -> Denoiser:
        """A Denoiser around the exact network, labels 0 .. num_classes - 1, null label num_classes.

        Args:
            y: the label to use whatever the conditioning says; None = the conditioning.
            prediction: what the network returns, one of preconditioning.PREDICTIONS.
            schedule: of its training; None = EDM().
        """
        return networks.exact(self, y, prediction, schedule or EDM())

    def golden_denoiser(
        self, w: float, y: int | None = None, schedule: Schedule | None = None, **accuracy: Any
    ) -> Denoiser:
        """A Denoiser that is guided optimally: E[x_0|x_t,y] + (sigma^2/alpha) grad log E_t.

        Sampled with scale 1 it produces the target of `target_sampler(w, y)`, up to the solver's
        error and the prior's (E_T is constant only for sigma_T -> infinity). Not differentiable.
        """
        return networks.golden(self, w, y, schedule or EDM(), accuracy)

    def target_sampler(self, w: float, y: int = 0) -> TargetSampler:
        """Exact samples of p(x_0|y)^(1+w) / p_ref(x_0)^w: (n, generator) -> (n, d)."""
        label_rows(y, 1, self.num_classes, self.means.device)
        return TargetSampler(self, w, y)
