"""Golden guidance by simulation: grad log E_t from ancestral chains, and the win ratio against it.

Theorem 4.1 of REG (arXiv 2501.18865): optimal guidance is grad log E_t with
E_t(x_t, y) = E[R_0(x_0, y) | x_t], R_0 = exp(w log_ratio(x_0)). Where no closed form is at hand the
expectation is a mean over full chains of the conditional model, whose noise is drawn beforehand, so
that every x_0 is a differentiable function of x_t:

    grad log E_t ~ sum_j p_j w grad log_ratio(x_0j(x_t)),    p = softmax_j(w log_ratio(x_0j))

which is the gradient of logsumexp_j(w log_ratio(x_0j)). One pass over the chains serves every w.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.conditioning import Cond
from ..networks.denoisers import Denoiser
from ..networks.frozen import frozen
from ..solvers import Row, Table
from ..values import as_int

__all__ = ["chain_golden", "chain_rewards", "golden_of", "win_ratio"]

BLOCK = 4096  # chains whose activations are held at once

LogRatio = Callable[[Tensor], Tensor]


def chain_golden(
    denoiser: Denoiser,
    table: Table,
    index: int,
    x: Tensor,
    log_ratio: LogRatio,
    w: float,
    repeats: int,
    generator: torch.Generator,
    stochastic: bool = True,
    cond: Cond | None = None,
    block: int = BLOCK,
) -> Tensor:
    """grad_x log E_t at row `index` of `table`, (G, dim); arguments as in `chain_rewards`.

    Args:
        w: weight >= 0 (scale - 1), inside the mean over chains. (The authors' code multiplies the
            log of the mean by w, which is the same at w = 1 only.)
    """
    rewards, slopes = chain_rewards(
        denoiser, table, index, x, log_ratio, repeats, generator, stochastic, cond, block
    )
    return golden_of(rewards, slopes, w)


def chain_rewards(
    denoiser: Denoiser,
    table: Table,
    index: int,
    x: Tensor,
    log_ratio: LogRatio,
    repeats: int,
    generator: torch.Generator,
    stochastic: bool = True,
    cond: Cond | None = None,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """log_ratio(x_0) of `repeats` chains from every x, and its gradients with respect to x.

    Args:
        denoiser: the conditional model, unguided.
        table: rows without history (ddpm with variance "small" is the paper's chain).
        index: the row whose evaluation is the first; x is x_t there.
        x: (G, dim), float32 or float64, on the denoiser's device.
        log_ratio: differentiable, (n, dim) -> (n,), each row of its own: log p(x_0|y)/p_ref(x_0).
        repeats: chains a point, >= 1.
        generator: on the CPU; the result does not depend on `block`.
        stochastic: False leaves out the noise of the chain (then one repeat says all).
        cond: labels (G,) or None, what the network is given.
        block: chains that are differentiated at once, >= 1.

    Returns:
        (rewards (G, repeats), gradients (G, repeats, dim)).

    Raises:
        InputError: a table with history, an index outside it, wrong shapes, repeats or block < 1.
    """
    rows = _rows(table, index)
    if x.dim() != 2 or not x.is_floating_point():
        raise InputError("x", f"is {x.dtype} of shape {tuple(x.shape)}", "Give floats (G, dim)")
    for name, value in (("repeats", repeats), ("block", block)):
        as_int(name, value)
    labels = None if cond is None else _labels(cond, len(x)).repeat_interleave(repeats, 0)
    starts = x.detach().repeat_interleave(repeats, 0)
    # All the noise first, so that blocks change nothing.
    noise = [_noise(row, starts, generator) if stochastic else None for row in rows]
    rewards, gradients = torch.empty_like(starts[:, 0]), torch.empty_like(starts)
    with frozen(denoiser.modules), torch.inference_mode(False), torch.enable_grad():
        for part in torch.arange(len(starts)).split(block):
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            leaf = starts[chosen].clone().requires_grad_()
            own = None if labels is None else labels[chosen]
            end = _walk(denoiser, rows, leaf, [n if n is None else n[chosen] for n in noise], own)
            reward = log_ratio(end)
            if reward.shape != end.shape[:1]:
                raise InputError(
                    "log_ratio",
                    f"returned {tuple(reward.shape)} for {tuple(end.shape)}",
                    "Return one number a row",
                )
            (gradients[chosen],) = torch.autograd.grad(reward.sum(), leaf)
            rewards[chosen] = reward.detach()
    return rewards.unflatten(0, (-1, repeats)), gradients.unflatten(0, (-1, repeats))


def golden_of(rewards: Tensor, gradients: Tensor, w: float) -> Tensor:
    """grad log E_t, (G, dim), from what `chain_rewards` returns, for any w >= 0.

    Raises:
        InputError: w negative or not finite.
    """
    if not (math.isfinite(w) and w >= 0):
        raise InputError("w", f"is {w}", "Give a finite number >= 0 (w = scale - 1)")
    return w * ((w * rewards).softmax(1)[..., None] * gradients).sum(1)


def win_ratio(found: Tensor, baseline: Tensor, golden: Tensor) -> float:
    """Share of points, in [0, 1], where `found` is nearer to `golden` than `baseline` is.

    The paper's measure ("how often REG achieves lower error"; above one half is an improvement).
    Ties are not won.

    Args:
        found, baseline, golden: (G, dim), distances are Euclidean in a row.

    Raises:
        InputError: shapes that differ, no points, or NaN and Inf, which would count as lost.
    """
    for name, value in (("found", found), ("baseline", baseline), ("golden", golden)):
        if value.dim() != 2 or value.shape != golden.shape or not len(value):
            raise InputError(name, f"has shape {tuple(value.shape)}", "Give three times (G, dim)")
        if not bool(value.isfinite().all()):
            raise InputError(name, "holds NaN or Inf", "Leave such points out, and say so")
    errors = [(value.double() - golden.double()).norm(dim=1) for value in (found, baseline)]
    return float((errors[0] < errors[1]).double().mean())


def _rows(table: Table, index: int) -> tuple[Row, ...]:
    if not 0 <= index < len(table.rows):
        raise InputError("index", f"is {index}", f"Give a row in [0, {len(table.rows) - 1}]")
    rows = table.rows[index:]
    if any(len(row.b) > 1 for row in rows):
        raise InputError(
            "table", f"{table.solver!r} reads a history", "Use 'ddpm', 'ddim' or 'euler'"
        )
    return rows


def _labels(cond: Cond, count: int) -> Tensor:
    if not isinstance(cond, Tensor) or cond.shape[:1] != (count,):
        got = tuple(cond.shape) if isinstance(cond, Tensor) else type(cond).__name__
        raise InputError("cond", f"is {got}", f"Give a tensor with {count} rows, or None")
    return cond


def _noise(row: Row, like: Tensor, generator: torch.Generator) -> Tensor | None:
    if not row.c:
        return None
    return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


def _walk(
    denoiser: Denoiser,
    rows: tuple[Row, ...],
    x: Tensor,
    noise: list[Tensor | None],
    cond: Tensor | None,
) -> Tensor:
    """x_0 of the chains that stand at x before the first of `rows`."""
    for row, drawn in zip(rows, noise, strict=True):
        denoised = denoiser.evaluate(x, denoiser.at(row.t), cond)
        x = row.a * x + row.b[0] * (row.p * x + row.q * denoised)
        if drawn is not None:
            x = x + row.c * drawn
    return x
