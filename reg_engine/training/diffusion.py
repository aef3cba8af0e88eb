"""The diffusion task: EDM training of the class-conditional U-Net."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.unet import UNet
from ..networks.preconditioning import preconditioning

__all__ = [
    "DiffusionSettings",
    "DiffusionTask",
    "LabelledImages",
    "edm_loss",
    "normal_slices",
    "slices",
    "to_unit_range",
]


@dataclass(frozen=True)
class DiffusionSettings:
    """Settings of the task.

    Args:
        channels, blocks, heads, embedding: of UNet.
        log_sigma_mean, log_sigma_std: of ln(sigma); P_mean and P_std in Karras et al. 2022.
        label_dropout: share of examples trained without their label, for the reference prediction.
        num_classes: labels; the label `num_classes` is the null label.
        sigma_min, sigma_max: noise levels that sampling with this network should span.
    """

    channels: tuple[int, int] = (48, 96)
    blocks: tuple[int, int, int, int] = (1, 3, 3, 1)
    heads: int = 2
    embedding: int = 128
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.2
    label_dropout: float = 0.1
    num_classes: int = 10
    sigma_min: float = 0.002
    sigma_max: float = 80.0


def to_unit_range(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W) or (N, H, W, C) uint8 -> (N, 1 or C, H, W) float32 in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(images))
    values = values.unsqueeze(1) if values.ndim == 3 else values.permute(0, 3, 1, 2).contiguous()
    return values.float() / 127.5 - 1.0


def slices(count: int, generator: torch.Generator) -> Tensor:
    """One uniform draw in each of `count` equal slices of (0, 1), (count,), on the generator's
    device: less variance than independent draws, the same mean."""
    device = generator.device
    drawn = torch.rand(count, generator=generator, device=device)
    return (torch.arange(count, device=device) + drawn) / count


def normal_slices(count: int, generator: torch.Generator) -> Tensor:
    """As `slices`, of the standard normal law."""
    uniform = slices(count, generator)
    return math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.999999, 0.999999))


def edm_loss(
    net: nn.Module, x0: Tensor, noise: Tensor, log_sigma: Tensor, cond: Tensor, sigma_data: float
) -> Tensor:
    """Mean over the batch of lambda(sigma) |denoised - x_0|^2, lambda = 1 / c_out^2.

    Karras et al. 2022 (arXiv 2206.00364), Eq. 8. Written as |net output - (x_0 - c_skip x) /
    c_out|^2, which is the same and does not multiply rounding errors of a half-precision network
    output by lambda.

    Args:
        net: called as net(x, t, cond).
        x0, noise: (B, C, H, W), clean images and unit noise.
        log_sigma: (B,) ln(sigma).
        cond: (B,) labels.
        sigma_data: deviation of the data.
    """
    sigma = log_sigma.exp().reshape(-1, 1, 1, 1)
    x = x0 + sigma * noise
    c_in, c_skip, c_out = preconditioning("edm", torch.ones_like(sigma), sigma, sigma_data)
    output = net(c_in * x, log_sigma / 4, cond)
    return (output.float() - (x0 - c_skip * x) / c_out).square().mean()


class LabelledImages:
    """Grey images with labels, and the deviation of their pixels in the units of [-1, 1].

    Args:
        images: (N, H, W) uint8.
        labels: (N,) integers.
        device: where the network is.
        data: name of the data set; it goes into the description of the weights.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        device: str | torch.device,
        data: str,
    ) -> None:
        self.device, self.source = torch.device(device), data
        self.images = torch.from_numpy(np.ascontiguousarray(images))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels))
        self.size = len(images)
        self.sigma_data = float(np.std(images, dtype=np.float64) / 127.5)


class DiffusionTask(LabelledImages):
    """EDM loss (Karras et al. 2022, Eq. 8) on grey images with labels.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) in [0, num_classes).
        settings: see DiffusionSettings.
        device: where the network is.
        data: name of the data set, and of the task.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        settings: DiffusionSettings | None = None,
        device: str | torch.device = "cpu",
        data: str = "mnist",
    ) -> None:
        super().__init__(images, labels, device, data)
        self.name = data
        self.settings = settings or DiffusionSettings()

    def build(self) -> nn.Module:
        """A new U-Net with a row for the null label."""
        s = self.settings
        return UNet(1, s.channels, s.blocks, s.heads, s.embedding, num_labels=s.num_classes + 1)

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """edm_loss; noise levels, noise and hidden labels come from `generator`."""
        s, count = self.settings, len(indices)
        x0 = to_unit_range(self.images[indices].numpy()).to(self.device)
        cond = self.labels[indices].clone()
        cond[torch.rand(count, generator=generator) < s.label_dropout] = s.num_classes
        log_sigma = s.log_sigma_mean + s.log_sigma_std * normal_slices(count, generator)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        return edm_loss(
            net, x0, noise, log_sigma.to(self.device), cond.to(self.device), self.sigma_data
        )

    def metadata(self, net: nn.Module) -> dict[str, Any]:
        """What a reader needs to make a denoiser of the weights."""
        assert isinstance(net, UNet)
        s = self.settings
        return {
            "architecture": "unet",
            "data": self.source,
            "arguments": net.arguments,
            "prediction": "edm",
            "schedule": {"name": "edm", "sigma_min": s.sigma_min, "sigma_max": s.sigma_max},
            "sigma_data": self.sigma_data,
            "sample_shape": [1, *self.images.shape[1:]],
            "num_classes": s.num_classes,
            "null_cond": s.num_classes,
            "task": asdict(s),
        }
