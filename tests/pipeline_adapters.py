"""Adapters with random numbers for tiny pipelines, and pipelines that hold them by hand."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import tiny_pipelines
import torch
from torch import Tensor

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


@cache
def pipeline(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


@cache
def own(name: str) -> Adapter:
    return adapter(pipeline(name))


def made(name: str, pipe: Any, scale: float | None, steps: int = 3, **more: Any) -> Tensor:
    """Two samples, whatever the pipeline calls its scale."""
    given: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent", **more}
    if scale is not None:
        given["true_cfg_scale" if name == "flux" else "guidance_scale"] = scale
    if name == "dit":
        given |= {"output_type": "np", "generator": torch.Generator().manual_seed(0)}
        return torch.as_tensor(pipe([1, 2], **given)[0])
    given |= {"generator": [torch.Generator().manual_seed(seed) for seed in range(2)]}
    size = {"height": 64, "width": 64, "num_frames": 9} if name == "wan" else tiny_pipelines.SIZE
    given |= size | ({} if name in ("sd", "sdxl", "sd3") else {"max_sequence_length": 16})
    if name == "pixart":
        given |= {"use_resolution_binning": False, "clean_caption": False}
    return pipe(["a cat", "two dogs"], **given)[0]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def rows_of(pipe: Any, asked: list[int]) -> Any:
    """Notes how many rows the network is asked for."""
    return network(pipe).register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(
            len(kwargs.get("hidden_states", args[0] if args else None))
        ),
        with_kwargs=True,
    )
