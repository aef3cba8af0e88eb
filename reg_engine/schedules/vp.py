"""Variance preserving schedules: the chains of DDPM, latent diffusion and improved DDPM."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import InputError, choice
from .base import Array, Schedule, check_number, karras, positive_int

__all__ = ["VP", "Cosine", "ScaledLinear", "VPLinear"]

SPACINGS = ("leading", "trailing", "linspace", "karras")
FINALS = ("zero", "first")


@dataclass(frozen=True)
class VP(Schedule):
    """A variance preserving chain of T = `train_steps` betas, alpha^2 = prod(1 - beta).

    t goes from T - 1 (noise) through 0 (the first trained time) to -1 (clean). Between integers
    sigma/alpha is linear in t, as diffusers interpolates; under spacing "karras" its logarithm is
    (for t >= 0), again as diffusers does.

    Args:
        spacing: which times the grid takes (Lin et al. 2024, Tab. 2): "leading", "trailing",
            "linspace", or "karras": the noise levels of Karras et al. with rho = 7 between the ends
            of spacing `ends`.
        steps_offset: added to the times of "leading".
        final: the last time: "zero" is the clean one (-1), "first" is the first trained one (0).
        rounded: whether "linspace" is rounded to integers.
        extra_step: space as for one step more, and leave out the last time ("leading" and
            "linspace").
        ends: the spacing whose first and last times bound "karras".
    """

    prior: str = field(default="unit", kw_only=True)
    spacing: str = field(default="trailing", kw_only=True)
    steps_offset: int = field(default=0, kw_only=True)
    final: str = field(default="zero", kw_only=True)
    rounded: bool = field(default=True, kw_only=True)
    extra_step: bool = field(default=False, kw_only=True)
    ends: str = field(default="linspace", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("spacing", self.spacing, SPACINGS)
        choice("ends", self.ends, SPACINGS[:-1])
        choice("final", self.final, FINALS)
        if isinstance(self.steps_offset, bool) or not isinstance(self.steps_offset, int):
            raise InputError("steps_offset", f"is {self.steps_offset!r}", "Give an integer >= 0")
        if self.steps_offset < 0:
            raise InputError("steps_offset", f"is {self.steps_offset}", "Give an integer >= 0")
        self.betas()  # checks the fields that it is made of

    @abstractmethod
    def betas(self) -> Array:
        """The betas, (train_steps,)."""

    @cached_property
    def _levels(self) -> Array:
        """sigma/alpha at t = -1, 0, ..., T-1, (T + 1,); expm1 keeps the small ones exact."""
        log_alpha_bar = np.cumsum(np.log1p(-self.betas()))
        return np.concatenate([[0.0], np.sqrt(np.expm1(-log_alpha_bar))])

    @cached_property
    def _times(self) -> Array:
        return np.arange(-1.0, len(self._levels) - 1.0)

    @property
    def prior_time(self) -> float:
        return float(self._times[-1])

    @property
    def clean_time(self) -> float:
        return -1.0

    def _marginal(self, t: Array) -> tuple[Array, Array]:
        level = np.interp(t, self._times, self._levels)
        if self.spacing == "karras":
            log_level = np.interp(t, self._times[1:], np.log(self._levels[1:]))
            level = np.where(t > 0, np.exp(log_level), level)
        alpha = 1 / np.sqrt(1 + level**2)
        return alpha, level * alpha

    def _time_of(self, noise_level: Array) -> Array:
        t = np.interp(noise_level, self._levels, self._times)
        if self.spacing == "karras":
            log_level = np.log(np.maximum(noise_level, self._levels[1]))
            late = np.interp(log_level, np.log(self._levels[1:]), self._times[1:])
            t = np.where(noise_level > self._levels[1], late, t)
        return t

    def _grid(self, steps: int) -> Array:
        if self.spacing == "karras":
            ends = self._marginal(self._spaced(self.ends, steps)[[0, -1]])
            first, last = ends[1] / ends[0]
            times = self._time_of(karras(first, last, steps))
        else:
            times = self._spaced(self.spacing, steps)
        if times[0] <= 0 or times[0] > self.prior_time:
            raise InputError(
                "steps",
                f"{steps} with spacing {self.spacing!r} and steps_offset {self.steps_offset} "
                f"would start at t = {times[0]:g}, not in (0, {self.prior_time:g}]",
                "Take other steps, another offset, or spacing='trailing'",
            )
        return np.append(times, self.clean_time if self.final == "zero" else 0.0)

    def _spaced(self, spacing: str, steps: int) -> Array:
        total = len(self._times) - 1
        count = steps + (self.extra_step and spacing != "trailing")
        if count > total:
            raise InputError(
                "steps",
                f"is {steps}, and the chain has {total} times",
                f"Take fewer steps, {total - (count - steps)} at most",
            )
        if spacing == "trailing":
            times = np.round(total - np.arange(steps) * (total / steps)) - 1
        elif spacing == "leading":
            times = (np.arange(count) * (total // count) + self.steps_offset)[::-1]
        else:
            times = np.linspace(0 if count > 1 else total - 1, total - 1, count)[::-1]
            times = np.round(times) if self.rounded else times
        return times[:steps].astype(np.float64)


@dataclass(frozen=True)
class VPLinear(VP):
    """Betas linear from beta_start to beta_end (Ho et al. 2020); see VP for the grid's options."""

    beta_start: float = 1e-4
    beta_end: float = 0.02
    train_steps: int = 1000

    def betas(self) -> Array:
        check_number("beta_start", self.beta_start, 0, 1)
        check_number("beta_end", self.beta_end, 0, 1)
        count = positive_int("train_steps", self.train_steps)
        return np.linspace(self.beta_start, self.beta_end, count)


@dataclass(frozen=True)
class ScaledLinear(VP):
    """sqrt(beta) linear (Rombach et al. 2022, latent diffusion); see VP for the grid's options."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    train_steps: int = 1000

    def betas(self) -> Array:
        check_number("beta_start", self.beta_start, 0, 1)
        check_number("beta_end", self.beta_end, 0, 1)
        count = positive_int("train_steps", self.train_steps)
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, count) ** 2


@dataclass(frozen=True)
class Cosine(VP):
    """alpha^2(u) = cos^2((u + 0.008)/1.008 pi/2), beta <= 0.999 (Nichol & Dhariwal 2021)."""

    train_steps: int = 1000

    def betas(self) -> Array:
        count = positive_int("train_steps", self.train_steps)
        alpha_bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
