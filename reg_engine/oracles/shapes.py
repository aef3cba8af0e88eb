"""Two-class sets in the plane whose densities are known: Gaussian mixtures over generating points.

Golden guidance needs the densities p(x_0|y) and p(x_0), and the usual 2-D sets have none: they are
noisy curves and squares. Each set here is therefore *defined* as a mixture with one Gaussian of one
deviation (the bandwidth) on every generating point. Draws of it look like the usual set, and its
denoiser, its guidance and its tilted target are exact. Sets are centred and scaled by one factor so
that the mean variance of a coordinate is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, choice
from .mixture import GaussianMixture

__all__ = ["SHAPES", "Shape", "make_shape"]

Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A two-class set in the plane.

    Args:
        name: its key in SHAPES.
        title: for figures.
        mixture: both classes, of equal weight; its reference is the whole set.
        blurred: the same points with a larger bandwidth, what a worse model is trained on.
        bandwidth, blur: the two deviations, in units of the scaled set.
    """

    name: str
    title: str
    mixture: GaussianMixture
    blurred: GaussianMixture
    bandwidth: float
    blur: float

    def against_blurred(self, label: int) -> GaussianMixture:
        """Class `label` as a mixture of one class (label 0), the blurred class as its reference."""
        sharp, soft = (_class_means(m, label) for m in (self.mixture, self.blurred))
        reference = GaussianMixture(soft, self.blur)
        return GaussianMixture(sharp, self.bandwidth, reference=reference)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` draws a class with their labels, (2 count, 2) float64 and (2 count,)."""
        points = [self.mixture.sample(count, y, generator) for y in (0, 1)]
        return torch.cat(points), torch.arange(2).repeat_interleave(count)


def make_shape(
    name: str, components: int = 128, bandwidth: float = 0.09, blur: float = 0.35, seed: int = 0
) -> Shape:
    """The set `name` with `components` Gaussians a class.

    Args:
        name: a key of SHAPES.
        components: generating points a class, >= 16 (the checkerboard takes the nearest number
            that fills its squares).
        bandwidth: deviation of every component, > 0, in units of the scaled set.
        blur: deviation of the blurred set, > bandwidth.
        seed: of scikit-learn's random sets, >= 0.

    Raises:
        InputError: an unknown name, a number out of its range, or a set of scikit-learn where that
            is not installed.
    """
    title, points = SHAPES[choice("name", name, SHAPES)]
    if components < 16:
        raise InputError("components", f"is {components}", "Give 16 or more a class")
    if not 0 < bandwidth < blur:
        raise InputError("bandwidth, blur", f"are {bandwidth}, {blur}", "Give 0 < bandwidth < blur")
    found, classes = points(components, seed)
    centred = found - found.mean(0)
    scaled = centred * np.sqrt((1 - bandwidth**2) / centred.var(0).mean())
    means, labels = torch.from_numpy(scaled), torch.from_numpy(classes)
    sharp, soft = (GaussianMixture(means, width, labels=labels) for width in (bandwidth, blur))
    return Shape(name, title, sharp, soft, bandwidth, blur)


def _class_means(mixture: GaussianMixture, label: int) -> Tensor:
    return mixture.means[mixture.log_weights[label].isfinite()]


def _ring_and_cross(components: int, seed: int) -> Points:
    """A ring of radius 1 and a diagonal cross of half-length 1.5 that meets it at four places."""
    angle = 2 * np.pi * np.arange(components) / components
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    half = components // 2
    arms = []
    for count, slope in ((half, 1.0), (components - half, -1.0)):
        # Midpoints: the two arms do not put a component twice on the centre.
        along = 1.5 * (2 * (np.arange(count) + 0.5) / count - 1) / np.sqrt(2)
        arms.append(np.stack([along, slope * along], -1))
    return np.concatenate([ring, *arms]), np.repeat(np.arange(2), components)


def _datasets() -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        remedy = "Run `pip install 'reg-engine[eval]'`, or take another set"
        raise InputError("name", f"needs scikit-learn ({error})", remedy) from error
    return datasets


def _two_moons(components: int, seed: int) -> Points:
    points, labels = _datasets().make_moons((components, components), noise=0.08, random_state=seed)
    return points, labels


def _swiss_roll(components: int, seed: int) -> Points:
    """The roll's section; the classes are its inner and its outer half, cut at the median angle."""
    points, angle = _datasets().make_swiss_roll(2 * components, noise=0.3, random_state=seed)
    order = np.argsort(angle)
    labels = np.empty(2 * components, dtype=np.int64)
    labels[order] = np.arange(2 * components) // components
    return points[:, [0, 2]], labels


def _checkerboard(components: int, seed: int) -> Points:
    """Four by four squares of two colours, each filled with a square lattice of components."""
    side = max(2, round((components / 8) ** 0.5))
    within = (np.arange(4 * side) + 0.5) / side  # 0 .. 4
    grid = np.stack(np.meshgrid(within, within, indexing="ij"), -1).reshape(-1, 2)
    return grid, (grid.astype(np.int64).sum(-1) % 2).astype(np.int64)


SHAPES: dict[str, tuple[str, Callable[[int, int], Points]]] = {
    "ring_cross": ("ring and cross", _ring_and_cross),
    "moons": ("two moons", _two_moons),
    "swiss_roll": ("swiss roll", _swiss_roll),
    "checkerboard": ("checkerboard", _checkerboard),
}
