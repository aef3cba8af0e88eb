"""Stable Diffusion's U-Nets with random weights and random text embeddings.

Sizes are those of the published configurations: 1.4 and 2.1 (Rombach et al. 2022, arXiv
2112.10752), XL (Podell et al. 2023, arXiv 2307.01952).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created
from bench.models.layers import MLP, Attention, FeedForward, sinusoids
from reg_engine import Denoiser, schedules
from reg_engine.networks.conditioning import Cond

__all__ = ["CONFIGS", "Sizes", "UNet", "build", "sizes_of"]

CHANNELS = 4
TOKENS = 77  # of a prompt
POOLED, TIME_IDS, ID_CHANNELS = 1280, 6, 256  # SD-XL's pooled text; sizes and crop of the picture
GROUPS = 32


@dataclass(frozen=True)
class Sizes:
    """A configuration.

    Args:
        widths: channels of each level.
        heads: of attention, level by level.
        depths: transformer blocks in each attention of a level; 0 = the level has none.
        text: channels of a token of the prompt.
        linear: projections around a transformer are linear layers, not convolutions.
        added: the pooled text and the picture's sizes are embedded too.
        layers: residual blocks a level.
    """

    widths: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    text: int
    linear: bool = True
    added: bool = False
    layers: int = 2


CONFIGS = {
    "sd-1.4": Sizes((320, 640, 1280, 1280), (8, 8, 8, 8), (1, 1, 1, 0), 768, linear=False),
    "sd-2.1": Sizes((320, 640, 1280, 1280), (5, 10, 20, 20), (1, 1, 1, 0), 1024),
    "sd-xl": Sizes((320, 640, 1280), (5, 10, 20), (0, 2, 10), 2048, added=True),
}
PREDICTIONS = {"sd-1.4": "epsilon", "sd-2.1": "v_prediction", "sd-xl": "epsilon"}


def sizes_of(key: str, size: str) -> Sizes:
    """The published configuration, or a narrow one of the same kind."""
    sizes = CONFIGS[key]
    if size == "real":
        return sizes
    base, text, deepest = {"tiny": (32, 32, 1), "shrunk": (64, 128, 2)}[size]
    widths = tuple(base * min(2**level, 4) for level in range(len(sizes.widths)))
    # Heads of 16 channels: the same number at every level would need equal widths.
    return replace(
        sizes,
        widths=widths,
        heads=tuple(width // 16 for width in widths),
        depths=tuple(min(depth, deepest if depth > 2 else 1) for depth in sizes.depths),
        text=text,
        layers=1,
    )


class Residual(nn.Module):
    """Two convolutions around the time's embedding, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = y + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class TransformerBlock(nn.Module):
    """Attention of the positions to themselves, then to the prompt, then a feed-forward layer."""

    def __init__(self, width: int, heads: int, text: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads, text)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """Transformer blocks over the positions of a picture (B, width, H, W)."""

    def __init__(self, width: int, heads: int, depth: int, sizes: Sizes) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.linear = sizes.linear
        self.proj_in, self.proj_out = (
            nn.Linear(width, width) if self.linear else nn.Conv2d(width, width, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, sizes.text) for _ in range(depth)
        )

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        tokens = self.norm(x) if self.linear else self.proj_in(self.norm(x))
        tokens = tokens.flatten(2).mT
        tokens = self.proj_in(tokens) if self.linear else tokens
        for block in self.transformer_blocks:
            tokens = block(tokens, text)
        tokens = self.proj_out(tokens) if self.linear else tokens
        y = tokens.mT.reshape(x.shape)
        return x + (y if self.linear else self.proj_out(y))


