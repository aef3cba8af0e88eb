"""Two fractal trees in the plane, of 1016 Gaussians each, with everything known.

The construction that "Studying Classifier(-Free) Guidance From a Classifier-Centric Perspective"
(Zhao & Schwing, arXiv 2503.10638, App. C.2) describes after Karras et al. 2024 (arXiv 2406.02507,
App. C): each class is a binary tree whose branches carry eight Gaussians in a row. A branch is
(start, length, orientation); its two children start where it ends, are shorter by a constant
factor, and turn by the same angle to either side. Six splits give 2^7 - 1 = 127 branches. Both
trees grow from the origin, in opposite directions.

The paper does not give its constants. Those here are our own, and nothing is random: class 1 is
class 0 turned by half a circle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..values import as_int
from .mixture import GaussianMixture

__all__ = ["Branch", "branches", "fractal", "fractal_points"]

DEPTH = 6  # splits
GAUSSIANS = 8  # of a branch
LENGTH = 0.4  # of the first branch: the data then have a deviation of 0.57 along each axis
DECAY = 0.75  # of the length, from a branch to its children
ANGLE = 0.8  # radians between a branch and each of its children
ALONG = 1 / 14  # deviation of a Gaussian along its branch, in lengths of the branch
ACROSS = 0.06  # and across it
ROOTS = (math.pi / 4, 5 * math.pi / 4)  # orientation of each class's first branch


class Branch(NamedTuple):
    """One branch of a tree; `orientation` is in radians from the first axis."""

    start: tuple[float, float]
    length: float
    orientation: float
    depth: int

    @property
    def end(self) -> tuple[float, float]:
        """Where its children start."""
        (x, y), angle = self.start, self.orientation
        return x + self.length * math.cos(angle), y + self.length * math.sin(angle)


def branches(label: int, depth: int = DEPTH) -> list[Branch]:
    """The branches of a class's tree, the root first, depth by depth: 2^(depth + 1) - 1 of them.

    Raises:
        InputError: label is neither 0 nor 1, or depth is negative.
    """
    if label not in (0, 1):
        raise InputError("label", f"is {label!r}", "Give 0 or 1: there are two trees")
    if depth < 0:
        raise InputError("depth", f"is {depth}", "Give 0 (the first branch alone) or more")
    found = [Branch((0.0, 0.0), LENGTH, ROOTS[label], 0)]
    level = found
    for number in range(1, depth + 1):
        level = [
            Branch(parent.end, DECAY * parent.length, parent.orientation + turn, number)
            for parent in level
            for turn in (ANGLE, -ANGLE)
        ]
        found = found + level
    return found


def fractal(depth: int = DEPTH) -> GaussianMixture:
    """The mixture of both classes, equally probable: 8 (2^(depth + 1) - 1) Gaussians each.

    The means lie in the middle of eight equal parts of a branch. The covariance has the deviations
    ALONG and ACROSS times the branch's length, turned by its orientation. Every depth of a tree has
    the same mass: a Gaussian of depth d weighs 2^-d.
    """
    means, covariances, weights, labels = [], [], [], []
    for label in (0, 1):
        for branch in branches(label, depth):
            c, s = math.cos(branch.orientation), math.sin(branch.orientation)
            turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
            deviations = branch.length * torch.tensor([ALONG, ACROSS], dtype=torch.float64)
            place = (torch.arange(GAUSSIANS, dtype=torch.float64) + 0.5) / GAUSSIANS
            start = torch.tensor(branch.start, dtype=torch.float64)
            means.append(start + branch.length * place[:, None] * turn[:, 0])
            covariance = (turn * deviations.square()) @ turn.mT
            covariances.append((covariance + covariance.mT).expand(GAUSSIANS, 2, 2) / 2)
            weights += [0.5**branch.depth] * GAUSSIANS
            labels += [label] * GAUSSIANS
    return GaussianMixture(
        torch.cat(means), torch.cat(covariances), torch.tensor(weights), torch.tensor(labels)
    )


def fractal_points(
    mixture: GaussianMixture,
    label: int,
    per_leaf: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Data of one class as in the paper: a fixed number of draws from each Gaussian.

    Args:
        mixture: from `fractal`.
        label: class, 0 or 1.
        per_leaf: draws from each Gaussian of the last depth, >= 1; those of the depth before it
            get twice as many, and so on, which keeps the mixture's weights.
        generator: CPU.

    Returns:
        (N, 2) float64, in the order of the Gaussians; N = 8 (depth + 1) 2^depth per_leaf, which is
        3584 per_leaf for the full tree.

    Raises:
        InputError: per_leaf < 1.
    """
    per_leaf = as_int("per_leaf", per_leaf)
    own = mixture.log_weights[label].isfinite().nonzero()[:, 0]
    weights = mixture.log_weights[label, own].exp()
    counts = (weights / weights.min() * per_leaf).round().long()
    index = own.repeat_interleave(counts)
    unit = torch.randn(len(index), mixture.dim, dtype=torch.float64, generator=generator)
    factors = mixture.basis * mixture.variances.sqrt()[:, None, :]
    return mixture.means[index] + (factors[index] @ unit[..., None])[..., 0]
