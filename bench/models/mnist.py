"""The packaged MNIST model: trained weights, real size everywhere."""

from __future__ import annotations

import torch

import reg_engine
from bench.cases import ModelCase
from bench.models.base import Loaded, labels

__all__ = ["build"]


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The model that `reg_engine.load_model` gives; there is but one size."""
    denoiser = reg_engine.load_model("mnist")
    for module in denoiser.modules:
        module.to(device, dtype)
    return Loaded(denoiser, lambda count: labels(count, 10, device))
