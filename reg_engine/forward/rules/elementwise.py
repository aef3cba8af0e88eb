"""Functions of one element: the tangent is multiplied by the derivative.

Where PyTorch has a backward kernel it is that derivative, with the tangent as the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ..tensor import RULES, is_dual, parts, primal, tangent
from .rows import blank, fused, fusing, into, joined, latest, taken
from .table import named, rule

__all__: list[str] = []

aten = torch.ops.aten
# (t, x, y, ...) -> tangent of y = f(x, ...)
SLOPES: dict[str, Callable[..., Tensor]] = {
    "exp": lambda t, x, y: t * y,
    "exp2": lambda t, x, y: t * y * 0.6931471805599453,
    "expm1": lambda t, x, y: t * (y + 1),
    "log": lambda t, x, y: t / x,
    "log2": lambda t, x, y: t / (x * 0.6931471805599453),
    "log1p": lambda t, x, y: t / (x + 1),
    "sqrt": lambda t, x, y: t / (2 * y),
    "rsqrt": lambda t, x, y: -0.5 * t * y * y * y,
    "reciprocal": lambda t, x, y: -t * y * y,
    "square": lambda t, x, y: 2 * t * x,
    "sin": lambda t, x, y: t * x.cos(),
    "cos": lambda t, x, y: -t * x.sin(),
    "atan arctan": lambda t, x, y: t / (x * x + 1),
    "abs absolute": lambda t, x, y: t * x.sgn(),
    "erf": lambda t, x, y: t * (-x * x).exp() * 1.1283791670955126,
    "sigmoid expit": lambda t, x, y: aten.sigmoid_backward(t, y),
    "tanh": lambda t, x, y: aten.tanh_backward(t, y),
    "logsigmoid": lambda t, x, y: t * torch.sigmoid(-x),
    "relu": lambda t, x, y: aten.threshold_backward(t, x, 0),
    "relu6": lambda t, x, y: aten.hardtanh_backward(t, x, 0.0, 6.0),
    "hardtanh": lambda t, x, y, min_val=-1.0, max_val=1.0: aten.hardtanh_backward(
        t, x, min_val, max_val
    ),
    "hardswish": lambda t, x, y: aten.hardswish_backward(t, x),
    "hardsigmoid": lambda t, x, y: aten.hardsigmoid_backward(t, x),
    "mish": lambda t, x, y: aten.mish_backward(t, x),
    "softplus": lambda t, x, y, beta=1, threshold=20: aten.softplus_backward(t, x, beta, threshold),
    "leaky_relu": lambda t, x, y, slope=0.01, **k: aten.leaky_relu_backward(
        t, x, k.get("negative_slope", slope), False
    ),
    "elu": lambda t, x, y, alpha=1.0: aten.elu_backward(t, alpha, 1.0, 1.0, False, x),
}


def _smooth(slope: Callable[..., Tensor]) -> Callable[..., Any]:
    def apply(op: Any, x: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        if args and isinstance(args[-1], bool):  # F.relu(x, True)
            args, inplace = args[:-1], args[-1]
        if x.is_complex():  # abs is not analytic, and a backward kernel conjugates
            return RULES[None](op, x, *args, **kwargs)
        rows, source, t = parts(x)
        y = op(rows, *args, **kwargs)
        found = joined(x, y, slope(t, source, latest(y, x), *args, **kwargs))
        return into(x, found) if inplace else found

    return apply


for _names, _slope in SLOPES.items():
    rule(_names)(_smooth(_slope))


def _activation(kind: str, op: Any, x: Any, inplace: bool) -> Any:
    options = {"approximate": "tanh" if kind == "gelu_tanh" else "none"} if kind != "silu" else {}
    name = "silu" if kind == "silu" else "gelu"
    whole, slope = getattr(aten, name), getattr(aten, f"{name}_backward")

    def others(rows: Tensor, out: Tensor | None) -> Tensor:
        return op(rows, **options) if out is None else whole.out(rows, **options, out=out)

    def pair(first: Tensor, last: Tensor, out: Any) -> tuple[Tensor, Tensor]:
        return ops.activation_dual(first, last, kind, out=out)

    if fusing(x):
        found = fused(x, others, pair)
    elif torch.compiler.is_compiling():
        rows, source, t = parts(x)
        found = joined(x, op(rows, **options), slope(t, source, **options))
    else:
        rows, source, t = parts(x)
        found = blank(x)
        if x.axis and x.is_contiguous():  # PyTorch's kernel for such rows rounds otherwise
            primal(found).copy_(op(rows.contiguous(), **options))
        else:
            whole.out(rows, **options, out=primal(found))
        slope.grad_input(t, source, **options, grad_input=tangent(found))
    return into(x, found) if inplace else found


@rule("silu")
def silu(op: Any, x: Any, inplace: bool = False) -> Any:
    return _activation("silu", op, x, inplace)


@rule("gelu")
def gelu(op: Any, x: Any, approximate: str = "none") -> Any:
    return _activation("gelu" if approximate == "none" else "gelu_tanh", op, x, False)


@rule("clamp clip clamp_min clamp_max")
def clamp(op: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    """Bounds are numbers, or constants; a tangent passes where neither is reached."""
    if op in _MAXIMA:
        min, max = None, min if max is None else max
    if is_dual(min) or is_dual(max) or not is_dual(x):
        return RULES[None](torch.clamp, x, min, max)
    bounds = [(bound, taken(bound, x, True)) for bound in (min, max)]
    (low, low_t), (high, high_t) = bounds
    rows, source, t = parts(x)
    inside = torch.ones_like(source, dtype=torch.bool)
    if low is not None:
        inside &= source >= low_t
    if high is not None:
        inside &= source <= high_t
    return joined(x, torch.clamp(rows, taken(low, x), taken(high, x)), t * inside)


_MAXIMA = set(named("clamp_max"))
