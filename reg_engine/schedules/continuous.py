"""Schedules of continuous time: EDM (time is sigma) and flow matching (time in [0, 1])."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .base import Array, Schedule, check_number, karras

__all__ = ["EDM", "Flow"]


@dataclass(frozen=True)
class EDM(Schedule):
    """alpha = 1, sigma = t; the grid is Karras et al. 2022, Eq. 5, then 0. Any t >= 0 is valid."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sigma_min", self.sigma_min, 0, math.inf)
        check_number("sigma_max", self.sigma_max, self.sigma_min, math.inf)
        check_number("rho", self.rho, 0, math.inf)

    @property
    def prior_time(self) -> float:
        return float(self.sigma_max)

    @property
    def clean_time(self) -> float:
        return 0.0

    @property
    def last_valid_time(self) -> float:
        return float(np.finfo(np.float64).max)

    def _marginal(self, t: Array) -> tuple[Array, Array]:
        return np.ones_like(t), t

    def _time_of(self, noise_level: Array) -> Array:
        return noise_level

    def _grid(self, steps: int) -> Array:
        return np.append(karras(self.sigma_max, self.sigma_min, steps, self.rho), 0.0)


@dataclass(frozen=True)
class Flow(Schedule):
    """alpha = 1 - t, sigma = t; the grid is t = shift u / (1 + (shift - 1) u), u linear in [0, 1].

    Args:
        shift: > 1 spends more steps at high noise (Esser et al. 2024, Eq. 23).
        grid_end: 0: `steps` equal intervals of u down to 0; in (0, 1): `steps` values of u from 1
            to grid_end, then 0 (as FlowMatchEulerDiscreteScheduler spaces them).
    """

    shift: float = 1.0
    grid_end: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("shift", self.shift, 0, math.inf)
        if self.grid_end != 0:
            check_number("grid_end", self.grid_end, 0, 1)

    @property
    def prior_time(self) -> float:
        return 1.0

    @property
    def clean_time(self) -> float:
        return 0.0

    def _marginal(self, t: Array) -> tuple[Array, Array]:
        return 1 - t, t

    def _time_of(self, noise_level: Array) -> Array:
        with np.errstate(divide="ignore"):
            return 1 / (1 + 1 / noise_level)

    def _grid(self, steps: int) -> Array:
        if self.grid_end:
            u = np.append(np.linspace(1, self.grid_end, steps), 0.0)
        else:
            u = np.linspace(1, 0, steps + 1)
        return self.shift * u / (1 + (self.shift - 1) * u)
