"""The stacked dual: primal rows and tangent rows of a batch in one tensor.

Along its stacking dimension a stacked dual holds

    [ primal rows; tangent rows 1; ...; tangent rows T ],

where each block of tangents belongs to the last of the primal rows, their source. A linear map
without an offset acts on all rows alike, so that the network's weights are read once for
predictions and Jacobian products; what is affine or nonlinear has a rule (rules/). PyTorch's
forward AD runs three products a linear layer instead, one of them with a tangent of zeros.

Where the stacking dimension is, and in which proportions the rows are primal, source and tangent,
belongs to the tensor: it is said by its class. That is what torch.compile traces through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .refusals import refuse

__all__ = [
    "COMPOSITES",
    "RULES",
    "StackedDual",
    "copied",
    "edges",
    "is_dual",
    "kind",
    "parts",
    "primal",
    "raw",
    "same",
    "source",
    "stack",
    "tangent",
    "units",
    "wrap",
]

MOST_DIMS = 12
PARTS = ("primals", "sources", "tangents", "axis")
Rule = Callable[..., Any]
# What an op does to stacked duals, called as rule(op, *args, **kwargs); None: an op without a rule.
RULES: dict[Any, Rule] = {}
# Ops said in others that have rules; these see stacked duals as the network does.
COMPOSITES: dict[Any, Rule] = {}
# Functions that torch.compile gives in a form of its own, which no table has, by name.
TRACED: dict[str, Any] = {}
_KINDS: dict[tuple[int, int, int, int], type[StackedDual]] = {}


class StackedDual(Tensor):
    """A tensor of stacked rows; made by `stack`, read by `primal`, `source` and `tangent`.

    Of every `primals + tangents * sources` rows the first `primals` are primal and the last of
    these `sources` are the source. That holds as well where the batch was merged with heads.
    """

    primals: ClassVar[int] = 1
    sources: ClassVar[int] = 1
    tangents: ClassVar[int] = 1
    axis: ClassVar[int] = 0

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if torch.compiler.is_compiling():
            func = TRACED.get(getattr(func, "__name__", ""), func)
        whole = COMPOSITES.get(func)
        if whole is not None and not torch.compiler.is_compiling():  # which dispatches but once
            return whole(func, *args, **options)
        with torch._C.DisableTorchFunctionSubclass():
            rule = RULES.get(func)
            if rule is None or options.get("out") is not None:
                rule = RULES[None]
            return rule(func, *args, **options)

    def as_subclass(self, cls: Any) -> Any:
        """Of the rows; another class would lose the tangents without a word."""
        if not issubclass(cls, StackedDual):
            refuse(Tensor.as_subclass, "loses the tangent")
        return super().as_subclass(cls)


def kind(primals: int, tangents: int, axis: int = 0, sources: int = 1) -> type[StackedDual]:
    """The class of stacked duals in these proportions, stacked along `axis`."""
    key = primals, sources, tangents
    if (*key, 0) not in _KINDS:
        for place in range(MOST_DIMS):
            members = {n: _constant(v) for n, v in zip(PARTS, (*key, place), strict=True)}
            name = "_".join(map(str, ("StackedDual", *key, place)))
            _KINDS.setdefault((*key, place), type(name, (StackedDual,), members))
    return _KINDS[(*key, axis)]


def _constant(value: int) -> Any:
    """What an instance has by its class: a property, which torch.compile looks up."""
    return property(lambda self: value)


kind(1, 1)  # of `jvp`: torch.compile makes no classes


def stack(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> StackedDual:
    """The stacked dual of primal rows, whose last tensor is the source, and tangents of its shape
    (B, ...)."""
    rows = torch.cat([*primals, *tangents])
    count, own = sum(map(len, primals)), len(primals[-1])
    unit = math.gcd(count, own) or 1
    layout = (
        (count // unit, len(tangents), 0, own // unit) if own else (len(primals), len(tangents))
    )
    return rows.as_subclass(kind(*layout))


def is_dual(value: object) -> bool:
    """Whether `value` is a stacked dual."""
    return isinstance(value, StackedDual)


def raw(x: Tensor) -> Tensor:
    """The rows as a plain tensor over the same memory."""
    with torch._C.DisableTorchFunctionSubclass():
        return x.view(x.shape)


def wrap(rows: Tensor, like: Any, axis: int | None = None) -> StackedDual:
    """Rows as a stacked dual in `like`'s proportions, along `axis` (None = like's own)."""
    place = like.axis if axis is None else axis
    return rows.as_subclass(_KINDS[like.primals, like.sources, like.tangents, place])


def same(x: Any, y: Any) -> bool:
    """Whether two stacked duals have the same proportions."""
    return bool((x.primals, x.sources, x.tangents) == (y.primals, y.sources, y.tangents))


def units(x: Any) -> int:
    """What the number of rows is a multiple of."""
    return int(x.primals + x.tangents * x.sources)


def edges(x: Any, size: int) -> tuple[int, int]:
    """Where the source begins and where the tangents do, in a dimension of `size` rows."""
    unit = size // units(x)
    return (x.primals - x.sources) * unit, x.primals * unit


def primal(x: Any) -> Tensor:
    """The primal rows, a view."""
    found: Tensor = x.narrow(x.axis, 0, edges(x, x.shape[x.axis])[1])
    return found


def source(x: Any) -> Tensor:
    """The rows that the tangents belong to, once for each block of tangents."""
    start, end = edges(x, x.shape[x.axis])
    return copied(x.narrow(x.axis, start, end - start), x, x.axis)


def copied(rows: Tensor, x: Any, axis: int) -> Tensor:
    """The source's rows, once for each block of x's tangents."""
    return rows if x.tangents == 1 else torch.cat([rows] * x.tangents, axis)


def tangent(x: Any) -> Tensor:
    """The tangent rows, a view."""
    end = edges(x, x.shape[x.axis])[1]
    found: Tensor = x.narrow(x.axis, end, x.shape[x.axis] - end)
    return found


def parts(x: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(primal rows, their source rows beside the tangents, tangent rows)."""
    return primal(x), source(x), tangent(x)
