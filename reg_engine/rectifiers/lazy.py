"""Evaluations only where they are due: REG for about CFG's evaluations, sample by sample.

What was measured at one noise level is carried to the next by a law (law.py), and is measured anew
where the carried one may be wrong by more than a tolerance. At high noise K is about 0, at low
noise delta vanishes: most samples need nothing but cond there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..errors import CaptureError
from ..networks.conditioning import concat, plain, take
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample
from ..profiling import ranges
from ..values import as_float, store
from .difference import Difference
from .lag import rectified_from_lag
from .law import Known, quotient_of

__all__ = ["Alternate", "Lazy", "LazyBlend"]

# A carried cond - ref loses at least so much of itself, times r, for each e-fold of the noise
# level: the law's own error grows with r (3 to 7 on mixtures and on the packaged models).
DECAY = 5.0


@dataclass(frozen=True)
class Lazy(Difference):
    """`lazy`: the reference at every evaluation, K p where it is due. 2 to 3 evaluations.

    A sample is probed, cond(x + h p) with p its previous delta, where the law has moved its
    quotient r so far since the last probe that |change of r| |delta| > tolerance * |largest
    delta|. Between probes K p is carried. Every sample decides for itself, so what is evaluated
    beside cond(x) is a batch of those that need it; the host looks at who does, and the rows
    cannot be captured.

    Args:
        rho: see Difference.
        tolerance: in [0, 1), see above; 0 probes at every evaluation.
        reference: tolerance in [0, 1): the reference is evaluated where w r * (what the carried
            delta may have lost) > reference * |largest delta|. 0 evaluates it every time.

    Raises:
        InputError: a tolerance out of range.
    """

    tolerance: float = 0.01
    reference: float = 0.02
    name = "lazy"
    lagged = True
    looks = True
    blends = False

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "Give a share in [0, 1), such as 0.02; 0 evaluates every time"
        for argument in ("tolerance", "reference"):
            value = as_float(argument, getattr(self, argument), remedy, lambda v: 0 <= v < 1)
            store(self, **{argument: value})

    def __call__(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        if point.missed is not None:
            raise CaptureError(f"'{self.name}' lets the host look at every row's samples")
        known = Known.recall(point.memory)
        if known is None:
            return self._first(point, direction)
        return self._next(point, direction, known)

    def _first(self, point: Point, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
        """Everything is evaluated, K delta after delta."""
        ref, cond = point.stack(point.x)
        delta = direction(point, cond, ref)
        raw = delta if _several(point) else cond - ref
        h, inverse = self.lengths(point, delta)
        moved = point.x + per_sample(h, delta) * delta
        if self.blends:
            other, ahead = point.at(moved).stack(moved)
            other = quotient_of(delta, per_sample(inverse, delta) * (other - ref), point.backend)
        else:
            ahead = point.cond_at(moved)
        product = per_sample(inverse, delta) * (ahead - cond)
        quotient, size = quotient_of(delta, product, point.backend), _norm(raw, point)
        other = other if self.blends else quotient
        level = torch.full_like(size, _level(point))
        known = Known(delta, product, quotient, other, level, raw, level, 0 * size, size)
        if point.alpha:  # else K is 0 there, and no law leads away from it
            known.keep(point.memory)
        return cond, _blended(point, quotient, other, delta) if self.blends else product, delta

    def _next(
        self, point: Point, direction: Direction, known: Known
    ) -> tuple[Tensor, Tensor, Tensor]:
        level = _level(point)
        raw = per_sample(known.shrunk(level), known.raw) * known.raw
        size, age = _norm(raw, point), (known.asked / level).log().abs()
        known.largest = torch.maximum(known.largest, size)
        probe, ask = self._due(point, known, size, age)
        p = point.memory["delta"]
        h, inverse = self.lengths(point, p)
        moved = (point.x + per_sample(h, p) * p)[probe]
        cond, ref, ahead, other = _evaluated(point, ask, probe, moved, self.blends)
        if _several(point):
            delta = direction(point, cond, ref)
            known.put(ask, raw=delta, asked=level)
        else:
            exact = cond[ask] - ref
            lost = _norm(exact - raw[ask], point) / (size * age)[ask]
            known.put(ask, raw=exact, asked=level, rate=lost.nan_to_num(0.0, 0.0))
            raw = raw.index_copy(0, ask, exact)
            delta = direction(point, cond, cond - raw)
        slope, lag = per_sample(inverse[probe], moved), p[probe]
        product = slope * (ahead - cond[probe])
        quotient = quotient_of(lag, product, point.backend)
        known.put(probe, p=lag, product=product, quotient=quotient, other=quotient, probed=level)
        if other is not None:
            gain = slope * (other - (cond - raw)[probe])
            known.put(probe, other=quotient_of(lag, gain, point.backend))
        known.keep(point.memory)
        if self.blends:
            return cond, _blended(point, *known.at(level), delta), delta
        rectified = rectified_from_lag(
            point,
            delta,
            known.p,
            per_sample(known.gained(level), p) * known.product,
            lambda d: self.product(point, d, cond),
        )
        return cond, rectified, delta

    def _due(self, point: Point, known: Known, size: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Which samples are probed, and for which the reference is asked: row numbers.

        Args:
            size, age: norm of the carried cond - ref, (B,), and the e-folds of the noise level
                since it was evaluated.
        """
        r, other = known.at(_level(point))
        change = torch.maximum((r - known.quotient).abs(), (other - known.other).abs())
        moved = change * size >= self.tolerance * known.largest
        lost = torch.maximum(known.rate, DECAY * r) * age * size
        stale = (_weight(point) * r).abs() * lost >= self.reference * known.largest
        if _several(point):
            stale = torch.ones_like(stale)
        return (moved | (known.quotient >= 1)).nonzero()[:, 0], stale.nonzero()[:, 0]


