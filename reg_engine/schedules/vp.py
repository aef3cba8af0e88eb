"""Variance preserving schedules: the chains of DDPM, latent diffusion, improved DDPM, any betas."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError, choice
from ..values import as_bool, as_float, as_int, shown, store
from .base import SPACED, Array, Schedule, check_number, positive_int, spaced

__all__ = ["VP", "Betas", "Cosine", "ScaledLinear", "VPLinear"]

PLAIN = ("leading", "trailing", "linspace")
FINALS = ("zero", "first")


@dataclass(frozen=True)
class VP(Schedule):
    """A variance preserving chain of T = `train_steps` betas, alpha^2 = prod(1 - beta).

    t goes from T - 1 (noise) through 0 (the first trained time) to -1 (clean). Between integers
    sigma/alpha is linear in t, as diffusers interpolates; where `spacing` spaces noise levels, its
    logarithm is (for t >= 0), again as diffusers does; its inverse is, on the way to an infinite
    one.

    Args:
        spacing: which times the grid takes (Lin et al. 2024, Tab. 2): "leading", "trailing",
            "linspace", or noise levels between the ends of spacing `ends`: "karras" (Karras et al.
            2022, rho = 7), "exponential", "beta" (see base.spaced).
        steps_offset: added to the times of "leading".
        final: the last time: "zero" is the clean one (-1), "first" is the first trained one (0).
        rounded: whether "linspace" is rounded to integers.
        extra_step: space as for one step more, and leave out the last time ("leading" and
            "linspace").
        ends: the spacing whose first and last times bound the noise levels.
        terminal: alpha^2 at T - 1 after the chain is rescaled to zero terminal SNR (Lin et al.
            2024, Alg. 1): 0, or the small number that a solver divides by (2^-24 in diffusers);
            None: the chain as it is.
    """

    prior: str = field(default="unit", kw_only=True)
    spacing: str = field(default="trailing", kw_only=True)
    steps_offset: int = field(default=0, kw_only=True)
    final: str = field(default="zero", kw_only=True)
    rounded: bool = field(default=True, kw_only=True)
    extra_step: bool = field(default=False, kw_only=True)
    ends: str = field(default="linspace", kw_only=True)
    terminal: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("spacing", self.spacing, (*PLAIN, *SPACED))
        choice("ends", self.ends, PLAIN)
        choice("final", self.final, FINALS)
        store(self, steps_offset=as_int("steps_offset", self.steps_offset, 0))
        store(self, rounded=as_bool("rounded", self.rounded))
        store(self, extra_step=as_bool("extra_step", self.extra_step))
        if self.terminal is not None:
            remedy = "Give a number in [0, 1), or None"
            terminal = as_float("terminal", self.terminal, remedy, lambda v: 0 <= v < 1)
            store(self, terminal=terminal)
        self.betas()  # checks the fields that it is made of
        if not np.all(np.diff(self._levels) > 0):
            raise InputError(
                "betas" if self.terminal is None else "terminal",
                "makes sigma/alpha fall on the way to t = T - 1",
                "Take terminal=0, or a smaller number" if self.terminal else "Give larger betas",
            )

    @abstractmethod
    def betas(self) -> Array:
        """The betas, (train_steps,)."""

    @cached_property
    def _levels(self) -> Array:
        """sigma/alpha at t = -1, 0, ..., T-1, (T + 1,); expm1 keeps the small ones exact."""
        with np.errstate(divide="ignore", over="ignore"):  # an infinite last level
            log_alpha_bar = np.cumsum(np.log1p(-self.betas()))
            if self.terminal is not None:
                alpha = np.exp(log_alpha_bar / 2)
                shifted = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
                log_alpha_bar[1:] = 2 * np.log(shifted[1:])
                log_alpha_bar[-1] = np.log(self.terminal)
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
        if self.spacing in SPACED:
            log_level = np.interp(t, self._times[1:], np.log(self._levels[1:]))
            level = np.where(t > 0, np.exp(log_level), level)
        before, end = self._levels[-2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            if np.isinf(end):
                level = np.where(t > self._times[-2], before / (self._times[-1] - t), level)
            alpha = 1 / np.sqrt(1 + level**2)
            return alpha, np.where(np.isinf(level), 1.0, level * alpha)

    def _time_of(self, noise_level: Array) -> Array:
        t = np.interp(noise_level, self._levels, self._times)
        if self.spacing in SPACED:
            log_level = np.log(np.maximum(noise_level, self._levels[1]))
            late = np.interp(log_level, np.log(self._levels[1:]), self._times[1:])
            t = np.where(noise_level > self._levels[1], late, t)
        before, end = self._levels[-2:]
        if np.isinf(end):
            late = self._times[-1] - before / np.maximum(noise_level, before)
            t = np.where(noise_level > before, late, t)
        return t

    def _grid(self, steps: int) -> Array:
        if self.spacing in SPACED:
            first, last = self.noise_level(self._spaced(self.ends, steps)[[0, -1]])
            if np.isinf(first):
                raise InputError(
                    "spacing",
                    f"{self.spacing!r} cannot start at an infinite noise level",
                    "Take terminal=2**-24, or another spacing",
                )
            times = self._time_of(spaced(self.spacing, float(first), float(last), steps))
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


def _store_chain(chain: VPLinear | ScaledLinear) -> None:
    """The fields of a chain between two betas, checked and plain."""
    for name in ("beta_start", "beta_end"):
        store(chain, **{name: check_number(name, getattr(chain, name), 0, 1)})
    store(chain, train_steps=positive_int("train_steps", chain.train_steps))


@dataclass(frozen=True)
class VPLinear(VP):
    """Betas linear from beta_start to beta_end (Ho et al. 2020); see VP for the grid's options."""

    beta_start: float = 1e-4
    beta_end: float = 0.02
    train_steps: int = 1000

    def __post_init__(self) -> None:
        _store_chain(self)
        super().__post_init__()

    def betas(self) -> Array:
        return np.linspace(self.beta_start, self.beta_end, self.train_steps)


