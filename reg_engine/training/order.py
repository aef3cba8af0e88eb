"""What a step of training sees, as a function of (seed, step) alone: its examples and its noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["batch_indices", "mixed"]


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> Tensor:
    """Examples of one step, a function of (seed, step): epochs are permutations laid end to end."""
    start = step * batch_size
    parts = []
    for epoch in range(start // size, (start + batch_size - 1) // size + 1):
        order = _order(seed, epoch, size)
        low = max(0, start - epoch * size)
        parts.append(order[low : start + batch_size - epoch * size])
    return torch.cat(parts)


@lru_cache(maxsize=2)  # a batch can straddle two epochs
def _order(seed: int, epoch: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(mixed(seed, 0, epoch))
    return torch.randperm(size, generator=generator)


def mixed(seed: int, stream: int, number: int) -> int:
    """A seed of its own for every (seed, stream, number); streams: data order 0, noise 1.

    Hashed, because torch's CPU generator takes no more than 32 bits of a seed.
    """
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1)[0])
