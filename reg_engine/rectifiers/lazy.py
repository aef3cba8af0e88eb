"""Evaluations only where they are due: REG for about CFG's evaluations, sample by sample.

What was measured at one noise level is carried to the next by a law (law.py), and is measured anew
where the carried one may be wrong by more than a tolerance. At high noise K is about 0, at low
noise delta vanishes: most samples need nothing but cond there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..errors import CaptureError, InputError, choice
from ..networks.point import Direction, Point
from ..ops.formulas import per_sample
from ..values import as_float, store
from .difference import Difference
from .forward import product as exact
from .law import Known, quotient_of
from .partial import evaluated, part_of, stacked

__all__ = ["Alternate", "Lazy", "LazyBlend"]

# A carried cond - ref loses at least so much of itself, times r, for each e-fold of the noise
# level: the law's own error grows with r (3 to 7 on mixtures and on the packaged models).
DECAY = 5.0
PROBES = ("difference", "jvp")
SAME = 1e-4  # e-folds within which two noise levels are one: they are kept in the state's dtype


@dataclass(frozen=True)
class Lazy(Difference):
    """`lazy`: K delta, the reference and a probe each only where it is due. 1 to 3 evaluations, in
    the mean about 2, more where steps are few.

    A sample is probed, cond(x + h p) with p its previous delta, where the law has moved its
    quotient r so far since the last probe that |change of r| |w delta| > tolerance * |largest w
    delta|; at every row where r is of no Gaussian (below 0, or 1 and more). Between probes K p is
    carried. Where the noise level rises again, everything is measured anew. Every sample decides
    for itself, so what is evaluated beside cond(x) is a batch of those that need it; the host looks
    at who does, and the rows cannot be captured. Of a weight of each sample the last one counts, as
    1 at least.

    Args:
        rho: see Difference.
        probe: what a probe is: "difference", or "jvp", the exact K p in the pass of cond, which
            needs a network that forward mode serves and loses nothing in 16 bits.
        tolerance: in [0, 1), see above; 0 probes at every evaluation.
        reference: tolerance in [0, 1): the reference is evaluated where w r * (what the carried
            delta may have lost) > reference * |largest delta|. 0 evaluates it every time.

    Raises:
        InputError: a tolerance out of range.
    """

    probe: str = "difference"
    tolerance: float = 0.01
    reference: float = 0.02
    name = "lazy"
    lagged = True
    looks = True
    blends = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if choice("probe", self.probe, PROBES) == "jvp" and self.blends:
            raise InputError("probe", f"'jvp' does not serve '{self.name}'", "Take 'difference'")
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
        product, quotient, other = self._along(point, delta, cond, ref)
        size = _norm(raw, point)
        level, push = torch.full_like(size, _level(point)), size * _weight(point)
        known = Known(delta, product, quotient, other, level, raw, level, 0 * size, size, push)
        if point.alpha:  # else K is 0 there, and no law leads away from it
            known.keep(point.memory)
        return cond, _blended(point, quotient, other, delta) if self.blends else product, delta

    def _along(
        self, point: Point, d: Tensor, cond: Tensor, ref: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """K d, and the quotients of cond and of the reference along d (B, *sample_shape), by one
        more batch."""
        if self.probe == "jvp":
            product = exact(point, d)[1]
            quotient = quotient_of(d, product, point.backend)
            return product, quotient, quotient
        h, inverse = self.lengths(point, d)
        moved = point.x + per_sample(h, d) * d
        if self.blends:
            other, ahead = point.at(moved).stack(moved)
        else:
            other, ahead = ref, point.cond_at(moved)
        product = per_sample(inverse, d) * (ahead - cond)
        quotient = quotient_of(d, product, point.backend)
        if self.blends:
            gain = per_sample(inverse, d) * (other - ref)
            return product, quotient, quotient_of(d, gain, point.backend)
        return product, quotient, quotient

    def _next(
        self, point: Point, direction: Direction, known: Known
    ) -> tuple[Tensor, Tensor, Tensor]:
        level = _level(point)
        raw = per_sample(known.shrunk(level), known.raw) * known.raw
        size, age = _norm(raw, point), (known.asked / level).log()
        known.largest = torch.maximum(known.largest, size)
        known.push = torch.maximum(known.push, size * _weight(point))
        p = point.memory["delta"]
        # nothing is known along any direction where the level rose or the first p was none
        blank = ((known.probed / level).log() < -SAME) | (_norm(known.p, point) == 0)
        probe, ask = self._due(point, known, size, age, (_norm(p, point) > 0) & ~blank)
        new = blank.nonzero()[:, 0]
        h, inverse = self.lengths(point, p)
        slope, lag = per_sample(inverse[probe], p), p[probe]
        if self.probe == "jvp":
            cond, ref, product = stacked(point, ask, probe, lag)
            other = None
        else:
            moved = (point.x + per_sample(h, p) * p)[probe]
            cond, ref, ahead, other = evaluated(point, ask, probe, moved, self.blends)
            product = slope * (ahead - cond[probe])
        if _several(point):
            delta = direction(point, cond, ref)
            known.put(ask, raw=delta, asked=level)
        else:
            exact = cond[ask] - ref
            since = age[ask].abs()
            rate = torch.where(since > SAME, _norm(exact - raw[ask], point) / since, 0)
            known.put(ask, raw=exact, asked=level, rate=rate)
            raw = raw.index_copy(0, ask, exact)
            delta = direction(point, cond, cond - raw)
        quotient = quotient_of(lag, product, point.backend)
        known.put(probe, p=lag, product=product, quotient=quotient, other=quotient, probed=level)
        if other is not None:
            gain = slope * (other - (cond - raw)[probe])
            known.put(probe, other=quotient_of(lag, gain, point.backend))
        new = new[_norm(delta[new], point) > 0] if len(new) else new
        if len(new):
            part, d = part_of(point, new), delta[new]
            found = self._along(part, d, cond[new], None if _several(point) else (cond - raw)[new])
            names = ("product", "quotient", "other")
            known.put(new, p=d, probed=level, **dict(zip(names, found, strict=True)))
        known.keep(point.memory)
        if self.blends:
            return cond, _blended(point, *known.at(level), delta), delta
        # no p has vanished where delta has not: the lagged product needs no exact one beside it
        product = per_sample(known.gained(level), p) * known.product
        gram = ops.reduce(delta, known.p, product, backend=point.backend)
        return cond, ops.lagged_product(gram, delta, known.p, product), delta

    def _due(
        self, point: Point, known: Known, size: Tensor, age: Tensor, leads: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which samples are probed, and for which the reference is asked: row numbers.

        Args:
            size, age: norm of the carried cond - ref, (B,), and the e-folds that the noise level
                fell since it was evaluated.
            leads: whether there is a direction to probe along, (B,).
        """
        level, w = _level(point), _weight(point)
        r, other = known.at(level)
        change = torch.maximum((r - known.quotient).abs(), (other - known.other).abs())
        moved = w * change * size >= self.tolerance * known.push
        moved |= (known.quotient >= 1) | (known.quotient < 0)
        lost = torch.maximum(known.shrunk(level) * known.rate, DECAY * r * size) * age.abs()
        stale = (w * r).abs() * lost >= self.reference * known.largest
        stale |= age < -SAME
        if _several(point) or getattr(point.reference, "redraw", False):
            stale = torch.ones_like(stale)
        return (moved & leads).nonzero()[:, 0], stale.nonzero()[:, 0]


@dataclass(frozen=True)
class Alternate(Lazy):
    """`alternate`: as Lazy with larger tolerances: 1 to 3 evaluations, at most about CFG's 2 in the
    mean."""

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


def _blended(point: Point, r: Tensor, other: Tensor, delta: Tensor) -> Tensor:
    """r / (1 + w (r_u - r)+) delta; a negative w counts as 0."""
    w = torch.as_tensor(1.0 if point.table is None else point.w).clamp_min(0)
    return per_sample(r / (1 + w * (other - r).clamp_min(0)), delta) * delta


def _level(point: Point) -> float:
    """sigma/alpha of the row, on the host."""
    return float(point.sigma) / float(point.alpha) if point.alpha else math.inf


def _weight(point: Point) -> Tensor | float:
    """|w| of the row, where it is known; of a weight of each sample, the last one, at least 1."""
    last = point.memory.get("w")
    if last is not None:
        return last.abs().clamp_min(1)
    return 1.0 if point.table is None else point.w.abs()


def _norm(value: Tensor, point: Point) -> Tensor:
    """Norm of each sample, (B,)."""
    return ops.reduce(value, backend=point.backend)[:, 1, 1].sqrt().to(value.dtype)
