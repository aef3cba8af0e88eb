"""The classifier task: labels of clean and of noisy grey images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.classifier import NoisyClassifier
from .diffusion import LabelledImages, to_unit_range

__all__ = ["ClassifierSettings", "ClassifierTask", "accuracy", "shifted"]


@dataclass(frozen=True)
class ClassifierSettings:
    """Settings of the task.

    Args:
        channels, features, embedding: of NoisyClassifier.
        clean_share: share of examples without noise.
        log_sigma_mean, log_sigma_std: of ln(sigma) of the others; cut to [sigma_min, sigma_max].
        sigma_min, sigma_max: see there.
        max_shift: largest random shift in pixels, along either axis.
        num_classes: labels.
    """

    channels: tuple[int, int] = (48, 80)
    features: int = 128
    embedding: int = 64
    clean_share: float = 0.5
    log_sigma_mean: float = -0.2
    log_sigma_std: float = 1.6
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    max_shift: int = 2
    num_classes: int = 10


class ClassifierTask(LabelledImages):
    """Cross entropy of a noise-aware classifier; arguments as DiffusionTask."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        settings: ClassifierSettings | None = None,
        device: str | torch.device = "cpu",
        data: str = "mnist",
    ) -> None:
        super().__init__(images, labels, device, data)
        self.name = f"{data}-classifier"
        self.settings = settings or ClassifierSettings()

    def build(self) -> nn.Module:
        """A new classifier."""
        s = self.settings
        return NoisyClassifier(s.channels, s.features, s.embedding, s.num_classes, self.sigma_data)

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross entropy; shifts, noise levels and noise come from `generator`."""
        s, count = self.settings, len(indices)
        x0 = shifted(to_unit_range(self.images[indices].numpy()), s.max_shift, generator)
        sigma = (s.log_sigma_mean + s.log_sigma_std * torch.randn(count, generator=generator)).exp()
        sigma = sigma.clamp(s.sigma_min, s.sigma_max)
        sigma[torch.rand(count, generator=generator) < s.clean_share] = 0.0
        noise = torch.randn(x0.shape, generator=generator)
        x = x0 + sigma.reshape(-1, 1, 1, 1) * noise
        logits = net(x.to(self.device), sigma.to(self.device))
        return F.cross_entropy(logits.float(), self.labels[indices].to(self.device))

    def metadata(self, net: nn.Module) -> dict[str, Any]:
        """What a reader needs to build the classifier."""
        assert isinstance(net, NoisyClassifier)
        return {
            "architecture": "classifier",
            "data": self.source,
            "arguments": net.arguments,
            "sample_shape": [1, *self.images.shape[1:]],
            "num_classes": self.settings.num_classes,
            "task": asdict(self.settings),
        }


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each moved by up to `most` pixels along both axes; -1 comes in."""
    if most == 0:
        return images
    count, channels, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), value=-1.0)
    offsets = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height))[:, None, :, None]
    columns = (offsets[1] + torch.arange(width))[:, None, None, :]
    row = torch.arange(count)[:, None, None, None]
    return padded[row, torch.arange(channels)[None, :, None, None], rows, columns]


@torch.no_grad()
def accuracy(
    classifier: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batch_size: int = 500,
) -> float:
    """Share of clean images, (N, H, W) or (N, H, W, 3) uint8, whose largest logit is their
    label."""
    device = next(classifier.parameters()).device
    right = 0
    for start in range(0, len(images), batch_size):
        x = to_unit_range(images[start : start + batch_size]).to(device)
        guess = classifier(x, torch.zeros(len(x), device=device)).argmax(1).cpu()
        right += int((guess == torch.from_numpy(labels[start : start + batch_size])).sum())
    return right / len(images)
