"""The network's batched input [x; ...; x; x + h d], scaled by c_in of row `step` of the table.

    out[:B] = ... = c_in x        `copies` times
    out[-B:] = c_in (x + h d)

Shapes: x, direction (B, C, *rest); length h (B,); table (rows, columns); step one element; out
((copies + 1) B, C, *rest) contiguous. Dtypes: x, length and table float32 or float64, all the same,
in which is computed; direction and out each its own; step int64.
Reads each element of x and direction once; writes each of out once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .device import C_IN, address, convert, element, fetch
from .strides import lay_out, on_device, readable
from .tuning import launch_parameters


@triton.jit
def _probe_kernel(
    x_ptr,
    direction_ptr,
    length_ptr,
    table_ptr,
    step_ptr,
    out_ptr,
    strides,  # of x, direction
    length_stride,
    columns,
    rows,
    blocks,
    size,
    inner,
    COPIES: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    x_strides, direction_strides = strides
    row, n = element(blocks, BLOCK, WIDE)
    mask = n < size
    x = tl.load(address(x_ptr, x_strides, row, n, inner, FLAT), mask=mask, other=0.0)
    direction = fetch(direction_ptr, direction_strides, row, n, inner, mask, x.dtype, FLAT)
    c_in = tl.load(table_ptr + tl.load(step_ptr) * columns + C_IN)
    moved = x + tl.load(length_ptr + row * length_stride) * direction
    dtype = out_ptr.dtype.element_ty
    for copy in tl.static_range(COPIES):
        tl.store(out_ptr + (copy * rows + row) * size + n, convert(c_in * x, dtype), mask=mask)
    tl.store(out_ptr + (COPIES * rows + row) * size + n, convert(c_in * moved, dtype), mask=mask)


def probe(
    x: Tensor,
    direction: Tensor,
    length: Tensor,
    table: Tensor,
    step: Tensor,
    copies: int,
    out: Tensor,
) -> None:
    """Write [x; ...; x; x + h d], times c_in, into `out` (see above); copies >= 0."""
    if out.numel() == 0:
        return
    table = table.contiguous()
    with on_device(out):
        tensors = [readable(x), readable(direction)]
        layout = lay_out(tensors, by_row=True, contiguous=True)
        parameters = launch_parameters("probe", out.device)
        blocks = layout.blocks(parameters["BLOCK"])
        _probe_kernel[(layout.rows * blocks,)](
            *tensors,
            length,
            table,
            step,
            out,
            layout.strides,
            length.stride(0),
            table.shape[1],
            layout.rows,
            blocks,
            layout.size,
            layout.inner,
            COPIES=copies,
            FLAT=layout.flat,
            WIDE=layout.wide,
            **parameters,
        )
