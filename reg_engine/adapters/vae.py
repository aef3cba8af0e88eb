"""Pictures of latents: diffusers' AutoencoderKL behind a model's samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..models.latents import Latents
from ..networks.frozen import frozen
from ..values import as_int, store, usable
from .loading import diffusers_module

__all__ = ["Decoder", "decoder_of"]

REMEDY = "Give an AutoencoderKL, or the folder that its save_pretrained wrote"


@dataclass(frozen=True)
class Decoder:
    """Pictures (B, 3, H, W) in [-1, 1], float32, of samples (B, C, h, w).

    Args:
        vae: an AutoencoderKL; asked in its own dtype, where it is.
        latents: what the samples are of its latents.
        batch_size: samples at a time.
    """

    vae: Any
    latents: Latents
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not callable(getattr(self.vae, "decode", None)):
            raise InputError("vae", f"is a {type(self.vae).__name__}", REMEDY)
        store(self, batch_size=as_int("batch_size", self.batch_size))

    def __call__(self, samples: Tensor) -> Tensor:
        """The pictures, on the device of the samples.

        Raises:
            InputError: as check.
        """
        self.check(tuple(samples.shape[1:]))
        like = next(self.vae.parameters())
        with frozen((self.vae,)), torch.no_grad():
            parts = [self._decoded(part, like) for part in samples.split(self.batch_size)]
        return torch.cat(parts).to(samples.device)

    def check(self, sample_shape: tuple[int, ...]) -> None:
        """InputError unless samples of this shape, without the batch, have the VAE's channels."""
        channels = self.vae.config.latent_channels
        if len(sample_shape) != 3 or sample_shape[0] != channels:
            remedy = f"Give those of a model of this VAE's latents, ({channels}, h, w)"
            raise InputError("vae", f"decodes no samples of {sample_shape}", remedy)

    def _decoded(self, samples: Tensor, like: Tensor) -> Tensor:
        latents = self.latents.decoded(samples.float()).to(like)
        pixels = self.vae.decode(latents, return_dict=False)[0].float()
        black, white = self.latents.value_range
        return (2 * (pixels - black) / (white - black) - 1).clamp(-1, 1)


def decoder_of(
    vae: Any, latents: Latents | None = None, batch_size: int = 8, device: Any = None
) -> Decoder:
    """The Decoder of a VAE.

    Args:
        vae: an AutoencoderKL of diffusers; a folder that its `save_pretrained` wrote, or a hub id:
            only safetensors are read.
        latents: what the model's samples are of its latents; None = as its configuration says
            (scaling_factor, shift_factor).
        batch_size: samples at a time.
        device: where it decodes; None = where it is, from a folder the CPU.

    Raises:
        InputError: no VAE, no such folder, one that cannot be loaded; diffusers is missing.
    """
    if isinstance(vae, (str, os.PathLike)):
        vae = _loaded(os.fspath(vae))
    if device is not None and isinstance(vae, torch.nn.Module):
        vae = vae.to(usable(device))
    if latents is None:
        config = getattr(vae, "config", None)
        scale = getattr(config, "scaling_factor", None)
        if scale is None:
            problem = f"a {type(vae).__name__} does not say how its latents are scaled"
            raise InputError("latents", problem, "Give Latents(scale, shift)")
        latents = Latents(scale, getattr(config, "shift_factor", None) or 0.0)
    return Decoder(vae, latents, batch_size)


def _loaded(name: str) -> Any:
    folder = Path(name)
    if folder.is_file() or (folder.is_dir() and not (folder / "config.json").is_file()):
        raise InputError("vae", f"{name!r} holds no config.json", REMEDY)
    try:
        kind = diffusers_module().AutoencoderKL
        return kind.from_pretrained(name, use_safetensors=True, local_files_only=folder.is_dir())
    except (OSError, ValueError) as error:
        problem = f"{name!r} cannot be loaded ({' '.join(str(error).split())[:300]})"
        raise InputError("vae", problem, REMEDY) from error
