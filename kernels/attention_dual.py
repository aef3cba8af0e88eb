"""Flash attention and its derivative along tangents, in one pass over keys and values.

    s = scale q k^T + mask    s_t = scale (q_t k^T + q k_t^T)    p = softmax(s)    h = p s_t
    out = p v                 out_t = h v + p v_t - rowsum(h) out

Online: of the largest s so far, sum(p), sum(h), p v and h v + p v_t are kept, with p relative to
it, and divided by sum(p) at the end. A row that sees no key gives 0 and 0.

Shapes: q, out (B, Hq, Nq, d); k, v (B, Hk, Nk, d), Hq a multiple of Hk; tangents and out_t
(T B, ...), row j B + i along row i; mask to broadcast to (B, Hq, Nq, Nk), boolean or added;
d <= 256. Strides: any. Dtypes: float16, bfloat16 or float32, all the same; sums in float32,
products of float32 numbers as three of tf32 (as one where torch may do so too). A program takes a
block of queries of one head: it reads that once, and all of k, v, k_t and v_t of the head; it
writes out and out_t once. T > 1 does the primal again. 4 B Hq Nq Nk d flops for the primal, 8 for
the tangents, 4 with q_t alone.

Columns are taken in two parts, powers of two as a product of matrices wants them: 72 as 64 + 16.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from ..errors import InputError
from ..ops.duals.checks import check_attention
from ..ops.duals.registration import new_outputs
from . import strides as memory
from .attention_tiles import _attention_dual_kernel
from .tuning import launch_parameters

WIDTHS = (64, 96, 128, 160, 256)  # of heads that share launch parameters


def unable(q: Tensor, k: Tensor, v: Tensor, *rest: object) -> str:
    """Why this kernel cannot take them; "" if it can."""
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it computes in float32, and these are {q.dtype}"
    if q.shape[3] > 256 or v.shape[3] != q.shape[3]:
        return f"heads of {q.shape[3]} and {v.shape[3]} channels: it takes one size up to 256"
    return ""


def launch(
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
    out: Tensor,
    out_t: Tensor,
) -> None:
    """Write into out and out_t (see above); arguments are not checked."""
    if not out_t.numel():
        return
    (batch, heads, queries, size), keys = q.shape, k.shape[2]
    if attn_mask is not None:
        attn_mask = attn_mask.expand(batch, heads, queries, keys)
        attn_mask = attn_mask.view(torch.uint8) if attn_mask.dtype == torch.bool else attn_mask
    given = (q, k, v, q_t, k_t, v_t)
    matrices = [t for t in (*given, out, out_t) if t is not None]
    unit = math.gcd(16 // q.element_size(), *(s for t in matrices for s in t.stride()[:3]))
    strides = [_strides(t, unit) for t in given]
    strides += [_strides(attn_mask, 1), _strides(out, unit), _strides(out_t, unit)]
    reach = max((t.shape[2] - 1) * t.stride(2) + (size - 1) * t.stride(3) for t in matrices)
    d1, d2 = columns(size)
    parameters = launch_parameters(parameters_of(d1 + d2, 8 * q.element_size()), q.device)
    blocks = triton.cdiv(queries, parameters["BLOCK_M"])
    with memory.on_device(q):
        _attention_dual_kernel[(blocks * heads * len(out_t),)](
            *given,
            attn_mask,
            out,
            out_t,
            tuple(strides),
            (queries, keys),
            blocks,
            heads,
            heads // k.shape[1],
            batch,
            1 / math.sqrt(size) if scale is None else float(scale),
            CAUSAL=is_causal,
            WIDE=reach >= memory.INT32_LIMIT,
            SIZE=size,
            D1=d1,
            D2=d2,
            UNIT=unit,
            PRECISION=_precision(q),
            **{**parameters, "enable_fp_fusion": True},
        )


def columns(size: int) -> tuple[int, int]:
    """D1 and D2: what a head of `size` channels is taken as, padded as little as two parts can."""
    whole = max(16, triton.next_power_of_2(size))
    first = whole // 2
    rest = max(16, triton.next_power_of_2(max(size - first, 1)))
    return (first, rest) if first >= 16 and first + rest < whole else (whole, 0)


def parameters_of(width: int, bits: int) -> str:
    """Name of the launch parameters: up to so many columns, of so many bits."""
    return f"attention_dual_{next(w for w in WIDTHS if width <= w)}_{bits}"


def _strides(tensor: Tensor | None, unit: int) -> tuple[int, ...]:
    if tensor is None:
        return 0, 0, 0, 0
    *outer, last = tensor.stride()
    return (*(s // unit for s in outer), last)


def _precision(q: Tensor) -> str:
    """How float32 is multiplied."""
    if not q.is_cuda or torch.version.cuda is None:
        return "ieee"
    if torch.cuda.get_device_capability(q.device) < (8, 0):
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def attention_dual(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_t: Tensor | None = None,
    k_t: Tensor | None = None,
    v_t: Tensor | None = None,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(out, out_t) by this kernel alone; arguments as in `reg_engine.ops.attention_dual`.

    Raises:
        InputError: shapes, dtypes or devices that do not fit, or that this kernel does not take.
    """
    check_attention(q, k, v, q_t, k_t, v_t, attn_mask, is_causal, enable_gqa, out)
    reason = unable(q, k, v)
    if reason:
        raise InputError("q", reason, "Take reg_engine.ops.attention_dual")
    given = (q, k, v, q_t, k_t, v_t, attn_mask, is_causal, scale, enable_gqa)
    out = new_outputs("attention_dual", *given) if out is None else out
    launch(*given, *out)
    return out
