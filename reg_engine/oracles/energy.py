"""Energy distance between two sets of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["energy_distance", "mean_distance"]


def energy_distance(a: Tensor, b: Tensor, chunk: int = 128) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| (Szekely & Rizzo 2013) of two samples, in float64.

    The V-statistic: each mean runs over all pairs, a sample with itself included. It is therefore
    never negative, zero for equal sets, and biased: two samples of one distribution score
    E|x - x'| (1/n + 1/m) on average, the sampling floor.

    Args:
        a, b: samples (n, ...) and (m, ...), flattened to vectors of one length.
        chunk: rows of `a` a block, which bounds the memory by chunk * m distances.

    Raises:
        InputError: no samples, different dimensions, or non-finite values.
    """
    a, b = _flat("a", a), _flat("b", b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            "b", f"has {b.shape[1]} dimensions, a has {a.shape[1]}", "Compare samples of one space"
        )
    across = mean_distance(a, b, chunk)
    within = mean_distance(a, a, chunk) + mean_distance(b, b, chunk)
    return max(2 * across - within, 0.0)  # below zero by rounding only


def _flat(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() < 1 or value.shape[0] == 0:
        raise InputError(name, "holds no samples", "Give a tensor (n, d) with n >= 1")
    value = value.detach().reshape(value.shape[0], -1).double()
    if not bool(value.isfinite().all()):
        raise InputError(name, "holds NaN or Inf", "Give finite samples")
    return value


def mean_distance(a: Tensor, b: Tensor, chunk: int = 128) -> float:
    """E|a - b| over all pairs of (n, d) and (m, d)."""
    # Distances by differences: the matrix-product form loses half the digits of close pairs.
    total = 0.0
    for rows in a.split(chunk):
        block = torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist")
        total += float(block.sum())
    return total / (a.shape[0] * b.shape[0])
