"""An activation and its derivative along tangents, from one read.

    y = f(x)     y_t = f'(x) x_t                       f: GELU, GELU by tanh, SiLU
    y = a f(x)   y_t = a_t f(x) + a f'(x) x_t          gated: the last dim holds a, then x

Shapes: x, y (B, ...), x_t, y_t (T B, ...), row j B + i along row i; gated, the last dim of x and
x_t is twice that of y and y_t. Dtypes: each its own; arithmetic in float64 where x is float64, else
in float32. Reads each element of x and x_t once and writes y and y_t once; T > 1 reads x again.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..ops.duals.activation import GATED
from .device import address, convert, fetch, sigmoid
from .strides import collapse, lay_out, on_device
from .tuning import launch_parameters


@triton.jit
def _slope(x, KIND: tl.constexpr):
    """f(x) and f'(x)."""
    if KIND == "silu":
        share, rest = sigmoid(x)
        slope = share * (1 + x * rest)
    elif KIND == "gelu":
        share = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        slope = share + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    else:  # (1 + tanh(z)) / 2 = 1 / (1 + exp(-2 z))
        share, rest = sigmoid(1.5957691216057308 * x * (1 + 0.044715 * x * x))
        rate = 1.5957691216057308 * (1 + 0.134145 * x * x)
        slope = share + x * share * rest * rate
    return x * share, slope


@triton.jit
def _activation_dual_kernel(
    a_ptr,
    a_t_ptr,
    x_ptr,
    x_t_ptr,
    y_ptr,
    y_t_ptr,
    strides,  # of the same
    blocks,
    size,
    inner,
    rows,
    batch,
    KIND: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    block, along = program % blocks, (program // blocks).to(tl.int64)
    row = along % rows
    along = along // rows * batch + row  # where rows are merged, `along` is the first of a block
    if WIDE:
        block = block.to(tl.int64)
    n = block * BLOCK + tl.arange(0, BLOCK)
    mask = n < size
    dtype: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    x = fetch(x_ptr, strides[2], row, n, inner, mask, dtype, FLAT)
    y_t = fetch(x_t_ptr, strides[3], along, n, inner, mask, dtype, FLAT)
    y, slope = _slope(x, KIND)
    y_t *= slope
    if a_ptr is not None:
        a = fetch(a_ptr, strides[0], row, n, inner, mask, dtype, FLAT)
        a_t = fetch(a_t_ptr, strides[1], along, n, inner, mask, dtype, FLAT)
        y, y_t = a * y, a_t * y + a * y_t
    place = address(y_t_ptr, strides[5], along, n, inner, FLAT)
    tl.store(place, convert(y_t, y_t_ptr.dtype.element_ty), mask=mask)
    if along < batch:
        place = address(y_ptr, strides[4], row, n, inner, FLAT)
        tl.store(place, convert(y, y_ptr.dtype.element_ty), mask=mask)


def unable(*args: object) -> str:
    """Why this kernel cannot take them: it takes all."""
    return ""


def launch(x: Tensor, x_t: Tensor, kind: str, y: Tensor, y_t: Tensor) -> None:
    """Write into y and y_t (see above); arguments are not checked."""
    if not y_t.numel():
        return
    gated = kind in GATED
    seen = [_seen(t, gated) for t in (x, x_t, y, y_t)]
    target, target_t = seen[2:]
    if gated:
        (a, x), (a_t, x_t) = seen[0].chunk(2, -1), seen[1].chunk(2, -1)
        tensors = [a, a_t, x, x_t, target, target_t]
    else:
        tensors = [None, None, *seen]
    layout = lay_out(tensors[2:] + tensors[:2])
    parameters = launch_parameters("activation_dual", y.device)
    blocks = layout.blocks(parameters["BLOCK"])
    with on_device(y):
        _activation_dual_kernel[(len(y_t) // len(y) * layout.rows * blocks,)](
            *tensors,
            (*layout.strides[4:], *layout.strides[:4]),
            blocks,
            layout.size,
            layout.inner,
            layout.rows,
            len(y),
            KIND=GATED.get(kind, kind),
            FLAT=layout.flat,
            WIDE=layout.wide,
            **parameters,
        )
    for written, made in ((y, target), (y_t, target_t)):
        if written.data_ptr() != made.data_ptr():
            written.copy_(made.reshape(written.shape))


def _seen(tensor: Tensor, gated: bool) -> Tensor:
    """As (B, C, *rest) whose memory can be walked, a copy where it cannot."""
    if gated and tensor.dim() > 3:
        tensor = tensor.flatten(1, -2)
    return tensor if collapse(tensor.shape, tensor.stride()) is not None else tensor.contiguous()
