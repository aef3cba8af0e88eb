"""Tangents as blocks of rows: row j B + i of a tangent belongs to row i of the primal."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Pair", "blocks", "count", "exact"]

Pair = tuple[Tensor, Tensor]


def count(tangent: Tensor, primal: Tensor) -> int:
    """T, the number of blocks; 1 where there are no rows."""
    return len(tangent) // len(primal) if len(primal) else 1


def blocks(tangent: Tensor, primal: Tensor) -> Tensor:
    """(T B, ...) -> (T, B, ...)."""
    return tangent.unflatten(0, (count(tangent, primal), len(primal)))


def exact(x: Tensor) -> torch.dtype:
    """What is computed in: float64 for float64, else float32."""
    return torch.promote_types(x.dtype, torch.float32)
