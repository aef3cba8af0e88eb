"""Guidance = weight x direction x rectifier: three values that compose, and the reference they
need."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError
from ..networks.point import Direction, Reference
from ..rectifiers import Rectifier, as_rectify, follows_w
from ..values import as_tuple, shown, store
from .adjustments import Adjustment
from .damped import rectified_by
from .directions import Delta
from .references import Unconditional
from .terms import References, WeightedDirections, Weights, one_rectifier
from .weights import Constant, SampleWeight, Weight, looks_at_samples

__all__ = ["Guidance", "Term"]


@dataclass(frozen=True)
class Term:
    """What one reference adds: w * rectifier(direction(cond, ref)).

    Args:
        weight: a number (the scale, 1 = no guidance), a Weight, or a SampleWeight, which gives one
            number a sample.
        reference: Unconditional(), BadModel(denoiser), ICG(), PAG(layers), Classifier(net), ...
        rectify: None (plain guidance), an estimator's name, "auto", or a Rectifier. Beside a
            Damped weight, which replaces the rectifier, "auto" is None, unless it damps K delta.
        direction: Delta() (CFG), APG(), FDG(), CFGZeroStar(), TCFG(), ...

    Raises:
        InputError: an unknown name, or something that is no weight, reference, direction or
            rectifier; an estimator and a Damped weight that do not belong together; `blend` or
            `characteristic` beside a SampleWeight.
    """

    weight: Weight | SampleWeight | float = field(default_factory=lambda: Constant(2.0))
    reference: Reference = field(default_factory=Unconditional)
    rectify: str | Rectifier | None = "auto"
    direction: Direction = field(default_factory=Delta)

    def __repr__(self) -> str:
        return f"Term({', '.join(self._shown())})"

    def _shown(self) -> list[str]:
        parts = [shown(self.weight), shown(self.reference), f"rectify={shown(self.rectify)}"]
        return parts + ([] if self.direction == Delta() else [shown(self.direction)])

    def __post_init__(self) -> None:
        if isinstance(self.weight, type):
            raise InputError("weight", f"is {self.weight.__name__}", "Give a value of it")
        if not callable(self.weight) and not looks_at_samples(self.weight):
            store(self, weight=Constant(self.weight))  # type: ignore[arg-type]
        if not hasattr(self.reference, "denoised") or isinstance(self.reference, type):
            raise InputError(
                "reference",
                f"is a {type(self.reference).__name__}",
                "Give Unconditional(), BadModel(denoiser) or Classifier(net)",
            )
        lacks = [n for n in ("modules", "conditioning", "null") if not hasattr(self.reference, n)]
        if lacks:
            name = type(self.reference).__name__
            raise InputError("reference", f"{name} has no {lacks[0]!r}", "See guidance.Reference")
        if not callable(self.direction) or isinstance(self.direction, type):
            raise InputError(
                "direction",
                f"is {self.direction!r}",
                "Give Delta(), APG(), CFGZeroStar() or TCFG()",
            )
        as_rectify(self.rectify)  # an unknown name dies here, not in the loop
        if looks_at_samples(self.weight) and follows_w(self.rectify):
            raise InputError(
                "rectify",
                f"{shown(self.rectify)} asks for w before a weight of each sample knows it",
                "Give an estimator of K delta, such as 'fd_batched', or a weight of the row",
            )
        store(self, rectify=rectified_by(self.weight, self.rectify))


@dataclass(frozen=True)
class Guidance(Term):
    """guided = cond + w * rectifier(direction(cond, ref)), Eq. 21 and 22 of REG (arXiv 2501.18865).

    Args:
        weight, reference, rectify, direction: the one term, as for Term.
        adjust: corrections of the guided estimate, in order: Rescale(), ZeroInit(), Clip(), TAG().
        terms: instead of the one term: several, whose sum is added to cond. At most one estimator
            is asked for among them; references that are the guided network share its batch.

    Raises:
        InputError: as for Term; something that is no adjustment or term; terms beside the one.
    """

    adjust: tuple[Adjustment, ...] = ()
    terms: tuple[Term, ...] = ()

    def __repr__(self) -> str:
        parts = [shown(term) for term in self.terms] or self._shown()
        return f"Guidance({', '.join([*parts, *map(shown, self.adjust)])})"

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "Give Rescale(), ZeroInit() or a tuple of such"
        many = not callable(self.adjust) or isinstance(self.adjust, type)
        adjust = as_tuple("adjust", self.adjust, remedy) if many else (self.adjust,)
        for one in adjust:
            if not callable(one) or isinstance(one, type):
                raise InputError("adjust", f"holds {shown(one)}", remedy)
        terms = as_tuple("terms", self.terms, "Give a tuple of Terms")
        for one in terms:
            if type(one) is not Term:
                raise InputError("terms", f"holds {shown(one)}", "Give a tuple of Terms")
        store(self, adjust=adjust, terms=terms)
        one_rectifier([term.rectify for term in terms])
        if terms and self._term() != Term():
            raise InputError("terms", "are given beside another", "Put it among the terms")

    def _term(self) -> Term:
        return Term(self.weight, self.reference, self.rectify, self.direction)

    def as_one(self) -> Guidance:
        """The same with all terms as one (terms.py)."""
        if not self.terms:
            return self
        if len(self.terms) == 1:
            only = self.terms[0]
            return Guidance(only.weight, only.reference, only.rectify, only.direction, self.adjust)
        weights = tuple(term.weight for term in self.terms)
        directions = tuple(term.direction for term in self.terms)
        rectified = tuple(term.rectify is not None for term in self.terms)
        return Guidance(
            Weights(weights),  # type: ignore[arg-type]
            References(tuple(term.reference for term in self.terms)),
            one_rectifier([term.rectify for term in self.terms]),
            WeightedDirections(directions, weights, rectified),  # type: ignore[arg-type]
            self.adjust,
        )
