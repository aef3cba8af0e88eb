"""What is linear in each of its arguments: between two stacked duals the product rule holds.

A constant beside a stacked dual has the source's own rows where the tangents are, so that a product
with it acts on all rows alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..refusals import refuse
from ..tensor import RULES, edges, is_dual, parts, primal, same, tangent, wrap
from .rows import aligned, blank, joined, lifted
from .table import rule

__all__: list[str] = []


@rule("mul multiply __mul__ __rmul__")
def mul(op: Any, x: Any, y: Any) -> Any:
    if not (is_dual(x) and is_dual(y)):
        dual = x if is_dual(x) else y
        rows = torch.mul(x, y)
        return wrap(rows, dual, dual.axis - dual.dim() + rows.dim())
    aligned(op, x, y)
    (p, s, t), (q, r, u) = parts(x), parts(y)
    if x.shape != y.shape or x.dtype != y.dtype or torch.compiler.is_compiling():
        return joined(x, p * q, t * r + s * u, max(x.axis, y.axis))
    made = blank(x)
    torch.mul(p, q, out=primal(made))
    torch.mul(t, r, out=tangent(made)).addcmul_(s, u)
    return made


@rule("div divide true_divide __truediv__ __div__")
def div(op: Any, x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        return RULES[torch.floor](op, x, y, rounding_mode=rounding_mode)
    if not is_dual(y):
        rows = torch.div(x, y)
        return wrap(rows, x, x.axis - x.dim() + rows.dim())
    if not is_dual(x):
        x = lifted(x, y)
    aligned(op, x, y)
    (p, s, t), (q, r, u) = parts(x), parts(y)
    return joined(x, p / q, (t - (s / r) * u) / r, max(x.axis, y.axis))


@rule("__rtruediv__ __rdiv__")
def rdiv(op: Any, x: Any, y: Any) -> Any:
    """As PyTorch rounds it: by the reciprocal."""
    return mul(torch.mul, RULES[torch.reciprocal](torch.reciprocal, x), y)


@rule("pow __pow__ float_power")
def power(op: Any, x: Any, exponent: Any) -> Any:
    if not is_dual(x) or isinstance(exponent, Tensor):
        return RULES[None](torch.pow, x, exponent)
    rows, s, t = parts(x)
    slope = exponent * t if exponent == 1 else exponent * s ** (exponent - 1) * t
    return joined(x, op(rows, exponent), torch.zeros_like(t) if exponent == 0 else slope)


def bilinear(op: Any, function: Callable[[Any, Any], Tensor], x: Any, y: Any, axis: int) -> Any:
    """`function`, linear in both; the result is stacked along `axis`, counted from the end."""
    if is_dual(x) and is_dual(y):
        (p, s, t), (q, r, u) = parts(x), parts(y)
        rows, rows_t = function(p, q), function(t, r) + function(s, u)
        return joined(x, rows, rows_t, axis + rows.dim())
    rows = function(x, y)
    return wrap(rows, x if is_dual(x) else y, axis + rows.dim())


@rule("matmul __matmul__ bmm mm")
def matmul(op: Any, x: Any, y: Any) -> Any:
    """Stacked along a batch dimension of both, or along the rows of x or the columns of y alone."""
    own = [v.axis - v.dim() for v in (x, y) if is_dual(v)]
    if is_dual(x) and is_dual(y):
        aligned(op, x, y)
    if any(v.dim() == 1 for v in (x, y)):
        return RULES[None](op, x, y)
    outer = own[0] < -2
    rows = is_dual(x) and not is_dual(y) and own[0] == -2
    columns = is_dual(y) and not is_dual(x) and own[0] == -1
    if not (outer or rows or columns):
        refuse(op, "sums over the batch, or pairs each of its rows with every other")
    return bilinear(op, torch.matmul, x, y, own[0])


@rule("__rmatmul__")
def rmatmul(op: Any, x: Any, y: Any) -> Any:
    return matmul(torch.matmul, y, x)


@rule("baddbmm")
def baddbmm(op: Any, x: Any, one: Any, two: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta x + alpha one @ two, rounded as the op does."""
    dual = one if is_dual(one) else two
    if beta != 0 and (is_dual(x) or not is_dual(dual)):
        return RULES[None](op, x, one, two, beta=beta, alpha=alpha)
    product = matmul(op, one, two)
    rows = edges(product, len(product))[1]
    whole = [v.narrow(0, 0, rows) if v.shape[0] == product.shape[0] else v for v in (x, one, two)]
    exact = torch.baddbmm(*whole, beta=beta, alpha=alpha)
    rows_t = alpha * product.narrow(0, rows, product.shape[0] - rows)
    return joined(product, exact, rows_t)


@rule("einsum")
def einsum(op: Any, equation: Any, *operands: Any) -> Any:
    """Each stacked operand in turn gives its tangent, the others their source's rows."""
    listed = (
        operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    )
    given, target = _letters(op, equation, [v.dim() for v in listed])
    found = {given[k][v.axis] for k, v in enumerate(listed) if is_dual(v)}
    letter = found.pop()
    if found or letter not in target:
        refuse(op, "sums over the batch, or pairs each of its rows with every other")
    dual = next(v for v in listed if is_dual(v))
    exact = ",".join(given) + "->" + target
    axis = target.index(letter)
    if sum(is_dual(v) for v in listed) == 1:
        return wrap(torch.einsum(exact, *listed), dual, axis)
    if not all(same(v, dual) for v in listed if is_dual(v)):
        refuse(op, "joins stacked tensors of different layouts")
    rows = [_cut(v, names, letter, dual, 0) for v, names in zip(listed, given, strict=True)]
    beside = [_cut(v, names, letter, dual, 1) for v, names in zip(listed, given, strict=True)]
    total = None
    for k, v in enumerate(listed):
        if is_dual(v):
            term = [*beside[:k], parts(v)[2], *beside[k + 1 :]]
            made = torch.einsum(exact, *term)
            total = made if total is None else total + made
    assert total is not None
    return joined(dual, torch.einsum(exact, *rows), total, axis)


def _cut(v: Any, names: str, letter: str, dual: Any, which: int) -> Tensor:
    """An operand's primal rows (0), or what stands beside the tangents (1)."""
    if is_dual(v):
        return parts(v)[which]
    if letter not in names:
        return v
    place = names.index(letter)
    size = v.shape[place]
    end = edges(dual, size)[1]
    return v.narrow(place, 0, end) if which == 0 else v.narrow(place, end, size - end)


def _letters(op: Any, equation: Any, dims: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, an ellipsis spelled out."""
    if not isinstance(equation, str):
        refuse(op, "is called with lists of numbers, which has no rule")
    left, arrow, right = equation.replace(" ", "").partition("->")
    given = left.split(",")
    free = [c for c in map(chr, range(ord("A"), ord("z") + 1)) if c.isalpha() and c not in equation]
    ellipses = [d - len(names) + 3 for names, d in zip(given, dims, strict=True) if "..." in names]
    most = max([0, *ellipses])
    spare = free[:most]

    def spelled(names: str, dim: int) -> str:
        count = dim - len(names) + 3
        return names.replace("...", "".join(spare[len(spare) - count :]) if count else "")

    full = [spelled(names, dim) for names, dim in zip(given, dims, strict=True)]
    if not arrow:
        once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        return full, "".join(spare) + "".join(once)
    return full, right.replace("...", "".join(spare))
