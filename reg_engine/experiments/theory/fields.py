"""Guidance fields of an exact mixture: the Renyi gap of CFG; CFG and REG against golden.

For exact posteriors the gap of CFG is known in closed form,

    grad log E_t - grad log R_t = w grad D_{1+w}(p(x_0|x_t, y) || p(x_0|x_t)),

the Renyi divergence of order 1 + w between what the model believes about x_0 with and without the
condition: zero where x_t has told everything, large where the condition still adds something.
(Moufad et al., arXiv 2505.21101, name the missing term.)
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...oracles import GaussianMixture, TiltedGrid, win_ratio
from ...schedules import Schedule
from ...solvers import table
from .scores import SCHEDULE

FORMS = ("product", "columns", "diagonal")


def renyi_gap(
    mixture: GaussianMixture,
    x: Tensor,
    alpha: float,
    sigma: float,
    w: float,
    low: float = -6.0,
    high: float = 7.0,
) -> Tensor:
    """w grad D_{1+w}(p(x_0|x_t, y=0) || p_ref(x_0|x_t)) at x (B,), in one dimension.

    The divergence is a trapezoidal sum over x_0 in [low, high], differentiated by autograd. It
    knows neither E_t nor guidance, so that the identity above can be tested by it.
    """
    width = float(mixture.variances.amin().sqrt())
    cell = 0.25 * width * sigma / math.hypot(alpha * width, sigma)
    grid = torch.linspace(low, high, 1 + math.ceil((high - low) / cell), dtype=torch.float64)
    step = float(grid[1] - grid[0])
    priors = [mixture.log_prob(grid[:, None], y=y) for y in (0, None)]
    leaf = x.detach().double().requires_grad_()
    with torch.enable_grad():
        forward = torch.distributions.Normal(alpha * grid, sigma).log_prob(leaf[:, None])
        log_p, log_q = (
            forward + prior - mixture.log_prob(leaf[:, None], alpha, sigma, y)[:, None]
            for prior, y in zip(priors, (0, None), strict=True)
        )
        divergence = (((1 + w) * log_p - w * log_q).logsumexp(-1) + math.log(step)) / w
        (slope,) = torch.autograd.grad(divergence.sum(), leaf)
    return w * slope


def renyi_sides(
    mixture: GaussianMixture, x: Tensor, alpha: float, sigma: float, w: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(grad log E_t - grad log R_t, the Renyi term, grad log R_t) at x (B,), in one dimension."""
    points = x[:, None].double()
    scores = [mixture.score(points, alpha, sigma, y)[:, 0] for y in (0, None)]
    cfg = w * (scores[0] - scores[1])
    tilted = mixture.tilted_posterior(points, alpha, sigma, w).mean
    plain = mixture.denoised(points, alpha, sigma, 0)
    golden = (alpha / sigma**2 * (tilted - plain))[:, 0]
    return golden - cfg, renyi_gap(mixture, x, alpha, sigma, w), cfg


def fields(grid: TiltedGrid, w: float, x: Tensor, sigma: float) -> dict[str, Tensor]:
    """What guidance adds to the conditional denoised estimate at x (B, 2), alpha = 1: sigma^2 grad
    log, in units of data, each (B, 2).

    Returns:
        golden; cfg; and REG in its three FORMS: "product" (K delta: estimators vjp, jvp, fd,
        fd_batched), "columns" (column sums of K times delta: `paper`), "diagonal" (diag(K) delta).
    """
    mixture, y = grid.mixture, grid.label
    cond, ref = (mixture.denoised(x, 1.0, sigma, label) for label in (y, None))
    delta = w * (cond - ref)
    k = mixture.jacobian(x, 1.0, sigma, y)
    return {
        "golden": grid.denoised(x, 1.0, sigma, w) - cond,
        "cfg": delta,
        "product": (k @ delta[..., None])[..., 0],
        "columns": k.sum(1) * delta,
        "diagonal": k.diagonal(dim1=1, dim2=2) * delta,
    }


def errors(found: Tensor, golden: Tensor) -> dict[str, float]:
    """A field against golden, both (B, d), over points.

    Returns:
        angle: degrees between the two vectors, mean weighted by golden's length.
        length: total length over golden's total length, 1 where right.
        relative: root mean square of the difference over that of golden.
    """
    sizes, wanted = found.norm(dim=1), golden.norm(dim=1)
    cosine = (found * golden).sum(1) / (sizes * wanted).clamp_min(1e-300)
    angles = cosine.clamp(-1, 1).acos().rad2deg()
    return {
        "angle": float((angles * wanted).sum() / wanted.sum()),
        "length": float(sizes.sum() / wanted.sum()),
        "relative": float((found - golden).norm() / golden.norm()),
    }


def field_errors(grid: TiltedGrid, w: float, x: Tensor, sigma: float) -> dict[str, Any]:
    """At the points x (B, 2) of one noise level: `errors` of CFG and of REG's FORMS, and the win
    ratio of each form over CFG, in [0, 1]."""
    found = fields(grid, w, x, sigma)
    golden, cfg = found["golden"], found["cfg"]
    return {
        "sigma": sigma,
        "cfg": errors(cfg, golden),
        "reg": {name: errors(found[name], golden) for name in FORMS},
        "wins": {name: win_ratio(found[name], cfg, golden) for name in FORMS},
    }


def solver_levels(steps: int = 18, schedule: Schedule = SCHEDULE) -> list[float]:
    """The different noise levels that a Heun run evaluates, from noisy to clean."""
    rows = table("heun", schedule, steps).rows
    levels = [row.noise_level for row in rows]
    return [levels[0], *(b for a, b in pairwise(levels) if b != a)]


def middle_third(levels: list[float]) -> list[bool]:
    """Which levels lie in the middle third of the range of log sigma."""
    low, high = math.log(min(levels)), math.log(max(levels))
    third = (high - low) / 3
    return [low + third <= math.log(level) <= high - third for level in levels]
