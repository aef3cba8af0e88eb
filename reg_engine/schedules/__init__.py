"""Noise schedules: `schedule(t) -> (alpha_t, sigma_t)` of x_t = alpha_t x_0 + sigma_t eps.

| schedule       | time t                         | alpha_t, sigma_t                               |
|----------------|--------------------------------|------------------------------------------------|
| `VPLinear`     | step, T-1 (noise) .. -1 (clean)| alpha^2 = prod(1-beta), sigma^2 = 1 - alpha^2  |
| `ScaledLinear` | the same                       | the same, sqrt(beta) linear (latent diffusion) |
| `Cosine`       | the same                       | the same, Nichol & Dhariwal 2021, Eq. 17       |
| `Betas`        | the same                       | the same, any betas                            |
| `EDM`          | sigma                          | 1, t (Karras et al. 2022, Tab. 1)              |
| `Flow`         | 1 (noise) .. 0 (clean)         | 1 - t, t (Lipman et al. 2023)                  |
| `VPSDE`        | 1 (noise) .. 0 (clean)         | continuous VP (Song et al. 2021, App. C)       |
| `VESDE`        | 1 (noise) .. 0, -1 (clean)     | 1, sigma_min (sigma_max/sigma_min)^t (ibid.)   |

A schedule is an immutable value in float64, with a default grid of times. What all have in common
is the noise level sigma/alpha: x_t / alpha_t = x_0 + noise_level(t) eps.
"""

from __future__ import annotations

from .base import Schedule, karras
from .continuous import EDM, Flow
from .from_config import from_diffusers, solver_from_diffusers
from .sde import VESDE, VPSDE
from .vp import VP, Betas, Cosine, ScaledLinear, VPLinear

__all__ = [
    "EDM",
    "VESDE",
    "VP",
    "VPSDE",
    "Betas",
    "Cosine",
    "Flow",
    "ScaledLinear",
    "Schedule",
    "VPLinear",
    "from_diffusers",
    "karras",
    "solver_from_diffusers",
]
