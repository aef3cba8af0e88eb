"""Primal and tangent rows of a result, and constants beside stacked duals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ..refusals import refuse
from ..tensor import StackedDual, copied, edges, is_dual, primal, same, source, tangent, wrap

__all__ = [
    "aligned",
    "blank",
    "fused",
    "fusing",
    "held",
    "into",
    "joined",
    "latest",
    "lifted",
    "plain",
    "rows_of",
    "taken",
]

# (rows, out=rows or None) -> rows
Write = Callable[[Tensor, "Tensor | None"], Tensor]
# (source, tangents, out=(y, y_t) or None) -> (y, y_t)
Pair = Callable[[Tensor, Tensor, "tuple[Tensor, Tensor] | None"], tuple[Tensor, Tensor]]


def joined(x: Any, rows: Tensor, rows_t: Tensor, axis: int | None = None) -> StackedDual:
    """The stacked dual of primal rows and tangent rows, along `axis` (None = x's own). It lies in
    memory as the op's own result does: what reads it next then rounds alike."""
    place = x.axis if axis is None else axis
    plainly = rows.is_contiguous() or torch.compiler.is_compiling()
    if plainly or place != x.axis or primal(x).shape != rows.shape:
        return wrap(torch.cat([rows, rows_t], place), x, place)
    made = blank(x, rows.dtype)
    primal(made).copy_(rows)
    tangent(made).copy_(rows_t)
    return made


def blank(
    x: Any,
    dtype: torch.dtype | None = None,
    layout: torch.memory_format = torch.preserve_format,
) -> StackedDual:
    """Room for a result like x, to be written into."""
    rows = torch.empty_like(x, dtype=dtype, memory_format=layout)
    return wrap(rows.view(rows.shape), x)


def fusing(x: Any) -> bool:
    """Whether there is a kernel for a function and its derivative together."""
    return x.is_meta or ops.resolve(x.device) == "triton"


def fused(
    x: Any, others: Write, pair: Pair, layout: torch.memory_format = torch.preserve_format
) -> Any:
    """The stacked dual of what an op of ops/ gives for the source and its tangents, and `others`
    for the primal rows before them.

    All write into one buffer, so that nothing else of its size lives. A compiler arranges that by
    itself.
    """
    before, first, last = (_front(x, part) for part in (_before(x), _source(x), tangent(x)))
    if torch.compiler.is_compiling():
        listed = [*([others(before, None)] if len(before) else []), *pair(first, last, None)]
        rows = torch.cat(listed)
        return wrap(rows.movedim(0, x.axis) if x.axis else rows, x)
    made = blank(x, layout=layout)
    rows = _front(x, made.view(made.shape))
    start, end = edges(x, len(rows))
    if start:
        others(before, rows[:start])
    pair(first, last, (rows[start:end], rows[end:]))
    return made


def _before(x: Any) -> Tensor:
    found: Tensor = x.narrow(x.axis, 0, edges(x, x.shape[x.axis])[0])
    return found


def _source(x: Any) -> Tensor:
    start, end = edges(x, x.shape[x.axis])
    found: Tensor = x.narrow(x.axis, start, end - start)
    return found


def _front(x: Any, rows: Tensor) -> Tensor:
    return rows.movedim(x.axis, 0) if x.axis else rows


def into(x: Any, found: Any) -> Any:
    """An in-place op's result, written into x itself."""
    x.view(x.shape).copy_(found.view(found.shape))
    return x


def aligned(op: Any, x: Any, y: Any) -> None:
    """Refuse two stacked duals whose rows do not meet under broadcasting."""
    if not same(x, y):
        refuse(op, "joins stacked tensors of different layouts")
    if x.axis - x.dim() != y.axis - y.dim():
        refuse(op, "pairs the batch of one tensor with another dimension of the other")


def rows_of(c: Any, x: Any) -> int | None:
    """The dimension of a constant that runs along x's stack under broadcasting; None = it has no
    such rows."""
    if not isinstance(c, Tensor):
        return None
    place = x.axis - x.dim() + c.dim()
    return place if place >= 0 and c.shape[place] == x.shape[x.axis] else None


def taken(c: Any, x: Any, tangents: bool = False) -> Any:
    """The rows of a constant beside x's primal rows, or beside its tangents."""
    place, rows = rows_of(c, x), edges(x, x.shape[x.axis])[1]
    if place is None:
        return c
    return c.narrow(place, rows, c.shape[place] - rows) if tangents else c.narrow(place, 0, rows)


def lifted(c: Any, x: Any, shape: torch.Size | None = None) -> StackedDual:
    """A constant as a stacked dual of x's layout, its tangent zero."""
    # A number is filled in on the device: a copy from the host cannot be captured in a graph.
    value = c if isinstance(c, Tensor) else torch.full((), c, dtype=x.dtype, device=x.device)
    whole = torch.broadcast_shapes(x.shape if shape is None else shape, value.shape)
    value, axis = value.expand(whole), x.axis - x.dim() + len(whole)
    rows = edges(x, whole[axis])[1]
    beside = value.narrow(axis, rows, whole[axis] - rows)
    return joined(x, value.narrow(axis, 0, rows), torch.zeros_like(beside), axis)


def latest(y: Tensor, x: Any) -> Tensor:
    """The source's rows, once for each block of tangents, in a result for x's primal rows."""
    axis = x.axis if y.dim() == x.dim() else x.axis - x.dim() + y.dim()
    size = y.shape[axis] // x.primals * x.sources
    return copied(y.narrow(axis, y.shape[axis] - size, size), x, axis)


def plain(value: Any) -> Any:
    """A stacked dual's rows as a plain tensor, and all else as it is; inside rules."""
    return value.view(value.shape) if is_dual(value) else value


def held(x: Any) -> Any:
    """All rows, the source's own where the tangents are: what a function without a derivative is
    asked for."""
    return torch.cat([primal(x), source(x)], x.axis) if is_dual(x) else x
