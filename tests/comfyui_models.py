"""The models of the stand-in for ComfyUI: how a state is scaled, what a conditioning tells, and a
network with both (comfyui_peer.py has the hooks and the sampler around them)."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

TABLE = torch.linspace(math.log(0.03), math.log(15.0), 1000, dtype=torch.float64).exp().float()


class EPS(nn.Module):
    """x = x_0 + sigma noise; the network sees x / sqrt(sigma^2 + 1), at steps of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigmas", TABLE.clone())

    def timestep(self, sigma: Tensor) -> Tensor:
        return (self.sigmas.log()[:, None] - sigma.float().log()).abs().argmin(0)

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x / (1 + wide(sigma, x) ** 2).sqrt()

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - wide(sigma, x) * output

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        return latent + wide(sigma, noise) * noise

    def percent_to_sigma(self, share: float) -> float:
        if share in (0.0, 1.0):
            return 999999999.9 if share == 0 else 0.0
        return float(self.sigmas[round(999 * (1 - share))])


class CONST(EPS):
    """x = (1 - sigma) x_0 + sigma noise."""

    def timestep(self, sigma: Tensor) -> Tensor:
        return 1000 * sigma

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        return (1 - wide(sigma, noise)) * latent + wide(sigma, noise) * noise

    def percent_to_sigma(self, share: float) -> float:
        return 1.0 - share


class IMG_TO_IMG(EPS):
    pass


SAMPLINGS = {"eps": EPS, "flow": CONST, "image": IMG_TO_IMG}


def wide(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


class Told:
    """What a conditioning tells the network: one row, or a row a sample."""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond

    def process_cond(self, batch_size: int, **_: Any) -> Told:
        turns = torch.arange(batch_size) % len(self.cond)
        return Told(self.cond if len(self.cond) == batch_size else self.cond[turns])


class Model(nn.Module):
    """As BaseModel: states and answers have the sampler's dtype, whatever the network computes in
    (float32 in ComfyUI; here float64 as well)."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.diffusion_model, self.model_sampling = net, SAMPLINGS[kind]()
        self.manual_cast_dtype, self.model_config = None, SimpleNamespace()
        self.calls: list[tuple[int, list[int]]] = []

    def get_dtype(self) -> torch.dtype:
        return next(self.diffusion_model.parameters()).dtype

    def apply_model(
        self, x: Tensor, t: Tensor, c_crossattn: Any, transformer_options: Any = None, **kw: Any
    ) -> Tensor:
        dtype, sampling = self.get_dtype(), self.model_sampling
        inside = sampling.calculate_input(t, x).to(dtype)
        time, told = sampling.timestep(t).to(x.dtype), c_crossattn.to(dtype)
        output = self.diffusion_model(
            inside, time, context=told, transformer_options=transformer_options, **kw
        )
        return sampling.calculate_denoised(t, output.to(x.dtype), x)


class Control:
    """A ControlNet: a network of its own adds to the middle of the guided one."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def get_models(self) -> list[Any]:
        return [SimpleNamespace(model=self.net)]

    def get_control(self, x: Tensor, *_: Any) -> Tensor:
        return self.net(x)
