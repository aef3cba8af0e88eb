"""Attention and its derivative along tangents of queries, keys and values, in plain torch.

With s = scale q k^T + mask, p = softmax(s), s_t = scale (q_t k^T + q k_t^T) and h = p s_t,

    out = p v        out_t = h v + p v_t - rowsum(h) out

`attention_dual` is fast: out is that of torch's fused kernel, and of the square matrices only a
chunk is alive. `attention_plain` is made of elementary ops, which every kind of autodiff
understands, and keeps them whole. A row that a mask hides from every key gives 0 and 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Pair, blocks, count, exact

__all__ = ["attention_dual", "attention_flops", "attention_plain"]

# Bytes of one square matrix that is alive: what a core's cache holds; enough to fill a GPU.
CHUNK = {"cpu": 1 << 20}
GPU_CHUNK = 1 << 26

Place = tuple[slice, slice]


def attention_dual(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_t: Tensor | None,
    k_t: Tensor | None,
    v_t: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    out: Pair,
) -> None:
    """Write out and out_t (see above) into `out`; arguments as in `ops.attention_dual`.

    Three chunks of square matrices are alive at a time: s, p and h. 14 flops for each entry and
    channel where `attention_flops` has 12: the fused kernel does not keep p.
    """
    primal, out_t = out
    primal.copy_(
        F.scaled_dot_product_attention(
            q, k, v, attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
        )
    )
    if not out_t.numel():
        return
    heads, factor = q.shape[1], 1 / math.sqrt(q.shape[3]) if scale is None else scale
    mask = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.shape[2])
    factors = factor, 1.0, 1.0
    own = [_matrices(x, heads, f) for x, f in zip((q, k, v), factors, strict=True)]
    given = list(zip((q_t, k_t, v_t), factors, strict=True))
    tangents = [
        [None if x is None else _matrices(blocks(x, q)[j], heads, f) for x, f in given]
        for j in range(count(out_t, q))
    ]
    made = [own[0].new_empty(*own[0].shape[:2], v.shape[3]) for _ in tangents]
    mean = primal.flatten(0, 1) if exact(q) == q.dtype else None  # what was rounded is made anew
    for mine, seen in _chunks(own[0], own[1], is_causal):
        q_i, k_i, v_i = own[0][mine], own[1][seen], own[2][seen]
        p = _weights(q_i @ k_i.mT, mask, mine, is_causal)
        mean_i = p @ v_i if mean is None else mean[mine]
        for result, along in zip(made, tangents, strict=True):
            q_j, k_j, v_j = map(_at, along, (mine, seen, seen))
            result[mine] = _tangent(p, _products(q_i, k_i, q_j, k_j), v_i, v_j, mean_i)
    for target, result in zip(blocks(out_t, q), made, strict=True):
        target.copy_(result.unflatten(0, q.shape[:2]))


def _matrices(x: Tensor, heads: int, factor: float) -> Tensor:
    """(B, H, N, d) -> (B heads, N, d) times a factor, in what is computed in."""
    x = _shared(x, heads).to(exact(x)).flatten(0, 1)
    return x if factor == 1 else x * factor


def _chunks(q: Tensor, k: Tensor, is_causal: bool) -> Iterator[tuple[Place, Place]]:
    """Which matrices and rows, of the queries and of the keys that these see."""
    (matrices, length, _), keys = q.shape, k.shape[1]
    entries = CHUNK.get(q.device.type, GPU_CHUNK) // q.element_size()
    rows = max(1, min(length, entries // max(keys, 1)))
    group = max(1, entries // max(rows * keys, 1))
    for g, i in product(range(0, matrices, group), range(0, length, rows)):
        some, last = slice(g, g + group), min(keys, i + rows) if is_causal else keys
        yield (some, slice(i, i + rows)), (some, slice(0, last))


def _at(x: Tensor | None, place: Place) -> Tensor | None:
    return None if x is None else x[place]


def _weights(s: Tensor, mask: Tensor | None, mine: Place, is_causal: bool) -> Tensor:
    """softmax(s) of a chunk; `mask` (B, H, Nq, Nk) is added to s, or says which keys are seen."""
    if is_causal:
        first = mine[1].start
        s.masked_fill_(
            torch.ones(s.shape[1:], dtype=torch.bool, device=s.device).triu(first + 1), -math.inf
        )
        return s.softmax(-1)
    if mask is None:
        return s.softmax(-1)
    at = torch.arange(mine[0].start, mine[0].start + len(s), device=s.device)
    here = mask[at // mask.shape[1], at % mask.shape[1], mine[1]]
    s = s.masked_fill_(~here, -math.inf) if here.dtype == torch.bool else s.add_(here)
    return s.softmax(-1).masked_fill_((s == -math.inf).all(-1, keepdim=True), 0)


def _products(q: Tensor, k: Tensor, q_t: Tensor | None, k_t: Tensor | None) -> Tensor | None:
    """s_t of queries times the scale; None = 0."""
    if q_t is None:
        return None if k_t is None else q @ k_t.mT
    s_t = q_t @ k.mT
    return s_t if k_t is None else s_t.baddbmm_(q, k_t.mT)


def _tangent(p: Tensor, s_t: Tensor | None, v: Tensor, v_t: Tensor | None, mean: Tensor) -> Tensor:
    """h v + p v_t - rowsum(h) mean, where h = p s_t; s_t is overwritten."""
    if s_t is None:
        assert v_t is not None
        return p @ v_t
    h = s_t.mul_(p)
    made = h @ v
    if v_t is not None:
        made.baddbmm_(p, v_t)
    return made.addcmul_(h.sum(-1, keepdim=True), mean, value=-1)


def attention_plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_t: Tensor | None,
    k_t: Tensor | None,
    v_t: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Pair:
    """(out, out_t) in elementary ops; arguments as in `attention_dual`."""
    dtype, wide, heads = q.dtype, exact(q), q.shape[1]
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    q_, k_, v_ = (
        None if x is None else _shared(blocks(x, q).to(wide), heads) for x in (q_t, k_t, v_t)
    )
    q, k, v = (_shared(x.to(wide), heads) for x in (q, k, v))
    s = scale * (q @ k.mT)
    if is_causal:
        attn_mask = torch.ones(s.shape[2:], dtype=torch.bool, device=s.device).tril()
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        s = torch.where(attn_mask, s, -math.inf) if is_bool else s + attn_mask
    hidden = (s == -math.inf).all(-1, keepdim=True)
    p = torch.where(hidden, 0.0, torch.where(hidden, 0.0, s).softmax(-1))
    out = p @ v
    out_t = torch.zeros_like(out) if v_ is None else p @ v_
    if q_ is not None or k_ is not None:
        h = p * scale * sum(x for x in (_times(q_, k), _times(q, k_)) if x is not None)
        out_t = out_t + h @ v - h.sum(-1, keepdim=True) * out
    return out.to(dtype), out_t.flatten(0, 1).to(dtype)


def _shared(x: Tensor, heads: int) -> Tensor:
    """(..., Hk, N, d) -> (..., heads, N, d)."""
    return x if x.shape[-3] == heads else x.repeat_interleave(heads // x.shape[-3], -3)


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a @ b.mT


def attention_flops(
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    q_t: torch.Size | None,
    k_t: torch.Size | None,
    v_t: torch.Size | None,
) -> int:
    """Flops of the products, by shapes: 4 B H Nq Nk d for the primal, and for each block of
    tangents 8 more with all three, 4 with q_t alone. A mask saves none, as torch counts.
    """
    (batch, heads, length, d), (*_, keys, dv) = q, v
    given = next(x for x in (q_t, k_t, v_t) if x is not None)
    scores = d * ((q_t is not None) + (k_t is not None))
    values = dv * ((scores > 0) + (v_t is not None))
    count = given[0] // batch if batch else 1
    return 2 * batch * heads * length * keys * (d + dv + count * (scores + values))
