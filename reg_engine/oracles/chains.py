"""Golden guidance of a chain: grad log E_t from simulated chains, or from infinitely many.

Theorem 4.1 of REG (arXiv 2501.18865): optimal guidance is grad log E_t with
E_t(x_t, y) = E[R_0(x_0, y) | x_t], R_0 = exp(w log_ratio(x_0)). Where no closed form is at hand the
expectation is a mean over full chains of the conditional model, whose noise is drawn beforehand, so
that every x_0 is a differentiable function of x_t:

    grad log E_t ~ sum_j p_j w grad log_ratio(x_0j(x_t)),    p = softmax_j(w log_ratio(x_0j))

which is the gradient of logsumexp_j(w log_ratio(x_0j)). One pass over the chains serves every w.

In one dimension the mean over infinitely many chains is a quadrature. The chain x_s = A_t(x_t) +
c_t noise is Markov, so E_t(x_t) = integral N(z; A_t(x_t), c_t^2) E_s(z) dz: on fixed nodes z a
matrix times a vector, from the last step back to the first, and its derivative is that sum again,

    d log E_t / d x_t = A_t'(x_t) / c_t^2  E[(z - A_t) E_s(z)] / E[E_s(z)].

The trapezoidal rule of a Gaussian of deviation c is exact to e^(-2 pi^2 c^2/h^2) for nodes h apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.conditioning import Cond
from ..networks.denoisers import Denoiser
from ..networks.frozen import frozen
from ..solvers import Row, Table
from ..values import as_int
from .checks import check_weight

__all__ = ["chain_golden", "chain_limit", "chain_rewards", "golden_of"]

BLOCK = 4096  # chains whose activations are held at once
# Of `chain_limit`: 0.004 apart; the narrowest noise of the paper's 1-D chain is 0.0096.
LOW, HIGH, NODES = -3.5, 4.5, 2001

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
    if not 0 <= index < len(table.rows):
        raise InputError("index", f"is {index}", f"Give a row in [0, {len(table.rows) - 1}]")
    rows = _without_history(table)[index:]
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
        for first in range(0, len(starts), block):
            part = slice(first, first + block)
            leaf = starts[part].clone().requires_grad_()
            own = None if labels is None else labels[part]
            end = _walk(denoiser, rows, leaf, [n if n is None else n[part] for n in noise], own)
            reward = log_ratio(end)
            if reward.shape != end.shape[:1]:
                raise InputError(
                    "log_ratio",
                    f"returned {tuple(reward.shape)} for {tuple(end.shape)}",
                    "Return one number a row",
                )
            (gradients[part],) = torch.autograd.grad(reward.sum(), leaf)
            rewards[part] = reward.detach()
    return rewards.unflatten(0, (-1, repeats)), gradients.unflatten(0, (-1, repeats))


def golden_of(rewards: Tensor, gradients: Tensor, w: float) -> Tensor:
    """grad log E_t, (G, dim), from what `chain_rewards` returns, for any w >= 0.

    Raises:
        InputError: w negative or not finite.
    """
    w = check_weight(w)
    return w * ((w * rewards).softmax(1)[..., None] * gradients).sum(1)


def chain_limit(
    denoiser: Denoiser,
    table: Table,
    x: Tensor,
    log_rewards: LogRatio,
    low: float = LOW,
    high: float = HIGH,
    nodes: int = NODES,
) -> Tensor:
    """grad log E_t of infinitely many 1-D chains, at every row of `table` and every x.

    Args:
        denoiser: the conditional model of one number, called without labels.
        table: rows without history; its last row adds no noise.
        x: (G, 1), where x_t stands, between `low` and `high`.
        log_rewards: differentiable, x_0 (n, 1) -> log R_0 (n, C), the weight w included: several
            rewards at once.
        low, high, nodes: of the states after a step; nothing should leave this range.

    Returns:
        (rows, G, C), float64, on the CPU.

    Raises:
        InputError: not one dimension, a table with history or noise in its last row, or nodes that
            are too coarse for the chain's noise.
    """
    if x.dim() != 2 or x.shape[1] != 1:
        raise InputError("x", f"has shape {tuple(x.shape)}", "Give points of one number, (G, 1)")
    rows = _without_history(table)
    if rows[-1].c:
        raise InputError("table", "adds noise in its last row", "Use one that ends at sigma = 0")
    z = torch.linspace(low, high, nodes, dtype=torch.float64)
    narrow = min((row.c for row in rows[:-1]), default=1.0)
    if narrow < float(z[1] - z[0]):
        raise InputError("nodes", f"{nodes} are {float(z[1] - z[0]):g} apart", "Take more nodes")
    found: list[Tensor] = []
    with frozen(denoiser.modules):
        log_e = torch.empty(0)
        for row in reversed(rows):
            mean, slope = _mean(denoiser, row, x)
            at_nodes, _ = _mean(denoiser, row, z[:, None].to(x))
            if not row.c:
                found.append(slope * _gradient(log_rewards, mean))
                log_e = log_rewards(at_nodes).detach()
                continue
            e = (log_e - log_e.amax(0)).exp()
            kernel, offset = _kernel(mean, z, row.c)
            found.append(slope * (kernel * offset) @ e / (kernel @ e) / row.c**2)
            log_e = (_kernel(at_nodes, z, row.c)[0] @ e).clamp_min(1e-300).log()
    return torch.stack(found[::-1])


def _without_history(table: Table) -> tuple[Row, ...]:
    if any(len(row.b) > 1 for row in table.rows):
        remedy = "Use 'ddpm', 'ddim' or 'euler'"
        raise InputError("table", f"{table.solver!r} reads a history", remedy)
    return table.rows


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


def _mean(denoiser: Denoiser, row: Row, x: Tensor) -> tuple[Tensor, Tensor]:
    """A_t(x) and its slope, both (n, 1), float64."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        denoised = denoiser.evaluate(leaf, denoiser.at(row.t), None)
        (slope,) = torch.autograd.grad(denoised.sum(), leaf)
    step = row.b[0] * row.q
    keep = row.a + row.b[0] * row.p
    x, denoised, slope = (part.detach().double().cpu() for part in (leaf, denoised, slope))
    return keep * x + step * denoised, keep + step * slope


def _gradient(log_rewards: LogRatio, x: Tensor) -> Tensor:
    """d log_rewards / d x, (n, C)."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        columns = log_rewards(leaf).unbind(1)
        parts = [torch.autograd.grad(c.sum(), leaf, retain_graph=True)[0] for c in columns]
    return torch.cat(parts, 1)


def _kernel(mean: Tensor, z: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """N(z; mean, deviation^2) on the nodes, rows summing to 1, and z - mean; both (n, nodes)."""
    offset = z - mean
    return (-0.5 * (offset / deviation).square()).softmax(1), offset
