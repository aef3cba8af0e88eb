"""Panels of a mixture in the plane: what is there, a target, clouds of samples, arrows, ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .plots import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..oracles.mixture import GaussianMixture

__all__ = ["METHOD_COLOURS", "density", "draw_arrows", "draw_cloud", "draw_target", "frame"]

METHOD_COLOURS = {
    "no guidance": "0.45",
    "CFG": OKABE_ITO["vermillion"],
    "REG": OKABE_ITO["blue"],
}
LEVELS = (0.05, 0.5)  # of the largest density: the two contours of a target
PRESENT = 0.03  # of the largest density: where any class is, grey


def density(
    mixture: GaussianMixture,
    y: int | None,
    w: float = 0.0,
    sigma: float = 0.0,
    reach: float = 2.0,
    points: int = 241,
) -> tuple[Tensor, Tensor, Tensor]:
    """p(x|y)^(1+w) / p(x)^w on a square grid, its largest value 1, as `contour` takes it.

    Args:
        mixture: in two dimensions.
        y: class; None = all of them, then w does not count.
        w: >= 0, the guidance scale minus 1.
        sigma: noise level >= 0 at which the densities are taken.
        reach: the grid covers [-reach, reach] on both axes.
        points: of the grid, an axis.

    Returns:
        axis (points,), axis (points,), density (points, points), the second axis first.
    """
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    log = mixture.log_prob(x, 1.0, sigma, y=y)
    if y is not None and w:
        log = (1 + w) * log - w * mixture.log_prob(x, 1.0, sigma)
    return line, line, (log - log.max()).exp().reshape(len(line), len(line)).T


def draw_target(axes: Axes, mixture: GaussianMixture, w: float, points: int = 241) -> None:
    """Grey where any class is, and two contours of what guidance of class 0 at scale 1 + w is to
    produce; `points` as of `density`."""
    grey = density(mixture, None, points=points)
    axes.contourf(*grey, levels=[PRESENT, 9], colors=["0.91"])
    lines = density(mixture, 0, w, points=points)
    axes.contour(*lines, levels=LEVELS, colors="black", linewidths=0.8)


def draw_cloud(axes: Axes, points: Tensor, colour: str) -> None:
    """Samples (n, 2) as dots."""
    axes.scatter(points[:, 0], points[:, 1], s=3, color=colour, alpha=0.6, linewidths=0)


def draw_arrows(
    axes: Axes,
    mixture: GaussianMixture,
    arrows: tuple[Tensor, Tensor],
    colour: str,
    sigma: float,
    reach: float,
    points: int = 241,
) -> None:
    """Arrows over the noisy class: grey where any class is at the noise level, contours of class 0.

    Args:
        arrows: feet and vectors, both (n, 2).
        sigma: noise level >= 0.
        reach, points: as of `density`.
    """
    grey = density(mixture, None, sigma=sigma, reach=reach, points=points)
    axes.contourf(*grey, levels=[PRESENT, 9], colors=["0.91"])
    lines = density(mixture, 0, sigma=sigma, reach=reach, points=points)
    axes.contour(*lines, levels=LEVELS, colors="black", linewidths=0.8, linestyles="dotted")
    feet, vectors = arrows
    look: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006}
    axes.quiver(*feet.T, *vectors.T, color=colour, **look)


def frame(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Limits, equal units, no ticks."""
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[], aspect="equal")
