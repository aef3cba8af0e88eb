"""What the U-Nets of Stable Diffusion are made of.

Modules carry the names of diffusers' checkpoints: weights of either load into the other, and the
tests compare the two.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "FeedForward", "MLP", "sinusoids"]

LONGEST = 10_000.0  # period of the slowest sinusoid over 2 pi (Vaswani et al. 2017)


def sinusoids(values: Tensor, channels: int) -> Tensor:
    """[cos, sin] of (N,) values at frequencies from 1 to 1/LONGEST, (N, channels)."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    frequencies = torch.exp(-math.log(LONGEST) * steps / half)
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class MLP(nn.Module):
    """Linear, SiLU, linear: an embedding of the time, or of the pooled text."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Attention(nn.Module):
    """Attention of tokens (B, N, width) to `context` (B, M, `inputs`), or to themselves."""

    def __init__(self, width: int, heads: int, inputs: int | None = None):
        super().__init__()
        self.heads, inputs = heads, inputs or width
        self.to_q = nn.Linear(width, width, False)
        self.to_k, self.to_v = (nn.Linear(inputs, width, False) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        query, key, value = (
            y.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        y = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class _Gated(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 4 * width
        layers = [_Gated(width, inner), nn.Identity(), nn.Linear(inner, width)]
        self.net = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x
