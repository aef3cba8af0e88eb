"""DiT-XL/2 (Peebles & Xie 2023, arXiv 2212.09748), with random weights.

As diffusers has it: the embeddings of time and label stand in each of the 28 blocks (75 million
parameters more than the original, which has them once).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created, labels
from bench.models.layers import MLP, Attention, FeedForward, sinusoids
from reg_engine import Denoiser, schedules

__all__ = ["CONFIGS", "DiT", "Sizes", "build"]

CLASSES = 1000
CHANNELS, OUTPUTS = 4, 8  # the second half of what it returns is a learned variance
PATCH = 2
FREQUENCIES = 256


@dataclass(frozen=True)
class Sizes:
    """Heads, channels a head, blocks."""

    heads: int
    head: int
    blocks: int

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head


CONFIGS = {"tiny": Sizes(2, 16, 2), "shrunk": Sizes(4, 48, 6), "real": Sizes(16, 72, 28)}  # Table 1


class _Embedding(nn.Module):
    """Time and label, (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = MLP(FREQUENCIES, width)
        self.class_embedder = nn.Module()
        self.class_embedder.embedding_table = nn.Embedding(CLASSES + 1, width)

    def forward(self, t: Tensor, cond: Tensor) -> Tensor:
        label = self.class_embedder.embedding_table(cond)
        return self.timestep_embedder(sinusoids(t, FREQUENCIES, last=True).to(label)) + label


class _Modulation(nn.Module):
    """adaLN-Zero: two shifts, scales and gates from the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = _Embedding(width)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor, cond: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(self.emb(t, cond)))[:, None].chunk(6, -1)


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each shifted, scaled and gated."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = _Modulation(sizes.width)
        self.attn1 = Attention(sizes.width, sizes.heads, bias=True)
        self.ff = FeedForward(sizes.width, gated=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.norm1(t, cond)
        x = x + gate * self.attn1(_modulated(x, shift, scale, 1e-6))
        return x + gate_mlp * self.ff(_modulated(x, shift_mlp, scale_mlp, 1e-5))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift


class DiT(nn.Module):
    """net(x, t, labels) -> epsilon: x (B, 4, side, side); label 1000 stands for no label."""

    def __init__(self, sizes: Sizes, side: int) -> None:
        super().__init__()
        self.pos_embed = nn.Module()
        self.pos_embed.proj = nn.Conv2d(CHANNELS, sizes.width, PATCH, PATCH)
        self.register_buffer("positions", _positions(sizes.width, side // PATCH), persistent=False)
        self.transformer_blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.blocks))
        self.proj_out_1 = nn.Linear(sizes.width, 2 * sizes.width)
        self.proj_out_2 = nn.Linear(sizes.width, PATCH**2 * OUTPUTS)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        tokens = self.pos_embed.proj(x).flatten(2).mT + self.positions
        for block in self.transformer_blocks:
            tokens = block(tokens, t, cond)
        embedding = self.transformer_blocks[0].norm1.emb(t, cond)
        shift, scale = self.proj_out_1(F.silu(embedding))[:, None].chunk(2, -1)
        patches = self.proj_out_2(_modulated(tokens, shift, scale, 1e-6))
        rows, columns = (side // PATCH for side in x.shape[2:])
        patches = patches.reshape(-1, rows, columns, PATCH, PATCH, OUTPUTS)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, OUTPUTS, *x.shape[2:])[:, :CHANNELS]


def _positions(width: int, side: int) -> Tensor:
    """Fixed embedding of the places of `side`^2 patches, (side^2, width): [sin, cos] of x, of y."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], 1)
    across = line[None].expand(side, side, -1)
    return torch.cat([across, across.transpose(0, 1)], -1).flatten(0, 1).float()


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The transformer for `case.shape(size)`; label 1000 is the reference's."""
    shape = case.shape(size)
    net = created(lambda: DiT(CONFIGS[size], shape[-1]), device, dtype)
    denoiser = Denoiser(
        net,
        "epsilon",
        schedules.VPLinear(),
        shape,
        null_cond=CLASSES,
        num_classes=CLASSES,
    )
    return Loaded(denoiser, lambda count: labels(count, CLASSES, device))
