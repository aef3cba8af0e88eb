"""A small class-conditional U-Net for 28x28 digits: real guidance on a laptop's CPU.

Called as `net(x, t, cond)`. The work is done at 14x14 (a pixel-unshuffle makes four channels of
each 2x2 block) and at 7x7, with one attention layer there. Every layer treats the rows of a batch
on their own, so a batch of conditional and unconditional rows equals two calls; every op has a
reverse and a forward derivative (PyTorch's forward AD needs the math attention backend).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, choice
from ..networks.attention import BACKENDS, attention
from ..values import check_sizes

__all__ = ["UNet"]

GROUP_CHANNELS = 16  # channels in a group of GroupNorm


class UNet(nn.Module):
    """Class-conditional U-Net with the call of `reg_engine.Denoiser`.

    Args:
        image_channels: channels of the image, 1 for grey.
        channels: width at half and at quarter resolution, multiples of 16.
        blocks: residual blocks in a row: at half resolution going down, at quarter resolution
            before and after the attention, at half resolution going up.
        heads: attention heads; divides channels[1].
        embedding: width of the time-and-label embedding.
        num_labels: rows of the label table: the classes and, last, the null label.

    Raises:
        InputError: sizes below 1, or that do not divide.
    """

    def __init__(
        self,
        image_channels: int = 1,
        channels: tuple[int, int] = (48, 96),
        blocks: tuple[int, int, int, int] = (1, 1, 1, 1),
        heads: int = 2,
        embedding: int = 128,
        num_labels: int = 11,
    ) -> None:
        super().__init__()
        check_sizes(
            image_channels=image_channels,
            channels=channels,
            blocks=blocks,
            heads=heads,
            embedding=embedding,
            num_labels=num_labels,
        )
        half, quarter = channels
        if half % GROUP_CHANNELS or quarter % GROUP_CHANNELS or quarter % heads:
            raise InputError(
                "channels",
                f"is {tuple(channels)} with {heads} heads",
                f"Give multiples of {GROUP_CHANNELS}, the second also of the number of heads",
            )
        self.arguments: dict[str, Any] = {
            "image_channels": image_channels,
            "channels": [half, quarter],
            "blocks": list(blocks),
            "heads": heads,
            "embedding": embedding,
            "num_labels": num_labels,
        }
        self.embed = Embedding(embedding, num_labels)
        self.stem = nn.Conv2d(4 * image_channels, half, 3, padding=1)
        self.down = _stack(half, half, embedding, blocks[0])
        self.shrink = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.enter = _stack(quarter, quarter, embedding, blocks[1])
        self.attend = Attention(quarter, heads)
        self.leave = _stack(quarter, quarter, embedding, blocks[2])
        self.grow = nn.Conv2d(quarter, 4 * half, 1)
        self.up = _stack(2 * half, half, embedding, blocks[3])
        self.norm = nn.GroupNorm(half // GROUP_CHANNELS, half)
        self.head = nn.Conv2d(half, 4 * image_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Network output for one batch.

        Args:
            x: (B, image_channels, H, W), H and W multiples of 4, scaled to about unit variance.
            t: (B,) c_noise = ln(sigma)/4 (Karras et al. 2022, Table 1).
            cond: (B,) LongTensor of labels in [0, num_labels).

        Returns:
            (B, image_channels, H, W) in the dtype of x.
        """
        emb = self.embed(t, cond, x.dtype)
        h = self.stem(F.pixel_unshuffle(x, 2))
        for block in self.down:
            h = block(h, emb)
        skip = h
        h = self.shrink(h)
        for block in self.enter:
            h = block(h, emb)
        h = self.attend(h)
        for block in self.leave:
            h = block(h, emb)
        h = torch.cat([F.pixel_shuffle(self.grow(h), 2), skip], dim=1)
        for block in self.up:
            h = block(h, emb)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), 2)


class Embedding(nn.Module):
    """Sines of c_noise, a two-layer network, and a row per label."""

    frequencies: Tensor

    def __init__(self, width: int, num_labels: int, sines: int = 32) -> None:
        super().__init__()
        # c_noise spans about [-1.6, 1.1]: periods from 8 (the whole range) down to 1/8.
        periods = torch.logspace(3, -3, sines, base=2.0)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.hidden = nn.Linear(2 * sines, width)
        self.output = nn.Linear(width, width)
        self.label = nn.Embedding(num_labels, width)

    def forward(self, t: Tensor, cond: Tensor, dtype: torch.dtype) -> Tensor:
        phase = t[:, None].to(self.frequencies.dtype) * self.frequencies
        sines = torch.cat([phase.cos(), phase.sin()], dim=1).to(dtype)
        return F.silu(self.output(F.silu(self.hidden(sines))) + self.label(cond))


class Block(nn.Module):
    """Residual block: norm, SiLU, conv, FiLM norm, SiLU, conv; the last conv starts at zero."""

    def __init__(self, channels_in: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels_in // GROUP_CHANNELS, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.norm2 = nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        same = channels_in == channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Self-attention over the pixels, added to its input.

    Args:
        channels: multiple of 16 and of `heads`.
        heads: attention heads.
        attention: one of reg_engine.networks.attention.BACKENDS; set_attention changes it later.
    """

    def __init__(self, channels: int, heads: int, attention: str = "auto") -> None:
        super().__init__()
        self.heads, self.width = heads, channels // heads
        self.attention_backend = choice("attention", attention, BACKENDS)
        self.norm = nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, self.width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(query, key, value, self.attention_backend)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, height * width, channels))
        # contiguous NCHW: the forward derivative of GroupNorm rejects other layouts
        return x + mixed.transpose(1, 2).contiguous().reshape(batch, channels, height, width)


def _stack(channels_in: int, channels: int, embedding: int, count: int) -> nn.ModuleList:
    sizes = [channels_in] + [channels] * (count - 1)
    return nn.ModuleList([Block(size, channels, embedding) for size in sizes])