@dataclass(frozen=True)
class Alternate(Lazy):
    """`alternate`: reference and probe, each only where it is due: as Lazy, with a tolerance for
    the reference. 1 to 3 evaluations, fewer than CFG's 2 in the mean."""

    tolerance: float = 0.05
    reference: float = 0.1
    name = "alternate"


@dataclass(frozen=True)
class LazyBlend(Alternate):
    """`lazy_blend`: r / (1 + w (r_u - r)+) delta as Blend has it, reference and probes only where
    they are due: about CFG's evaluations. The reference's own quotient r_u is measured with r."""

    name = "lazy_blend"
    blends = True
    follows_w = True


def _several(point: Point) -> bool:
    """Whether there are several references, which have no one cond - ref: all are asked."""
    return hasattr(point.reference, "gathered")


def _evaluated(
    point: Point, ask: Tensor, probe: Tensor, moved: Tensor, both: bool
) -> tuple[Tensor, Any, Tensor, Tensor | None]:
    """(cond of all, ref of the samples `ask`, cond at `moved` of the samples `probe`, and, where
    `both`, ref there); in one batch where the reference is the same network."""
    count, null = len(point.x), point.null()
    states, conds = [point.x, moved], [point.cond, take(point.cond, probe)]
    if null is not None:
        states, conds = [*states, point.x[ask]], [*conds, take(null, ask)]
        if both:
            states, conds = [*states, moved], [*conds, take(null, probe)]
    with ranges.cond_ref() if null is not None else ranges.cond():
        found = point.evaluate(point.denoiser, torch.cat(states), concat(conds))
    cond, ahead, *refs = found.split([len(state) for state in states])
    if null is not None:
        return cond, refs[0], ahead, refs[1] if both else None
    ref = point.ref(cond) if len(ask) == count else _ref_of(point, point.x[ask], ask, cond[ask])
    return cond, ref, ahead, _ref_of(point, moved, probe, ahead) if both else None


def _ref_of(point: Point, x: Tensor, rows: Tensor, cond: Tensor) -> Tensor:
    """Another network's reference of some samples, at states x."""
    if not len(rows):
        return cond
    part = replace(point, x=x, cond=take(point.cond, rows))
    part.beside = plain(take(point.reference_cond(), rows))  # autograd may keep it
    return part.ref(cond)


def _blended(point: Point, r: Tensor, other: Tensor, delta: Tensor) -> Tensor:
    """r / (1 + w (r_u - r)+) delta; a negative w counts as 0."""
    w = torch.as_tensor(_weight(point)).clamp_min(0)
    return per_sample(r / (1 + w * (other - r).clamp_min(0)), delta) * delta


def _level(point: Point) -> float:
    """sigma/alpha of the row, on the host."""
    return float(point.sigma) / float(point.alpha) if point.alpha else math.inf


def _weight(point: Point) -> Tensor | float:
    """The row's w, where it is known."""
    return 1.0 if point.table is None else point.w


def _norm(value: Tensor, point: Point) -> Tensor:
    """Norm of each sample, (B,)."""
    return ops.reduce(value, backend=point.backend)[:, 1, 1].sqrt().to(value.dtype)
