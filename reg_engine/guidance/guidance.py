"""Guidance = weight x direction x rectifier: three values that compose, and the reference they
need."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError
from ..networks.point import Direction, Reference
from ..rectifiers import Rectifier, resolve
from ..values import as_tuple, shown, store
from .adjustments import Adjustment
from .directions import Delta
from .references import Unconditional
from .weights import Constant, SampleWeight, Weight

__all__ = ["Guidance"]


@dataclass(frozen=True)
class Guidance:
    """guided = cond + w * rectifier(direction(cond, ref)), Eq. 21 and 22 of REG (arXiv 2501.18865).

    Args:
        weight: a number (the scale, 1 = no guidance), a Weight, or a SampleWeight, which gives one
            number a sample.
        reference: Unconditional(), BadModel(denoiser) or Classifier(net).
        rectify: None (plain guidance), an estimator's name, "auto", or a Rectifier.
        direction: Delta() (CFG), APG(), CFGZeroStar() or TCFG().
        adjust: corrections of the guided estimate, in order: Rescale(), ZeroInit(), Clip().

    Raises:
        InputError: an unknown name, or something that is no weight, reference, direction or
            rectifier.
    """

    weight: Weight | SampleWeight | float = field(default_factory=lambda: Constant(2.0))
    reference: Reference = field(default_factory=Unconditional)
    rectify: str | Rectifier | None = "auto"
    direction: Direction = field(default_factory=Delta)
    adjust: tuple[Adjustment, ...] = ()

    def __repr__(self) -> str:
        parts = [shown(self.weight), shown(self.reference), f"rectify={shown(self.rectify)}"]
        parts += [] if self.direction == Delta() else [shown(self.direction)]
        parts += map(shown, self.adjust)
        return f"Guidance({', '.join(parts)})"

    def __post_init__(self) -> None:
        if isinstance(self.weight, type):
            raise InputError("weight", f"is {self.weight.__name__}", "Give a value of it")
        if not callable(self.weight) and not hasattr(self.weight, "per_sample"):
            store(self, weight=Constant(self.weight))
        if not hasattr(self.reference, "denoised") or isinstance(self.reference, type):
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
        remedy = "Give Rescale(), ZeroInit() or a tuple of such"
        many = not callable(self.adjust) or isinstance(self.adjust, type)
        adjust = as_tuple("adjust", self.adjust, remedy) if many else (self.adjust,)
        for one in adjust:
            if not callable(one) or isinstance(one, type):
                raise InputError("adjust", f"holds {shown(one)}", remedy)
        store(self, adjust=adjust)
        resolve(self.rectify)  # an unknown name dies here, not in the loop
