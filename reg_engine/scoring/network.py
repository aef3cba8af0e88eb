"""A feature network as scoring asks it: 8-bit images in, checked vectors out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..values import usable
from .resize import Resize

__all__ = ["Network", "Vectors"]

Vectors = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Network:
    """One view of any feature network.

    Args:
        name: what people call it.
        call: images (n, C, H, W) -> features (n, F), or a pair of these and logits (n, L).
        fingerprint: another one for another function or other weights.
        resize: before the call; None: not at all.
        device: where it runs.
        channels: 3: grey images are repeated; 1: coloured ones are refused.
    """

    name: str
    call: Callable[[Tensor], Any]
    fingerprint: str
    resize: Resize | None = None
    device: str | torch.device = "cpu"
    channels: int = 3

    def __post_init__(self) -> None:
        usable(self.device)

    def __call__(self, images: Tensor) -> Vectors:
        """Features (n, F) and logits (n, L) or None, float32 or float64 on the CPU.

        Args:
            images: (n, 1 or 3, H, W) uint8.

        Raises:
            InputError: coloured images for a grey network; what comes back is no matrix of n finite
                rows.
        """
        values = self._in_channels(images)
        with torch.no_grad():
            if self.resize is not None:
                place = "cpu" if self.resize.by_pillow else self.device
                values = self.resize(values.to(place))
            found = self.call(values.to(self.device))
        pair = isinstance(found, tuple | list) and len(found) == 2
        features, logits = found if pair else (found, None)
        vectors = self._checked(features, len(images))
        if logits is None:
            return vectors, None
        return vectors, self._checked(logits, len(images)).to(vectors.dtype)

    def _in_channels(self, images: Tensor) -> Tensor:
        if images.shape[1] == self.channels:
            return images
        if self.channels == 3:
            return images.expand(-1, 3, -1, -1)
        if not bool((images == images[:, :1]).all()):
            raise InputError("images", "are coloured", f"{self.name} reads grey images only")
        return images[:, :1]

    def _checked(self, found: Any, count: int) -> Tensor:
        """As float32, or float64 where it is."""
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if (
            not isinstance(found, Tensor)
            or found.ndim != 2
            or len(found) != count
            or not found.numel()
        ):
            problem = f"{self.name} made {shape} of {count} images"
            raise InputError("features", problem, "It must return (n, F) floats, or two of such")
        dtype = torch.float64 if found.dtype == torch.float64 else torch.float32
        vectors = found.detach().to("cpu", dtype)
        if not bool(vectors.isfinite().all()):
            problem = f"{self.name} made NaN or Inf of an image"
            raise InputError("features", problem, "Run it in float32")
        return vectors
