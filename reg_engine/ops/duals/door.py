"""The one door to the dual ops: a function and its derivative along tangents, in one call.

`reference` is plain torch (attention.py, norm.py, activation.py), `triton` reg_engine.kernels;
csrc has none of them. Whatever differentiates takes the formula in elementary ops. Under
torch.compile with Triton, and where tensors have no data (fake tensors, the meta device), the same
functions are the opaque ops `torch.ops.reg_engine.*`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...errors import BackendError
from .. import registration
from ..door import resolve
from .activation import activation_dual as _activation
from .attention import attention_dual as _attention
from .blocks import Pair
from .checks import check_activation, check_attention, check_norm
from .norm import norm_dual as _norm
from .registration import PLAIN, call, count_flops, new_outputs, register

__all__ = ["activation_dual", "attention_dual", "norm_dual"]

FAST: dict[str, Callable[..., None]] = {
    "attention_dual": _attention,
    "norm_dual": _norm,
    "activation_dual": _activation,
}
_failed: set[tuple[object, ...]] = set()  # what Triton could not start


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
    out: Pair | None = None,
    backend: str | None = None,
) -> Pair:
    """Attention and its derivative along (q_t, k_t, v_t), in one pass over keys and values.

    With s = scale q k^T + mask, p = softmax(s), s_t = scale (q_t k^T + q k_t^T) and h = p s_t,

        out = p v        out_t = h v + p v_t - rowsum(h) out

    (forward mode of flash attention: arXiv 2410.11081, appendix F). A row whose mask hides every
    key gives 0 and 0. `reference` gives out bitwise as F.scaled_dot_product_attention does.
    Reads each of q, q_t, and for each tile of queries k, v, k_t, v_t, once; writes out and out_t
    once. 4 B Hq Nq Nk d flops for out, 8 more a block of tangents, 4 with q_t alone.

    Args:
        q: (B, Hq, Nq, d). k: (B, Hk, Nk, d). v: (B, Hk, Nk, dv). float16, bfloat16, float32 or
            float64, all the same, in any memory layout; arithmetic in at least float32.
        q_t, k_t, v_t: (T B, ...), T >= 1 blocks of tangents: row j B + i belongs to row i. None =
            constant (cross-attention has no k_t, v_t); at least one is given.
        attn_mask: boolean (True = seen) or additive, to broadcast to (B, Hq, Nq, Nk).
        is_causal: query i sees keys 0..i.
        scale: None = 1 / sqrt(d).
        enable_gqa: heads of q share those of k and v, Hq a multiple of Hk.
        out: (out, out_t) to write to, for instance parts of one buffer; None = new tensors.
        backend: `reference` or `triton` (d = dv <= 256, no float64); None = the first that works.

    Returns:
        (out, out_t): (B, Hq, Nq, dv) and (T B, Hq, Nq, dv).

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_attention(q, k, v, q_t, k_t, v_t, attn_mask, is_causal, enable_gqa, out)
    given = (q, k, v, q_t, k_t, v_t, attn_mask, is_causal, scale, enable_gqa)
    return _serve("attention_dual", given, out, backend)


def norm_dual(
    x: Tensor,
    x_t: Tensor,
    kind: str,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    groups: int = 1,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str | None = None,
    out: Pair | None = None,
    backend: str | None = None,
) -> Pair:
    """A norm, its modulation and activation, and their derivative along x_t, from one read.

        y = act((n(x) weight + bias) (1 + scale) + shift)

    Without scale, shift and activation, y of `reference` is bitwise that of F.layer_norm,
    F.rms_norm or F.group_norm. Statistics in float32, in float64 for float64.

    Args:
        x: (B, ..., C); (B, C, *spatial) for "group".
        x_t: (T B, ...), T blocks of tangents: row j B + i belongs to row i of x.
        kind: "layer", "rms" (over the last dim) or "group" (over C / groups channels and space).
        weight, bias: (C,). scale, shift: (B, C). Constants, in any floating dtype.
        eps: added to the variance, > 0.
        activation: None or "silu".
        out: (y, y_t) to write to; None = new tensors in the memory formats of x and x_t.
        backend: `reference` or `triton`; None = the first that works.

    Returns:
        (y, y_t), like (x, x_t).

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_norm(x, x_t, kind, weight, bias, groups, scale, shift, activation, out)
    given = (x, x_t, kind, weight, bias, eps, groups, scale, shift, activation)
    return _serve("norm_dual", given, out, backend)


def activation_dual(
    x: Tensor, x_t: Tensor, kind: str, *, out: Pair | None = None, backend: str | None = None
) -> Pair:
    """An activation and its derivative along x_t, from one read.

        y = f(x)       y_t = f'(x) x_t                      "gelu", "gelu_tanh", "silu"
        y = a f(g)     y_t = a_t f(g) + a f'(g) g_t         "geglu", "geglu_tanh", "swiglu"

    where x = [a, g]: the second half of the last dim gates the first, as in diffusers' GEGLU and
    SwiGLU.

    Args:
        x: (B, ..., C), or (B, ..., 2 C) where it is gated.
        x_t: (T B, ...), T blocks of tangents: row j B + i belongs to row i of x.
        out: (y, y_t) to write to; None = new tensors.
        backend: `reference` or `triton`; None = the first that works.

    Returns:
        (y, y_t): (B, ..., C) and (T B, ..., C).

    Raises:
        InputError: shapes, dtypes or devices that do not fit. BackendError: see `resolve`.
    """
    check_activation(x, x_t, kind, out)
    return _serve("activation_dual", (x, x_t, kind), out, backend)


def _serve(name: str, args: tuple[Any, ...], out: Pair | None, backend: str | None) -> Pair:
    first = args[0]
    derived = registration.differentiates(*(a for a in args if isinstance(a, Tensor)))
    shapes_only = backend != "reference" and (first.is_meta or isinstance(first, FakeTensor))
    if shapes_only:
        count_flops()
    if shapes_only or registration.traced(first, backend, _resolve):
        value = call(name, args, None if derived else out, backend)
    elif derived:
        value = PLAIN[name](*args)
    else:
        return _run(name, args, out or new_outputs(name, *args), backend)
    if out is None or not derived:
        return value
    return out[0].copy_(value[0]), out[1].copy_(value[1])


def _resolve(kind: str, backend: str | None) -> str:
    if backend == "csrc":
        raise BackendError("backend 'csrc' has no dual ops: take 'reference' or 'triton'")
    chosen = resolve(kind, backend)
    return "reference" if chosen == "csrc" else chosen


# What torch.compiler.assume_constant_result sets.
_resolve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _launcher(name: str) -> Any:
    """The module of kernels/ that holds `launch`, and `unable`: why not with these arguments."""
    return importlib.import_module(f"reg_engine.kernels.{name}")


def _run(name: str, args: tuple[Any, ...], out: Pair, backend: str | None) -> Pair:
    """Into `out`, by Triton where it can; what it cannot start, it is not asked for again."""
    if _resolve(args[0].device.type, backend) == "triton":
        module = _launcher(name)
        reason = module.unable(*args)
        case = (name, args[0].dtype, args[0].shape[-1], args[0].device)
        if backend is not None:
            if reason:
                raise BackendError(f"backend 'triton' cannot serve {name}: {reason}")
            module.launch(*args, *out)
            return out
        if not reason and case not in _failed:
            try:
                module.launch(*args, *out)
                return out
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                _failed.add(case)
                warnings.warn(f"reg_engine leaves Triton's {name}: {error}", stacklevel=4)
    FAST[name](*args, out)
    return out


register(_run)
