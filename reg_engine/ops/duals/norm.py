"""A norm and its derivative along tangents, in plain torch.

With h = n(x) = r (x - mean), r = 1 / sqrt(var + eps), over the last dim ("layer"), or over a group
of channels and all space ("group"),

    y   = act((h weight + bias) (1 + scale) + shift)
    n_t = r (x_t - mean(x_t) - h mean(h x_t))

"rms" is "layer" without both means. The Jacobian of n is symmetric, so n_t is the norm's own
backward kernel applied to x_t: `norm_dual` takes that. `norm_plain` is made of elementary ops,
which every kind of autodiff understands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Pair, blocks, exact

__all__ = ["NORMS", "norm_dual", "norm_plain"]

NORMS = ("layer", "rms", "group")

_aten = torch.ops.aten


def norm_dual(
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
    out: Pair,
) -> None:
    """Write y and y_t (see above) into `out`; arguments as in `ops.norm_dual`."""
    if not x.numel():
        return
    y = _value(x, kind, weight, bias, eps, groups)
    slope = None if scale is None else 1 + _along(scale, x, kind)
    if slope is not None:
        y = y * slope
    if shift is not None:
        y = y + _along(shift, x, kind)
    for t, target in zip(blocks(x_t, x), blocks(out[1], x), strict=True):
        n_t = _slope(x, t, kind, eps, groups)
        for factor in (None if weight is None else _along(weight, x, kind), slope):
            if factor is not None:
                n_t.mul_(factor)
        if activation == "silu":
            n_t = _aten.silu_backward(n_t, y.to(n_t.dtype))
        target.copy_(n_t)
    out[0].copy_(F.silu(y) if activation == "silu" else y)


def _value(
    x: Tensor, kind: str, weight: Tensor | None, bias: Tensor | None, eps: float, groups: int
) -> Tensor:
    """h weight + bias, bitwise torch's own."""
    if kind == "group":
        return F.group_norm(x, groups, weight, bias, eps)
    if kind == "layer":
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    y = F.rms_norm(x, x.shape[-1:], weight, eps)
    return y if bias is None else y + bias


def _slope(x: Tensor, t: Tensor, kind: str, eps: float, groups: int) -> Tensor:
    """n_t of one block, a new tensor, in float32 or better."""
    x, t = x.to(exact(x)), t.to(exact(x))  # on a CPU the kernels keep statistics in 16 bits
    if kind == "rms":
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        return r * (t - x * (r * r * (x * t).mean(-1, keepdim=True)))
    only_x = [True, False, False]
    if kind == "layer":
        last = x.shape[-1:]
        _, mean, r = _aten.native_layer_norm(x, last, None, None, eps)
        return _aten.native_layer_norm_backward(t, x, last, mean, r, None, None, only_x)[0]
    # Of two memory formats the kernel reads one wrongly.
    form = _format(x)
    x, t = x.contiguous(memory_format=form), t.contiguous(memory_format=form)
    size = len(x), x.shape[1], math.prod(x.shape[2:]), groups
    _, mean, r = _aten.native_group_norm(x, None, None, *size, eps)
    return _aten.native_group_norm_backward(t, x, mean, r, None, *size, only_x)[0]


def _format(x: Tensor) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if last is not None and x.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def _along(value: Tensor, x: Tensor, kind: str) -> Tensor:
    """(C,) or (B, C), to broadcast against x."""
    rows = value.shape[:-1]
    between, after = (0, x.dim() - 2) if kind == "group" else (x.dim() - 2, 0)
    return value.reshape(*(rows or (1,)), *[1] * between, -1, *[1] * after)


def norm_plain(
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
) -> Pair:
    """(y, y_t) in elementary ops; arguments as in `norm_dual`."""
    dtype, shape = x.dtype, x.shape
    x, t = x.to(exact(x)), blocks(x_t, x).to(exact(x))
    if kind == "group":
        x, t = x.unflatten(1, (groups, -1)).flatten(2), t.unflatten(2, (groups, -1)).flatten(3)
    if kind != "rms":
        x, t = x - x.mean(-1, keepdim=True), t - t.mean(-1, keepdim=True)
    r = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    h = r * x
    n_t = r * (t - h * (h * t).mean(-1, keepdim=True))
    y, y_t = h.reshape(shape), n_t.reshape(-1, *shape)
    if weight is not None:
        y, y_t = y * _along(weight, y, kind), y_t * _along(weight, y, kind)
    if bias is not None:
        y = y + _along(bias, y, kind)
    if scale is not None:
        slope = 1 + _along(scale, y, kind)
        y, y_t = y * slope, y_t * slope
    if shift is not None:
        y = y + _along(shift, y, kind)
    if activation == "silu":
        s = torch.sigmoid(y)
        y, y_t = y * s, y_t * s * (1 + y * (1 - s))
    return y.to(dtype), y_t.flatten(0, 1).to(dtype)
