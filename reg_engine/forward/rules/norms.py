"""Normalisations: the source and its tangents by ops.norm_dual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import ops
from ..refusals import refuse
from ..tensor import RULES, primal, wrap
from .rows import fused
from .table import rule

__all__: list[str] = []

Exact = Callable[[Tensor, Any, Any], Tensor]  # (rows, weight, bias) -> rows


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

    def exact(rows: Tensor, w: Any, b: Any) -> Tensor:
        return F.layer_norm(rows, shape, w, b, eps)

    return _last(op, input, len(shape), exact, "layer", weight, bias, eps)


@rule("rms_norm", homes=(torch, F))
def rms_norm(
    op: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    shape = tuple(normalized_shape)

    def exact(rows: Tensor, w: Any, b: Any) -> Tensor:
        return F.rms_norm(rows, shape, w, eps)

    least = torch.finfo(input.dtype).eps if eps is None else eps
    return _last(op, input, len(shape), exact, "rms", weight, None, least)


def _last(
    op: Any, x: Any, dims: int, exact: Exact, kind: str, weight: Any, bias: Any, eps: float
) -> Any:
    """Over the last `dims` dimensions, as one."""
    if x.axis >= x.dim() - dims:
        refuse(op, "normalises over the batch")

    def flat(rows: Tensor) -> Tensor:
        return rows if dims == 1 else rows.flatten(-dims)

    def pair(first: Tensor, last: Tensor, out: Any, w: Any, b: Any) -> tuple[Tensor, Tensor]:
        affine: Any = {
            "weight": w if w is None else w.flatten(),
            "bias": b if b is None else b.flatten(),
        }
        into = None if out is None else (flat(out[0]), flat(out[1]))
        y, t = ops.norm_dual(flat(first), flat(last), kind, eps=eps, out=into, **affine)
        return y.view(first.shape), t.view(last.shape)

    return _normed(x, exact, pair, weight, bias)


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

    def exact(rows: Tensor, w: Any, b: Any) -> Tensor:
        return F.group_norm(rows, num_groups, w, b, eps)

    return _grouped(op, input, num_groups, exact, weight, bias, eps)


def _grouped(op: Any, x: Any, groups: int, exact: Exact, weight: Any, bias: Any, eps: float) -> Any:
    if x.axis != 0:
        refuse(op, "normalises over the batch")

    def pair(first: Tensor, last: Tensor, out: Any, w: Any, b: Any) -> tuple[Tensor, Tensor]:
        return ops.norm_dual(
            first, last, "group", weight=w, bias=b, eps=eps, groups=groups, out=out
        )

    return _normed(x, exact, pair, weight, bias, channels=True)


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
    if not use_input_stats:
        given = (running_mean, running_var, weight, bias)
        return RULES[F.batch_norm](F.batch_norm, input, *given, eps=eps)

    def exact(rows: Tensor, w: Any, b: Any) -> Tensor:
        return F.instance_norm(rows, running_mean, running_var, w, b, True, momentum, eps)

    return _grouped(op, input, input.shape[1], exact, weight, bias, eps)


def _normed(x: Any, exact: Exact, pair: Any, weight: Any, bias: Any, channels: bool = False) -> Any:
    """Both in the dtype that autocast has for the op, if one is active, and contiguous as the op's
    own result; a norm of `channels` may have these last."""
    layout = torch.contiguous_format
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if channels and last is not None and x.is_contiguous(memory_format=last):
        layout = last
    if not torch.is_autocast_enabled(x.device.type):
        return _both(x, exact, pair, weight, bias, layout)
    dtype = exact(primal(x), weight, bias).dtype
    weight, bias = (v if v is None else v.to(dtype) for v in (weight, bias))
    with torch.autocast(x.device.type, enabled=False):
        return _both(wrap(x.to(dtype), x), exact, pair, weight, bias, layout)


def _both(x: Any, exact: Exact, pair: Any, weight: Any, bias: Any, layout: Any) -> Any:
    def others(rows: Tensor, out: Tensor | None) -> Tensor:
        value = exact(rows, weight, bias)
        return value if out is None else out.copy_(value)

    def both(first: Tensor, last: Tensor, out: Any) -> tuple[Tensor, Tensor]:
        return pair(first, last, out, weight, bias)

    return fused(x, others, both, layout)
