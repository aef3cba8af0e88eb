"""Calibrated damping: guided = cond + w F(noise level) delta, CFG's evaluations with REG's gain.

REG multiplies delta by K, which falls from 1 at low noise to 0 at high noise. Most of its gain over
CFG is that mean factor along delta, one number F a noise level, which is measured once
(calibration/damping.py) and then costs nothing. F is a table over sigma/alpha, so that one serves
every schedule, solver and number of steps.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from ..errors import InputError
from ..networks.denoisers import Denoiser
from ..networks.fingerprint import fingerprint
from ..rectifiers import K_DELTA, Rectifier, name_of
from ..solvers import Row, Table
from ..values import as_bool, as_float, as_tuple, shown, store

__all__ = ["Damped", "check_model"]

FOLDS = 700.0  # e-folds of a noise level: about as many as a float holds
FAR = 20.0  # times beyond an end of a table: nobody measured anything like it


@dataclass(frozen=True)
class Damped:
    """w = (scale - 1) F(sigma/alpha): a weight that replaces the rectifier.

    F is interpolated linearly in the logarithm of the noise level. Below the table it keeps the
    value of its first level; above, F = last (last level / level)^decay: K, which rayleigh
    measures, vanishes like 1/level^2 (K = Cov[x_0 | x_t] / level^2, and Cov becomes that of the
    data), while the optimum that tilt measures tends to a constant share of delta.

    Args:
        scale: guidance scale >= 1, 1 = none.
        levels: strictly increasing noise levels > 0, at least one.
        factors: F >= 0 at each.
        decay: exponent >= 0 above the last level.
        skip_below: in [0, 1]: where F is less, w = 0 and the reference is never evaluated.
        model: fingerprint of the model that F was measured on; "" = not known.
        rectified: F was measured on top of K delta, and goes with an estimator of it.

    Raises:
        InputError: levels that do not increase, another number of factors, a value out of range.
    """

    scale: float
    levels: tuple[float, ...]
    factors: tuple[float, ...]
    decay: float = 2.0
    skip_below: float = 0.0
    model: str = ""
    rectified: bool = False

    def __repr__(self) -> str:
        skip = ", of K delta" if self.rectified else ""
        skip += f", skip_below={self.skip_below:g}" if self.skip_below else ""
        return (
            f"Damped({self.scale:g}, {len(self.levels)} levels "
            f"{self.levels[0]:.3g} to {self.levels[-1]:.3g}{skip})"
        )

    def __post_init__(self) -> None:
        store(self, scale=as_damped_scale(self.scale))
        store(self, levels=as_increasing("levels", self.levels))
        store(self, factors=as_factors(self.factors, len(self.levels)))
        remedy = "Give a finite exponent >= 0; K falls with 2"
        store(self, decay=as_float("decay", self.decay, remedy, lambda v: 0 <= v < math.inf))
        remedy = "Give a number in [0, 1], such as 0.15; 0 skips nothing"
        skip = as_float("skip_below", self.skip_below, remedy, lambda v: 0 <= v <= 1)
        store(self, skip_below=skip)
        if not isinstance(self.model, str):
            raise InputError("model", f"is {shown(self.model)}", "Give a fingerprint, or ''")
        store(self, rectified=as_bool("rectified", self.rectified))

    def __call__(self, row: Row, table: Table) -> float:
        factor = self.factor(row.noise_level)
        return 0.0 if factor < self.skip_below else (self.scale - 1) * factor

    def factor(self, noise_level: float) -> float:
        """F at a noise level >= 0 (may be infinite). Warns once, by RuntimeWarning, where a finite
        one lies more than 20 times outside the table."""
        levels, factors = self.levels, self.factors
        inside = levels[0] / FAR <= noise_level <= FAR * levels[-1]
        if not inside and 0 < noise_level < math.inf:
            warnings.warn(
                f"the damping was measured at noise levels {levels[0]:.3g} to {levels[-1]:.3g}, "
                "and this schedule goes more than 20 times beyond: calibrate with levels= that "
                "cover it",
                RuntimeWarning,
                stacklevel=2,
            )
        index = bisect_right(levels, noise_level)
        if index == 0:
            return factors[0]
        if index == len(levels):
            return factors[-1] * (levels[-1] / noise_level) ** self.decay
        low, high = levels[index - 1], levels[index]
        share = math.log(noise_level / low) / math.log(high / low)
        return factors[index - 1] + share * (factors[index] - factors[index - 1])

    def span(self, below: float) -> tuple[float, float]:
        """The lowest and the highest noise level (lo, hi) with F >= below: an interval that was
        found.

        `Interval(scale, lo, hi)` guides there and nowhere else; lo may be 0 and hi infinite.

        Args:
            below: in (0, 1], such as 0.15.

        Raises:
            InputError: out of range, or F reaches it nowhere.
        """
        remedy = "Give a share in (0, 1] that F reaches, such as 0.15"
        below = as_float("below", below, remedy, lambda v: 0 < v <= 1)
        levels, factors = self.levels, self.factors
        inside = [index for index, factor in enumerate(factors) if factor >= below]
        if not inside:
            raise InputError("below", f"is {below:g}, F is {max(factors):.3g} at most", remedy)
        first, last = inside[0], inside[-1]
        lo = self._crossing(first - 1, below) if first else 0.0
        if last < len(levels) - 1:
            return lo, self._crossing(last, below)
        folds = math.log(factors[-1] / below) / self.decay if self.decay else math.inf
        return lo, levels[-1] * math.exp(folds) if folds < FOLDS else math.inf

    def _crossing(self, index: int, factor: float) -> float:
        """The level between `index` and the next one where F is `factor`."""
        low, high = self.factors[index : index + 2]
        share = (factor - low) / (high - low)
        return self.levels[index] * (self.levels[index + 1] / self.levels[index]) ** share


def rectified_by(weight: object, rectify: str | Rectifier | None) -> str | Rectifier | None:
    """The estimator beside a weight: none beside a damping of delta, which stands for it, and one
    of K delta beside a damping of that.

    Raises:
        InputError: a damping and an estimator that do not belong together.
    """
    if not isinstance(weight, Damped):
        return rectify
    name = rectify if isinstance(rectify, str) or rectify is None else name_of(rectify)
    if weight.rectified:
        if name not in ("auto", *K_DELTA):
            raise InputError(
                "rectify",
                f"is {shown(rectify)} beside a damping of K delta",
                f"Give 'auto' or one of {', '.join(K_DELTA)}, or calibrate with rectified=False",
            )
        return rectify
    if name not in ("auto", None):
        raise InputError(
            "rectify",
            f"{shown(rectify)} beside a calibrated damping would damp delta twice",
            "Give rectify=None, or a plain scale with the estimator",
        )
    return None


def check_model(weights: Iterable[object], denoiser: Denoiser) -> None:
    """RuntimeWarning where a damping was measured on another model.

    A warning, no error: a cast, quantised or fine-tuned network is another one by its fingerprint,
    and a damping may serve it all the same.
    """
    own = None
    for weight in weights:
        if isinstance(weight, Damped) and weight.model:
            own = fingerprint(denoiser) if own is None else own
            if own and own != weight.model:
                warnings.warn(
                    "the damping was measured on another model, or before its weights changed: "
                    "calibrate it on this one, unless they are nearly the same",
                    RuntimeWarning,
                    stacklevel=4,
                )


def as_damped_scale(value: float) -> float:
    """`value` as a finite scale >= 1, else InputError."""
    remedy = "Damping serves finite scales >= 1 (1 = no guidance); below, use Constant(scale)"
    return as_float("scale", value, remedy, lambda v: 1 <= v < math.inf)


def as_increasing(argument: str, values: object) -> tuple[float, ...]:
    """Strictly increasing, finite numbers > 0, at least one, else InputError."""
    remedy = "Give finite noise levels sigma/alpha > 0, strictly increasing"
    found = as_tuple(argument, values, remedy)
    numbers = tuple(as_float(argument, v, remedy, lambda v: 0 < v < math.inf) for v in found)
    if not numbers or any(low >= high for low, high in pairwise(numbers)):
        raise InputError(argument, f"are {shown(found)}", remedy)
    return numbers


def as_factors(values: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers >= 0, else InputError."""
    remedy = "Give one finite number >= 0 for each level"
    found = as_tuple("factors", values, remedy)
    if len(found) != count:
        raise InputError("factors", f"are {len(found)} for {count} levels", remedy)
    return tuple(as_float("factors", v, remedy, lambda v: 0 <= v < math.inf) for v in found)
