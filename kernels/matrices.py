"""Rows of matrices on the device, in one or two blocks of columns, and their products.

A matrix of SIZE columns is a pair: D1 columns, and D2 more, both powers of two of at least 16, as a
product wants them; columns past SIZE are zeros. So 72 are 64 + 16 instead of 128. Where D2 = 0 the
second of the pair stands for nothing. Strides (batch, head, row, column) are in units of UNIT
elements but for the last, so that the compiler knows how addresses are aligned.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(ptr, strides, row, head, n, UNIT: tl.constexpr):
    """Where rows n of one head begin."""
    start = row.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[1]
    return ptr + start * UNIT + n * strides[2] * UNIT


@triton.jit
def _load(
    place,
    stride,
    exists,
    SIZE: tl.constexpr,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    FIT: tl.constexpr,
):
    """Columns FIRST..FIRST + WIDTH - 1 of rows that begin at `place`."""
    d = FIRST + tl.arange(0, WIDTH)
    places = place[:, None] + d[None, :] * stride
    if FIT and FIRST + WIDTH <= SIZE:
        found = tl.load(places)
    elif FIT:
        found = tl.load(places, mask=(d < SIZE)[None, :], other=0.0)
    elif FIRST + WIDTH <= SIZE:
        found = tl.load(places, mask=exists[:, None], other=0.0)
    else:
        found = tl.load(places, mask=exists[:, None] & (d < SIZE)[None, :], other=0.0)
    return found


@triton.jit
def load_rows(
    ptr,
    strides,
    row,
    head,
    n,
    exists,
    SIZE: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
    UNIT: tl.constexpr,
    FIT: tl.constexpr,
):
    """Rows n of a matrix, zeros where they do not exist; FIT: all do."""
    place = _place(ptr, strides, row, head, n, UNIT)
    first = _load(place, strides[3], exists, SIZE, 0, D1, FIT)
    second = first
    if D2 > 0:
        second = _load(place, strides[3], exists, SIZE, D1, D2, FIT)
    return first, second


@triton.jit
def store_rows(
    ptr,
    strides,
    row,
    head,
    n,
    exists,
    first,
    second,
    SIZE: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Write rows n where they exist."""
    place = _place(ptr, strides, row, head, n, UNIT)[:, None]
    d = tl.arange(0, D1)[None, :]
    mask = exists[:, None] & (d < SIZE)
    tl.store(place + d * strides[3], first.to(ptr.dtype.element_ty), mask=mask)
    if D2 > 0:
        d = D1 + tl.arange(0, D2)[None, :]
        mask = exists[:, None] & (d < SIZE)
        tl.store(place + d * strides[3], second.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def products(a, b, start, D2: tl.constexpr, PRECISION: tl.constexpr):
    """a b^T + start."""
    found = tl.dot(a[0], tl.trans(b[0]), start, input_precision=PRECISION)
    if D2 > 0:
        found = tl.dot(a[1], tl.trans(b[1]), found, input_precision=PRECISION)
    return found


@triton.jit
def add_rows(weights, b, first, second, D2: tl.constexpr, PRECISION: tl.constexpr):
    """[first, second] + weights b."""
    weights = weights.to(b[0].dtype)
    first = tl.dot(weights, b[0], first, input_precision=PRECISION)
    if D2 > 0:
        second = tl.dot(weights, b[1], second, input_precision=PRECISION)
    return first, second