class Resample(nn.Module):
    """Half or twice the side, with a convolution."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)


class Level(nn.Module):
    """Residual blocks with `inputs` channels, each with a transformer where the level has any."""

    def __init__(self, inputs: list[int], level: int, sizes: Sizes) -> None:
        super().__init__()
        width, heads, depth = sizes.widths[level], sizes.heads[level], sizes.depths[level]
        embedding = 4 * sizes.widths[0]
        self.resnets = nn.ModuleList(Residual(n, width, embedding) for n in inputs)
        self.attentions = nn.ModuleList(
            Transformer(width, heads, depth, sizes) for _ in inputs if depth
        )

    def layer(self, index: int, x: Tensor, embedding: Tensor, text: Tensor) -> Tensor:
        """Block `index` and its transformer."""
        x = self.resnets[index](x, embedding)
        return self.attentions[index](x, text) if len(self.attentions) else x


class Down(Level):
    """A level of the encoder; returns its last state and all that the decoder joins."""

    def __init__(self, inputs: int, level: int, sizes: Sizes) -> None:
        width, last = sizes.widths[level], level == len(sizes.widths) - 1
        super().__init__([inputs] + [width] * (sizes.layers - 1), level, sizes)
        self.downsamplers = nn.ModuleList(Resample(width, up=False) for _ in range(not last))

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, embedding, text)
            kept.append(x)
        for change in self.downsamplers:
            x = change(x)
            kept.append(x)
        return x, kept


class Middle(nn.Module):
    """A transformer between two residual blocks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, embedding = sizes.widths[-1], 4 * sizes.widths[0]
        depth = sizes.depths[-1] or 1
        self.resnets = nn.ModuleList(Residual(width, width, embedding) for _ in range(2))
        self.attentions = nn.ModuleList([Transformer(width, sizes.heads[-1], depth, sizes)])

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, embedding), text)
        return self.resnets[1](x, embedding)


class Up(Level):
    """A level of the decoder: each block sees one state of the encoder, the last one first."""

    def __init__(self, inputs: int, joined: list[int], level: int, sizes: Sizes) -> None:
        width = sizes.widths[level]
        incoming = [inputs] + [width] * sizes.layers
        super().__init__([a + b for a, b in zip(incoming, joined, strict=True)], level, sizes)
        self.upsamplers = nn.ModuleList(Resample(width, up=True) for _ in range(level > 0))

    def forward(self, x: Tensor, kept: list[Tensor], embedding: Tensor, text: Tensor) -> Tensor:
        for index, state in enumerate(kept):
            x = self.layer(index, torch.cat([x, state], 1), embedding, text)
        for change in self.upsamplers:
            x = change(x)
        return x


class UNet(nn.Module):
    """net(x, t, cond), cond a dict: encoder_hidden_states (B, 77, text), and where the sizes say so
    text_embeds (B, 1280) and time_ids (B, 6)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, first = sizes, sizes.widths[0]
        self.time_embedding = MLP(first, 4 * first)
        if sizes.added:
            self.add_embedding = MLP(POOLED + ID_CHANNELS * TIME_IDS, 4 * first)
        self.conv_in = nn.Conv2d(CHANNELS, first, 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        widths, last = [first], first
        for level, width in enumerate(sizes.widths):
            self.down_blocks.append(Down(last, level, sizes))
            last = width
            widths += [width] * (sizes.layers + len(self.down_blocks[-1].downsamplers))
        self.mid_block = Middle(sizes)
        for level in reversed(range(len(sizes.widths))):
            joined = [widths.pop() for _ in range(sizes.layers + 1)]
            self.up_blocks.append(Up(last, joined, level, sizes))
            last = sizes.widths[level]
        self.conv_norm_out = nn.GroupNorm(GROUPS, last)
        self.conv_out = nn.Conv2d(last, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        embedding = self.time_embedding(sinusoids(t, self.sizes.widths[0]).to(x.dtype))
        if self.sizes.added:
            ids = sinusoids(cond["time_ids"].flatten(), ID_CHANNELS).reshape(len(x), -1)
            pooled = torch.cat([cond["text_embeds"], ids.to(x.dtype)], 1)
            embedding = embedding + self.add_embedding(pooled)
        text = cond["encoder_hidden_states"]
        x = self.conv_in(x)
        kept = [x]
        for down in self.down_blocks:
            x, states = down(x, embedding, text)
            kept += states
        x = self.mid_block(x, embedding, text)
        for up in self.up_blocks:
            x = up(x, [kept.pop() for _ in range(self.sizes.layers + 1)], embedding, text)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The U-Net of `case.key`; the empty prompt is one more random embedding."""
    sizes, shape = sizes_of(case.key, size), case.shape(size)
    net = created(lambda: UNet(sizes), device, dtype)

    def text(count: int) -> dict[str, Tensor]:
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        own = {"encoder_hidden_states": torch.randn(count, TOKENS, sizes.text, **options)}
        if sizes.added:
            own["text_embeds"] = torch.randn(count, POOLED, **options)
            pixels = float(8 * shape[-1])
            ids = torch.tensor([pixels, pixels, 0.0, 0.0, pixels, pixels], **options)
            own["time_ids"] = ids.repeat(count, 1)
        return own

    null = text(1)
    denoiser = Denoiser(net, PREDICTIONS[case.key], schedules.ScaledLinear(), shape, null_cond=null)

    def cond(count: int) -> Cond:
        torch.manual_seed(1)
        return text(count)

    return Loaded(denoiser, cond)
