"""Transformers that take a picture as a row of tokens, 2 x 2 latents each: Flux and its kin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .family import Family

__all__ = ["Packed", "pack", "unpack"]


def pack(x: Tensor) -> Tensor:
    """Latents (B, C, H, W), H and W even, as tokens (B, H/2 W/2, 4 C)."""
    tokens = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 1, 3, 5)
    return tokens.flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, (B, C, height, width)."""
    x = tokens.unflatten(1, (height // 2, width // 2)).unflatten(3, (-1, 2, 2))
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


@dataclass(frozen=True)
class Packed(Family):
    """A family whose samples are latents (C, H, W) and whose network takes their tokens.

    Args:
        guidance: the distilled guidance that the network is told; None: it is told none.
    """

    guidance: float | None = None

    def call(self, net: Any, x: Tensor, t: Tensor, words: dict[str, Any]) -> Tensor:
        """As Family.call; the network is told where the tokens stand."""
        height, width = x.shape[2:]
        rows, columns = (torch.arange(n // 2, device=x.device).float() for n in (height, width))
        grid = torch.cartesian_prod(rows, columns)
        length = words["encoder_hidden_states"].shape[1]
        output: Tensor = net(
            pack(x),
            timestep=t,
            guidance=None if self.guidance is None else torch.full_like(t, self.guidance),
            img_ids=torch.cat([torch.zeros_like(grid[:, :1]), grid], 1),
            txt_ids=grid.new_zeros(length, 3),
            return_dict=False,
            **words,
        )[0]
        return unpack(output, height, width)
