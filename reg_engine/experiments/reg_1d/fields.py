"""The paper's 1-D setting: its two pairs of distributions, guidance on a grid, and golden guidance.

Gradients are in score form everywhere, (G, W) for W weights w: grad log R_t = w (score_cond -
score_ref) for CFG, w K^T (score_cond - score_ref) for REG, grad log E_t for golden guidance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...guidance.references import BadModel
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture, chain_limit, chain_rewards, golden_of, win_ratio
from ...rectifiers import Rectifier
from ...schedules import VPLinear
from ...solvers import Table, table
from ...storage.shards import Shards
from ..points import guidance_terms

STEPS = 20
SCHEDULE = VPLinear(train_steps=STEPS)
TABLE: Table = table("ddpm", SCHEDULE, STEPS)  # variance "small": the posterior's, beta-tilde
WEIGHTS = (1.0, 2.0, 4.0)
LOW, HIGH = -1.0, 2.0
COND = ((0.5, 1.5), 0.25)  # means, deviation
VARIANTS: dict[str, tuple[tuple[float, float], float]] = {
    "shipped": ((-2.0, 0.0), 0.5),
    "main": ((-1.0, 1.0), 0.5),
}


def mixture(variant: str) -> GaussianMixture:
    """p(x_0|y) as label 0 and p(x_0) as the null label."""
    means, deviation = VARIANTS[variant]
    reference = GaussianMixture(torch.tensor(means, dtype=torch.float64)[:, None], deviation)
    cond = torch.tensor(COND[0], dtype=torch.float64)[:, None]
    return GaussianMixture(cond, COND[1], reference=reference)


def grid(points: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """The x at which gradients are compared, (points, 1)."""
    return torch.linspace(LOW, HIGH, points, dtype=dtype, device=device)[:, None]


def exact_pair(variant: str) -> tuple[Denoiser, Denoiser]:
    """The exact conditional and unconditional denoisers."""
    exact = mixture(variant)
    return exact.denoiser(0, schedule=SCHEDULE), exact.denoiser(1, schedule=SCHEDULE)


def guidance(
    pair: tuple[Denoiser, Denoiser], index: int, x: Tensor, rectifier: Rectifier
) -> tuple[Tensor, Tensor]:
    """(plain, rectified) gradient at row `index` for w = 1, each (G, 1)."""
    cond, ref = pair
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return guidance_terms(cond, BadModel(ref), TABLE.rows[index], index, x, labels, rectifier)


def chain_ends(
    cond: Denoiser,
    x: Tensor,
    repeats: int,
    generator: torch.Generator,
    shards: Shards,
    stochastic: bool = True,
) -> list[Tensor]:
    """x_0 of the chains from every row and grid point, and d x_0 / d x_t: (2, G, repeats) a row.

    They serve every reference distribution and weight. Rows that `shards` holds are taken from
    there (each row has a generator of its own).
    """
    found = []
    for index in range(STEPS):
        seed = int(torch.randint(2**31, (), generator=generator))
        name = f"{'chains' if stochastic else 'path'}-{index}"
        stored = shards.load(name)
        if stored is None:
            own = torch.Generator().manual_seed(seed)
            ends, slopes = chain_rewards(
                cond, TABLE, index, x, lambda x0: x0[:, 0], repeats, own, stochastic
            )
            both = torch.stack([ends, slopes[..., 0]]).cpu()
            shards.store(name, both, {})
        else:
            both = stored[0]
        found.append(both)
    return found


def golden_by_chains(chains: Sequence[Tensor], exact: GaussianMixture) -> Tensor:
    """grad log E_t from simulated chains, (rows, G, W); `chains` as `chain_ends` returns them."""
    rows = []
    for ends, slopes in chains:
        leaf = ends.reshape(-1, 1).double().requires_grad_()
        reward = exact.log_ratio(leaf)
        (slope,) = torch.autograd.grad(reward.sum(), leaf)
        rewards = reward.detach().reshape(ends.shape)
        gradients = slope.reshape(ends.shape) * slopes.double()
        parts = [golden_of(rewards, gradients[..., None], w) for w in WEIGHTS]
        rows.append(torch.cat(parts, 1))
    return torch.stack(rows)


def golden_by_limit(cond: Denoiser, x: Tensor, mixtures: Sequence[GaussianMixture]) -> Tensor:
    """grad log E_t from infinitely many chains, (mixtures, rows, G, W)."""

    def log_rewards(x0: Tensor) -> Tensor:
        ratios = [exact.log_ratio(x0) for exact in mixtures]
        return torch.stack([w * ratio for ratio in ratios for w in WEIGHTS], 1)

    found = chain_limit(cond, TABLE, x, log_rewards)
    return found.unflatten(2, (len(mixtures), len(WEIGHTS))).permute(2, 0, 1, 3)


def golden_exact(exact: GaussianMixture, x: Tensor) -> Tensor:
    """grad log E_t of the exact posterior p(x_0|x_t, y), without a chain, (rows, G, W)."""
    x = x.double().cpu()
    return torch.stack(
        [
            torch.cat([exact.golden(x, row.t, w, 0, SCHEDULE, nodes=257) for w in WEIGHTS], 1)
            for row in TABLE.rows
        ]
    )


def compare(
    plain: Tensor, rectified: Tensor, golden: Tensor, exact: GaussianMixture, x: Tensor
) -> list[dict[str, Any]]:
    """For each weight: win ratios and errors, per row and their means.

    Errors are those of sigma_t grad, the amount that guidance adds to the predicted noise.
    `win_weighted` counts every point by p_t(x|y): where conditional samples really are.

    Args:
        plain, rectified: (rows, G, 1) for w = 1. golden: (rows, G, W).
        x: (G, 1).
    """
    found = []
    x = x.double().cpu()
    for column, w in enumerate(WEIGHTS):
        sets: dict[str, list[float]] = {"win": [], "win_weighted": [], "reg": [], "cfg": []}
        for row, cfg, reg, all_w in zip(TABLE.rows, plain, rectified, golden, strict=True):
            cfg, reg, best = w * cfg.double(), w * reg.double(), all_w[:, column : column + 1]
            density = exact.log_prob(x, row.alpha, row.sigma, 0).softmax(0)
            sets["win"].append(win_ratio(reg, cfg, best))
            sets["win_weighted"].append(win_ratio(reg, cfg, best, density))
            for name, value in (("reg", reg), ("cfg", cfg)):
                sets[name].append(row.sigma * float((value - best).abs().mean()))
        mean = {f"{name}_mean": math.fsum(v) / len(v) for name, v in sets.items()}
        found.append({"w": w, **mean, **sets})
    return found
