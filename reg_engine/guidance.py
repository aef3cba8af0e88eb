"""Guidance = weight x direction x rectifier: three values that compose, and the reference they
need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from . import ranges
from .adjustments import Adjustment
from .directions import Delta, Direction
from .errors import InputError
from .point import Point
from .rectifiers import Rectifier, resolve
from .references import Reference, Unconditional
from .weights import Constant, Weight

__all__ = ["EVALUATIONS", "Guidance"]


@dataclass(frozen=True)
class Guidance:
    """guided = cond + w * rectifier(direction(cond, ref)), Eq. 21 and 22 of REG (arXiv 2501.18865).

    Args:
        weight: a number (the scale, 1 = no guidance) or a Weight.
        reference: Unconditional(), BadModel(denoiser) or Classifier(net).
        rectify: None (plain guidance), an estimator's name, "auto", or a Rectifier.
        direction: Delta() (CFG), APG(), CFGZeroStar() or TCFG().
        adjust: corrections of the guided estimate, in order: Rescale(), ZeroInit(), Clip().

    Raises:
        InputError: an unknown name, or something that is no weight, reference, direction or
            rectifier.
    """

    weight: Weight | float = field(default_factory=lambda: Constant(2.0))
    reference: Reference = field(default_factory=Unconditional)
    rectify: str | Rectifier | None = "auto"
    direction: Direction = field(default_factory=Delta)
    adjust: tuple[Adjustment, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.weight):
            object.__setattr__(self, "weight", Constant(self.weight))
        if not hasattr(self.reference, "denoised"):
            raise InputError(
                "reference",
                f"is a {type(self.reference).__name__}",
                "Give Unconditional(), BadModel(denoiser) or Classifier(net)",
            )
        if not callable(self.direction) or isinstance(self.direction, type):
            raise InputError(
                "direction",
                f"is {self.direction!r}",
                "Give Delta(), APG(), CFGZeroStar() or TCFG()",
            )
        if callable(self.adjust):
            object.__setattr__(self, "adjust", (self.adjust,))
        resolve(self.rectify)  # an unknown name dies here, not in the loop


Terms = tuple[Tensor, Tensor | None]  # cond, and what w multiplies (None: nothing)
Evaluation = Callable[[Point, Direction, Rectifier | None], Terms]


def _cond(point: Point, direction: Direction, rectifier: Rectifier | None) -> Terms:
    return point.cond_at(point.x), None


def _cfg(point: Point, direction: Direction, rectifier: Rectifier | None) -> Terms:
    ref, cond = point.stack(point.x)
    delta = direction(point, cond, ref)
    point.memory["delta"] = delta
    return cond, delta


def _reg(point: Point, direction: Direction, rectifier: Rectifier | None) -> Terms:
    assert rectifier is not None  # the engine chose one, or the mode would be cfg
    with ranges.rectifier():
        cond, rectified, delta = rectifier(point, direction)
    point.memory["delta"] = delta
    return cond, rectified


# What each mode of a plan evaluates: 1F, 2F, and what the estimator needs.
EVALUATIONS: dict[str, Evaluation] = {"cond": _cond, "cfg": _cfg, "reg": _reg}
