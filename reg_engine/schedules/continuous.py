"""Schedules of continuous time: EDM (time is sigma) and flow matching (time in [0, 1])."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError, choice
from ..values import as_bool, as_float, store
from .base import SPACED, Array, Schedule, check_number, spaced

__all__ = ["EDM", "Flow"]

LEAST = 1e-30  # of a noise level: with its inverse, what a float32 state can be stepped in
# The limits of rho and shift are where float64 still tells the times of a grid apart.


@dataclass(frozen=True)
class EDM(Schedule):
    """alpha = 1, sigma = t; the grid is Karras et al. 2022, Eq. 5, then 0. Any t >= 0 is valid.

    Args:
        sigma_min, sigma_max: ends of the grid, before its last time 0.
        rho: of Eq. 5.
        spacing: "karras", or another of base.spaced.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    spacing: str = field(default="karras", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        low = check_number("sigma_min", self.sigma_min, LEAST, 1 / LEAST)
        high = check_number("sigma_max", self.sigma_max, low, 1 / LEAST)
        store(self, sigma_min=low, sigma_max=high, rho=check_number("rho", self.rho, 0.1, 1e6))
        choice("spacing", self.spacing, SPACED)

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
        levels = spaced(self.spacing, self.sigma_max, self.sigma_min, steps, self.rho)
        return np.append(levels, 0.0)


@dataclass(frozen=True)
class Flow(Schedule):
    """alpha = 1 - t, sigma = t; the grid is t = shift u / (1 + (shift - 1) u), u linear in [0, 1].

    Args:
        shift: > 1 spends more steps at high noise (Esser et al. 2024, Eq. 23); exp(mu) for the
            dynamic shift of Flux and its kin.
        grid_start, grid_end: u goes from one to the other. Down to 0 it has `steps` equal
            intervals; down to a larger end `steps` values, then 0 (as in
            FlowMatchEulerDiscreteScheduler).
        extra_step: space as for one step more, and leave out the last value.
        terminal: stretch 1 - t, so that the last time before 0 is this one (LTX-Video, Qwen-Image).
        spacing: "linear" as above, or another of base.spaced between those ends.
        highest: no time of the grid is above it.
    """

    shift: float = 1.0
    grid_end: float = field(default=0.0, kw_only=True)
    grid_start: float = field(default=1.0, kw_only=True)
    extra_step: bool = field(default=False, kw_only=True)
    terminal: float | None = field(default=None, kw_only=True)
    spacing: str = field(default="linear", kw_only=True)
    highest: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, shift=check_number("shift", self.shift, 1e-6, 1e6))
        for name in ("grid_start", "highest"):
            value, remedy = getattr(self, name), "Give a number in (0, 1]"
            store(self, **{name: as_float(name, value, remedy, lambda v: 0 < v <= 1)})
        remedy = "Give a number in [0, 1), below grid_start"
        end = as_float("grid_end", self.grid_end, remedy, lambda v: 0 <= v < self.grid_start)
        store(self, grid_end=end)
        if self.terminal is not None:
            store(self, terminal=check_number("terminal", self.terminal, 1e-6, 1))
        store(self, extra_step=as_bool("extra_step", self.extra_step))
        choice("spacing", self.spacing, ("linear", *SPACED))

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
        count = steps + (self.extra_step or self.grid_end == 0)
        u = np.linspace(self.grid_start, self.grid_end, count)[:steps]
        times = self.shift * u / (self.shift * u + (1 - u))  # exactly 1 at u = 1
        if self.terminal is not None:
            if times[-1] == 1:
                raise InputError(
                    "steps", f"is {steps}, terminal needs two times", "Take more steps"
                )
            times = 1 - (1 - times) * ((1 - self.terminal) / (1 - times[-1]))
        if self.spacing != "linear":
            times = spaced(self.spacing, times[0], times[-1], steps)
        return np.append(np.minimum(times, self.highest), 0.0)
