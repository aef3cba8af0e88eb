"""Marginal against joint scaling in one dimension, step by step, by quadrature.

Guidance as it is usually stated scales every marginal: p_t(x_t|y) R_t(x_t, y) at all t at once. A
reverse chain cannot obey. With the guided kernel N(x_s; m_t + b_t/a_t g, b_t), g = grad log R_t,

    R_s(x_s) ~ E_{x_t}[N(x_s; m_t + b_t/a_t g, b_t) R_t(x_t)] / E_{x_t}[N(x_s; m_t, b_t)]

is implied by R_t (REG, arXiv 2501.18865, Appendix B); it is not the R_s that was asked for. Joint
scaling multiplies the path p(x_0:T|y) by R_0(x_0) alone. Its kernels (Theorem 4.1)
E_s(x_s)/E_t(x_t) p(x_s|x_t, y), E_t = E[R_0 | x_t, y], are Doob's h-transform and fit together.

Two neighbouring levels t (noisier) and s: x_t = a_t x_s + noise of variance b_t (DDPM's alpha and
beta), m_t = (x_t + b_t score_t)/a_t, and the kernel's variance is DDPM's larger choice, beta.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import InputError
from ...oracles import GaussianMixture
from ...schedules import VPLinear, karras

VISIBLE = 1e-4  # of the demanded density's peak: where the largest mismatch is looked for


def two_class_1d() -> GaussianMixture:
    """Two classes of two Gaussians each on a line, deviation 0.2; the reference is all of them.

    A component of class 0 lies 0.3 from one of class 1: there guidance matters.
    """
    means = torch.tensor([[-1.0], [0.0], [0.3], [1.2]], dtype=torch.float64)
    return GaussianMixture(means, 0.2, labels=torch.tensor([0, 0, 1, 1]))


class Level(NamedTuple):
    """(alpha, sigma) of one time."""

    alpha: float
    sigma: float

    @property
    def noise(self) -> float:
        """The noise level sigma/alpha."""
        return self.sigma / self.alpha


def paper_levels() -> list[Level]:
    """The 20 steps of the paper's 1-D setting, from clean to noisy, 21 levels.

    Linear betas from 1e-4 to 0.02, as in 1,000 steps: the noisiest level is sigma = 0.43 only.
    """
    schedule = VPLinear(train_steps=20)
    return [Level(*schedule(float(t))) for t in range(-1, 20)]


def vp_levels(steps: int, first: float = 0.05, last: float = 10.0) -> list[Level]:
    """`steps` + 1 variance preserving levels, clean, then noise levels `first` to `last` (rho 7).

    Raises:
        InputError: fewer than 2 steps.
    """
    if steps < 2:
        raise InputError("steps", f"is {steps}", "Give an integer >= 2")
    levels = [Level(1.0, 0.0)]
    for noise in karras(last, first, steps)[::-1]:
        alpha = 1 / math.hypot(1.0, float(noise))
        levels.append(Level(alpha, float(noise) * alpha))
    return levels


class Gap(NamedTuple):
    """log(implied / demanded) of one step, the constant removed."""

    noise: float  # the noise level that the step leaves
    mean: float  # mean magnitude, in nats, under the demanded density
    worst: float  # largest magnitude where that density is above VISIBLE of its peak


class Chain:
    """All quantities of one mixture, weight and list of levels on one grid of x.

    Args:
        mixture: 1-D; class 0 is guided.
        w: scale - 1, >= 0.
        levels: from clean (sigma 0) to noisy.
        low, high: ends of the grid, beyond which every density is negligible.

    Raises:
        InputError: a mixture that is not 1-D, or levels that do not rise from sigma = 0.
    """

    def __init__(
        self, mixture: GaussianMixture, w: float, levels: list[Level], low: float, high: float
    ) -> None:
        if mixture.dim != 1:
            raise InputError("mixture", f"has {mixture.dim} dimensions", "Give one in 1-D")
        rising = all(s.noise < t.noise for s, t in zip(levels, levels[1:], strict=False))
        if len(levels) < 2 or levels[0].sigma != 0 or not rising:
            raise InputError("levels", "do not rise from sigma = 0", "Order them clean to noisy")
        self.mixture, self.w, self.levels = mixture, w, levels
        # The trapezoidal rule on Gaussians of deviation d errs by exp(-2 (pi d / cell)^2).
        least = min(math.sqrt(self._step(t)[1]) for t in range(1, len(levels)))
        nodes = 1 + math.ceil((high - low) / (0.7 * least))
        self.x = torch.linspace(low, high, nodes, dtype=torch.float64)
        self._points = self.x[:, None]
        self.cell = (high - low) / (nodes - 1)
        self._log_tilted = self.log_density(0) + self.log_marginal_reward(0)
        self._tilts: dict[int, tuple[Tensor, Tensor]] = {}

    def log_density(self, t: int) -> Tensor:
        """log p_t(x|y) on the grid."""
        return self.mixture.log_prob(self._points, *self.levels[t], 0)

    def log_marginal_reward(self, t: int) -> Tensor:
        """log R_t = w log p_t(x|y)/p_t(x): what CFG claims at every t (Eq. 9)."""
        return self.w * self.mixture.log_ratio(self._points, *self.levels[t])

    def log_joint_reward(self, t: int) -> Tensor:
        """log E_t by its own quadrature over x_0 (Theorem 4.1); log R_0 at t = 0."""
        return self.log_marginal_reward(0) if t == 0 else self._tilted(t)[0]

    def guidance(self, t: int, kind: str) -> Tensor:
        """The guidance field at level t on the grid.

        Args:
            kind: "unguided" (0), "cfg" (grad log R_t), "reg" (K grad log R_t) or "golden"
                (grad log E_t).
        """
        if kind == "unguided":
            return torch.zeros_like(self.x)
        if kind == "golden":
            return self._tilted(t)[1]
        at = (self._points, *self.levels[t])
        plain = self.w * (self.mixture.score(*at, 0) - self.mixture.score(*at))[:, 0]
        if kind == "cfg":
            return plain
        if kind == "reg":
            return plain * self.mixture.jacobian(*at, 0)[:, 0, 0]
        raise InputError("kind", f"is {kind!r}", "Known: unguided, cfg, reg, golden")

    def kernel(self, t: int, guidance: Tensor) -> Tensor:
        """N(x_s; m_t + b/a guidance, b): rows x_s, columns x_t, (nodes, nodes)."""
        a, b = self._step(t)
        score = self.mixture.score(self._points, *self.levels[t], 0)[:, 0]
        mean = (self.x + b * (score + guidance)) / a
        return _normal(self._points - mean, b)

    def implied(self, t: int, log_reward: Tensor, guidance: Tensor) -> Tensor:
        """log of the reward at level t - 1 that a guided kernel implies, up to a constant.

        Args:
            log_reward: log R_t on the grid. guidance: of the kernel from t to t - 1.
        """
        log_p = self.log_density(t)
        guided = self.kernel(t, guidance) @ (log_p + log_reward).exp()
        plain = self.kernel(t, torch.zeros_like(guidance)) @ log_p.exp()
        return guided.log() - plain.log()

    def gap(self, t: int, kind: str) -> Gap:
        """How far the implied reward is from the demanded one, from level t to t - 1.

        Args:
            kind: "cfg": R_t demanded everywhere; "golden": E_t with kernels that grad log E_t
                shifts, right up to the step's own error.
        """
        demand = self.log_marginal_reward if kind == "cfg" else self.log_joint_reward
        found = self.implied(t, demand(t), self.guidance(t, kind))
        wanted = demand(t - 1)
        density = (self.log_density(t - 1) + wanted).softmax(0)
        seen = density > VISIBLE * density.max()
        difference = torch.where(seen, found - wanted, torch.zeros_like(wanted))
        share = torch.where(seen, density, torch.zeros_like(density))
        share = share / share.sum()
        difference = difference - (share * difference).sum()
        return Gap(
            self.levels[t - 1].noise,
            float((share * difference.abs()).sum()),
            float(difference.abs()[seen].max()),
        )

    def run(self, kind: str) -> Tensor:
        """Density of x_0 on the grid after all steps of a guided chain.

        It starts as a sampler does, from the noisiest marginal p_T(x_T|y).
        """
        density = self.log_density(len(self.levels) - 1).exp()
        for t in range(len(self.levels) - 1, 0, -1):
            density = self.kernel(t, self.guidance(t, kind)) @ density * self.cell
        return density

    def joint_kernel(self, t: int) -> Tensor:
        """The kernel of Theorem 4.1 from level t to t - 1: rows x_s, columns x_t.

        p(x_s|x_t, y) is exact (Bayes with q(x_t|x_s)), E_s and E_t come from two quadratures over
        x_0 that know nothing of each other: that the columns integrate to 1 is a finding.
        """
        a, b = self._step(t)
        cleaner = self.log_density(t - 1) + self.log_joint_reward(t - 1)
        noisier = self.log_density(t) + self.log_joint_reward(t)
        return _normal(self.x - a * self._points, b, cleaner[:, None] - noisier)

    def joint_run(self) -> tuple[float, float]:
        """The chain of joint kernels, from p_T E_T down to level 0.

        Returns:
            (largest |integral - 1| of a kernel's column where the density is visible, total
            variation between where the chain ends and the tilted target).
        """
        last = len(self.levels) - 1
        density = (self.log_density(last) + self.log_joint_reward(last)).softmax(0) / self.cell
        worst = 0.0
        for t in range(last, 0, -1):
            kernel = self.joint_kernel(t)
            seen = density > VISIBLE * density.max()
            worst = max(worst, float((kernel.sum(0) * self.cell - 1).abs()[seen].max()))
            density = kernel @ density * self.cell
        return worst, self.distance(density)

    def target(self) -> Tensor:
        """Density of the tilted target p(x_0|y)^(1+w) / p(x_0)^w on the grid."""
        return self._log_tilted.softmax(0) / self.cell

    def distance(self, density: Tensor) -> float:
        """Total variation between a density on the grid and the target, in [0, 1]."""
        return float((density - self.target()).abs().sum() * self.cell / 2)

    def _step(self, t: int) -> tuple[float, float]:
        """a and b of x_t = a x_s + N(0, b)."""
        cleaner, noisier = self.levels[t - 1], self.levels[t]
        a = noisier.alpha / cleaner.alpha
        return a, noisier.sigma**2 - (a * cleaner.sigma) ** 2

    def _tilted(self, t: int) -> tuple[Tensor, Tensor]:
        """log E_t and its gradient on the grid."""
        if t not in self._tilts:
            alpha, sigma = self.levels[t]
            log_f = -0.5 * ((self._points - alpha * self.x) / sigma).square() + self._log_tilted
            log_mass = log_f.logsumexp(1)
            mean = (log_f - log_mass[:, None]).exp() @ self.x
            log_norm = math.log(self.cell) - 0.5 * math.log(2 * math.pi * sigma**2)
            plain = self.mixture.denoised(self._points, alpha, sigma, 0)[:, 0]
            slope = alpha / sigma**2 * (mean - plain)
            self._tilts[t] = log_mass + log_norm - self.log_density(t), slope
        return self._tilts[t]


def _normal(offset: Tensor, variance: float, log_factor: Tensor | None = None) -> Tensor:
    """N(offset; 0, variance) times a factor given by its logarithm."""
    exponent = -0.5 * offset.square() / variance
    if log_factor is not None:
        exponent += log_factor
    # e^-200 is nothing here, and numbers too small to be normal would cost ten times the time.
    return exponent.clamp_(min=-200).exp_() / math.sqrt(2 * math.pi * variance)
