"""An activation and its derivative along tangents, in plain torch.

    y = f(x)       y_t = f'(x) x_t                          f: GELU, GELU by tanh, SiLU
    y = a f(g)     y_t = a_t f(g) + a f'(g) g_t             geglu, geglu_tanh, swiglu; x = [a, g]

The derivative of an elementwise op is its own backward kernel, with the tangent for the gradient:
`activation_dual` takes that. `activation_plain` is made of elementary ops, which every kind of
autodiff understands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Pair, blocks, exact

__all__ = ["ACTIVATIONS", "GATED", "activation_dual", "activation_plain"]

# The second half gates the first, as in diffusers' GEGLU and SwiGLU.
GATED = {"geglu": "gelu", "geglu_tanh": "gelu_tanh", "swiglu": "silu"}
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", *GATED)
APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}

_aten = torch.ops.aten


def activation_dual(x: Tensor, x_t: Tensor, kind: str, out: Pair) -> None:
    """Write y and y_t (see above) into `out`; arguments as in `ops.activation_dual`."""
    targets = zip(blocks(x_t, x), blocks(out[1], x), strict=True)
    if kind not in GATED:
        for t, target in targets:
            _slope(x, t, kind, target)
        out[0].copy_(_value(x, kind))
        return
    a, g = x.chunk(2, -1)
    f = _value(g, GATED[kind])
    for t, target in targets:
        a_t, g_t = t.chunk(2, -1)
        slope = _slope(g, g_t, GATED[kind], torch.empty_like(g_t))
        torch.mul(a_t, f, out=target)
        target.addcmul_(a, slope)
    torch.mul(a, f, out=out[0])


def _value(x: Tensor, kind: str) -> Tensor:
    """f(x)."""
    return F.silu(x) if kind == "silu" else F.gelu(x, approximate=APPROXIMATE[kind])


def _slope(x: Tensor, t: Tensor, kind: str, out: Tensor) -> Tensor:
    """f'(x) t, written into `out`."""
    if kind == "silu":
        return _aten.silu_backward.grad_input(t, x, grad_input=out)
    approximate = APPROXIMATE[kind]
    return _aten.gelu_backward.grad_input(t, x, approximate=approximate, grad_input=out)


def activation_plain(x: Tensor, x_t: Tensor, kind: str) -> Pair:
    """(y, y_t) in elementary ops; arguments as in `activation_dual`."""
    dtype = x.dtype
    x, t = x.to(exact(x)), blocks(x_t, x).to(exact(x))
    if kind not in GATED:
        f, slope = _plain(x, kind)
        y, y_t = f, slope * t
    else:
        (a, g), (a_t, g_t) = x.chunk(2, -1), t.chunk(2, -1)
        f, slope = _plain(g, GATED[kind])
        y, y_t = a * f, a_t * f + a * slope * g_t
    return y.to(dtype), y_t.flatten(0, 1).to(dtype)


def _plain(x: Tensor, kind: str) -> Pair:
    """f(x) and f'(x)."""
    if kind == "silu":
        s = torch.sigmoid(x)
        return x * s, s * (1 + x * (1 - s))
    if kind == "gelu":
        s = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return x * s, s + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    c = math.sqrt(2 / math.pi)
    s = 0.5 * (1 + torch.tanh(c * (x + 0.044715 * x**3)))
    return x * s, s + x * 2 * s * (1 - s) * c * (1 + 3 * 0.044715 * x * x)
