"""Attention and its tangent on the device, a tile of keys at a time; attention_dual.py launches it.

Of the keys so far it keeps, with p relative to the largest s: sum(p), sum(h), p v, h v + p v_t.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .matrices import add_rows, load_rows, products, store_rows

LOG2E = tl.constexpr(math.log2(math.e))
NOTHING = tl.constexpr(-math.inf)


@triton.jit
def _masked(s, mask_ptr, strides, row, head, i, n, queries, keys, CAUSAL, FIT: tl.constexpr):
    """s with what the mask adds, -inf where key n is not seen by query i."""
    if mask_ptr is not None:
        place = mask_ptr + row.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[1]
        place = place + (i.to(tl.int64) * strides[2])[:, None] + (n * strides[3])[None, :]
        inside = (i < queries)[:, None] & (n < keys)[None, :]
        value = tl.load(place, mask=inside, other=0)
        if mask_ptr.dtype.element_ty == tl.uint8:
            s = tl.where(value != 0, s, NOTHING)
        else:
            s += value.to(tl.float32) * LOG2E
    if not FIT:
        s = tl.where((n < keys)[None, :], s, NOTHING)
        if CAUSAL:
            s = tl.where(n[None, :] <= i[:, None], s, NOTHING)
    return s


@triton.jit
def _scan(
    state,
    q,
    q_t,
    pointers,  # to k, v, q_t, k_t, v_t, mask
    strides,  # of the same
    places,  # row of the primal, of the tangent; head of q, of k; queries
    sizes,  # queries, keys
    scale,
    first,
    last,
    CAUSAL: tl.constexpr,
    FIT: tl.constexpr,  # all of these queries see all of these keys, but for the mask
    SIZE: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The state after keys first..last - 1: the largest s, sum(p), sum(h), p v, h v + p v_t."""
    top, total, turn, o1, o2, t1, t2 = state
    k_ptr, v_ptr, q_t_ptr, k_t_ptr, v_t_ptr, mask_ptr = pointers
    row, along, head, shared, i = places
    for start in range(first, last, BLOCK_N):
        n = (start + tl.arange(0, BLOCK_N)).to(i.dtype)
        seen = n < sizes[1]
        k = load_rows(k_ptr, strides[0], row, shared, n, seen, SIZE, D1, D2, UNIT, FIT)
        s = products(q, k, None, D2, PRECISION) * (scale * LOG2E)
        s = _masked(s, mask_ptr, strides[5], row, head, i, n, sizes[0], sizes[1], CAUSAL, FIT)
        peak = tl.maximum(top, tl.max(s, 1))
        level = tl.where(peak == NOTHING, 0.0, peak)
        p = tl.exp2(s - level[:, None])
        shrink = tl.exp2(top - level)
        top = peak
        total = total * shrink + tl.sum(p, 1)
        o1, t1 = o1 * shrink[:, None], t1 * shrink[:, None]
        if D2 > 0:
            o2, t2 = o2 * shrink[:, None], t2 * shrink[:, None]
        v = load_rows(v_ptr, strides[1], row, shared, n, seen, SIZE, D1, D2, UNIT, FIT)
        o1, o2 = add_rows(p, v, o1, o2, D2, PRECISION)
        if q_t_ptr is not None or k_t_ptr is not None:
            if q_t_ptr is not None:
                s_t = products(q_t, k, None, D2, PRECISION)
            else:
                s_t = tl.zeros(s.shape, tl.float32)
            if k_t_ptr is not None:
                k_t = load_rows(
                    k_t_ptr, strides[3], along, shared, n, seen, SIZE, D1, D2, UNIT, FIT
                )
                s_t = products(q, k_t, s_t, D2, PRECISION)
            h = p * s_t * scale
            turn = turn * shrink + tl.sum(h, 1)
            t1, t2 = add_rows(h, v, t1, t2, D2, PRECISION)
        if v_t_ptr is not None:
            v_t = load_rows(v_t_ptr, strides[4], along, shared, n, seen, SIZE, D1, D2, UNIT, FIT)
            t1, t2 = add_rows(p, v_t, t1, t2, D2, PRECISION)
    return top, total, turn, o1, o2, t1, t2


@triton.jit
def _attention_dual_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_t_ptr,
    k_t_ptr,
    v_t_ptr,
    mask_ptr,
    out_ptr,
    out_t_ptr,
    strides,  # of the same
    sizes,  # queries, keys
    blocks,  # of queries
    heads,
    sharing,  # heads of q for each of k
    batch,
    scale,
    CAUSAL: tl.constexpr,
    WIDE: tl.constexpr,
    SIZE: tl.constexpr,
    D1: tl.constexpr,
    D2: tl.constexpr,
    UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    program = tl.program_id(0)
    block, head, along = program % blocks, program // blocks % heads, program // blocks // heads
    if CAUSAL:
        block = blocks - 1 - block  # the longest first
    row = along % batch
    i = block * BLOCK_M + tl.arange(0, BLOCK_M)
    i = i.to(tl.int64) if WIDE else i
    own = i < sizes[0]
    q = load_rows(q_ptr, strides[0], row, head, i, own, SIZE, D1, D2, UNIT, False)
    q_t = q
    if q_t_ptr is not None:
        q_t = load_rows(q_t_ptr, strides[3], along, head, i, own, SIZE, D1, D2, UNIT, False)
    pointers = k_ptr, v_ptr, q_t_ptr, k_t_ptr, v_t_ptr, mask_ptr
    lie = strides[1], strides[2], strides[3], strides[4], strides[5], strides[6]
    places = row, along, head, head // sharing, i
    last = sizes[1]
    whole = last // BLOCK_N * BLOCK_N
    if CAUSAL:
        last = tl.minimum(last, (block + 1) * BLOCK_M)
        whole = tl.minimum(whole, block * BLOCK_M // BLOCK_N * BLOCK_N)
    state = _start(BLOCK_M, D1, D2)
    state = _scan(
        state, q, q_t, pointers, lie, places, sizes, scale, 0, whole,
        CAUSAL, True, SIZE, D1, D2, UNIT, PRECISION, BLOCK_N,
    )  # fmt: skip
    state = _scan(
        state, q, q_t, pointers, lie, places, sizes, scale, whole, last,
        CAUSAL, False, SIZE, D1, D2, UNIT, PRECISION, BLOCK_N,
    )  # fmt: skip
    o1, o2, t1, t2 = _ended(state, D2)
    store_rows(out_t_ptr, strides[8], along, head, i, own, t1, t2, SIZE, D1, D2, UNIT)
    if along < batch:
        store_rows(out_ptr, strides[7], row, head, i, own, o1, o2, SIZE, D1, D2, UNIT)


@triton.jit
def _start(BLOCK_M: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """The state before the first key."""
    top = tl.full([BLOCK_M], NOTHING, tl.float32)
    none = tl.zeros([BLOCK_M], tl.float32)
    first = tl.zeros([BLOCK_M, D1], tl.float32)
    second = first
    if D2 > 0:
        second = tl.zeros([BLOCK_M, D2], tl.float32)
    return top, none, none, first, second, first, second


@triton.jit
def _ended(state, D2: tl.constexpr):
    """out and out_t, in two parts each."""
    top, total, turn, o1, o2, t1, t2 = state
    share = (1.0 / tl.where(total == 0, 1.0, total))[:, None]
    turn = turn[:, None] * share
    o1 = o1 * share
    t1 = t1 * share - turn * o1
    if D2 > 0:
        o2 = o2 * share
        t2 = t2 * share - turn * o2
    return o1, o2, t1, t2
