"""Maps with an offset: the offset is for primal rows alone.

A layer's bias is added by its own kernel, to all rows, and taken off the tangent rows again: the
predictions stay bitwise those of the network by itself. The tangent is large beside the bias where
`jvp` scales it, so that nothing of it is lost.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refusals import refuse
from ..tensor import RULES, is_dual, parts, primal, tangent, wrap
from .rows import aligned, blank, joined, taken
from .table import rule

__all__: list[str] = []

EXACT: dict[type, torch.dtype] = {float: torch.float64, complex: torch.complex128}


def _layer(op: Any, x: Any, bias: Any, channel: int, rows: Tensor) -> Any:
    """What a layer gave for all rows, without the bias in the tangents; `channel` is the bias's
    dimension, counted from the end."""
    axis = x.axis - x.dim() + rows.dim()
    if bias is not None:
        shape = [1] * rows.dim()
        shape[channel] = -1
        made = wrap(rows, x, axis)
        tangent(made).sub_(bias.to(rows.dtype).view(shape))
    return wrap(rows, x, axis)


@rule("linear")
def linear(op: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    if is_dual(weight) or is_dual(bias) or input.axis == input.dim() - 1:
        refuse(op, "has weights that depend on x, or sums over the batch")
    return _layer(op, input, bias, -1, F.linear(input, weight, bias))


@rule("addmm")
def addmm(op: Any, c: Any, one: Any, two: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """A linear layer said otherwise: beta c + alpha one @ two."""
    if is_dual(c) or is_dual(one) and is_dual(two):
        return RULES[None](op, c, one, two, beta=beta, alpha=alpha)
    x, along = (one, 0) if is_dual(one) else (two, 1)
    if x.axis != along:
        refuse(op, "sums over the batch")
    made = wrap(op(c, one, two, beta=beta, alpha=alpha), x)
    tangent(made).sub_(taken(c, made, tangents=True) * beta)
    return made


@rule(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    homes=(torch, F),
)
def convolution(
    op: Any, input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any
) -> Any:
    space = weight.dim() - 2
    if is_dual(weight) or is_dual(bias) or input.axis != 0 or input.dim() != space + 2:
        refuse(op, "has weights that depend on x, or does not see the batch in front")
    return _layer(op, input, bias, -1 - space, op(input, weight, bias, *args, **kwargs))


@rule("batch_norm", homes=(F,))
def batch_norm(
    op: Any,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if training or running_var is None or input.axis != 0:
        refuse(op, "takes statistics over the batch: put the network in evaluation mode")
    rows, _, t = parts(input)
    exact = F.batch_norm(rows, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = torch.promote_types(running_var.dtype, torch.float32)
    slope = (running_var.to(wide) + eps).rsqrt()
    slope = slope if weight is None else slope * weight
    shape = [1, -1] + [1] * (input.dim() - 2)
    return joined(input, exact, (t * slope.view(shape)).to(exact.dtype))


@rule("add __add__ __radd__")
def add(op: Any, x: Any, y: Any, *, alpha: Any = 1) -> Any:
    if is_dual(x) and is_dual(y):
        aligned(op, x, y)
        return wrap(torch.add(x, y, alpha=alpha), x, max(x.axis, y.axis))
    return _offset(x if is_dual(x) else y, torch.add, x, y, alpha)


@rule("sub subtract __sub__")
def sub(op: Any, x: Any, y: Any, *, alpha: Any = 1) -> Any:
    if is_dual(x) and is_dual(y):
        aligned(op, x, y)
        return wrap(torch.sub(x, y, alpha=alpha), x, max(x.axis, y.axis))
    return _offset(x if is_dual(x) else y, torch.sub, x, y, alpha)


@rule("rsub __rsub__")
def rsub(op: Any, x: Any, y: Any, *, alpha: Any = 1) -> Any:
    return sub(torch.sub, y, x, alpha=alpha)


def _offset(x: Any, op: Any, one: Any, two: Any, alpha: Any) -> Any:
    """One of the two is x, the other a constant."""
    c, gain = (two, 1) if one is x else (one, alpha if op is torch.add else -alpha)
    if not isinstance(one, Tensor):  # a number, as exact as it was
        one = torch.as_tensor(one, dtype=EXACT.get(type(one)))
    given = [primal(v) if v is x else taken(v, x) for v in (one, two)]
    t = tangent(x)
    whole = torch.broadcast_shapes(x.shape, c.shape if isinstance(c, Tensor) else ())
    if whole == x.shape and not torch.compiler.is_compiling():
        made = blank(x, torch.result_type(one, two))
        op(given[0], given[1], alpha=alpha, out=primal(made))
        torch.mul(t, gain, out=tangent(made)) if gain != 1 else tangent(made).copy_(t)
        return made
    rows = op(given[0], given[1], alpha=alpha)
    axis = x.axis - x.dim() + rows.dim()
    size = [whole[axis] - rows.shape[axis] if k == axis else n for k, n in enumerate(whole)]
    return joined(x, rows, (t if gain == 1 else t * gain).to(rows.dtype).expand(size), axis)
