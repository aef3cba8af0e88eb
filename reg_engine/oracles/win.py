"""The win ratio of REG (arXiv 2501.18865, Table 1): how often one is nearer to golden."""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError

__all__ = ["win_ratio"]


def win_ratio(
    found: Tensor, baseline: Tensor, golden: Tensor, weights: Tensor | None = None
) -> float:
    """Share of points, in [0, 1], where `found` is nearer to `golden` than `baseline` is.

    The paper's measure ("how often REG achieves lower error"; above one half is an improvement).
    Ties are not won.

    Args:
        found, baseline, golden: (G, dim), distances are Euclidean in a row.
        weights: (G,), >= 0, what every point counts, such as a density; None = equally.

    Raises:
        InputError: shapes that differ, no points, weights below 0 or all 0, or NaN and Inf, which
            would count as lost.
    """
    for name, value in (("found", found), ("baseline", baseline), ("golden", golden)):
        if value.dim() != 2 or value.shape != golden.shape or not len(value):
            raise InputError(name, f"has shape {tuple(value.shape)}", "Give three times (G, dim)")
        if not bool(value.isfinite().all()):
            raise InputError(name, "holds NaN or Inf", "Leave such points out, and say so")
    errors = [(value.double() - golden.double()).norm(dim=1) for value in (found, baseline)]
    won = (errors[0] < errors[1]).double()
    if weights is None:
        return float(won.mean())
    if weights.shape != won.shape:
        raise InputError("weights", f"has shape {tuple(weights.shape)}", f"Give {(len(won),)}")
    weights = weights.to(won)
    if not bool((weights.isfinite() & (weights >= 0)).all()) or not bool(weights.sum() > 0):
        raise InputError("weights", "are not finite, >= 0 and somewhere > 0", "Give a density")
    return float((weights * won).sum() / weights.sum())
