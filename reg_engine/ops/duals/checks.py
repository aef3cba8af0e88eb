"""Checks of the dual ops' arguments, before anything is launched."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError, choice
from ..checks import FLOATS
from .activation import ACTIVATIONS, GATED
from .norm import NORMS

__all__ = ["check_activation", "check_attention", "check_norm"]

Pair = tuple[Tensor, Tensor]


def check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_t: Tensor | None,
    k_t: Tensor | None,
    v_t: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
    enable_gqa: bool,
    out: Pair | None,
) -> None:
    """Raise InputError unless the arguments fit `ops.attention_dual`."""
    if q.dim() != 4 or q.dtype not in FLOATS:
        raise _misfit("q", q, "floating (B, Hq, Nq, d)")
    (batch, heads, length, size), keys = q.shape, k.shape[2:3]
    _fits("k", k, (batch, *k.shape[1:2], *keys, size), q)
    _fits("v", v, (*k.shape[:3], *v.shape[-1:]), q)
    if heads != k.shape[1] and not (enable_gqa and k.shape[1] and heads % k.shape[1] == 0):
        raise InputError(
            "k",
            f"has {k.shape[1]} heads, q {heads}, enable_gqa={enable_gqa}",
            "Give as many, or enable_gqa=True and a number that divides q's",
        )
    given = {"q_t": (q_t, q), "k_t": (k_t, k), "v_t": (v_t, v)}
    count = _tangents({n: (t, like) for n, (t, like) in given.items() if t is not None})
    if attn_mask is not None:
        _mask(attn_mask, (batch, heads, length, *keys), is_causal, q)
    if out is not None:
        shape = heads, length, v.shape[3]
        _pair(out, (batch, *shape), (count * batch, *shape), q)


def check_norm(
    x: Tensor,
    x_t: Tensor,
    kind: str,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: str | None,
    out: Pair | None,
) -> None:
    """Raise InputError unless the arguments fit `ops.norm_dual`."""
    choice("kind", kind, NORMS)
    if x.dim() < 2 or x.dtype not in FLOATS:
        raise _misfit("x", x, "floating (B, ..., C), or (B, C, ...) for groups")
    channels = x.shape[1 if kind == "group" else -1]
    if kind == "group" and (groups < 1 or channels % groups):
        raise InputError("groups", f"is {groups}", f"Give a divisor of the {channels} channels")
    _tangents({"x_t": (x_t, x)})
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            _fits(name, value, (channels,), x, FLOATS)
    for name, value in (("scale", scale), ("shift", shift)):
        if value is not None:
            _fits(name, value, (len(x), channels), x, FLOATS)
    if activation is not None:
        choice("activation", activation, ("silu",))
    if out is not None:
        _pair(out, x.shape, x_t.shape, x)


def check_activation(x: Tensor, x_t: Tensor, kind: str, out: Pair | None) -> None:
    """Raise InputError unless the arguments fit `ops.activation_dual`."""
    choice("kind", kind, ACTIVATIONS)
    if x.dim() < 1 or x.dtype not in FLOATS:
        raise _misfit("x", x, "floating (B, ...)")
    if kind in GATED and (x.dim() < 2 or x.shape[-1] % 2):
        raise _misfit("x", x, "(B, ..., 2 C): what is gated, and the gate")
    _tangents({"x_t": (x_t, x)})
    if out is not None:
        size = (x.shape[-1] // 2,) if kind in GATED else x.shape[-1:]
        _pair(out, (*x.shape[:-1], *size), (*x_t.shape[:-1], *size), x)


def _tangents(given: dict[str, tuple[Tensor, Tensor]]) -> int:
    """How many blocks of rows every tangent has, as many as the others."""
    if not given:
        raise InputError("q_t", "is None, and k_t and v_t", "Give one tangent at least")
    name, (first, like) = next(iter(given.items()))
    batch = len(like)
    count = len(first) // batch if batch and first.dim() else 1
    for name, (tangent, like) in given.items():
        _fits(name, tangent, (max(count, 1) * batch, *like.shape[1:]), like)
    return count


def _mask(mask: Tensor, shape: tuple[int, ...], is_causal: bool, q: Tensor) -> None:
    if is_causal:
        raise InputError("attn_mask", "is given, is_causal is True", "Give one of them")
    dtypes = torch.bool, q.dtype, torch.float32
    fits = mask.dim() <= 4 and mask.device == q.device and mask.dtype in dtypes
    sides = zip(reversed(mask.shape), reversed(shape), strict=False)
    if not fits or any(own not in (1, wanted) for own, wanted in sides):
        raise _misfit("attn_mask", mask, f"bool or {q.dtype}, to broadcast to {shape}")


def _pair(out: Pair, one: tuple[int, ...], many: tuple[int, ...], like: Tensor) -> None:
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise InputError("out", f"is {type(out).__name__}", "Give two tensors: (out, out_t)")
    for name, value, shape in (("out[0]", out[0], one), ("out[1]", out[1], many)):
        _fits(name, value, shape, like)


def _fits(
    name: str,
    value: Tensor,
    shape: tuple[int, ...],
    like: Tensor,
    dtypes: tuple[torch.dtype, ...] = (),
) -> None:
    dtypes = dtypes or (like.dtype,)
    if not isinstance(value, Tensor):
        raise InputError(name, f"is a {type(value).__name__}", "Give a tensor")
    if value.shape != tuple(shape) or value.device != like.device or value.dtype not in dtypes:
        kinds = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise _misfit(name, value, f"{kinds} of shape {tuple(shape)} on {like.device}")


def _misfit(name: str, value: Tensor, wanted: str) -> InputError:
    return InputError(
        name,
        f"is {value.dtype} of shape {tuple(value.shape)} on {value.device}",
        f"Give {wanted}",
    )
