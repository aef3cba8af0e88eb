"""Oracles: guidance known exactly, on Gaussian mixtures, to judge every approximation of it.

For a `GaussianMixture` the denoiser, its Jacobian K and every class posterior are closed form; the
golden guidance grad log E_t of Theorem 4.1 is a quadrature; the distribution that guidance is meant
to produce, p(x_0|y)^(1+w) / p_ref(x_0)^w, is sampled exactly; `energy_distance` scores samples
against it. `TiltedGrid` has golden guidance in the plane for many points at once, `make_shape` the
usual 2-D sets (moons, swiss roll, ...) as mixtures. Where a trained model has no closed form,
`chain_golden` simulates golden guidance with the model's own chains (`chain_limit`: with infinitely
many, in one dimension); `win_ratio` says how often one guidance is nearer to it than another.
"""

from __future__ import annotations

from .chains import chain_golden, chain_limit, chain_rewards, golden_of
from .closed import Posterior
from .energy import energy_distance
from .examples import one_d, two_class_2d
from .fractal import fractal, fractal_points
from .grid import TiltedGrid, grid_denoiser
from .mixture import GaussianMixture
from .shapes import SHAPES, Shape, make_shape
from .target import TargetSampler
from .tilted import TiltedPosterior
from .win import win_ratio

__all__ = [
    "SHAPES",
    "GaussianMixture",
    "Posterior",
    "Shape",
    "TargetSampler",
    "TiltedGrid",
    "TiltedPosterior",
    "chain_golden",
    "chain_limit",
    "chain_rewards",
    "energy_distance",
    "fractal",
    "fractal_points",
    "golden_of",
    "grid_denoiser",
    "make_shape",
    "one_d",
    "two_class_2d",
    "win_ratio",
]
