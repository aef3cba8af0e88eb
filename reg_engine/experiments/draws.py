"""Labels and seeds of the image experiments' samples."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["POOL_SEEDS", "SEEDS_A_RUN", "Draws"]

POOL_SEEDS = 500_000  # the pool's seeds begin here: none is among those of the points
SEEDS_A_RUN = 1_000_000  # room for the seeds of one report.seed


class _Pooled(Protocol):
    @property
    def pool(self) -> bool: ...


class Draws:
    """What `count` samples of ten classes are drawn with; a base of dataclasses with both fields.

    Args:
        count: samples a point, equally many of each label.
        seed: of the report.
    """

    count: int
    seed: int

    @property
    def labels(self) -> Tensor:
        """0, 1, ..., 9, 0, 1, ... (count,)."""
        return torch.arange(self.count) % 10

    def seeds(self, point: _Pooled) -> list[int]:
        """Equal for all points, so that their samples pair up; the pool has its own."""
        first = self.seed * SEEDS_A_RUN + (POOL_SEEDS if point.pool else 0)
        return list(range(first, first + self.count))