@dataclass(frozen=True)
class ScaledLinear(VP):
    """sqrt(beta) linear (Rombach et al. 2022, latent diffusion); see VP for the grid's options."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    train_steps: int = 1000

    def __post_init__(self) -> None:
        _store_chain(self)
        super().__post_init__()

    def betas(self) -> Array:
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.train_steps) ** 2


@dataclass(frozen=True)
class Cosine(VP):
    """alpha^2(u) = cos^2((u + 0.008)/1.008 pi/2), beta <= 0.999 (Nichol & Dhariwal 2021)."""

    train_steps: int = 1000

    def __post_init__(self) -> None:
        store(self, train_steps=positive_int("train_steps", self.train_steps))
        super().__post_init__()

    def betas(self) -> Array:
        count = self.train_steps
        alpha_bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


@dataclass(frozen=True)
class Betas(VP):
    """Any chain, by its betas; see VP for the grid's options.

    Args:
        values: T >= 2 betas in (0, 1), a sequence or an array; the last may be 1 (alpha = 0).
    """

    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        try:
            array = np.asarray(self.values, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError("values", f"is {shown(self.values)}", "Give betas") from error
        if array.ndim != 1 or len(array) < 2:
            raise InputError("values", f"has shape {array.shape}", "Give two betas or more")
        inside = (array > 0) & (array < 1)
        if not (inside[:-1].all() and 0 < array[-1] <= 1):
            raise InputError("values", "holds a number outside (0, 1)", "Give betas, not alphas")
        object.__setattr__(self, "values", tuple(array.tolist()))
        super().__post_init__()

    @classmethod
    def of_alphas_cumprod(cls, alphas_cumprod: Array, **grid: Any) -> Betas:
        """The chain of these cumulative products of 1 - beta, (T,), falling from below 1."""
        products = np.asarray(alphas_cumprod, dtype=np.float64)
        return cls(1 - products / np.append(1.0, products[:-1]), **grid)

    def betas(self) -> Array:
        return np.array(self.values)
