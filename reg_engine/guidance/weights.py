"""Guidance weights: `w` at every row of a solver's table; guided = cond + w * rectified delta.

A weight is a value: `weight(row, table) -> w`, with w = scale - 1 and 0 = no guidance. The same
curve is used with and without a rectifier. (The released REG code weighs its CFG baseline as `ref
+ c delta` and its REG runs as `cond + c delta`: with a time-varying c the two are then not
comparable.)

A weight that depends on what the networks answered gives one number a sample,
`weight.per_sample(point, cond, delta)` -> w (B,); what it must remember from row to row goes into
`point.memory`. It may be callable too: rows whose `weight(row, table)` is 0 are then not guided.

`Linear` and `Cosine` were published in three conventions, which differ in the variable that they
follow:

* `"diffusers"` (the default, usable with every schedule): progress p = (t - t_first) / (t_last -
  t_first).
* `"edm"`: the noise level n = sigma/alpha, linear in n from n_max to n_min.
* `"dit"`: the integer step t of 1000 training steps. Linear is reproduced as released, with its
  offset: w(t) = start + (start - end) t / 1000, so w(0) = start and w(1000) = 2 start - end.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from torch import Tensor

from ..errors import InputError, choice
from ..networks.point import Point
from ..schedules import VP
from ..solvers import Row, Table
from ..values import as_float, as_levels, shown, store

__all__ = [
    "CONVENTIONS",
    "WEIGHTS",
    "CFGPlusPlus",
    "Constant",
    "Cosine",
    "Interval",
    "Linear",
    "SampleWeight",
    "Weight",
    "weights_of",
]

DIT_STEPS = 1000
CONVENTIONS = ("diffusers", "edm", "dit")


class Weight(Protocol):
    """Anything that gives w = scale - 1 at a row."""

    def __call__(self, row: Row, table: Table) -> float:
        """w at `row` of `table`."""
        ...


class SampleWeight(Protocol):
    """Anything that gives w of every sample where the networks were evaluated."""

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w = scale - 1 of each sample, (B,).

        Args:
            point: x_t, its row, and `memory`, which is empty at the first row.
            cond, delta: E[x_0 | x_t, cond] and the guidance direction before it is rectified, (B,
                *sample_shape), denoised.
        """
        ...


def as_scale(name: str, value: float) -> float:
    """`value` as a finite float >= 0, else InputError."""
    remedy = "Give a finite number >= 0; 1 = no guidance, 0 = the reference alone"
    return as_float(name, value, remedy, lambda v: 0 <= v < math.inf)


def looks_at_samples(weight: object) -> TypeGuard[SampleWeight]:
    """Whether it is a SampleWeight."""
    return callable(getattr(weight, "per_sample", None))


def as_weights(value: object, like: Tensor) -> Tensor:
    """What `per_sample` of a weight returned: one number a sample, in the dtype of `like`."""
    if isinstance(value, Tensor) and value.shape == like.shape[:1]:
        each = value.to(like.device, like.dtype)
        if each.device.type == "cpu" and not bool(each.isfinite().all()):  # a device would wait
            bad = (~each.isfinite()).nonzero().flatten().tolist()[:8]
            problem = f"per_sample returned NaN or Inf for samples {bad} of the batch"
            raise InputError("weight", problem, "Return finite numbers")
        return each
    got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else shown(value)
    raise InputError("weight", f"per_sample returned {got}", f"Return w of shape ({len(like)},)")


@dataclass(frozen=True)
class Constant:
    """The same scale at every row. `scale` >= 0, 1 = no guidance."""

    scale: float

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))

    def __call__(self, row: Row, table: Table) -> float:
        return self.scale - 1


@dataclass(frozen=True)
class Interval:
    """`scale` where lo <= sigma/alpha <= hi, else none (Kynkaanniemi et al., arXiv 2404.07724)."""

    scale: float
    lo: float
    hi: float

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))
        lo, hi = as_levels(self.lo, self.hi)
        store(self, lo=lo, hi=hi)

    def __call__(self, row: Row, table: Table) -> float:
        return self.scale - 1 if self.lo <= row.noise_level <= self.hi else 0.0


