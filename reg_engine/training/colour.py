"""The tasks of colour models: a rectified flow or an EDM model with diffusers' U-Net.

Images lie on the device, and what a step draws is drawn there: from a generator that the trainer's
own seeds, so a run still repeats and resumes exactly (on one kind of device), and the host's work
stays far below the step's on a GPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import InputError, choice
from ..models.unet2d import UNet2D
from ..noise import seed_dropout
from .diffusion import edm_loss, normal_slices, slices

__all__ = ["ColourImages", "ColourSettings", "ColourTask", "flow_loss"]

TIME_SCALES = {"flow": 1000.0, "edm": 100.0}  # of t in [0, 1], and of ln(sigma)/4 in [-1.6, 1.1]


def flow_loss(net: nn.Module, x0: Tensor, noise: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Mean of |net(x_t, t, cond) - (noise - x_0)|^2 at x_t = (1 - t) x_0 + t noise: rectified flow
    (Liu et al. 2022, arXiv 2209.03003, Eq. 1, with this project's time, 1 = noise).

    Args:
        net: called as net(x, t, cond).
        x0, noise: (B, C, H, W).
        t: (B,) in [0, 1].
        cond: (B,) labels.
    """
    time = t.reshape(-1, 1, 1, 1)
    output = net((1 - time) * x0 + time * noise, t, cond)
    return (output.float() - (noise - x0)).square().mean()


class ColourImages:
    """Colour images with labels on a device, and the deviation of their pixels in [-1, 1].

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) integers.
        device: where the network is.

    Raises:
        InputError: images of another kind.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: str | torch.device
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(
                "images", f"are {images.dtype} {images.shape}", "Give (N, H, W, 3) uint8"
            )
        self.device = torch.device(device)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.images = pixels.contiguous().to(self.device)
        self.labels = torch.from_numpy(np.ascontiguousarray(labels)).to(self.device)
        self.size = len(images)
        self.sigma_data = _deviation(self.images)

    def generator(self, generator: torch.Generator) -> torch.Generator:
        """A generator on the device, a function of the trainer's; that itself on the CPU."""
        if self.device.type == "cpu":
            return generator
        return torch.Generator(self.device).manual_seed(_seed(generator))

    def batch(self, indices: Tensor, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) float32 in [-1, 1], each mirrored or not, and labels (B,)."""
        indices = indices.to(self.device, non_blocking=True)
        x0 = self.images[indices].float() / 127.5 - 1.0
        mirror = torch.rand(len(indices), generator=drawn, device=self.device) < 0.5
        return torch.where(mirror[:, None, None, None], x0.flip(3), x0), self.labels[indices]


@dataclass(frozen=True)
class ColourSettings:
    """Settings of the task.

    Args:
        prediction: "flow" (rectified flow, t uniform) or "edm" (Karras et al. 2022).
        channels, multipliers, blocks, attention, head_width, dropout: of UNet2D.
        log_sigma_mean, log_sigma_std: of ln(sigma) in EDM training, P_mean and P_std there.
        label_dropout: share of examples trained without their label, for the reference prediction.
        num_classes: labels; the label `num_classes` is the null label.
        sigma_min, sigma_max: noise levels that sampling with an EDM network should span.
    """

    prediction: str = "flow"
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    head_width: int = 64
    dropout: float = 0.1
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    label_dropout: float = 0.1
    num_classes: int = 10
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        choice("prediction", self.prediction, TIME_SCALES)


class ColourTask(ColourImages):
    """flow_loss or edm_loss of a class-conditional UNet2D on colour images with labels.

    Args:
        images: (N, H, W, 3) uint8, square.
        labels: (N,) in [0, num_classes).
        settings: see ColourSettings.
        device: where the network is.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        settings: ColourSettings | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(images, labels, device)
        self.settings = settings or ColourSettings()
        # Checkpoints name the task: those of a flow and of an EDM model must not mix.
        self.name = "cifar10" if self.settings.prediction == "flow" else "cifar10-edm"

    def build(self) -> nn.Module:
        """A new U-Net with a row for the null label."""
        s = self.settings
        return UNet2D(
            3,
            self.images.shape[2],
            s.channels,
            s.multipliers,
            s.blocks,
            s.attention,
            s.head_width,
            s.dropout,
            s.num_classes + 1,
            TIME_SCALES[s.prediction],
        )

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """flow_loss or edm_loss; all that is random comes from `generator`, dropout's masks too."""
        s, count, drawn = self.settings, len(indices), self.generator(generator)
        if s.dropout:
            seed_dropout(_seed(generator), self.device)
        x0, cond = self.batch(indices, drawn)
        hidden = torch.rand(count, generator=drawn, device=self.device) < s.label_dropout
        cond = torch.where(hidden, s.num_classes, cond)
        noise = torch.randn(x0.shape, generator=drawn, device=self.device)
        if s.prediction == "flow":
            return flow_loss(net, x0, noise, slices(count, drawn), cond)
        log_sigma = s.log_sigma_mean + s.log_sigma_std * normal_slices(count, drawn)
        return edm_loss(net, x0, noise, log_sigma, cond, self.sigma_data)

    def metadata(self, net: nn.Module) -> dict[str, Any]:
        """What a reader needs to make a denoiser of the weights."""
        assert isinstance(net, UNet2D)
        s = self.settings
        schedule: dict[str, Any] = {"name": s.prediction}
        if s.prediction == "edm":
            schedule |= {"sigma_min": s.sigma_min, "sigma_max": s.sigma_max}
        return {
            "architecture": "unet2d",
            "data": "cifar10",
            "arguments": net.arguments,
            "prediction": s.prediction,
            "schedule": schedule,
            "sigma_data": self.sigma_data,
            "sample_shape": list(self.images.shape[1:]),
            "num_classes": s.num_classes,
            "null_cond": s.num_classes,
            "task": asdict(s),
        }


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _deviation(images: Tensor) -> float:
    """Standard deviation of (N, 3, H, W) uint8 values in the units of [-1, 1], exact sums."""
    total = square = 0
    for part in images.split(1000):
        values = part.long()
        total, square = total + int(values.sum()), square + int((values * values).sum())
    count = images.numel()
    return float(np.sqrt(square / count - (total / count) ** 2) / 127.5)
