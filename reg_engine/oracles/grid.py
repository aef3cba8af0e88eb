"""Golden guidance in the plane from quadrature grids that all x_t of a noise level share.

`GaussianMixture.golden` lays a box of its own around the tilted posterior of every x_t: exact to
1e-9, but with many components a thousand points a step are too dear to sample with. Here the clean
densities are tabulated once, on nodes (u_i, v_j), and the noise kernel is a product of two axes, so
that all sums are two matrix products:

    E_t(x_t) p(x_t|y) = sum_ij A_i(x_t) P_ij B_j(x_t),    P_ij = p(x_0|y) R_0(x_0) at the node

(REG, arXiv 2501.18865, Theorem 4.1). The trapezoidal rule's error falls as
exp(-2 (pi width/cell)^2), width the deviation of the narrowest posterior: it is exact to rounding
with cells of 0.7 of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, NumericalError
from ..networks.denoisers import Denoiser
from ..schedules import Schedule
from .checks import check_weight
from .mixture import GaussianMixture

__all__ = ["TiltedGrid", "grid_denoiser"]

REACH = 6.5  # deviations around the class's components that a grid covers by itself
CELL = 0.7  # of the narrowest posterior's deviation
CHUNK = 1024  # nodes whose component densities are held at once
KEPT = 16  # tables of a number of nodes and a weight, megabytes each
FAINT = 1e-200  # mass, relative to the largest product, below which a row is summed in logs


class Nodes(NamedTuple):
    """Nodes of both axes, and on them log p(x_0|y) and log p(x_0|y)/p_ref(x_0), (n, n)."""

    axes: tuple[Tensor, Tensor]
    log_class: Tensor
    log_ratio: Tensor


class TiltedGrid:
    """Golden guidance of one class of a mixture at any level, point and weight.

    Args:
        mixture: in the plane; p_ref is its reference.
        label: the class that is guided.
        nodes: an axis, >= 17; None = as many as a noise level and a weight need.
        box: two corners (2,) of the grid, float64; points x_t/alpha_t should lie inside. None = 6.5
            deviations around the class's components.

    Raises:
        InputError: the mixture does not lie in the plane, or too few nodes.
    """

    def __init__(
        self,
        mixture: GaussianMixture,
        label: int = 0,
        *,
        nodes: int | None = None,
        box: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if mixture.dim != 2:
            raise InputError("mixture", f"has {mixture.dim} dimensions", "Give a mixture in 2-D")
        if nodes is not None and nodes < 17:
            raise InputError("nodes", f"is {nodes}", "Give 17 or more an axis")
        self.mixture, self.label, self.nodes = mixture, label, nodes
        own = mixture.log_weights[label].isfinite()
        reach = REACH * mixture.variances[own].amax(-1, keepdim=True).sqrt()
        means = mixture.means[own]
        self.low, self.high = box or ((means - reach).amin(0), (means + reach).amax(0))
        self._width = float(mixture.variances[own].amin().sqrt())
        self._tables: dict[int, Nodes] = {}
        self._weights: dict[tuple[int, float], Tensor] = {}

    def log_ratio(self, x0: Tensor) -> Tensor:
        """log p(x_0|y)/p_ref(x_0), (n,), differentiable, in the dtype of x0 (n, 2)."""
        return self.mixture.log_ratio(x0, y=self.label)

    def tabulated(self, nodes: int) -> Nodes:
        """The clean densities on a grid of nodes x nodes."""
        if nodes not in self._tables:
            first, second = (
                torch.linspace(float(low), float(high), nodes, dtype=torch.float64)
                for low, high in zip(self.low, self.high, strict=True)
            )
            parts = torch.cartesian_prod(first, second).split(CHUNK)
            log_class = torch.cat([self.mixture.log_prob(part, y=self.label) for part in parts])
            log_ratio = torch.cat([self.log_ratio(part) for part in parts])
            shape = (nodes, nodes)
            table = Nodes((first, second), log_class.reshape(shape), log_ratio.reshape(shape))
            self._tables[nodes] = table
        return self._tables[nodes]

    def denoised(self, x: Tensor, alpha: float, sigma: float, w: float) -> Tensor:
        """E[x_0|x_t,y] under golden guidance of weight w, (B, 2) in the dtype of x (B, 2).

        Args:
            alpha, sigma: of x_t, sigma > 0.
            w: >= 0; 0 is the unguided posterior mean.

        Raises:
            InputError: sigma or w out of range. NumericalError: x so far off that no node is seen.
        """
        if not sigma > 0:
            raise InputError("sigma", f"is {sigma}", "Give a noise level > 0")
        w = check_weight(w)
        count = self.nodes or self._needed(sigma / alpha, w)
        table = self.tabulated(count)
        log_p = table.log_class + w * table.log_ratio
        if (count, w) not in self._weights:
            if len(self._weights) == KEPT:  # who asks for many w asks for one after the other
                del self._weights[next(iter(self._weights))]
            self._weights[count, w] = (log_p - log_p.max()).exp()
        weights = self._weights[count, w]
        kernels = []
        for axis, column in zip(table.axes, x.detach().double().cpu().unbind(1), strict=True):
            exponent = -0.5 * ((column[:, None] - alpha * axis) / sigma) ** 2
            kernels.append(exponent - exponent.amax(1, keepdim=True))
        a, b = (kernel.exp() for kernel in kernels)
        inner = a @ weights
        mass = (inner * b).sum(1)
        first = ((a * table.axes[0]) @ weights * b).sum(1)
        second = (inner * (b * table.axes[1])).sum(1)
        mean = torch.stack([first, second], 1) / mass[:, None]
        for at in (mass < FAINT).nonzero()[:, 0].tolist():
            p = (kernels[0][at][:, None] + log_p + kernels[1][at]).flatten().softmax(0)
            p = p.reshape(log_p.shape)
            mean[at] = torch.stack([p.sum(1) @ table.axes[0], p.sum(0) @ table.axes[1]])
        if not bool(mean.isfinite().all()):
            raise NumericalError("golden guidance: a point sees no node of the quadrature grid")
        return mean.to(x)

    def golden(self, x: Tensor, alpha: float, sigma: float, w: float) -> Tensor:
        """grad log E_t(x_t, y), (B, 2): the optimal guidance of Theorem 4.1."""
        tilted, plain = (self.denoised(x.double(), alpha, sigma, value) for value in (w, 0.0))
        return (alpha / sigma**2 * (tilted - plain)).to(x)

    def _needed(self, noise_level: float, w: float) -> int:
        """Nodes an axis; few different numbers, so that few grids serve all noise levels."""
        posterior = self._width * noise_level / (self._width**2 + noise_level**2) ** 0.5
        # Tilting narrows the posterior further, by less than this for w <= 4.
        cell = CELL * min(posterior, self._width / (1 + w) ** 0.5)
        return 32 * -(-(1 + int(float((self.high - self.low).max()) / cell)) // 32)


def grid_denoiser(grids: Mapping[int, TiltedGrid], w: float, schedule: Schedule) -> Denoiser:
    """A Denoiser that is guided optimally: sampled with scale 1 it aims at the tilted target.

    Args:
        grids: of every label that may be asked for.
        w: weight of the golden guidance, >= 0.
        schedule: of the times that it is called with.
    """

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for time in t.unique().tolist():
            alpha, sigma = schedule(time)
            for label, grid in grids.items():
                rows = (t == time) & (cond == label)
                if bool(rows.any()):
                    out[rows] = grid.denoised(x[rows], alpha, sigma, w)
        return out

    return Denoiser(net, "sample", schedule, (2,), num_classes=max(grids) + 1, modules=())
