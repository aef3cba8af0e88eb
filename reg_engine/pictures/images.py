"""Samples to 8-bit images, and grids of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["grid", "to_uint8"]


def to_uint8(samples: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """(N, C, H, W) -> uint8 (N, H, W, C) on the CPU, 0 and 255 at the ends of `value_range`.

    Values outside are clipped.

    Raises:
        InputError: not four dimensions, or a number of channels that is no image's.
    """
    if samples.dim() != 4 or samples.shape[1] not in (1, 3):
        raise InputError(
            "samples",
            f"shape {tuple(samples.shape)} is no batch of images",
            "Use .samples; images need (N, 1 or 3, H, W)",
        )
    low, high = value_range
    scaled = ((samples.float() - low) * (255 / (high - low))).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu()


def grid(images: Tensor, columns: int, gap: int = 2, shade: int = 48) -> Tensor:
    """uint8 (N, H, W, C) -> one uint8 picture, row by row, `gap` pixels of `shade` between."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    out = torch.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels),
        shade,
        dtype=torch.uint8,
    )
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        out[top : top + height, left : left + width] = image
    return out
