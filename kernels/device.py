"""What the kernels share on the device: places of the table, addresses, the guided prediction.

A block of elements is (row, n): element n of row `row`. Rows start at a 64-bit offset; within a row
n counts in contiguous order of (C, S), or along the memory where FLAT.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..ops.coefficients import COLUMNS
from ..ops.coefficients import FIRST_B as _FIRST_B

# A kernel reads only globals that are constexpr.
W = tl.constexpr(COLUMNS.index("w"))
SKIP = tl.constexpr(COLUMNS.index("skip"))
OUT = tl.constexpr(COLUMNS.index("out"))
P = tl.constexpr(COLUMNS.index("p"))
Q = tl.constexpr(COLUMNS.index("q"))
A = tl.constexpr(COLUMNS.index("a"))
C = tl.constexpr(COLUMNS.index("c"))
C_IN = tl.constexpr(COLUMNS.index("c_in"))
LIMIT = tl.constexpr(COLUMNS.index("limit"))
KEEP = tl.constexpr(COLUMNS.index("keep"))
FIRST_B = tl.constexpr(_FIRST_B)


@triton.jit
def element(blocks, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """This program's row (int64) and its elements n (BLOCK,), int64 where WIDE, else int32."""
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64)
    block = program % blocks
    if WIDE:
        block = block.to(tl.int64)
    return row, block * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def address(ptr, strides, row, n, inner, FLAT: tl.constexpr):
    """Where elements n of a row lie: strides (row, C, S) of a tensor whose S is `inner` long."""
    ptr += row * strides[0]
    if FLAT:
        ptr += n
    else:
        channel = n // inner
        ptr += channel * strides[1] + (n - channel * inner) * strides[2]
    return ptr


@triton.jit
def convert(value, dtype: tl.constexpr):
    """value in `dtype`; from float64 to bfloat16 through float32, as torch does."""
    if value.dtype == tl.float64 and dtype == tl.bfloat16:
        value = value.to(tl.float32)
    return value.to(dtype)


@triton.jit
def where_used(mask, coefficient):
    """mask, or nothing where the coefficient is 0."""
    # A block is compared, since the interpreter loses the type of a scalar that is.
    return mask & (tl.full(mask.shape, coefficient, coefficient.dtype) != 0)


@triton.jit
def fetch(ptr, strides, row, n, inner, mask, dtype: tl.constexpr, FLAT: tl.constexpr):
    """Elements n of a row in `dtype`; 0 where not `mask`, and there memory is not touched."""
    place = address(ptr, strides, row, n, inner, FLAT)
    return convert(tl.load(place, mask=mask, other=0.0), dtype)


@triton.jit
def guide(
    cond, w, ref_ptr, ref_strides, term_ptr, term_strides, row, n, inner, mask, FLAT: tl.constexpr
):
    """cond + w T where `mask`, cond elsewhere; `ref` and `term` are read nowhere else."""
    dtype: tl.constexpr = cond.dtype
    if ref_ptr is not None:
        direction = cond - fetch(ref_ptr, ref_strides, row, n, inner, mask, dtype, FLAT)
        if term_ptr is not None:
            direction *= fetch(term_ptr, term_strides, row, n, inner, mask, dtype, FLAT)
        cond = tl.where(mask, cond + w * direction, cond)
    elif term_ptr is not None:
        direction = fetch(term_ptr, term_strides, row, n, inner, mask, dtype, FLAT)
        cond = tl.where(mask, cond + w * direction, cond)
    return cond


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) and what it lacks of 1, both without cancellation; no overflow."""
    e = tl.exp(-tl.abs(x))
    most, least = 1 / (1 + e), e / (1 + e)
    return tl.where(x >= 0, most, least), tl.where(x >= 0, least, most)
