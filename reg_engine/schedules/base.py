"""What every schedule has: t -> (alpha_t, sigma_t), its inverse, and the times of a sampler."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, choice
from ..values import as_float, as_int, as_tuple, store

__all__ = ["SPACED", "Array", "Schedule", "check_number", "karras", "positive_int", "spaced"]

Array = NDArray[np.float64]

PRIORS = ("sigma", "unit", "standard")
SPACED = ("karras", "exponential", "beta")
BETA = 0.6  # both parameters of the Beta distribution that "beta" takes its quantiles of


def karras(first: float, last: float, count: int, rho: float = 7.0) -> Array:
    """`count` noise levels from `first` down to `last`, (count,) (Karras et al. 2022, Eq. 5)."""
    ramp = np.arange(count) / max(count - 1, 1)
    levels = (first ** (1 / rho) + ramp * (last ** (1 / rho) - first ** (1 / rho))) ** rho
    # Exact ends: rounding must not carry them out of the schedule's range.
    levels[-1], levels[0] = last, first  # in this order: one level is the first
    return levels


def spaced(kind: str, first: float, last: float, count: int, rho: float = 7.0) -> Array:
    """`count` values from `first` down to `last`, (count,), spaced as `kind` says.

    Args:
        kind: "karras"; "exponential" (equal ratios); "beta": the quantiles of Beta(0.6, 0.6), which
            are dense at both ends (arXiv 2407.12173).
        rho: of "karras".

    Raises:
        InputError: "beta" without SciPy.
    """
    if kind == "karras":
        return karras(first, last, count, rho)
    if kind == "exponential":
        values = np.exp(np.linspace(math.log(first), math.log(last), count))
    else:
        values = last + (first - last) * _beta_quantiles(np.linspace(1, 0, count))
    values[-1], values[0] = last, first
    return values


def _beta_quantiles(share: Array) -> Array:
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise InputError(
            "spacing", "is 'beta', which needs SciPy", "pip install scipy, or space otherwise"
        ) from error
    return np.asarray(beta.ppf(share, BETA, BETA), dtype=np.float64)


@dataclass(frozen=True)
class Schedule(ABC):
    """t -> (alpha_t, sigma_t), its inverse, and the default times of a sampler.

    Two schedules are equal if they are of one class, that class is a dataclass itself, and all its
    fields are equal. Of a subclass without `@dataclass` the parameters are not known, so that each
    of its values equals itself alone.

    Args:
        prior: deviation of the first state: "sigma" is sigma_t (the noise alone); "unit" is
            sqrt(alpha_t^2 + sigma_t^2), data of unit variance plus the noise (1 for every VP kind);
            "standard" is 1, as diffusers starts its multistep solvers whatever the schedule.
        times: times of `grid` in place of the default ones, strictly from noisy to clean.
    """

    prior: str = field(default="sigma", kw_only=True)
    times: tuple[float, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        choice("prior", self.prior, PRIORS)
        if self.times is not None:
            store(self, times=as_tuple("times", self.times, "Give numbers, or None"))

    def __init_subclass__(cls, **options: Any) -> None:
        # `@dataclass` leaves an __eq__ of the class alone. Inherited, the one that it generates
        # would compare the parent's fields only.
        super().__init_subclass__(**options)
        if "__eq__" not in vars(cls):
            cls.__eq__ = Schedule.__eq__  # type: ignore[method-assign]
            cls.__hash__ = Schedule.__hash__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or "__dataclass_params__" not in vars(type(self)):
            return False
        compared = (f.name for f in fields(self) if f.compare)
        pairs = ((getattr(self, name), getattr(other, name)) for name in compared)
        return all(a is b or bool(np.array_equal(a, b)) for a, b in pairs)  # fields may be arrays

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    @abstractmethod
    def prior_time(self) -> float:
        """The noisiest time of the default grid."""

    @property
    @abstractmethod
    def clean_time(self) -> float:
        """The time where alpha = 1 and sigma = 0."""

    @property
    def last_valid_time(self) -> float:
        """The noisiest time at which the schedule is defined."""
        return self.prior_time

    @abstractmethod
    def _marginal(self, t: Array) -> tuple[Array, Array]: ...

    @abstractmethod
    def _time_of(self, noise_level: Array) -> Array: ...

    @abstractmethod
    def _grid(self, steps: int) -> Array: ...

    @overload
    def __call__(self, t: float) -> tuple[float, float]: ...
    @overload
    def __call__(self, t: Array) -> tuple[Array, Array]: ...
    def __call__(self, t: float | Array) -> tuple[float | Array, float | Array]:
        """(alpha_t, sigma_t), each a float for a float and an array of t's shape for an array.

        Raises:
            InputError: t outside [clean_time, last_valid_time].
        """
        alpha, sigma = self._marginal(self.check(t))
        return _like(t, alpha), _like(t, sigma)

    @overload
    def noise_level(self, t: float) -> float: ...
    @overload
    def noise_level(self, t: Array) -> Array: ...
    def noise_level(self, t: float | Array) -> float | Array:
        """sigma_t / alpha_t; infinite where alpha_t = 0."""
        alpha, sigma = self._marginal(self.check(t))
        with np.errstate(divide="ignore"):
            return _like(t, sigma / alpha)

    @overload
    def time_of(self, noise_level: float) -> float: ...
    @overload
    def time_of(self, noise_level: Array) -> Array: ...
    def time_of(self, noise_level: float | Array) -> float | Array:
        """The time at which sigma_t / alpha_t = noise_level: the inverse of `noise_level`.

        Raises:
            InputError: noise_level is negative, NaN or above the schedule's largest.
        """
        level = np.asarray(noise_level, dtype=np.float64)
        largest = self.noise_level(self.last_valid_time)
        # A level computed on another schedule may pass the end by rounding.
        if not np.all((level >= 0) & (level * (1 - 1e-12) <= largest)):
            raise InputError(
                "noise_level",
                f"{noise_level} is not in [0, {largest:.6g}] of {type(self).__name__}",
                "Sample on a schedule whose largest sigma/alpha the model was trained for",
            )
        return _like(noise_level, self._time_of(level))

    def grid(self, steps: int) -> Array:
        """The `steps + 1` default times, (steps + 1,), from the noisiest to the final one.

        Raises:
            InputError: steps is not an integer >= 1, or the schedule has no grid of that many.
        """
        steps = positive_int("steps", steps)
        if self.times is None:
            return self._grid(steps)
        if steps != len(self.times) - 1:
            raise InputError(
                "steps",
                f"is {steps}, and the schedule has the times of {len(self.times) - 1} steps",
                f"Take steps={len(self.times) - 1}, or a schedule with times=None",
            )
        return self.check_times(self.times, steps)

    def prior_scale(self, t: float) -> float:
        """Deviation of the first state at time t, as `prior` says."""
        alpha, sigma = self(t)
        return {"sigma": sigma, "unit": math.hypot(alpha, sigma), "standard": 1.0}[self.prior]

    def check(self, t: float | Array) -> Array:
        """t as a float64 array; InputError if any of it is not a time of this schedule."""
        times = np.asarray(t, dtype=np.float64)
        if not np.all((times >= self.clean_time) & (times <= self.last_valid_time)):
            raise InputError(
                "t",
                f"{t} is not in [{self.clean_time:g}, {self.last_valid_time:g}]",
                f"Give times of {type(self).__name__}",
            )
        return times

    def check_times(self, times: Sequence[float] | Array, steps: int | None = None) -> Array:
        """Explicit times of a sampler, (steps + 1,): in range and strictly falling in noise.

        Args:
            times: two or more.
            steps: how many they are for; None = one less than there are.

        Raises:
            InputError: another number of times, a time out of range, or an order that is not
                strict.
        """
        remedy = "Give two times or more"
        if steps is not None:
            count = positive_int("steps", steps) + 1
            remedy = f"Give steps + 1 = {count} times, or leave out steps"
        try:
            array = np.array(times, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError("times", f"are not numbers ({error})", remedy) from error
        if array.ndim != 1 or len(array) < 2 or (steps is not None and len(array) != steps + 1):
            raise InputError("times", f"has shape {array.shape}", remedy)
        if not np.all(np.diff(self.noise_level(array)) < 0):
            raise InputError("times", "must fall strictly", "Order them from noisy to clean")
        return array


def _like(t: float | Array, value: Array) -> float | Array:
    return value if isinstance(t, np.ndarray) else float(value)


def positive_int(argument: str, value: int) -> int:
    """`value` if it is an integer >= 1, else InputError."""
    return as_int(argument, value)


def check_number(argument: str, value: float, low: float, high: float) -> float:
    """`value` as a float in (low, high), else InputError."""
    remedy = f"Give a number in ({low:g}, {high:g})"
    return as_float(argument, value, remedy, lambda v: low < v < high)
