"""Sums, means, pooling, resampling, Fourier transforms: linear, along dimensions that are not the
batch's; and the reductions that are not linear."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..axes import kept, reduced
from ..tensor import RULES, parts, wrap
from .rows import joined, latest
from .table import rule

__all__: list[str] = []

# dimensions, counted from the end, that an op mixes
SPANS = {
    "avg_pool1d adaptive_avg_pool1d": 1,
    "avg_pool2d adaptive_avg_pool2d": 2,
    "avg_pool3d adaptive_avg_pool3d": 3,
    "pixel_shuffle pixel_unshuffle channel_shuffle": 3,
    "fold": 2,
}


@rule("sum mean")
def total(op: Any, x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    dim, keepdim = kwargs.pop("axis", dim), kwargs.pop("keepdims", keepdim)
    gone = kept(op, x.axis, x.dim(), dim)
    rows = op(x, dim, keepdim, **kwargs)
    return wrap(rows, x, reduced(x.axis, gone, keepdim))


def _spanning(span: int) -> Any:
    def apply(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        kept(op, x.axis, x.dim(), range(x.dim() - span, x.dim()))
        return wrap(op(x, *args, **kwargs), x)

    return apply


for _names, _span in SPANS.items():
    rule(_names, homes=(torch, F, torch._C._nn))(_spanning(_span))


@rule("interpolate upsample unfold", homes=(F,))
def resampled(op: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    kept(op, input.axis, input.dim(), range(1, input.dim()))
    return wrap(op(input, *args, **kwargs), input)


def _transformed(default: Any, place: int = 1) -> Any:
    def apply(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        kept(op, x.axis, x.dim(), kwargs.get("dim", args[place] if len(args) > place else default))
        return wrap(op(x, *args, **kwargs), x)

    return apply


for _end, _dims in {"": -1, "2": (-2, -1), "n": None}.items():
    rule(f"fft{_end} ifft{_end} rfft{_end} irfft{_end}", homes=(torch.fft,))(_transformed(_dims))
rule("fftshift ifftshift", homes=(torch.fft,))(_transformed(None, 0))


@rule("softmax")
def softmax(op: Any, x: Any, dim: Any = None, *args: Any, dtype: Any = None, **k: Any) -> Any:
    if dim is None:
        return RULES[None](op, x, dim, *args, dtype=dtype, **k)
    kept(op, x.axis, x.dim(), dim)
    dtype = next((v for v in args if isinstance(v, torch.dtype)), dtype)
    rows, _, t = parts(x)
    y = torch.softmax(rows, dim, dtype=dtype)
    beside = latest(y, x)
    return joined(x, y, beside * (t - (beside * t).sum(dim, keepdim=True)))


@rule("log_softmax")
def log_softmax(op: Any, x: Any, dim: Any = None, *args: Any, dtype: Any = None, **k: Any) -> Any:
    if dim is None:
        return RULES[None](op, x, dim, *args, dtype=dtype, **k)
    kept(op, x.axis, x.dim(), dim)
    dtype = next((v for v in args if isinstance(v, torch.dtype)), dtype)
    rows, _, t = parts(x)
    y = torch.log_softmax(rows, dim, dtype=dtype)
    return joined(x, y, t - (latest(y, x).exp() * t).sum(dim, keepdim=True))


@rule("logsumexp")
def logsumexp(op: Any, x: Any, dim: Any, keepdim: bool = False) -> Any:
    gone = kept(op, x.axis, x.dim(), dim)
    rows, source, t = parts(x)
    y = torch.logsumexp(rows, dim, keepdim)
    share = (source - torch.logsumexp(source, dim, True)).exp()
    return joined(x, y, (share * t).sum(dim, keepdim), reduced(x.axis, gone, keepdim))


@rule("norm", homes=(torch, torch.Tensor))
def norm(op: Any, x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, **k: Any) -> Any:
    cast = any(value is not None for value in k.values())
    if p not in (None, 2, "fro") or cast or x.is_complex():
        return RULES[None](op, x, p, dim, keepdim, **k)
    return _euclid(op, x, dim, keepdim, lambda v: op(v, p, dim, keepdim))


@rule("normalize", homes=(F,))
def normalize(
    op: Any, input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Any:
    size = norm(torch.norm, input, p, dim, True)
    return RULES[torch.div](torch.div, input, RULES[torch.clamp_min](torch.clamp_min, size, eps))


@rule("vector_norm", homes=(torch.linalg,))
def vector_norm(
    op: Any, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, **k: Any
) -> Any:
    if ord != 2 or x.is_complex():
        return RULES[None](op, x, ord, dim, keepdim, **k)
    return _euclid(op, x, dim, keepdim, lambda v: op(v, ord, dim, keepdim, **k))


def _euclid(op: Any, x: Any, dim: Any, keepdim: bool, function: Any) -> Any:
    """|x|, whose tangent <x, t> / |x| is 0 where x is 0, as PyTorch has it."""
    gone = kept(op, x.axis, x.dim(), dim)
    rows, source, t = parts(x)
    y = function(rows)
    along = tuple(gone)
    size = torch.linalg.vector_norm(source, 2, along, keepdim, dtype=y.dtype)
    inner = (source.to(y.dtype) * t.to(y.dtype)).sum(along, keepdim)
    slope = torch.where(size > 0, inner / size, torch.zeros_like(inner))
    return joined(x, y, slope, reduced(x.axis, gone, keepdim))
