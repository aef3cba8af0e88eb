"""A norm, its modulation and activation, and their derivative along tangents, from one read.

    h = r (x - mean), r = 1 / sqrt(var + eps)      n_t = r (x_t - mean(x_t) - h mean(h x_t))
    z = (h weight + bias) (1 + scale) + shift      y = z, or silu(z)

"rms" subtracts no means. Shapes: x, y (B, ..., C), or (B, C, *spatial) in `groups` of channels;
x_t, y_t (T B, ...), row j B + i along row i; weight, bias (C,); scale, shift (B, C). Dtypes: each
its own; arithmetic in float64 where x is float64, else in float32. A program takes a row, C
elements, or a group of a sample, C / groups channels and all space. It reads x and x_t once where
they fit into one block, else twice, and writes y and y_t once; T > 1 reads x again.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .device import convert, sigmoid
from .strides import INT32_LIMIT, on_device
from .tuning import launch_parameters


@triton.jit
def _spots(start, lane, size, columns, inner, LAST: tl.constexpr):
    """Elements of a row: which exist, their channel, their place in space; LAST: channels lie
    closest."""
    n = start + lane
    if LAST:
        place = n // columns
        channel = n - place * columns
    else:
        channel = n // inner
        place = n - channel * inner
    return n < size, channel, place


@triton.jit
def _addresses(ptr, strides, row, group, spots):
    start = row.to(tl.int64) * strides[0] + group.to(tl.int64) * strides[1]
    return ptr + start + spots[1] * strides[2] + spots[2] * strides[3]


@triton.jit
def _read(ptr, strides, row, group, spots, dtype: tl.constexpr):
    place = _addresses(ptr, strides, row, group, spots)
    return convert(tl.load(place, mask=spots[0], other=0.0), dtype)


@triton.jit
def _write(ptr, strides, row, group, spots, value):
    place = _addresses(ptr, strides, row, group, spots)
    tl.store(place, convert(value, ptr.dtype.element_ty), mask=spots[0])


@triton.jit
def _moments(x, t, mask, CENTRED: tl.constexpr):
    """Of a block: how many, means of x and t, sums of (x - mean)^2 and of (x - mean)(t - mean)."""
    count = tl.sum(mask.to(x.dtype), 0)
    if CENTRED:
        mean, slope = tl.sum(x, 0) / count, tl.sum(t, 0) / count
    else:
        mean, slope = 0 * count, 0 * count
    x, t = tl.where(mask, x - mean, 0.0), tl.where(mask, t - slope, 0.0)
    return count, mean, slope, tl.sum(x * x, 0), tl.sum(x * t, 0)


@triton.jit
def _joined(a, b):
    """Moments of two blocks together (Chan, Golub and LeVeque, 1979)."""
    count = a[0] + b[0]
    share, x, t = b[0] / count, b[1] - a[1], b[2] - a[2]
    square, cross = a[3] + b[3] + x * x * a[0] * share, a[4] + b[4] + x * t * a[0] * share
    return count, a[1] + x * share, a[2] + t * share, square, cross


@triton.jit
def _at(ptr, strides, row, channel, mask, dtype: tl.constexpr):
    """Elements of a vector (C,) or (B, C)."""
    place = ptr + row.to(tl.int64) * strides[0] + channel * strides[1]
    return convert(tl.load(place, mask=mask, other=0.0), dtype)


@triton.jit
def _finish(h, h_t, channel, row, mask, vectors, strides, SILU: tl.constexpr):
    """y and y_t of the normalised value and its derivative."""
    weight_ptr, bias_ptr, scale_ptr, shift_ptr = vectors
    if weight_ptr is not None:
        weight = _at(weight_ptr, strides[0], row, channel, mask, h.dtype)
        h, h_t = h * weight, h_t * weight
    if bias_ptr is not None:
        h += _at(bias_ptr, strides[1], row, channel, mask, h.dtype)
    if scale_ptr is not None:
        factor = 1 + _at(scale_ptr, strides[2], row, channel, mask, h.dtype)
        h, h_t = h * factor, h_t * factor
    if shift_ptr is not None:
        h += _at(shift_ptr, strides[3], row, channel, mask, h.dtype)
    if SILU:
        share, rest = sigmoid(h)
        h_t = h_t * share * (1 + h * rest)
        h = h * share
    return h, h_t


@triton.jit
def _norm_dual_kernel(
    x_ptr,
    x_t_ptr,
    y_ptr,
    y_t_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    shift_ptr,
    strides,  # of x, x_t, y, y_t: batch, group, channel, space
    steps,  # of the vectors: batch, channel
    groups,  # rows of a sample
    batch,
    size,  # elements of a row
    columns,  # channels of a row
    inner,  # elements of space
    next_channel,  # the first of a group, over the first of the one before
    eps: tl.float64,
    CENTRED: tl.constexpr,
    SILU: tl.constexpr,
    LAST: tl.constexpr,
    WIDE: tl.constexpr,
    ONE: tl.constexpr,  # a row is one block
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = tl.float64 if x_ptr.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    group, along = program % groups, program // groups
    row = along % batch
    lane = tl.arange(0, BLOCK)
    if WIDE:
        lane = lane.to(tl.int64)
    spots = _spots(0, lane, size, columns, inner, LAST)
    x = _read(x_ptr, strides[0], row, group, spots, dtype)
    t = _read(x_t_ptr, strides[1], along, group, spots, dtype)
    count, mean, slope, square, cross = _moments(x, t, spots[0], CENTRED)
    if not ONE:
        for start in range(BLOCK, size, BLOCK):
            spots = _spots(start, lane, size, columns, inner, LAST)
            x = _read(x_ptr, strides[0], row, group, spots, dtype)
            t = _read(x_t_ptr, strides[1], along, group, spots, dtype)
            more = _moments(x, t, spots[0], CENTRED)
            so_far = count, mean, slope, square, cross
            count, mean, slope, square, cross = _joined(so_far, more)
    r = 1 / tl.sqrt(square / count + tl.full([], eps, dtype))
    turn = r * r * cross / count
    vectors = weight_ptr, bias_ptr, scale_ptr, shift_ptr
    for start in range(0, size, BLOCK):
        spots = _spots(start, lane, size, columns, inner, LAST)
        if not ONE:
            x = _read(x_ptr, strides[0], row, group, spots, dtype)
            t = _read(x_t_ptr, strides[1], along, group, spots, dtype)
        h = r * (x - mean)
        h_t = r * (t - slope) - h * turn
        channel = group * next_channel + spots[1]
        y, y_t = _finish(h, h_t, channel, row, spots[0], vectors, steps, SILU)
        _write(y_t_ptr, strides[3], along, group, spots, y_t)
        if along < batch:
            _write(y_ptr, strides[2], row, group, spots, y)


def unable(*args: object) -> str:
    """Why this kernel cannot take them: it takes all."""
    return ""


def launch(
    x: Tensor,
    x_t: Tensor,
    kind: str,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    y: Tensor,
    y_t: Tensor,
) -> None:
    """Write into y and y_t (see above); arguments are not checked."""
    if not y_t.numel():
        return
    given = [_rows(t, kind, groups) for t in (x, x_t, y, y_t)]
    vectors = (weight, bias, scale, shift)
    batch, rows, columns, inner = given[0].shape
    size = columns * inner
    parameters = dict(launch_parameters("norm_dual", x.device))
    longest = parameters.pop("BLOCK")
    one = size <= longest
    block = triton.next_power_of_2(size) if one else longest
    reach = max((columns - 1) * t.stride(2) + (inner - 1) * t.stride(3) for t in given)
    with on_device(x):
        _norm_dual_kernel[(rows * len(x_t),)](
            *given,
            *vectors,
            tuple(t.stride() for t in given),
            tuple((0, 0, *(() if t is None else t.stride()))[-2:] for t in vectors),
            rows,
            batch,
            size,
            columns,
            inner,
            columns if kind == "group" else 0,
            float(eps),
            CENTRED=kind != "rms",
            SILU=activation == "silu",
            LAST=given[0].stride(2) < given[0].stride(3),
            WIDE=max(size, reach) >= INT32_LIMIT,
            ONE=one,
            BLOCK=block,
            **parameters,
        )
    for target, made in ((y, given[2]), (y_t, given[3])):
        if target.data_ptr() != made.data_ptr():
            target.copy_(made.reshape(target.shape))


def _rows(t: Tensor, kind: str, groups: int) -> Tensor:
    """(B, rows, channels of a row, space), a copy where the memory cannot be read so."""
    if kind == "group":
        t = t.flatten(2) if t.dim() > 2 else t.unsqueeze(2)
        return t.unflatten(1, (groups, -1))
    return (t.flatten(1, -2) if t.dim() > 2 else t.unsqueeze(1)).unsqueeze(3)
