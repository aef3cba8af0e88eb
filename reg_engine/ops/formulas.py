"""The engine's arithmetic in plain torch: the CPU path without a build, and the oracle of every
kernel.

Each function has a twin in kernels/ (Triton) and in csrc/ (C++ and CUDA); door.py chooses. Every
one is differentiable in every mode, because it is made of torch's own ops. Arithmetic is done in
the state's dtype (combine: at least float32), and rounded once.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .coefficients import COLUMNS, FIRST_B

__all__ = [
    "combine",
    "guided_step",
    "lagged_product",
    "per_sample",
    "probe",
    "reduce",
    "traced",
    "widest",
]

# The keywords of guided_step, in the order in which its launchers take them.
STEP_OPTIONS = ("ref", "term", "weight", "gain", "noise", "history", "nonfinite", "channels")
LIMIT, KEEP = COLUMNS.index("limit"), COLUMNS.index("keep")
BLOCK = 32  # terms of a sum that are added one after the other, where there is no float64

Scalar = float | Tensor  # a number of the host, or a 0-dim tensor of the device


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to broadcast against `like` (B, ...)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def widest(device: torch.device) -> torch.dtype:
    """What sums over a sample are taken in: float64, or float32 where the device has no float64."""
    return torch.float64 if _has_float64(device.type) else torch.float32


@cache
def _has_float64(kind: str) -> bool:
    try:
        torch.zeros(1, dtype=torch.float64, device=kind)
    except (RuntimeError, TypeError):  # Apple's MPS says it with a TypeError
        return False
    return True


# What torch.compiler.assume_constant_result sets: nothing to trace.
_has_float64._dynamo_marked_constant = True  # type: ignore[attr-defined]


def traced(like: Tensor) -> bool:
    """Whether a compiler looks at what is done with `like`.

    `torch.compiler.is_compiling` is also True while another thread of the process compiles; what
    is traced is seen by Dynamo, or through a mode or a kind of tensor that dispatches.
    """
    if torch.compiler.is_dynamo_compiling():
        return True
    if not torch.compiler.is_compiling():
        return False
    dispatches = type(like).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return dispatches or _get_current_dispatch_mode() is not None


def combine(
    cond: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    w: float,
    channels: int = -1,
) -> Tensor:
    """guided = cond + w T, in the dtype of cond.

    T = cond - ref with `ref` alone (CFG), term * (cond - ref) with both (an elementwise
    rectifier), `term` with term alone (a rectified vector), 0 with neither. Only the first
    `channels` of dim 1 are guided (-1: all). w = 0, or no T, returns cond's values bitwise.
    """
    exact = torch.promote_types(cond.dtype, torch.float32)
    return _guided(cond, ref, term, w, channels, exact).to(cond.dtype)


def _guided(
    cond: Tensor,
    ref: Tensor | None,
    term: Tensor | None,
    w: Scalar,
    channels: int,
    dtype: torch.dtype,
) -> Tensor:
    cond = cond.to(dtype)
    if (ref is None and term is None) or (isinstance(w, float) and w == 0):
        return cond
    if ref is not None:
        direction = cond - ref.to(dtype)
        if term is not None:
            direction = term.to(dtype) * direction
    else:
        assert term is not None
        direction = term.to(dtype)
    guided = cond + w * direction
    if isinstance(w, Tensor):
        guided = torch.where(w == 0, cond, guided)  # also where 0 * direction is not a number
    if 0 <= channels < cond.shape[1]:
        guided = torch.cat([guided[:, :channels], cond[:, channels:]], 1)
    return guided


def guided_step(
    x: Tensor,
    cond: Tensor,
    table: Tensor,
    step: Tensor,
    *,
    ref: Tensor | None = None,
    term: Tensor | None = None,
    weight: Tensor | None = None,
    gain: Tensor | None = None,
    noise: Tensor | None = None,
    history: Tensor | None = None,
    nonfinite: Tensor | None = None,
    channels: int = -1,
) -> Tensor:
    """The whole guidance step of row `step` of the table: guide, convert, clip, update, remember.

        guided   = gain (cond + w T)                  T as in `combine`
        denoised = skip x + out guided
        clipped  = c + keep (c - denoised)            c = denoised within [-limit, limit]
        d        = p x + q clipped                    what the solver keeps
        x_s      = a x + b_0 d + sum_j b_j history[(step - j) mod H] + c noise

    and history[step mod H] = d.

    Args:
        x: the state x_t, (B, *shape), float32 or float64.
        cond, ref, term: predictions, (B, *shape), in any floating dtype.
        table: (rows, FIRST_B + J), see coefficients.py, in the dtype and on the device of x.
        step: number of the row, int64 with one element, on the device of x.
        weight: (B,) w of each sample instead of the row's, in the dtype of x; 0 = not guided.
        gain: (B,) factor on the guided prediction (guidance rescale), in the dtype of x.
        noise: (B, *shape) unit noise in the dtype of x; needed where c is not 0.
        history: (H, B, *shape) ring of earlier d, H >= J, written here; may be None where J = 1.
            A slot whose coefficient is 0 is not looked at.
        nonfinite: (rows, B) in the dtype of x, contiguous; [step, i] is set to 1, and nothing else,
            where x_s of sample i holds NaN or Inf.
        channels: only the first `channels` of dim 1 are guided; -1 = all.

    Returns:
        x_s, (B, *shape), in the dtype of x.
    """
    row = _row(table, step)
    w: Scalar = row[0] if weight is None else per_sample(weight, x)
    guided = _guided(cond, ref, term, w, channels, x.dtype)
    if gain is not None:
        guided = per_sample(gain, x) * guided
    denoised = _clipped(row[1] * x + row[2] * guided, row[LIMIT], row[KEEP])
    d = row[3] * x + row[4] * denoised
    x_s = row[5] * x + row[FIRST_B] * d
    for j in range(1, table.shape[1] - FIRST_B):
        assert history is not None
        x_s = x_s + _weighted(row[FIRST_B + j], _slot(history, step - j))
    if noise is not None:
        x_s = x_s + _weighted(row[6], noise)
    if history is not None:
        history.index_copy_(0, (step % history.shape[0]).reshape(1), d.unsqueeze(0))
    if nonfinite is not None and x.numel():
        _mark(nonfinite, step.reshape(1), x_s.detach())
    return x_s


def _row(table: Tensor, step: Tensor) -> list[float] | tuple[Tensor, ...]:
    """Numbers of the host where looking is free, else 0-dim tensors (no synchronisation)."""
    row = table.index_select(0, step.reshape(1)).squeeze(0)
    if row.device.type == "cpu" and type(row) is Tensor and not traced(row):
        return row.tolist()
    return row.unbind(0)


def _clipped(denoised: Tensor, limit: Scalar, keep: Scalar) -> Tensor:
    if isinstance(limit, float) and limit == math.inf:
        return denoised
    within = denoised.clamp(-limit, limit)  # type: ignore[arg-type]
    clipped = within + keep * (within - denoised)
    if isinstance(limit, Tensor):
        return torch.where(limit == math.inf, denoised, clipped)
    return clipped


def _mark(nonfinite: Tensor, place: Tensor, x_s: Tensor) -> None:
    flat = x_s.reshape(x_s.shape[0], -1)
    found = ~torch.linalg.vector_norm(flat, math.inf, dim=1).isfinite()  # NaN stays NaN
    nonfinite.index_copy_(0, place, torch.where(found, 1, nonfinite.index_select(0, place)))


def _slot(history: Tensor, step: Tensor) -> Tensor:
    return history.index_select(0, (step % history.shape[0]).reshape(1)).squeeze(0)


def _weighted(coefficient: Scalar, value: Tensor) -> Tensor | float:
    if isinstance(coefficient, Tensor):
        return torch.where(coefficient == 0, 0.0, coefficient * value)
    return coefficient * value if coefficient else 0.0


def reduce(u: Tensor, v: Tensor | None = None, w: Tensor | None = None) -> Tensor:
    """Gram matrix of (1, u, v, w), sample by sample: sums, squared norms and dots in one pass.

    Where the device has no float64, float32 sums of sums keep its rounding near that of the terms.

    Args:
        u, v, w: (B, *shape), any floating dtype, on one device.

    Returns:
        (B, k, k) float64 (see `widest`), k = 1 + the number of vectors, symmetric; [0, 0] is the
        number of elements of a sample.
    """
    given = [t for t in (u, v, w) if t is not None]
    flat = [t.reshape(t.shape[0], -1) if t.numel() else t.new_zeros(t.shape[0], 0) for t in given]
    exact = widest(u.device)
    rows = torch.stack([t.to(exact) for t in (torch.ones_like(flat[0]), *flat)], 1)
    return rows @ rows.mT if exact == torch.float64 else _blockwise(rows)


def _blockwise(rows: Tensor) -> Tensor:
    """rows @ rows.mT for rows (B, k, n), no partial sum longer than BLOCK."""
    blocks = _in_blocks(rows, 2).transpose(1, 2)  # (B, blocks, k, BLOCK)
    sums = blocks @ blocks.mT
    while sums.shape[1] > 1:
        sums = _in_blocks(sums.transpose(1, 3), 3).sum(-1).transpose(1, 3)
    return sums.squeeze(1)


def _in_blocks(values: Tensor, dim: int) -> Tensor:
    """The last dimension, `dim`, as (blocks, BLOCK), filled with zeros."""
    size = max(values.shape[dim], 1)
    return F.pad(values, (0, -size % BLOCK + size - values.shape[dim])).unflatten(dim, (-1, BLOCK))


def probe(
    x: Tensor,
    direction: Tensor,
    length: Tensor,
    table: Tensor,
    step: Tensor,
    copies: int = 2,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The network's batched input [x; ...; x; x + h d], scaled by c_in of row `step`.

    Args:
        x, direction: (B, *shape), the state and d.
        length: (B,) h of each sample, in the dtype of x.
        table, step: as in `guided_step`.
        copies: how many times x stands before x + h d, >= 0.
        dtype: of the result, the network's; None = that of x.

    Returns:
        ((copies + 1) B, *shape).
    """
    c_in = _row(table, step)[7]
    moved = x + per_sample(length, x) * direction.to(x.dtype)
    return (c_in * torch.cat([*[x] * copies, moved])).to(dtype or x.dtype)


def lagged_product(gram: Tensor, delta: Tensor, lag: Tensor, k_lag: Tensor) -> Tensor:
    """K delta from the product with an earlier direction: a K p + r (delta - a p), sample by
    sample.

    With p = lag, a = <delta,p>/<p,p>, r = <Kp,p>/<p,p>: exact along p, and the mean stretch of K
    along p for what is orthogonal to it. Samples with p = 0 give 0: the caller must give those an
    exact product.

    Args:
        gram: `reduce(delta, lag, k_lag)`.
    """
    norm = gram[:, 2, 2].clamp_min(torch.finfo(lag.dtype).tiny)
    a, r = (per_sample((gram[:, i, 2] / norm).to(lag.dtype), lag) for i in (1, 3))
    return a * k_lag + r * (delta - a * lag)
