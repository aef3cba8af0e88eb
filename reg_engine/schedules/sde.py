"""The continuous schedules of score models (Song et al. 2021): VP and VE, time in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..values import store
from .base import Array, Schedule, check_number
from .continuous import LEAST

__all__ = ["VESDE", "VPSDE"]


@dataclass(frozen=True)
class VPSDE(Schedule):
    """log alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2, sigma^2 = 1 - alpha^2 (App. C).

    Args:
        beta_min, beta_max: of beta(t), linear in t.
        grid_end: the grid has `steps` equally spaced times from 1 to this one, then 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    prior: str = field(default="unit", kw_only=True)
    grid_end: float = field(default=1e-3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        low = check_number("beta_min", self.beta_min, 1e-6, 250)  # alpha = exp(-62) and more
        store(self, beta_min=low, beta_max=check_number("beta_max", self.beta_max, low, 250))
        store(self, grid_end=check_number("grid_end", self.grid_end, 1e-12, 1))

    @property
    def prior_time(self) -> float:
        return 1.0

    @property
    def clean_time(self) -> float:
        return 0.0

    def _marginal(self, t: Array) -> tuple[Array, Array]:
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2
        return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))

    def _time_of(self, noise_level: Array) -> Array:
        integral = np.log1p(noise_level**2)  # of beta, from 0 to t
        root = np.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)

    def _grid(self, steps: int) -> Array:
        return np.append(np.linspace(1.0, self.grid_end, steps), 0.0)


@dataclass(frozen=True)
class VESDE(Schedule):
    """alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t for t in [0, 1] (App. C).

    sigma is not 0 at t = 0. The clean time is -1, and sigma is linear on the way there, which no
    network is asked about. Where a network is told sigma itself, `EDM(spacing="exponential")` has
    the same grid.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        low = check_number("sigma_min", self.sigma_min, LEAST, 1 / LEAST)
        store(
            self, sigma_min=low, sigma_max=check_number("sigma_max", self.sigma_max, low, 1 / LEAST)
        )

    @property
    def prior_time(self) -> float:
        return 1.0

    @property
    def clean_time(self) -> float:
        return -1.0

    def _marginal(self, t: Array) -> tuple[Array, Array]:
        trained = self.sigma_min * (self.sigma_max / self.sigma_min) ** np.maximum(t, 0.0)
        return np.ones_like(t), np.where(t < 0, self.sigma_min * (1 + t), trained)

    def _time_of(self, noise_level: Array) -> Array:
        ratio = np.maximum(noise_level / self.sigma_min, 1.0)
        trained = np.log(ratio) / math.log(self.sigma_max / self.sigma_min)
        below = noise_level / self.sigma_min - 1
        return np.where(below < 0, below, np.minimum(trained, 1.0))

    def _grid(self, steps: int) -> Array:
        return np.append(np.linspace(1.0, 0.0, steps), self.clean_time)
