"""What every family of models returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reg_engine import Denoiser
from reg_engine.networks.conditioning import Cond

__all__ = ["Loaded", "created", "labels"]


@dataclass(frozen=True)
class Loaded:
    """A denoiser, and `cond(count)`: the conditioning of a batch."""

    denoiser: Denoiser
    cond: Callable[[int], Cond]

    @property
    def parameters(self) -> int:
        """Number of the network's parameters."""
        return sum(p.numel() for m in self.denoiser.modules for p in m.parameters())


def created(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The module, made on the device itself: initialising 2.6 billion weights on the CPU is slow.

    `authors` keeps gradients of the parameters on, as released; the engine freezes them itself.
    """
    with torch.device(device):
        return make().to(dtype)


def labels(count: int, classes: int, device: torch.device) -> Tensor:
    """Labels 0, 1, ... around the classes, (count,)."""
    return torch.arange(count, device=device) % classes
