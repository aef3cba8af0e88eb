"""Gram matrix of (1, u, v, w), sample by sample: counts, sums, squared norms and dots in one pass.

    out[b, i, j] = sum_n r_i[n] r_j[n]        r = (1, u[b], v[b], w[b])

Shapes: u, v, w (B, C, *rest), v and w may be absent; out (B, k, k), k = 1 + the number given.
Dtypes: each input its own; out float64, in which is computed. Products of float32 are exact there.
Reads each element of u, v, w once, and k (k + 1) / 2 partial sums a chunk.

Two stages without atomics, so that the order of summation, and with it every bit, depends on sizes,
strides, alignment and launch parameters alone: a chunk of PARTS blocks of a sample, lane by lane
and then over the lanes, whose exchange is what costs; then the chunks of a sample.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import fetch
from .strides import lay_out, on_device, readable
from .tuning import launch_parameters


@triton.jit
def _products(
    u_ptr, v_ptr, w_ptr, strides, row, n, size, inner, K: tl.constexpr, FLAT: tl.constexpr
):
    """r_i r_j of elements n, i <= j, row by row; 0 beyond the end."""
    mask = n < size
    vectors = (mask.to(tl.float64), fetch(u_ptr, strides[0], row, n, inner, mask, tl.float64, FLAT))
    if v_ptr is not None:
        vectors += (fetch(v_ptr, strides[1], row, n, inner, mask, tl.float64, FLAT),)
    if w_ptr is not None:
        vectors += (fetch(w_ptr, strides[2], row, n, inner, mask, tl.float64, FLAT),)
    products = ()
    for i in tl.static_range(K):
        for j in tl.static_range(i, K):
            products += (vectors[i] * vectors[j],)
    return products


@triton.jit
def _added(a, b, COUNT: tl.constexpr):
    sums = ()
    for k in tl.static_range(COUNT):
        sums += (a[k] + b[k],)
    return sums


@triton.jit
def _reduce_kernel(
    u_ptr,
    v_ptr,
    w_ptr,
    partial_ptr,  # (B, K, K, chunks), of which i <= j is written
    strides,  # of u, v, w
    chunks,
    size,
    inner,
    K: tl.constexpr,
    FLAT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    row, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    row = row.to(tl.int64)
    n = (chunk.to(tl.int64) if WIDE else chunk) * (BLOCK * PARTS) + tl.arange(0, BLOCK)
    sums = _products(u_ptr, v_ptr, w_ptr, strides, row, n, size, inner, K, FLAT)
    for _ in tl.static_range(1, PARTS):
        n += BLOCK
        more = _products(u_ptr, v_ptr, w_ptr, strides, row, n, size, inner, K, FLAT)
        sums = _added(sums, more, K * (K + 1) // 2)
    for i in tl.static_range(K):
        for j in tl.static_range(i, K):
            entry = ((row * K + i) * K + j) * chunks + chunk
            tl.store(partial_ptr + entry, tl.sum(sums[i * K - i * (i - 1) // 2 + j - i], axis=0))


@triton.jit
def _reduce_blocks_kernel(partial_ptr, out_ptr, blocks, K: tl.constexpr, BLOCK: tl.constexpr):
    entry = tl.program_id(0)
    i, j = entry // K % K, entry % K
    source = (entry // (K * K) * K + tl.minimum(i, j)) * K + tl.maximum(i, j)
    source_ptr = partial_ptr + source.to(tl.int64) * blocks
    total = tl.zeros([BLOCK], tl.float64)
    start = 0
    while start < blocks:  # the interpreter of triton 3.6 has no range() over a size of run time
        n = start + tl.arange(0, BLOCK)
        total += tl.load(source_ptr + n, mask=n < blocks, other=0.0)
        start += BLOCK
    tl.store(out_ptr + entry, tl.sum(total, axis=0))


def reduce(u: Tensor, v: Tensor | None, w: Tensor | None, out: Tensor) -> None:
    """Write the (B, k, k) Gram matrices into `out`, contiguous (see above)."""
    if u.numel() == 0:
        out.zero_()
        return
    with on_device(out):
        tensors = [*map(readable, (u, v, w))]
        layout = lay_out(tensors, by_row=True)
        parameters = launch_parameters("reduce", out.device)
        chunks = layout.blocks(parameters["BLOCK"] * parameters["PARTS"])
        k = out.shape[1]
        partial = torch.empty(*out.shape, chunks, dtype=out.dtype, device=out.device)
        _reduce_kernel[(layout.rows * chunks,)](
            *tensors,
            partial,
            layout.strides,
            chunks,
            layout.size,
            layout.inner,
            K=k,
            FLAT=layout.flat,
            WIDE=layout.wide,
            **parameters,
        )
        parameters = launch_parameters("reduce_blocks", out.device)
        _reduce_blocks_kernel[(out.numel(),)](partial, out, chunks, K=k, **parameters)
