"""The task of the colour classifier: labels of clean and of noisy pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.classifier import NoisyClassifier
from .colour import ColourImages
from .diffusion import normal_slices

__all__ = ["ColourClassifierSettings", "ColourClassifierTask", "moved"]


@dataclass(frozen=True)
class ColourClassifierSettings:
    """Settings of the task.

    Args:
        channels, features, embedding, blocks: of NoisyClassifier.
        clean_share: share of examples without noise.
        log_sigma_mean, log_sigma_std: of ln(sigma) of the others; cut to [sigma_min, sigma_max].
        sigma_min, sigma_max: see there.
        max_shift: largest random shift in pixels, along either axis.
        num_classes: labels.
    """

    channels: tuple[int, int] = (128, 256)
    features: int = 256
    embedding: int = 128
    blocks: int = 3
    clean_share: float = 0.5
    log_sigma_mean: float = -0.6
    log_sigma_std: float = 1.6
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    max_shift: int = 4
    num_classes: int = 10


class ColourClassifierTask(ColourImages):
    """Cross entropy of a noise-aware classifier of colour images; arguments as ColourTask."""

    name = "cifar10-classifier"

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        settings: ColourClassifierSettings | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(images, labels, device)
        self.settings = settings or ColourClassifierSettings()

    def build(self) -> nn.Module:
        """A new classifier."""
        s = self.settings
        return NoisyClassifier(
            s.channels, s.features, s.embedding, s.num_classes, self.sigma_data, 3, s.blocks
        )

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross entropy; mirroring, shifts, noise levels and noise come from `generator`."""
        s, count, drawn = self.settings, len(indices), self.generator(generator)
        x0, labels = self.batch(indices, drawn)
        x0 = moved(x0, s.max_shift, drawn)
        log_sigma = s.log_sigma_mean + s.log_sigma_std * normal_slices(count, drawn)
        sigma = log_sigma.exp().clamp(s.sigma_min, s.sigma_max)
        clean = torch.rand(count, generator=drawn, device=self.device) < s.clean_share
        sigma = torch.where(clean, 0.0, sigma)
        noise = torch.randn(x0.shape, generator=drawn, device=self.device)
        logits = net(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma)
        return F.cross_entropy(logits.float(), labels)

    def metadata(self, net: nn.Module) -> dict[str, Any]:
        """What a reader needs to build the classifier."""
        assert isinstance(net, NoisyClassifier)
        return {
            "architecture": "classifier",
            "data": "cifar10",
            "arguments": net.arguments,
            "sample_shape": list(self.images.shape[1:]),
            "num_classes": self.settings.num_classes,
            "task": asdict(self.settings),
        }


def moved(images: Tensor, most: int, drawn: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each moved by up to `most` pixels along both axes; edges repeat."""
    count, _, height, width = images.shape
    device = images.device
    offsets = torch.randint(-most, most + 1, (2, count, 1), generator=drawn, device=device)
    rows = (offsets[0] + torch.arange(height, device=device)).clamp(0, height - 1)
    columns = (offsets[1] + torch.arange(width, device=device)).clamp(0, width - 1)
    each = torch.arange(count, device=device)[:, None, None]
    # Indexing with the channels in between puts them last.
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
