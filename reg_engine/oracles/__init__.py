"""Oracles: guidance known exactly, on Gaussian mixtures, to judge every approximation of it.

For a `GaussianMixture` the denoiser, its Jacobian K and every class posterior are closed form; the
golden guidance grad log E_t of Theorem 4.1 is a quadrature; the distribution that guidance is meant
to produce, p(x_0|y)^(1+w) / p_ref(x_0)^w, is sampled exactly; `energy_distance` scores samples
against it.
"""

from __future__ import annotations

from .closed import Posterior
from .energy import energy_distance
from .examples import one_d, two_class_2d
from .fractal import fractal, fractal_points
from .mixture import GaussianMixture
from .target import TargetSampler
from .tilted import TiltedPosterior

__all__ = [
    "GaussianMixture",
    "Posterior",
    "TargetSampler",
    "TiltedPosterior",
    "energy_distance",
    "fractal",
    "fractal_points",
    "one_d",
    "two_class_2d",
]
