"""Random numbers that belong to a sample, not to a batch: one CPU generator a seed.

Sample k is the same whatever the batch size, the device, the state's dtype or the number of
processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SampleNoise"]

_STREAMS = {"noise": 0, "probes": 1}
_MIX = 0x9E3779B97F4A7C15  # golden-ratio increment: keeps the streams of neighbouring seeds apart


class SampleNoise:
    """Standard normal draws, sample by sample.

    Args:
        seeds: one integer a sample, in [0, 2^63).
        stream: "noise" (the initial state and the solver's noise) or "probes" (Hutchinson), which
            never touch each other: the choice of a rectifier does not change a sample's noise.
    """

    def __init__(self, seeds: Sequence[int], stream: str = "noise") -> None:
        offset = _STREAMS[stream] * _MIX
        self._generators = [
            torch.Generator("cpu").manual_seed((seed + offset) % 2**63) for seed in seeds
        ]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `like` (B, ...)."""
        # Always drawn in float32, so that a float64 run follows the float32 one.
        rows = [torch.randn(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(rows).to(like.device, like.dtype)

    def signs(self, like: Tensor) -> Tensor:
        """Rademacher numbers (+1 or -1 with equal chance) in the shape, dtype and device of
        `like`."""
        rows = [torch.randint(0, 2, like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(rows).mul_(2).sub_(1).to(like.device, like.dtype)
