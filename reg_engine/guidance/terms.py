"""Several terms of guidance as one: guided = cond + sum_i w_i rectifier(direction_i(cond, ref_i)).

K is linear, so the weighted sum of the directions is rectified once, and one estimator serves every
term. References that are the guided network itself share one batch with cond.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks.answers import as_state, conditioned
from ..networks.conditioning import Cond, concat
from ..networks.denoisers import Denoiser
from ..networks.point import Direction, Point, Reference
from ..ops.formulas import per_sample
from ..rectifiers import Rectifier, follows_w
from ..solvers import Row, Table
from ..values import shown
from .weights import SampleWeight, Weight, as_weights, looks_at_samples, weights_of

__all__ = ["References", "WeightedDirections", "Weights", "one_rectifier", "term_weights"]


class _Own(MutableMapping[str, Tensor]):
    """A term's own names in the memory of a batch."""

    def __init__(self, whole: MutableMapping[str, Tensor], index: int) -> None:
        self._whole, self._prefix = whole, f"term {index}: "

    def __getitem__(self, name: str) -> Tensor:
        return self._whole[self._prefix + name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._whole[self._prefix + name] = value

    def __delitem__(self, name: str) -> None:
        del self._whole[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        own = (name.partition(self._prefix) for name in self._whole)
        return (name for before, found, name in own if found and not before)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Weights:
    """The weight of a sum whose directions are weighted already: 1 where any term is guided.

    Args:
        each: of every term.
    """

    each: tuple[Weight | SampleWeight, ...]

    def __call__(self, row: Row, table: Table) -> float:
        return float(any(not callable(w) or w(row, table) != 0 for w in self.each))


@dataclass(frozen=True)
class References:
    """The references of all terms; `denoised` gives one a term, None where a term has no weight."""

    each: tuple[Reference, ...]

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return tuple(dict.fromkeys(module for one in self.each for module in one.modules))

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        return self.drawn(denoiser, cond, range(count), device)

    def drawn(
        self, denoiser: Denoiser, cond: Cond, seeds: Sequence[int], device: torch.device
    ) -> Cond:
        """As `conditioning`, for those whose own is drawn by seed."""
        return tuple(conditioned(one, denoiser, cond, seeds, device) for one in self.each)

    def null(self, point: Point) -> Cond | None:
        return None

    def parts(self, point: Point) -> list[Point | None]:
        """The point as every term sees it; None where a term has no weight."""
        besides: Any = point.reference_cond()
        return [
            None
            if weight is None
            else replace(
                point,
                reference=one,
                beside=beside,
                memory=_Own(point.memory, index),
                own_w=weight,
            )
            for index, (one, beside, weight) in enumerate(
                zip(self.each, besides, point.weights, strict=True)
            )
        ]

    def nulls(self, point: Point) -> list[Cond]:
        """Conditionings of those that are the guided network itself."""
        found = (part.null() for part in self.parts(point) if part is not None)
        return [null for null in found if null is not None]

    def gathered(self, point: Point, own: Sequence[Tensor], cond: Tensor) -> tuple[Any, ...]:
        """All references: those of `nulls`, which `own` holds, and the others."""
        given = iter(own)
        return tuple(
            None if part is None else next(given) if part.null() is not None else part.ref(cond)
            for part in self.parts(point)
        )

    def denoised(self, point: Point, cond: Tensor) -> Any:
        nulls = self.nulls(point)
        own: tuple[Tensor, ...] = ()
        if nulls:
            states = torch.cat([point.x] * len(nulls))
            own = point.evaluate(point.denoiser, states, concat(nulls)).chunk(len(nulls))
        return self.gathered(point, own, cond)


@dataclass(frozen=True)
class WeightedDirections:
    """sum_i w_i direction_i(cond, ref_i), (B, *sample_shape), over the terms that are rectified, or
    over all where none is.

    Args:
        each, weights: of every term.
        rectified: which of them the estimator is applied to.
    """

    each: tuple[Direction, ...]
    weights: tuple[Weight | SampleWeight, ...]
    rectified: tuple[bool, ...]

    def __call__(self, point: Point, cond: Tensor, ref: Any) -> Tensor:
        rectified = self.sums(point, cond, ref)[0]
        return torch.zeros_like(cond) if rectified is None else rectified

    def sums(self, point: Point, cond: Tensor, ref: Any) -> tuple[Tensor | None, Tensor | None]:
        """The sum that is rectified, and the one beside it that is not (None: nothing)."""
        assert isinstance(point.reference, References)
        kinds = self.rectified if any(self.rectified) else [True] * len(self.each)
        sums: dict[bool, Tensor | None] = {True: None, False: None}
        parts = enumerate(zip(point.reference.parts(point), ref, kinds, strict=True))
        for index, (part, one, kind) in parts:
            if part is not None:
                term, before = self._term(index, part, cond, one), sums[kind]
                sums[kind] = term if before is None else before + term
        return sums[True], sums[False]

    def _term(self, index: int, part: Point, cond: Tensor, ref: Tensor) -> Tensor:
        weight, w = self.weights[index], part.weights[index]
        delta = as_state("direction", self.each[index](part, cond, ref), cond)
        if looks_at_samples(weight):
            each = per_sample(as_weights(weight.per_sample(part, cond, delta), cond), cond)
            term = torch.where(each == 0, 0, each * delta)  # whatever lies in its reference
        else:
            assert w is not None  # or the term would have no part
            term = w * delta
        part.memory["delta"] = delta
        return term


def term_weights(
    direction: Direction, table: Table, largest: float
) -> tuple[tuple[float, ...], ...]:
    """w of every row and term, where there are several terms; else ()."""
    if not isinstance(direction, WeightedDirections):
        return ()
    each = (weights_of(weight, table, largest) for weight in direction.weights)
    return tuple(zip(*each, strict=True))


def one_rectifier(each: Sequence[str | Rectifier | None]) -> str | Rectifier | None:
    """The estimator of all terms that are rectified.

    Raises:
        InputError: there are two, or one that serves no sum.
    """
    found: list[str | Rectifier] = []
    for one in each:
        if one is not None and one not in found:
            found.append(one)
    found = [one for one in found if one != "auto"] or found  # it gives way
    if len(found) > 1:
        raise InputError(
            "terms",
            f"ask for the estimators {', '.join(map(shown, found))}",
            "Give one for all that are rectified (K is linear), and None for the others",
        )
    if len(each) > 1 and any(map(follows_w, found)):
        raise InputError(
            "terms",
            f"are {len(each)}, and {shown(found[0])} serves one: it is not linear in delta",
            "Give an estimator of K delta, such as 'fd_batched'",
        )
    return found[0] if found else None
