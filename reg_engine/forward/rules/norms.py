"""Normalisations: the source and its tangents by ops.norm_dual, where a kernel has both together.

Elsewhere the primal rows by PyTorch's kernel, which gives their statistics too, and the tangents by
its backward kernel: the Jacobian of a norm without weights is symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import ops
from ..refusals import refuse
from ..tensor import RULES, copied, parts, primal, wrap
from .rows import fused, fusing, joined
from .table import rule

__all__: list[str] = []

aten = torch.ops.aten
ONLY_X = [True, False, False]


@dataclass(frozen=True)
class Norm:
    """A norm of given sizes.

    Args:
        exact: (rows, weight, bias) -> rows, the op itself.
        pair: (source, tangents, out, weight, bias) -> both, by ops.norm_dual.
        native: (rows, weight, bias) -> rows, mean, 1 / deviation. None = there is no such kernel.
        slope: (tangents, source, mean, 1 / deviation) -> tangents, without weights.
        along: how the weight broadcasts.
    """

    exact: Callable[..., Tensor]
    pair: Callable[..., tuple[Tensor, Tensor]]
    native: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
    slope: Callable[..., Tensor] | None = None
    along: tuple[int, ...] = (-1,)


@rule("layer_norm", homes=(torch, F))
def layer_norm(
    op: Any,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Any:
    shape = tuple(normalized_shape)

    def slope(t: Tensor, rows: Tensor, m: Tensor, r: Tensor) -> Tensor:
        given = (t, rows, shape, m, r, None, None, ONLY_X)
        return aten.native_layer_norm_backward(*given)[0]

    norm = Norm(
        lambda rows, w, b: F.layer_norm(rows, shape, w, b, eps),
        _flat("layer", len(shape), eps),
        lambda rows, w, b: torch.native_layer_norm(rows, shape, w, b, eps),
        slope,
        shape,
    )
    return _last(op, input, len(shape), norm, weight, bias)


@rule("rms_norm", homes=(torch, F))
def rms_norm(
    op: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    shape, wide = tuple(normalized_shape), torch.promote_types(input.dtype, torch.float32)
    least = torch.finfo(wide).eps if eps is None else eps
    norm = Norm(lambda rows, w, b: F.rms_norm(rows, shape, w, eps), _flat("rms", len(shape), least))
    return _last(op, input, len(shape), norm, weight, None)


def _flat(kind: str, dims: int, eps: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """ops.norm_dual over the last `dims` dimensions, as one."""

    def flat(rows: Tensor) -> Tensor:
        return rows if dims == 1 else rows.flatten(-dims)

    def pair(first: Tensor, last: Tensor, out: Any, w: Any, b: Any) -> tuple[Tensor, Tensor]:
        affine = {
            "weight": w if w is None else w.flatten(),
            "bias": b if b is None else b.flatten(),
        }
        into = None if out is None else (flat(out[0]), flat(out[1]))
        given: Any = {**affine, "eps": eps, "out": into}
        y, t = ops.norm_dual(flat(first), flat(last), kind, **given)
        return y.view(first.shape), t.view(last.shape)

    return pair


def _last(op: Any, x: Any, dims: int, norm: Norm, weight: Any, bias: Any) -> Any:
    if x.axis >= x.dim() - dims:
        refuse(op, "normalises over the batch")
    return _normed(x, norm, weight, bias, torch.contiguous_format)


@rule("group_norm", homes=(torch, F))
def group_norm(
    op: Any,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Any:
    return _grouped(
        op,
        input,
        num_groups,
        lambda rows, w, b: F.group_norm(rows, num_groups, w, b, eps),
        weight,
        bias,
        eps,
    )


@rule("instance_norm", homes=(F,))
def instance_norm(
    op: Any,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """As a group norm of one channel a group."""
    given = (running_mean, running_var)
    if not use_input_stats:
        return RULES[F.batch_norm](F.batch_norm, input, *given, weight, bias, eps=eps)
    return _grouped(
        op,
        input,
        input.shape[1],
        lambda rows, w, b: F.instance_norm(rows, *given, w, b, True, momentum, eps),
        weight,
        bias,
        eps,
        native=False,
    )


def _grouped(
    op: Any,
    x: Any,
    groups: int,
    exact: Callable[..., Tensor],
    weight: Any,
    bias: Any,
    eps: float,
    native: bool = True,
) -> Any:
    if x.axis != 0:
        refuse(op, "normalises over the batch")
    size = x.shape[1], math.prod(x.shape[2:]), groups

    def pair(first: Tensor, last: Tensor, out: Any, w: Any, b: Any) -> tuple[Tensor, Tensor]:
        y, t = ops.norm_dual(
            first, last, "group", weight=w, bias=b, eps=eps, groups=groups, out=out
        )
        return (y if native else y.copy_(exact(first, w, b))), t

    def statistics(rows: Tensor, w: Any, b: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_group_norm(rows, w, b, len(rows), *size, eps)

    def slope(t: Tensor, rows: Tensor, m: Tensor, r: Tensor) -> Tensor:
        given = (t, rows, m, r, None, len(rows), *size, ONLY_X)
        return aten.native_group_norm_backward(*given)[0]

    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    layout = torch.contiguous_format
    if last is not None and x.is_contiguous(memory_format=last):
        layout = last
    along = (-1, *[1] * (x.dim() - 2))
    norm = Norm(exact, pair, statistics if native else None, slope, along)
    return _normed(x, norm, weight, bias, layout)


def _normed(x: Any, norm: Norm, weight: Any, bias: Any, layout: torch.memory_format) -> Any:
    """In the dtype that autocast has for the op, if one is active; in `layout`, as the op's own."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return _both(x, norm, weight, bias, layout)
    dtype = norm.exact(primal(x), weight, bias).dtype
    weight, bias = (v if v is None else v.to(dtype) for v in (weight, bias))
    with torch.autocast(device, enabled=False):
        return _both(wrap(x.to(dtype), x), norm, weight, bias, layout)


def _both(x: Any, norm: Norm, weight: Any, bias: Any, layout: torch.memory_format) -> Any:
    if norm.native is not None and x.dtype in (torch.float32, torch.float64) and not fusing(x):
        return _by_statistics(x, norm, weight, bias, layout)

    def others(rows: Tensor, out: Tensor | None) -> Tensor:
        value = norm.exact(rows, weight, bias)
        return value if out is None else out.copy_(value)

    def both(first: Tensor, last: Tensor, out: Any) -> tuple[Tensor, Tensor]:
        return norm.pair(first, last, out, weight, bias)

    return fused(x, others, both, layout)


def _by_statistics(x: Any, norm: Norm, weight: Any, bias: Any, layout: Any) -> Any:
    # Of two memory formats the backward kernel reads one wrongly.
    rows, source, t = (v.contiguous(memory_format=layout) for v in parts(x))
    assert norm.native is not None and norm.slope is not None
    y, *statistics = norm.native(rows, weight, bias)
    axis = x.axis
    own = (v.shape[axis] // x.primals * x.sources for v in statistics)
    beside = [
        copied(v.narrow(axis, v.shape[axis] - size, size), x, axis).contiguous()
        for v, size in zip(statistics, own, strict=True)
    ]
    slope = norm.slope(t, source, *beside)
    return joined(x, y, slope if weight is None else slope.mul_(weight.view(norm.along)))
