"""Golden guidance in the plane from one quadrature grid that every x_t shares.

`GaussianMixture.golden` lays a box of its own around the tilted posterior of every x_t: exact to
1e-9, but with hundreds of components a thousand points a step are too dear to sample with. Here the
clean densities are tabulated once, on nodes (u_i, v_j), and the noise kernel is a product of two
axes, so all sums are two matrix products:

    E_t(x_t) p(x_t|y) = sum_ij A_i(x_t) P_ij B_j(x_t),    P_ij = p(x_0|y) R_0(x_0) at the node

The trapezoidal rule is spectral on smooth integrands: it is exact to rounding as long as the nodes
are not wider apart than the deviation of the narrowest posterior. tests/test_experiments_reg_2d.py
holds it against the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError, NumericalError
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture
from ...schedules import Schedule
from ..shapes import Shape

__all__ = [
    "CFG",
    "WORSE",
    "Reward",
    "TiltedGrid",
    "golden_denoiser",
    "grids_of",
    "rewards_of",
]

CFG, WORSE = "cfg", "worse"  # what is divided by: p(x_0), or the blurred p(x_0|y)

NODES = 181
CHUNK = 1024  # nodes whose component densities are held at once
MARGIN = 8.0  # deviations beyond the outermost component; points x_t should lie inside
SLACK = 0.1  # nats, of the largest log ratio; nodes are 0.3 bandwidths apart
PATIENCE = 1 << 14  # draws before the share that is kept is judged
FAINT = 1e-200  # mass, relative to the largest product, below which a row is summed in logs


@dataclass(frozen=True)
class Reward:
    """R_0 = exp(w log_ratio(x_0)) of one class.

    Args:
        mixture: whose class `label` is guided, and whose reference is divided by.
        label: the class.
    """

    mixture: GaussianMixture
    label: int

    def log_ratio(self, x0: Tensor) -> Tensor:
        """log p(x_0|y) - log p_ref(x_0), (n,), differentiable, in the dtype of x0 (n, 2)."""
        return self.mixture.log_prob(x0, y=self.label) - self.mixture.log_prob(x0)


def rewards_of(shape: Shape) -> dict[tuple[str, int], Reward]:
    """By (kind, label): CFG's p(x_0|y) / p(x_0), and WORSE's p(x_0|y) / p_blurred(x_0|y)."""
    found = {}
    for label in range(shape.mixture.num_classes):
        found[CFG, label] = Reward(shape.mixture, label)
        found[WORSE, label] = Reward(shape.against_blurred(label), 0)
    return found


class TiltedGrid:
    """Golden guidance of one reward at any level, point and weight.

    Args:
        reward: what is rewarded, and the class.
        nodes: an axis, >= 17.

    Raises:
        InputError: the mixture does not lie in the plane, or too few nodes.
    """

    def __init__(self, reward: Reward, nodes: int = NODES) -> None:
        mixture = reward.mixture
        if mixture.dim != 2:
            raise InputError("reward", f"has {mixture.dim} dimensions", "Give a mixture in 2-D")
        if nodes < 17:
            raise InputError("nodes", f"is {nodes}", "Give 17 or more an axis")
        self.reward = reward
        # A square around both classes: with little noise, E[x_0|x_t,y] of an x_t far from the class
        # lies near x_t, not near the class.
        margin = MARGIN * float(mixture.variances[mixture.log_weights[0].isfinite()].max()) ** 0.5
        side = float(mixture.means.abs().max()) + margin
        self.axes = (torch.linspace(-side, side, nodes, dtype=torch.float64),) * 2
        parts = torch.cartesian_prod(*self.axes).split(CHUNK)
        log_class = torch.cat([mixture.log_prob(part, y=reward.label) for part in parts])
        log_reference = torch.cat([mixture.log_prob(part) for part in parts])
        self._log_class = log_class.reshape(nodes, nodes)
        self._log_ratio = (log_class - log_reference).reshape(nodes, nodes)

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
        if not w >= 0:
            raise InputError("w", f"is {w}", "Give a number >= 0 (w = scale - 1)")
        log_p = self._log_class + w * self._log_ratio
        rows = x.detach().double().cpu()
        kernels = []
        for axis, column in zip(self.axes, rows.unbind(1), strict=True):
            exponent = -0.5 * ((column[:, None] - alpha * axis) / sigma) ** 2
            kernels.append(exponent - exponent.amax(1, keepdim=True))
        weights = (log_p - log_p.max()).exp()
        a, b = (kernel.exp() for kernel in kernels)
        inner = a @ weights
        mass = (inner * b).sum(1)
        first = ((a * self.axes[0]) @ weights * b).sum(1)
        second = (inner * (b * self.axes[1])).sum(1)
        mean = torch.stack([first, second], 1) / mass[:, None]
        for index in (mass < FAINT).nonzero()[:, 0].tolist():
            mean[index] = self._in_logs(log_p, kernels[0][index], kernels[1][index])
        if not bool(mean.isfinite().all()):
            raise NumericalError("golden guidance: a point sees no node of the quadrature grid")
        return mean.to(x)

    def golden(self, x: Tensor, alpha: float, sigma: float, w: float) -> Tensor:
        """grad log E_t(x_t, y), (B, 2): the optimal guidance of Theorem 4.1."""
        tilted, plain = (self.denoised(x.double(), alpha, sigma, value) for value in (w, 0.0))
        return (alpha / sigma**2 * (tilted - plain)).to(x)

    def target(self, w: float, count: int, generator: torch.Generator) -> Tensor:
        """Exact draws of p(x_0|y) R_0(x_0), (count, 2) float64, by rejection from p(x_0|y).

        The bound of the ratio is its largest value at a node, and some slack for what lies between
        nodes; a draw above it is an error, not a bias.

        Raises:
            NumericalError: a draw above the bound, or less than one draw in a thousand kept.
        """
        bound = float(self._log_ratio.max()) + SLACK
        kept: list[Tensor] = []
        proposed = found = 0
        while found < count:
            x = self.reward.mixture.sample(max(count, CHUNK), self.reward.label, generator)
            excess = self.reward.log_ratio(x) - bound
            if float(excess.max()) > 0:
                raise NumericalError("golden guidance: the quadrature grid missed a maximum of R_0")
            uniform = torch.rand(len(x), dtype=torch.float64, generator=generator)
            kept.append(x[uniform.log() < w * excess])
            proposed, found = proposed + len(x), found + len(kept[-1])
            if proposed > PATIENCE and 1000 * found < proposed:
                raise NumericalError(
                    f"the target at w = {w:g} keeps {found} of {proposed} draws: lower w"
                )
        return torch.cat(kept)[:count]

    def _in_logs(self, log_p: Tensor, a: Tensor, b: Tensor) -> Tensor:
        p = (a[:, None] + log_p + b).flatten().softmax(0).reshape(log_p.shape)
        return torch.stack([p.sum(1) @ self.axes[0], p.sum(0) @ self.axes[1]])


def golden_denoiser(grids: dict[int, TiltedGrid], w: float, schedule: Schedule) -> Denoiser:
    """A Denoiser that is guided optimally: sampled with scale 1 it aims at the tilted target.

    Args:
        grids: of every label that may be asked for.
        w: weight of the golden guidance.
        schedule: of the chain.
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

    return Denoiser(net, "sample", schedule, (2,), num_classes=max(grids) + 1)


def grids_of(rewards: dict[tuple[str, int], Reward]) -> dict[tuple[str, int], TiltedGrid]:
    """The grid of every reward."""
    return {key: TiltedGrid(reward) for key, reward in rewards.items()}
