"""What a model's samples are of the latents of a VAE: scaled, shifted, and of what range of
pixels."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..values import as_float, as_range, as_tuple, store

__all__ = ["EDM2_LATENTS", "SD_LATENTS", "Latents"]

NUMBER = "Give a finite number, or one a channel"


@dataclass(frozen=True)
class Latents:
    """samples = scale (latents - shift), per channel.

    Args:
        scale: > 0, a number or one a channel.
        shift: a number or one a channel.
        value_range: (black, white) of the pixels that the VAE was given and gives.

    Raises:
        InputError: a number that is not finite, scale <= 0, different numbers of channels.
    """

    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        scale, shift = _numbers("scale", self.scale, 0.0), _numbers("shift", self.shift, -math.inf)
        many = [len(v) for v in (scale, shift) if isinstance(v, tuple)]
        if len(set(many)) > 1:
            raise InputError("shift", f"has {many[1]} channels, scale {many[0]}", "Give as many")
        low_high = as_range("value_range", self.value_range)
        store(self, scale=scale, shift=shift, value_range=low_high)

    def decoded(self, samples: Tensor) -> Tensor:
        """The VAE's latents of samples (B, C, *size)."""
        return samples / _channels(self.scale, samples) + _channels(self.shift, samples)

    def encoded(self, latents: Tensor) -> Tensor:
        """Samples of the VAE's latents (B, C, *size)."""
        return _channels(self.scale, latents) * (latents - _channels(self.shift, latents))

    def described(self) -> dict[str, Any]:
        """Ready for JSON; Latents(**described) is the same."""
        return json.loads(json.dumps(asdict(self)))


def _numbers(name: str, value: Any, above: float) -> float | tuple[float, ...]:
    def number(one: Any) -> float:
        return as_float(name, one, NUMBER, lambda v: above < v < math.inf)

    if isinstance(value, (list, tuple)):
        found = as_tuple(name, value, NUMBER)
        if not found:
            raise InputError(name, "is empty", NUMBER)
        return tuple(number(one) for one in found)
    return number(value)


def _channels(value: float | tuple[float, ...], like: Tensor) -> Tensor:
    found = torch.tensor(value, dtype=like.dtype, device=like.device)
    if found.ndim and len(found) != like.shape[1]:
        problem = f"has {like.shape[1]} channels for {len(found)} of the latents"
        raise InputError("samples", problem, "Give those of this model")
    return found.reshape(-1, *[1] * (like.ndim - 2))


# Latent diffusion (Rombach et al. 2022), DiT, SiT: deviation 1 by one number.
SD_LATENTS = Latents(0.18215)
# EDM2 (Karras et al. 2024, constants of its released encoder): mean 0 and deviation 0.5 a channel,
# and the VAE sees pixels in [0, 1].
EDM2_LATENTS = Latents(
    tuple(0.5 / deviation for deviation in (4.17, 4.62, 3.71, 3.28)),
    (5.81, 3.25, 0.12, -2.15),
    (0.0, 1.0),
)
