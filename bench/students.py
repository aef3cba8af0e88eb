"""A model with an adapter of random numbers, as distillation leaves one: what a step costs does not
depend on the numbers."""

from __future__ import annotations

import math
from typing import Any

import torch

from bench.baselines import conditional, sample
from bench.models import Loaded
from reg_engine import Denoiser
from reg_engine.networks.adapter import Adapter, worn
from reg_engine.networks.lowrank import LowRank, layers_of

__all__ = ["merged", "student"]

SHARE = 0.05  # of the model's numbers
MOST = 4.0  # the largest scale
SIZE = 0.05  # deviation of its numbers: samples change, and stay finite


def student(loaded: Loaded, scale: float) -> Denoiser:
    """The model that holds guidance of a scale in its weights."""
    denoiser = loaded.denoiser
    found: Denoiser = worn(denoiser, Adapter(_change(denoiser), (1.0, MOST), {}), scale)
    return found


def merged(loaded: Loaded, scale: float, cond: Any, seeds: range, **common: Any) -> torch.Tensor:
    """Samples of the network itself, to whose weights the formula is added meanwhile, in a plain
    loop."""
    denoiser = loaded.denoiser
    change, layers = _change(denoiser), layers_of(denoiser.modules)
    before = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in layers.values()]
    try:
        for name, layer in layers.items():
            a, b, p, c = (change.parts[f"{name}/{part}".replace(".", "/")] for part in "ABPC")
            powers = torch.tensor([(math.log(scale) / math.log(MOST)) ** k for k in (1, 2, 3)])
            powers = powers.to(a)
            layer.weight.data += (b @ torch.diag(p @ powers) @ a).reshape(layer.weight.shape)
            layer.bias.data += c @ powers
        return sample(denoiser, cond, seeds, guide=conditional, scale=1.0, **common)
    finally:
        for layer, state in zip(layers.values(), before, strict=True):
            layer.load_state_dict(state)


def _change(denoiser: Denoiser) -> LowRank:
    change = LowRank.of(denoiser.modules, SHARE, MOST)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in change.parameters():
            parameter.copy_(SIZE * torch.randn(parameter.shape, generator=generator))
    dtype = next(p.dtype for module in denoiser.modules for p in module.parameters())
    return change.to(denoiser.device, dtype).requires_grad_(False)
