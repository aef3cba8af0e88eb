"""guided = cond + w T, on the first `channels` of dim 1; cond elsewhere.

    T = cond - ref            with ref alone
    T = term (cond - ref)     with both
    T = term                  with term alone
    T = 0                     with neither

Shapes: cond, ref, term, out (B, C, *rest). Dtypes: each input its own (float16, bfloat16, float32,
float64), out that of cond; arithmetic in float64 where cond is float64, else in float32.
Reads each element of cond once, and of ref and term once where it is guided; writes out once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .device import address, element, fetch, guide
from .strides import lay_out, on_device, readable, writable
from .tuning import launch_parameters


@triton.jit
def _combine_kernel(
    cond_ptr,
    ref_ptr,
    term_ptr,
    out_ptr,
    strides,  # of cond, ref, term, out
    blocks,
    size,
    inner,
    guided_size,  # the first `guided_size` elements of a row are guided
    w: tl.float64,  # a Python float would arrive as float32
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    cond_strides, ref_strides, term_strides, out_strides = strides
    row, n = element(blocks, BLOCK, WIDE)
    mask = n < size
    dtype: tl.constexpr = tl.float64 if cond_ptr.dtype.element_ty == tl.float64 else tl.float32
    cond = fetch(cond_ptr, cond_strides, row, n, inner, mask, dtype, FLAT)
    weight = tl.full([BLOCK], w, dtype)
    guided_mask = mask & (n < guided_size)
    guided = guide(
        cond, weight, ref_ptr, ref_strides, term_ptr, term_strides, row, n, inner, guided_mask, FLAT
    )
    place = address(out_ptr, out_strides, row, n, inner, FLAT)
    tl.store(place, guided.to(out_ptr.dtype.element_ty), mask=mask)


def combine(
    cond: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    w: float,
    channels: int,
    out: Tensor,
) -> None:
    """Write cond + w T into `out` (see above); channels = -1: all of them."""
    if out.numel() == 0:
        return
    if w == 0 or (ref is None and term is None):
        out.copy_(cond)
        return
    partial = 0 <= channels < cond.shape[1]
    with on_device(out), writable(out) as target:
        tensors = [*map(readable, (cond, ref, term)), target]
        layout = lay_out(tensors, by_row=partial, ordered=partial)
        parameters = launch_parameters("combine", out.device)
        blocks = layout.blocks(parameters["BLOCK"])
        _combine_kernel[(layout.rows * blocks,)](
            *tensors,
            layout.strides,
            blocks,
            layout.size,
            layout.inner,
            channels * layout.inner if partial else layout.size,
            float(w),
            FLAT=layout.flat,
            WIDE=layout.wide,
            **parameters,
        )
