"""Where the stacking dimension is after an op that moves dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .refusals import refuse

__all__ = ["indexed", "kept", "permuted", "reduced", "reshaped", "unsqueezed"]


def reshaped(op: Any, shape: Sequence[int], axis: int, blocks: int, new: Sequence[int]) -> int:
    """Of a view: the dimension before which as many elements stand, and which holds whole blocks.

    The stack may be merged with what is inside it (batch and heads) or split again.
    """
    before, count = math.prod(shape[:axis]), 1
    for place, size in enumerate(new):
        if count == before and size and size % blocks == 0:
            return place
        count *= size
    refuse(op, "mixes the rows of the batch with a dimension outside it")


def permuted(axis: int, dims: Sequence[int]) -> int:
    """After `permute(dims)`."""
    return [dim % len(dims) for dim in dims].index(axis)


def unsqueezed(axis: int, ndim: int, dim: int) -> int:
    """After a new dimension at `dim`; ndim is that of the input."""
    return axis + (dim % (ndim + 1) <= axis)


def kept(op: Any, axis: int, ndim: int, dims: int | Iterable[int] | None) -> set[int]:
    """`dims` an op works along, none of them the stacking dimension; None = all."""
    given = range(ndim) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    found = {dim % ndim for dim in given} or set(range(ndim))
    if axis in found:
        refuse(op, "works along the batch, so that a row's answer depends on other rows")
    return found


def reduced(axis: int, gone: Iterable[int], keepdim: bool = False) -> int:
    """After the dimensions `gone` were removed."""
    return axis if keepdim else axis - sum(dim < axis for dim in gone)


def indexed(op: Any, shape: Sequence[int], axis: int, index: Any) -> int:
    """After `x[index]`; shape is that of x."""
    ndim = len(shape)
    items = list(index) if isinstance(index, tuple) else [index]
    taken = sum(_takes(item) for item in items)
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    dim = place = 0  # of the input, of the output
    found, gathered = -1, []  # where each tensor index stands in the output
    for item in items:
        if item is None or isinstance(item, bool):
            place += 1
        elif item is Ellipsis:
            skipped = ndim - taken
            if dim <= axis < dim + skipped:
                found = place + axis - dim
            dim, place = dim + skipped, place + skipped
        elif isinstance(item, slice):
            if dim == axis:
                if item.indices(shape[axis]) != (0, shape[axis], 1):
                    refuse(op, "takes rows out of the batch")
                found = place
            dim, place = dim + 1, place + 1
        elif dim <= axis < dim + _takes(item):
            refuse(op, "takes rows out of the batch")
        else:
            if not isinstance(item, int):
                gathered.append((place, item))
            dim += _takes(item)
    return found + _shift(op, found, gathered, items)


def _takes(item: Any) -> int:
    """Dimensions of the input that one item of an index uses."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _shift(op: Any, found: int, gathered: list[tuple[int, Any]], items: list[Any]) -> int:
    """How far tensor indices push the stacking dimension back: their own dimensions stand where
    the first of them is, or in front if something stands between them."""
    if not gathered:
        return 0
    places = [k for k, item in enumerate(items) if any(item is g for _, g in gathered)]
    apart = places[-1] - places[0] + 1 != len(places)
    ints = any(isinstance(item, int) and not isinstance(item, bool) for item in items)
    if apart or ints:
        refuse(op, "has a tensor index in an order without a rule")
    own = [torch.as_tensor(item) for _, item in gathered]
    if any(item.dtype == torch.bool for item in own):
        size = 1
    else:
        size = len(torch.broadcast_shapes(*(item.shape for item in own)))
    return size if gathered[0][0] <= found else 0
