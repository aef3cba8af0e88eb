"""What a row evaluates, by mode: cond, and what guidance adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..errors import InputError
from ..networks.answers import as_state
from ..networks.denoisers import Number
from ..networks.point import Point
from ..ops.formulas import per_sample
from ..profiling import ranges
from ..rectifiers import Rectifier
from .directions import Delta
from .guidance import Guidance
from .terms import WeightedDirections
from .weights import as_weights, looks_at_samples

__all__ = ["EVALUATIONS", "Estimate", "adjusted", "fuses"]


@dataclass(frozen=True)
class Estimate:
    """guided = gain (cond + w T), T as in `ops.combine`: cond - ref, or `term`, or nothing.

    Args:
        cond, ref, term: (B, *sample_shape), denoised; in the network's own prediction where `own`.
        own: whether they are what the network returned.
        weight: (B,) w of each sample, instead of the row's.
        gain: (B,) factor on the guided one; None = 1.
    """

    cond: Tensor
    ref: Tensor | None = None
    term: Tensor | None = None
    own: bool = False
    weight: Tensor | None = None
    gain: Tensor | None = None

    def denoised(self, point: Point) -> Tensor:
        """cond, E[x_0 | x_t, cond]."""
        return point.from_prediction(self.cond.to(point.x.dtype)) if self.own else self.cond

    def guided(self, point: Point, w: Number) -> Tensor:
        """The guided denoised, for a row's w."""
        x = point.x
        cond, ref = self.cond.to(x.dtype), self.ref
        term = self.term if ref is None else cond - ref
        if term is not None:
            if self.weight is not None:
                each = per_sample(self.weight, x)
                cond = torch.where(each == 0, cond, cond + each * term)
            elif isinstance(w, float):
                cond = ops.combine(cond, None, term, w, backend=point.backend)
            else:
                cond = cond + w * term
        if self.gain is not None:
            cond = per_sample(self.gain, x) * cond
        return point.from_prediction(cond) if self.own else cond


def fuses(guidance: Guidance, adjust: tuple[Any, ...], keeps_delta: bool) -> bool:
    """Whether a `cfg` row can leave the networks' predictions to the fused step as they are.

    Args:
        adjust: what is adjusted outside of the fused step.
        keeps_delta: an estimator will ask for the row's delta.
    """
    return (
        not keeps_delta
        and type(guidance.direction) is Delta
        and not looks_at_samples(guidance.weight)
        and all(callable(getattr(one, "prediction_gain", None)) for one in adjust)
    )


def adjusted(estimate: Estimate, adjust: tuple[Any, ...], point: Point, w: Number) -> Estimate:
    """The estimate corrected by the adjustments, in order.

    On predictions as they are a gain is left to the fused step; it takes one pass over them.
    """
    if not adjust:
        return estimate
    if estimate.own:
        gain = None
        for adjustment in adjust:
            gain = adjustment.prediction_gain(point, estimate.cond, estimate.ref, gain)
        return replace(estimate, gain=gain)
    cond = estimate.cond
    guided = estimate.guided(point, w)
    for adjustment in adjust:
        guided = as_state("adjust", adjustment(point, guided, cond), cond)
    return Estimate(guided)


Evaluation = Callable[[Point, Guidance, "Rectifier | None", bool], Estimate]


def _weighed(
    point: Point, guidance: Guidance, cond: Tensor, term: Tensor, delta: Tensor
) -> Estimate:
    """cond + w term; a weight that looks at the samples finds the previous delta in memory."""
    weight = None
    if looks_at_samples(guidance.weight):
        weight = as_weights(guidance.weight.per_sample(point, cond, delta), cond)
        point.memory["w"] = weight
    point.memory["delta"] = delta
    return Estimate(cond, term=term, weight=weight)


def _cond(point: Point, guidance: Guidance, rectifier: Rectifier | None, own: bool) -> Estimate:
    return Estimate(point.cond_at(point.x))


def _directed(
    point: Point, guidance: Guidance, cond: Tensor, ref: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The direction that is rectified, and what several terms add beside it (None: nothing)."""
    direction = guidance.direction
    if isinstance(direction, WeightedDirections):
        return direction.sums(point, cond, ref)
    return as_state("direction", direction(point, cond, ref), cond), None


def _cfg(point: Point, guidance: Guidance, rectifier: Rectifier | None, own: bool) -> Estimate:
    if own and (null := point.null()) is not None:
        ref, cond = point.predictions(null)
        return Estimate(cond, ref, own=True)
    ref, cond = point.stack(point.x)
    delta, beside = _directed(point, guidance, cond, ref)
    if delta is None:  # an earlier one is a better lag than none
        return Estimate(cond, term=beside)
    return _weighed(point, guidance, cond, delta if beside is None else delta + beside, delta)


def _reg(point: Point, guidance: Guidance, rectifier: Rectifier | None, own: bool) -> Estimate:
    assert rectifier is not None  # the engine chose one, or the mode would be cfg
    beside: Tensor | None = None

    def direction(point: Point, cond: Tensor, ref: Tensor) -> Tensor:
        nonlocal beside
        delta, beside = _directed(point, guidance, cond, ref)
        assert delta is not None  # a rectified term has a weight, or the mode would be cfg
        return delta

    with ranges.rectifier():
        result: object = rectifier(point, direction)
        if not isinstance(result, tuple) or len(result) != 3:
            got = f"returned a {type(result).__name__}"
            raise InputError("rectify", got, "Return (cond, rectified, delta)")
        cond, rectified, delta = (as_state("rectify", part, point.x) for part in result)
    term = rectified if beside is None else rectified + beside
    return _weighed(point, guidance, cond, term, delta)


def _ref(point: Point, guidance: Guidance, rectifier: Rectifier | None, own: bool) -> Estimate:
    needs_cond = getattr(point.reference, "needs_cond", True)
    return Estimate(point.ref(point.cond_at(point.x) if needs_cond else point.x))


# What each mode evaluates: 1F, 2F, what the estimator needs, and the reference alone (scale 0).
EVALUATIONS: dict[str, Evaluation] = {"cond": _cond, "cfg": _cfg, "reg": _reg, "ref": _ref}
