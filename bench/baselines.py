"""What the engine is compared with: sampling loops in plain torch, without the engine.

`cfg` is classifier-free guidance as everyone writes it: one batch [cond; uncond], then cond + w
(cond - uncond). `authors` is REG at the cost of its released code (reference: arXiv 2501.18865, Eq.
21): the same batch with gradients on, parameters not frozen, and one backward pass through both
halves; for EDM networks the release evaluates the two separately and records the conditional one
alone, as here. (The release also empties CUDA's cache at every evaluation of these; that is left
out, in its favour.) The other guides are exact, slow products that estimators are checked against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reg_engine import Denoiser
from reg_engine.networks.conditioning import Cond, concat, expand
from reg_engine.noise import SampleNoise
from reg_engine.ops.formulas import per_sample
from reg_engine.rectifiers.difference import RHO
from reg_engine.solvers import Row, table

__all__ = ["EXACT", "Guide", "authors", "cfg", "exact_for", "sample"]

Guide = Callable[[Denoiser, Tensor, Row, Cond, Cond, float], Tensor]


def sample(
    denoiser: Denoiser,
    cond: Cond,
    seeds: Sequence[int],
    *,
    guide: Guide,
    scale: float,
    solver: str,
    steps: int,
    solver_options: dict[str, Any] | None = None,
) -> Tensor:
    """Samples (N, *sample_shape), float32: the solver's table, one plain operation after another.

    Args:
        guide: (denoiser, x, row, cond, null, w) -> the guided estimate of the clean sample.
        scale, solver, steps, solver_options: as for `reg_engine.sample`.
    """
    rows = table(solver, denoiser.schedule, steps, **(solver_options or {}))
    null = expand(denoiser.null_cond, cond)
    noise = SampleNoise(seeds)
    unit = torch.empty(len(seeds), *denoiser.sample_shape, device=denoiser.device)
    x = rows.init_scale * noise.normal(unit)
    history: deque[Tensor] = deque(maxlen=max(1, rows.history))
    with torch.no_grad():
        for row in rows.rows:
            guided = guide(denoiser, x, row, cond, null, scale - 1)
            history.appendleft(row.q * guided + row.p * x if row.p else row.q * guided)
            x = row.a * x
            for b, d in zip(row.b, history, strict=False):
                if b:
                    x = x + b * d
            if row.c:
                x = x + row.c * noise.normal(x)
    return x


def cfg(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
    """cond + w (cond - uncond), both from one batch."""
    c, u = denoiser(torch.cat([x, x]), row.t, concat([cond, null])).chunk(2)
    return c + w * (c - u)


def conditional(
    denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float
) -> Tensor:
    """No guidance: one evaluation."""
    return denoiser(x, row.t, cond)


def authors(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
    """cond + w F (cond - uncond), F = alpha d(sum of cond)/dx, at the released code's cost."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        if denoiser.prediction == "edm":
            c = denoiser(x, row.t, cond)
            (slope,) = torch.autograd.grad(c.sum(), x)
            with torch.no_grad():
                u = denoiser(x, row.t, null)
        else:
            c, u = denoiser(torch.cat([x, x]), row.t, concat([cond, null])).chunk(2)
            (slope,) = torch.autograd.grad(c.sum(), x)
    factor = row.alpha * slope
    c, u = c.detach(), u.detach()
    return c + w * factor * (c - u)


def transposed(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
    """cond + w K^T delta."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        c, u = denoiser(x, row.t, cond), denoiser(x.detach(), row.t, null)
        delta = (c - u).detach()
        (product,) = torch.autograd.grad(c, x, delta)
    return c.detach() + w * row.alpha * product


def forward(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
    """cond + w K delta, by forward-mode differentiation along delta."""
    c, u = denoiser(x, row.t, cond), denoiser(x, row.t, null)
    with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():
        dual = denoiser(fwAD.make_dual(x, c - u), row.t, cond)
        product = fwAD.unpack_dual(dual).tangent
    return c + w * row.alpha * product


def difference(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
    """cond + w K delta by one difference over the engine's relative step: the same truncation,
    which on random weights can be a fifth of the product."""
    c, u = denoiser(x, row.t, cond), denoiser(x, row.t, null)
    delta = c - u
    state, change = (per_sample(t.flatten(1).norm(dim=1), t) for t in (x, delta))
    h = RHO[denoiser.dtype or x.dtype] * state / change
    return c + w * row.alpha * (denoiser(x + h * delta, row.t, cond) - c) / h


def probed(seeds: Sequence[int], forwards: bool) -> Guide:
    """cond + w z (K^T z) delta, or K instead, with the engine's own first probe z of +-1."""

    def guide(denoiser: Denoiser, x: Tensor, row: Row, cond: Cond, null: Cond, w: float) -> Tensor:
        signs = SampleNoise(seeds, "probes").signs(x)
        if forwards:
            with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():
                dual = denoiser(fwAD.make_dual(x, signs), row.t, cond)
                c, product = fwAD.unpack_dual(dual)
        else:
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                c = denoiser(x, row.t, cond)
                (product,) = torch.autograd.grad(c, x, signs)
            c = c.detach()
        delta = c - denoiser(x.detach(), row.t, null)
        return c + w * signs * row.alpha * product * delta

    return guide


# What an estimator's first evaluation must give; those not named give K delta.
EXACT: dict[str, Guide] = {
    "none": cfg,
    "paper": authors,
    "vjp": transposed,
    "fd": difference,
    "fd_batched": difference,
}


def exact_for(estimator: str, seeds: Sequence[int]) -> Guide:
    """The independent computation of what `estimator` gives at its first evaluation."""
    if estimator.startswith("diagonal"):
        return probed(seeds, forwards=estimator != "diagonal")
    return EXACT.get(estimator, forward)
