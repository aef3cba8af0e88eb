"""EDM2 U-Nets, written from the paper (Karras et al. 2024, arXiv 2312.02696, config G).

Every layer keeps the expected magnitude of its input. Weights are normalised when they are made:
the paper does so after every training step, and what is sampled from does not change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases import ModelCase
from bench.models.base import Loaded, created, labels
from reg_engine import Denoiser, schedules

__all__ = ["CONFIGS", "EDM2UNet", "Sizes", "build"]

CLASSES = 1000
HEAD_CHANNELS = 64
RESIDUAL, EMBEDDING, SKIP = 0.3, 0.5, 0.5  # weights of the second term in the sums (Sec. 2)
CLIP = 256.0


@dataclass(frozen=True)
class Sizes:
    """Width of the first level, multiples of it, blocks a level, resolutions with attention."""

    width: int
    multiples: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)


CONFIGS = {"edm2-s": Sizes(192), "edm2-xxl": Sizes(448)}
SMALL = {
    ("tiny", "edm2-s"): Sizes(64, (1, 2), blocks=1, attention=(4,)),
    ("tiny", "edm2-xxl"): Sizes(128, (1, 2), blocks=1, attention=(4,)),
    ("shrunk", "edm2-s"): Sizes(64, (1, 2), blocks=1, attention=(8,)),
    ("shrunk", "edm2-xxl"): Sizes(128, (1, 2), blocks=1, attention=(8,)),
}


def unit(x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """x scaled to root mean square 1 over `dims`."""
    return x * torch.rsqrt(x.float().square().mean(dims, keepdim=True) + 1e-8).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU of unit magnitude (Eq. 81)."""
    return F.silu(x) / 0.596


def blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Weighted sum of two unit terms, of unit magnitude (Eq. 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def join(a: Tensor, b: Tensor, t: float = SKIP) -> Tensor:
    """Concatenation of two inputs that contribute as (1 - t) to t (Eq. 103)."""
    n, m = a.shape[1], b.shape[1]
    size = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (size * (1 - t) / math.sqrt(n)), b * (size * t / math.sqrt(m))], 1)


class Layer(nn.Module):
    """Convolution (kernel 1 or 3), or linear layer (kernel 0), of unit magnitude; no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.padding = kernel // 2
        weight = torch.randn(outputs, inputs, *[kernel] * (2 if kernel else 0))
        fan_in = weight[0].numel()
        dims = tuple(range(1, weight.dim()))
        self.weight = nn.Parameter(unit(weight, dims) / math.sqrt(fan_in))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, padding=self.padding)


class Attention(nn.Module):
    """Self-attention between positions; queries, keys and values of unit magnitude (cosine)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.enter = Layer(channels, 3 * channels, 1)
        self.leave = Layer(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = self.enter(x).reshape(batch, 3, self.heads, HEAD_CHANNELS, height * width)
        query, key, value = unit(split.mT, -1).unbind(1)
        y = F.scaled_dot_product_attention(query, key, value)
        return blend(x, self.leave(y.mT.reshape(batch, channels, height, width)), RESIDUAL)


class Block(nn.Module):
    """Residual block, Fig. 21: an encoder's normalises its input, a decoder's does not.

    Args:
        inputs, outputs: channels. embedding: of the noise level and the class.
        decoder: which of the two kinds.
        joined: channels of the encoder's state that is joined to the input; 0 = none.
        resample: "down" or "up" by 2 first; "" = neither.
        attention: whether attention follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        decoder: bool,
        joined: int = 0,
        resample: str = "",
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.decoder, self.joined, self.resample = decoder, joined, resample
        inputs += joined
        self.skip = Layer(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.first = Layer(inputs if decoder else outputs, outputs, 3)
        self.second = Layer(outputs, outputs, 3)
        self.modulation = Layer(embedding, outputs)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if not self.decoder:
            x = unit(self.skip(x), 1)
        y = self.first(silu(x))
        y = silu(y * (1 + self.modulation(embedding))[:, :, None, None])
        if self.decoder:
            x = self.skip(x)
        return self.attention(blend(x, self.second(y), RESIDUAL)).clamp(-CLIP, CLIP)


class EDM2UNet(nn.Module):
    """net(x, c_noise, labels): x (B, channels, R, R); label `classes` stands for no label."""

    def __init__(self, channels: int, resolution: int, sizes: Sizes, classes: int) -> None:
        super().__init__()
        self.classes = classes
        widths = [sizes.width * m for m in sizes.multiples]
        embedding = widths[-1]
        self.register_buffer("frequencies", torch.randn(sizes.width))
        self.register_buffer("phases", torch.rand(sizes.width))
        self.of_noise = Layer(sizes.width, embedding)
        self.of_class = Layer(classes, embedding)
        self.enter = Layer(channels + 1, widths[0], 3)
        encoder, decoder = (partial(Block, embedding=embedding, decoder=d) for d in (False, True))
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        kept, width = [widths[0]], widths[0]
        for level, outputs in enumerate(widths):
            attention = resolution >> level in sizes.attention
            if level:
                self.encoder.append(encoder(width, width, resample="down"))
                kept.append(width)
            for _ in range(sizes.blocks):
                self.encoder.append(encoder(width, outputs, attention=attention))
                width = outputs
                kept.append(width)
        self.decoder += [decoder(width, width, attention=True), decoder(width, width)]
        for level, outputs in reversed(list(enumerate(widths))):
            attention = resolution >> level in sizes.attention
            if level < len(widths) - 1:
                self.decoder.append(decoder(width, width, resample="up"))
            for _ in range(sizes.blocks + 1):
                block = decoder(width, outputs, joined=kept.pop(), attention=attention)
                self.decoder.append(block)
                width = outputs
        self.leave = Layer(width, channels, 3)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies.float() + self.phases.float()
        noise = self.of_noise((math.sqrt(2) * torch.cos(2 * math.pi * angles)).to(x.dtype))
        classes = torch.arange(self.classes, device=x.device)
        one_hot = (cond[:, None] == classes).to(x.dtype) * math.sqrt(self.classes)
        embedding = silu(blend(noise, self.of_class(one_hot), EMBEDDING))
        x = self.enter(torch.cat([x, torch.ones_like(x[:, :1])], 1))
        kept = [x]
        for block in self.encoder:
            x = block(x, embedding)
            kept.append(x)
        for block in self.decoder:
            x = block(join(x, kept.pop()) if block.joined else x, embedding)
        return self.leave(x)


def build(case: ModelCase, size: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """The U-Net for `case.shape(size)`; label 1000 is the reference's."""
    shape = case.shape(size)
    sizes = CONFIGS[case.key] if size == "real" else SMALL[size, case.key]
    net = created(lambda: EDM2UNet(shape[0], shape[-1], sizes, CLASSES), device, dtype)
    denoiser = Denoiser(
        net,
        "edm",
        schedules.EDM(),
        shape,
        null_cond=CLASSES,
        num_classes=CLASSES,
    )
    return Loaded(denoiser, lambda count: labels(count, CLASSES, device))
