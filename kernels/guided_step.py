"""The whole guidance step: guide, convert, clip, update, remember; row `step` of a table says how.

    guided   = gain (cond + w T)                  T as in combine.py, on the first `channels`
    denoised = skip x + out guided
    clipped  = c + keep (c - denoised)            c = denoised within [-limit, limit]
    d        = p x + q clipped
    x_s      = a x + b_0 d + sum_j b_j history[(step - j) mod H] + c noise
    history[step mod H] = d
    nonfinite[step] = 1                           at samples whose x_s holds NaN or Inf

Shapes: x, cond, ref, term, noise, out (B, C, *rest); table (rows, FIRST_B + J); weight (w of each
sample, instead of the row's), gain (B,); history (H, B, C, *rest) and nonfinite (rows, B)
contiguous, H >= J; step one element. Dtypes: x, table, weight, gain, noise, history, nonfinite, out
float32 or float64, all the same, in which is computed; cond, ref, term each its own; step int64.
Reads each element of x and cond once, of ref, term, noise and each slot of history once where its
coefficient is not 0; writes out once, the slot of `step` where there is a history, and `nonfinite`
only where something is wrong.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .device import (
    FIRST_B,
    KEEP,
    LIMIT,
    OUT,
    SKIP,
    A,
    C,
    P,
    Q,
    W,
    address,
    element,
    fetch,
    guide,
    where_used,
)
from .strides import lay_out, on_device, readable, writable
from .tuning import launch_parameters


@triton.jit
def _clipped(denoised, limit, keep):
    """Within [-limit, limit], plus `keep` times what was cut off; NaN stays NaN."""
    limit = tl.full(denoised.shape, limit, denoised.dtype)
    within = tl.where(denoised < -limit, -limit, tl.where(denoised > limit, limit, denoised))
    clipped = within + keep * (within - denoised)
    return tl.where(limit == float("inf"), denoised, clipped)


@triton.jit
def _mark(ptr, x_s, mask):
    """1 where one of the block is NaN or Inf."""
    found = mask & ((tl.abs(x_s) < float("inf")) == 0)  # NaN is below nothing
    # One store a block: a store by every lane would exchange all of them between the lanes.
    some = tl.max(found.to(tl.int32), axis=0)
    tl.store(ptr, 1.0, mask=some > 0)


@triton.jit
def _guided_step_kernel(
    x_ptr,
    cond_ptr,
    ref_ptr,
    term_ptr,
    noise_ptr,
    out_ptr,
    table_ptr,
    step_ptr,
    weight_ptr,
    gain_ptr,
    history_ptr,
    nonfinite_ptr,
    strides,  # of x, cond, ref, term, noise, out
    blocks,
    size,
    inner,
    guided_size,  # the first `guided_size` elements of a row are guided
    weight_stride,
    gain_stride,
    samples,  # B
    ring,  # H
    slot_size,
    J: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    x_strides, cond_strides, ref_strides, term_strides, noise_strides, out_strides = strides
    row, n = element(blocks, BLOCK, WIDE)
    mask = n < size
    x = tl.load(address(x_ptr, x_strides, row, n, inner, FLAT), mask=mask, other=0.0)
    cond = fetch(cond_ptr, cond_strides, row, n, inner, mask, x.dtype, FLAT)
    step = tl.load(step_ptr)
    line = table_ptr + step * (FIRST_B + J)
    w = tl.load(line + W if weight_ptr is None else weight_ptr + row * weight_stride)
    guided_mask = where_used(mask & (n < guided_size), w)
    guided = guide(
        cond, w, ref_ptr, ref_strides, term_ptr, term_strides, row, n, inner, guided_mask, FLAT
    )
    if gain_ptr is not None:
        guided *= tl.load(gain_ptr + row * gain_stride)
    denoised = tl.load(line + SKIP) * x + tl.load(line + OUT) * guided
    denoised = _clipped(denoised, tl.load(line + LIMIT), tl.load(line + KEEP))
    d = tl.load(line + P) * x + tl.load(line + Q) * denoised
    x_s = tl.load(line + A) * x + tl.load(line + FIRST_B) * d
    place = row * size + n
    for j in tl.static_range(1, J):
        b = tl.load(line + FIRST_B + j)
        past_ptr = history_ptr + (step + ring - j) % ring * slot_size
        x_s += b * tl.load(past_ptr + place, mask=where_used(mask, b), other=0.0)
    if noise_ptr is not None:
        c = tl.load(line + C)
        used = where_used(mask, c)
        x_s += c * fetch(noise_ptr, noise_strides, row, n, inner, used, x.dtype, FLAT)
    if history_ptr is not None:
        tl.store(history_ptr + step % ring * slot_size + place, d, mask=mask)
    tl.store(address(out_ptr, out_strides, row, n, inner, FLAT), x_s, mask=mask)
    if nonfinite_ptr is not None:
        _mark(nonfinite_ptr + step * samples + row, x_s, mask)


def guided_step(
    x: Tensor,
    cond: Tensor,
    table: Tensor,
    step: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    weight: Tensor | None,
    gain: Tensor | None,
    noise: Tensor | None,
    history: Tensor | None,
    nonfinite: Tensor | None,
    channels: int,
    out: Tensor,
) -> None:
    """Write x_s into `out`, which may be x, d into its slot of `history`, and `nonfinite`."""
    if out.numel() == 0:
        return
    partial = 0 <= channels < x.shape[1]
    by_row = partial or any(each is not None for each in (weight, gain, nonfinite))
    with on_device(out), writable(out) as target:
        tensors = [*map(readable, (x, cond, ref, term, noise)), target]
        layout = lay_out(tensors, by_row=by_row, ordered=partial, contiguous=history is not None)
        parameters = launch_parameters("guided_step", out.device)
        blocks = layout.blocks(parameters["BLOCK"])
        _guided_step_kernel[(layout.rows * blocks,)](
            *tensors,
            table.contiguous(),
            step,
            weight,
            gain,
            history,
            nonfinite,
            layout.strides,
            blocks,
            layout.size,
            layout.inner,
            channels * layout.inner if partial else layout.size,
            0 if weight is None else weight.stride(0),
            0 if gain is None else gain.stride(0),
            x.shape[0],
            1 if history is None else history.shape[0],
            x.numel(),
            J=table.shape[1] - FIRST_B.value,
            FLAT=layout.flat,
            WIDE=layout.wide,
            **parameters,
        )
