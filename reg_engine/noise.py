"""Random numbers that belong to a sample, not to a batch: one generator a seed, on the host.

Sample k is the same whatever the batch size, the device, the state's dtype or the number of
processes. NumPy's generators are used, because PyTorch's on the CPU keeps 32 bits of a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Draws", "SampleNoise"]

_STREAMS = {"noise": 0, "probes": 1}


class Draws(Protocol):
    """Where random numbers come from, sample by sample."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `like` (B, ...)."""
        ...

    def signs(self, like: Tensor) -> Tensor:
        """Rademacher numbers (+1 or -1, equal chances), likewise."""
        ...


class SampleNoise:
    """Draws of standard normal numbers and of signs, sample by sample.

    Args:
        seeds: one integer a sample, in [0, 2^63).
        stream: "noise" (the initial state and the solver's noise) or "probes" (Hutchinson). They
            are independent: choosing a rectifier does not change a sample's noise.
    """

    def __init__(self, seeds: Sequence[int], stream: str = "noise") -> None:
        number = _STREAMS[stream]
        self._generators = [np.random.Generator(np.random.PCG64([seed, number])) for seed in seeds]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._generators)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `like` (B, ...)."""
        # Always drawn in float32, so that a float64 run follows the float32 one.
        shape = tuple(like.shape[1:])
        rows = [g.standard_normal(shape, dtype=np.float32) for g in self._generators]
        return _moved(np.stack(rows), like)

    def signs(self, like: Tensor) -> Tensor:
        """Rademacher numbers (+1 or -1, equal chances) in the shape, dtype and device of `like`."""
        shape = tuple(like.shape[1:])
        rows = [g.integers(0, 2, shape, dtype=np.int8) for g in self._generators]
        return _moved(np.stack(rows), like).mul_(2).sub_(1)


def _moved(values: NDArray[Any], like: Tensor) -> Tensor:
    """On the device and in the dtype of `like`; the host does not wait for the copy."""
    tensor = torch.from_numpy(values)
    if like.is_cuda:
        tensor = tensor.pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like.device, like.dtype)
