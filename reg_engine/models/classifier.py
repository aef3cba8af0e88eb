"""A small noise-aware image classifier: judges samples, guides, and gives FID its features."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..values import as_float, check_sizes

__all__ = ["NoisyClassifier"]

GROUP_CHANNELS = 16  # channels in a group of GroupNorm
SIGMA_FLOOR = 0.002  # below this, clean: keeps ln(sigma) finite at sigma = 0
PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # of the sines of c_noise, about in [-1.6, 1.1]


class NoisyClassifier(nn.Module):
    """p(label | x_0 + sigma eps) for images in [-1, 1], by default 28x28 grey ones.

    Called as `classifier(x, sigma)`; `reg_engine.Classifier(classifier, on_clean_scale=True)`
    guides any model of the same images with it. Rows of a batch do not influence each other.

    Args:
        channels: widths at half and quarter resolution, multiples of 16.
        features: width of the feature vector.
        embedding: width of the noise embedding.
        num_classes: labels.
        sigma_data: deviation of clean pixels; input scale 1/sqrt(sigma^2 + sigma_data^2).
        image_channels: channels of the image, 1 for grey.
        blocks: residual blocks at half, and at quarter resolution.

    Raises:
        InputError: sizes below 1, channels that are no multiples of 16, sigma_data that is no
            positive number.
    """

    def __init__(
        self,
        channels: tuple[int, int] = (48, 80),
        features: int = 128,
        embedding: int = 64,
        num_classes: int = 10,
        sigma_data: float = 0.5,
        image_channels: int = 1,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, features=features, embedding=embedding)
        check_sizes(num_classes=num_classes, image_channels=image_channels, blocks=blocks)
        as_float("sigma_data", sigma_data, "Give a positive number", lambda v: 0 < v < math.inf)
        if any(width % GROUP_CHANNELS for width in channels):
            raise InputError(
                "channels", f"is {tuple(channels)}", f"Give multiples of {GROUP_CHANNELS}"
            )
        half, quarter = channels
        self.arguments: dict[str, Any] = {
            "channels": [half, quarter],
            "features": features,
            "embedding": embedding,
            "num_classes": num_classes,
            "sigma_data": sigma_data,
            "image_channels": image_channels,
            "blocks": blocks,
        }
        self.num_classes, self.num_features, self.sigma_data = num_classes, features, sigma_data
        self.noise = nn.Linear(2 * len(PERIODS), embedding)
        self.stem = nn.Conv2d(4 * image_channels, half, 3, padding=1)
        self.coarse = _Block(half, embedding)
        self.shrink = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.coarser = _Block(quarter, embedding)
        self.norm = nn.GroupNorm(quarter // GROUP_CHANNELS, quarter)
        self.mix = nn.Conv2d(quarter, features, 1)
        self.head = nn.Linear(features, num_classes)
        self.more = nn.ModuleList(
            _Block(width, embedding) for width in channels for _ in range(blocks - 1)
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits (B, num_classes), differentiable in x.

        Args:
            x: (B, image_channels, H, W), x_0 + sigma eps; H and W multiples of 4.
            sigma: (B,) noise levels >= 0.
        """
        return self.head(self._vectors(x, sigma))

    def features(self, x: Tensor) -> Tensor:
        """Feature vectors (B, num_features) of clean images (B, image_channels, H, W)."""
        return self._vectors(x, torch.zeros(x.shape[0], device=x.device))

    def _vectors(self, x: Tensor, sigma: Tensor) -> Tensor:
        dtype = self.head.weight.dtype
        sigma = sigma.to(dtype)
        phase = sigma.clamp(min=SIGMA_FLOOR).log()[:, None] / 4 * _frequencies(sigma)
        emb = F.silu(self.noise(torch.cat([phase.cos(), phase.sin()], dim=1)))
        scale = (sigma.square() + self.sigma_data**2).rsqrt().reshape(-1, 1, 1, 1)
        h = self.stem(F.pixel_unshuffle(scale * x.to(dtype), 2))
        more, half = list(self.more), len(self.more) // 2
        for block in (self.coarse, *more[:half]):
            h = block(h, emb)
        h = self.shrink(F.silu(h))
        for block in (self.coarser, *more[half:]):
            h = block(h, emb)
        return F.silu(self.mix(F.silu(self.norm(h)))).mean(dim=(2, 3))


class _Block(nn.Module):
    """Residual block whose second norm hears the noise level."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.norm2 = nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


def _frequencies(like: Tensor) -> Tensor:
    return torch.tensor([2 * math.pi / p for p in PERIODS], dtype=like.dtype, device=like.device)
