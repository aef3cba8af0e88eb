"""Golden guidance of a 1-D chain with infinitely many repeats: quadrature, no sampling noise.

The chain x_s = A_t(x_t) + c_t noise of a denoiser is Markov, so E_t is an integral over the next
state alone, E_t(x_t) = integral N(z; A_t(x_t), c_t^2) E_s(z) dz. On fixed nodes z that is a matrix
times a vector, from the last step back to the first, and its derivative is the same sum again:

    d log E_t / d x_t = A_t'(x_t) / c_t^2  E[(z - A_t) E_s(z)] / E[E_s(z)]

The trapezoidal rule of a Gaussian of deviation c is exact to e^(-2 pi^2 c^2/h^2) for nodes h apart.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import InputError
from ...networks.denoisers import Denoiser
from ...networks.frozen import frozen
from ...solvers import Row, Table

__all__ = ["chain_limit"]

LOW, HIGH, NODES = (
    -3.5,
    4.5,
    2001,
)  # 0.004 apart; the narrowest noise of the paper's chain is 0.0096


def chain_limit(
    denoiser: Denoiser,
    table: Table,
    x: Tensor,
    log_rewards: Callable[[Tensor], Tensor],
    low: float = LOW,
    high: float = HIGH,
    nodes: int = NODES,
) -> Tensor:
    """grad log E_t at every row of `table` and every x, for several rewards at once.

    Args:
        denoiser: the conditional model of one number, called without labels.
        table: rows without history; its last row adds no noise.
        x: (G, 1), where x_t stands, between `low` and `high`.
        log_rewards: differentiable, x_0 (n, 1) -> log R_0 (n, C), the weight w included.
        low, high, nodes: of the states after a step; nothing should leave this range.

    Returns:
        (rows, G, C), float64, on the CPU.

    Raises:
        InputError: not one dimension, a table with history or noise in its last row, or nodes that
            are too coarse for the chain's noise.
    """
    if x.dim() != 2 or x.shape[1] != 1:
        raise InputError("x", f"has shape {tuple(x.shape)}", "Give points of one number, (G, 1)")
    if any(len(row.b) > 1 for row in table.rows) or table.rows[-1].c:
        raise InputError("table", f"{table.solver!r} does not fit", "Use 'ddpm'")
    z = torch.linspace(low, high, nodes, dtype=torch.float64)
    narrow = min((row.c for row in table.rows[:-1]), default=1.0)
    if narrow < float(z[1] - z[0]):
        raise InputError("nodes", f"{nodes} are {float(z[1] - z[0]):g} apart", "Take more nodes")
    found: list[Tensor] = []
    with frozen(denoiser.modules):
        log_e = torch.empty(0)
        for row in reversed(table.rows):
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


def _gradient(log_rewards: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
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
