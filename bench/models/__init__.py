"""The models of the paper's runtime table (and ours), with random weights, as Denoisers.

`build(case, size, device)` gives a `Loaded`: a denoiser and the conditioning of a batch. Weights
are random, so pictures are noise; time and memory do not depend on them.
"""

from __future__ import annotations

from importlib import import_module

import torch

from bench.cases import ModelCase
from bench.models.base import Loaded

__all__ = ["Loaded", "build"]


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The network of `case` at `size` ("tiny", "shrunk", "real"), seeded, in evaluation mode."""
    torch.manual_seed(0)
    family = import_module(f"bench.models.{case.family}")
    loaded: Loaded = family.build(case, size, device, dtype)
    for module in loaded.denoiser.modules:
        module.eval()
    return loaded
