"""Adapters with random numbers for tiny pipelines, and pipelines that hold them by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from reg_engine import denoiser_of
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import LowRank

MOST = 6.0


def network(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


def adapter(pipe: Any, scales: tuple[float, float] = (1.0, MOST)) -> Adapter:
    denoiser = denoiser_of(network(pipe), scheduler=pipe.scheduler)
    change = LowRank.of(denoiser.modules, 0.3, scales[1])
    generator = torch.Generator().manual_seed(1)
    for parameter in change.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return Adapter(change.requires_grad_(False), scales, belonging(denoiser), {"teacher": "vjp"})


def merged(pipe: Any, own: Adapter, scale: float) -> Any:
    """A copy with W + B diag(P phi) A and b + C phi, phi_k = (ln s / ln s_max)^k, in float64."""
    other = copy.deepcopy(pipe)
    layers, u = dict(network(other).named_modules()), math.log(scale) / math.log(own.scales[1])
    phi = torch.tensor([u, u**2, u**3], dtype=torch.float64)
    numbers = {name: value.double() for name, value in own.change.state_dict().items()}
    for name in own.change.shapes:
        place = "parts." + name.replace(".", "/")
        a, b, p, c = (numbers.get(f"{place}/{part}") for part in "ABPC")
        layer = layers[name]
        change = (b @ torch.diag(p @ phi) @ a).reshape(layer.weight.shape)
        layer.weight.data = (layer.weight.double() + change).to(layer.weight)
        if layer.bias is not None:
            layer.bias.data = (layer.bias.double() + c @ phi).to(layer.bias)
    return other