@dataclass(frozen=True)
class Linear:
    """From scale `start` at the noisiest row to `end` at the last one (module docstring:
    conventions)."""

    start: float
    end: float = 1.0
    convention: str = "diffusers"

    def __post_init__(self) -> None:
        store(self, start=as_scale("start", self.start), end=as_scale("end", self.end))
        choice("convention", self.convention, CONVENTIONS)

    def __call__(self, row: Row, table: Table) -> float:
        progress = _progress(row, table, self.convention)
        if self.convention == "dit":
            progress -= 1.0  # the released offset: w(1000) = 2 start - end
        return (self.start - 1) + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    """w = (scale - 1) (1 - cos(pi p^power)) / 2: none at the noisiest row, `scale` at the last one.

    p is the progress of the convention: diffusers (t - t_first)/(t_last - t_first), edm 1 -
    n/n_max, dit 1 - t/1000.
    """

    scale: float
    power: float = 1.0
    convention: str = "diffusers"

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))
        choice("convention", self.convention, CONVENTIONS)
        power = as_float("power", self.power, "Give a positive number", lambda v: 0 < v < math.inf)
        store(self, power=power)

    def __call__(self, row: Row, table: Table) -> float:
        if self.convention == "edm":
            progress = 1 - row.noise_level / max(_noise_levels(table))
        else:
            progress = _progress(row, table, self.convention)
        return (self.scale - 1) * (1 - math.cos(math.pi * progress**self.power)) / 2


@dataclass(frozen=True)
class CFGPlusPlus:
    """CFG++ (Chung et al., arXiv 2406.08070): clean part from ref + strength * delta, noise from
    ref.

    At fixed x_t the two parts are affine in denoised, so the method is CFG with the scale
    strength * (b + a alpha_t) / b, where x_s = a x_t + b denoised is the row of a one-stage solver.

    Raises:
        InputError: strength outside [0, 1], or a solver whose steps use more than one evaluation.
    """

    strength: float

    def __post_init__(self) -> None:
        remedy = "CFG++ takes a number in [0, 1]"
        strength = as_float("strength", self.strength, remedy, lambda v: 0 <= v <= 1)
        store(self, strength=strength)

    def __call__(self, row: Row, table: Table) -> float:
        if table.history > 1:
            raise InputError(
                "solver",
                f"CFG++ is defined for one-stage steps, not for {table.solver!r}",
                "Use ddim, ddpm, euler, euler_ancestral or flow_euler",
            )
        a = row.a + row.b[0] * row.p
        b = row.b[0] * row.q
        if b == 0:
            return 0.0  # a row that does not move: the estimate plays no part
        return self.strength * (b + a * row.alpha) / b - 1


def weights_of(
    weight: Weight | SampleWeight, table: Table, largest: float = sys.float_info.max
) -> tuple[float, ...]:
    """w of every row, checked to be finite and at most `largest` in size; 1 where only
    `per_sample` knows.

    Raises:
        InputError: the weight is not callable or gave something else than a finite number.
    """
    if not callable(weight):
        if looks_at_samples(weight):
            return (1.0,) * len(table.rows)
        raise InputError(
            "weight",
            f"is a {type(weight).__name__}",
            f"Give one of {', '.join(WEIGHTS)} or a function (row, table) -> w",
        )
    remedy = f"Give a scale whose weight is a finite number, {largest:.2g} at most"
    return tuple(
        as_float(f"weight at row {index}", weight(row, table), remedy, lambda v: abs(v) <= largest)
        for index, row in enumerate(table.rows)
    )


def _progress(row: Row, table: Table, convention: str) -> float:
    """0 at the noisiest row, 1 at the last one, linear in the convention's variable."""
    if convention == "dit":
        chain = table.schedule
        if not isinstance(chain, VP) or len(chain.betas()) != DIT_STEPS:
            raise InputError(
                "convention",
                f"'dit' follows the step of {DIT_STEPS} training steps, which "
                f"{type(chain).__name__} does not count",
                "Use 'diffusers', or a VP schedule with train_steps=1000",
            )
        return 1 - row.t / DIT_STEPS
    values = [r.t for r in table.rows] if convention == "diffusers" else _noise_levels(table)
    here = row.t if convention == "diffusers" else row.noise_level
    first, last = max(values), min(values)
    return 1.0 if first == last else (here - first) / (last - first)


def _noise_levels(table: Table) -> list[float]:
    """sigma/alpha of every row; InputError where "edm" has nothing finite to follow."""
    levels = [row.noise_level for row in table.rows]
    if math.inf in levels:
        raise InputError(
            "convention",
            "'edm' follows sigma/alpha, which is infinite at the first row of this schedule",
            "Use 'diffusers', or give times that start later: solver_options={'times': [...]}",
        )
    return levels


WEIGHTS = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "interval": Interval,
    "cfg++": CFGPlusPlus,
}
