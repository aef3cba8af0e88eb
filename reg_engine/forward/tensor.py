"""The stacked dual: primal rows and tangent rows of a batch in one tensor.

Along its stacking dimension a stacked dual holds blocks of equal size,

    [ primal_1; ...; primal_P; tangent_1; ...; tangent_T ],

where the tangents belong to the last primal block, its source. A linear map without an offset acts
on all rows alike, so that the network's weights are read once for predictions and Jacobian
products; what is affine or nonlinear has a rule (rules/). PyTorch's forward AD runs three products
a linear layer instead, one of them with a tangent of zeros.

Where the stacking dimension is, and how many blocks there are, belongs to the tensor: it is said by
its class, of which there is one for each (P, T, dim). That is what torch.compile traces through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = [
    "COMPOSITES",
    "RULES",
    "StackedDual",
    "is_dual",
    "kind",
    "parts",
    "primal",
    "raw",
    "same",
    "source",
    "stack",
    "tangent",
    "wrap",
]

MOST_DIMS = 12
Rule = Callable[..., Any]
# What an op does to stacked duals, called as rule(op, *args, **kwargs); None: an op without a rule.
RULES: dict[Any, Rule] = {}
# Ops said in others that have rules; these see stacked duals as the network does.
COMPOSITES: dict[Any, Rule] = {}
_KINDS: dict[tuple[int, int, int], type[StackedDual]] = {}


class StackedDual(Tensor):
    """A tensor of stacked rows; made by `stack`, read by `primal`, `source` and `tangent`."""

    primals: ClassVar[int] = 1
    tangents: ClassVar[int] = 1
    axis: ClassVar[int] = 0

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        whole = COMPOSITES.get(func)
        if whole is not None:
            return whole(func, *args, **options)
        with torch._C.DisableTorchFunctionSubclass():
            rule = RULES.get(func)
            if rule is None:
                rule = RULES[None]
            return rule(func, *args, **options)


def kind(primals: int, tangents: int, axis: int = 0) -> type[StackedDual]:
    """The class of stacked duals with so many blocks, stacked along `axis`."""
    if (primals, tangents, 0) not in _KINDS:
        for place in range(MOST_DIMS):
            members = {"primals": primals, "tangents": tangents, "axis": place}
            name = f"StackedDual_{primals}_{tangents}_{place}"
            _KINDS.setdefault((primals, tangents, place), type(name, (StackedDual,), members))
    return _KINDS[primals, tangents, axis]


def stack(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> StackedDual:
    """The stacked dual of blocks of equal shape (B, ...); tangents are of the last primal."""
    rows = torch.cat([*primals, *tangents])
    return rows.as_subclass(kind(len(primals), len(tangents)))


def is_dual(value: object) -> bool:
    """Whether `value` is a stacked dual."""
    return isinstance(value, StackedDual)


def raw(x: Tensor) -> Tensor:
    """The rows as a plain tensor over the same memory."""
    with torch._C.DisableTorchFunctionSubclass():
        return x.view(x.shape)


def wrap(rows: Tensor, like: Any, axis: int | None = None) -> StackedDual:
    """Rows as a stacked dual of `like`'s blocks, along `axis` (None = like's own)."""
    place = like.axis if axis is None else axis
    return rows.as_subclass(_KINDS[like.primals, like.tangents, place])


def same(x: Any, y: Any) -> bool:
    """Whether two stacked duals are made of the same blocks."""
    return bool(x.primals == y.primals and x.tangents == y.tangents)


def block(x: Any) -> int:
    """Rows of one block."""
    return int(x.shape[x.axis] // (x.primals + x.tangents))


def primal(x: Any) -> Tensor:
    """The primal rows, a view."""
    return x.narrow(x.axis, 0, x.primals * block(x))


def source(x: Any) -> Tensor:
    """The rows that the tangents belong to, once for each block of tangents."""
    rows = block(x)
    found: Tensor = x.narrow(x.axis, (x.primals - 1) * rows, rows)
    return found if x.tangents == 1 else torch.cat([found] * x.tangents, x.axis)


def tangent(x: Any) -> Tensor:
    """The tangent rows, a view."""
    rows = block(x)
    return x.narrow(x.axis, x.primals * rows, x.tangents * rows)


def parts(x: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(primal rows, their source rows beside the tangents, tangent rows)."""
    return primal(x), source(x), tangent(x)
