"""The networks of the `mnist` experiment: the packaged ones, and the few trained here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...data.mnist import MNIST
from ...models import load_classifier, load_model
from ...models.classifier import SIGMA_FLOOR, NoisyClassifier
from ...networks.denoisers import Denoiser
from ...training import Task, TrainConfig, Trainer
from ...training.classification import ClassifierSettings, ClassifierTask, accuracy
from ...training.diffusion import DiffusionSettings, DiffusionTask
from .grid import CLASSIFIER_METHODS

__all__ = [
    "TRAINED",
    "GuideNet",
    "GuideTask",
    "LinearClassifier",
    "Models",
    "load_models",
]

BAD = DiffusionSettings(channels=(16, 32), blocks=(1, 1, 1, 1), heads=1, embedding=64)
# A class is decided at noise levels from about 1 to 5: that is where a guide must be good.
GUIDE = ClassifierSettings(clean_share=0.0, log_sigma_mean=0.7, log_sigma_std=1.2, max_shift=1)
WIDTH = 256  # of the guide's hidden layers
PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # of the sines of ln(sigma)/4, about in [-1.6, 1.1]
# The paper draws steps uniformly; of a linear VP schedule those are noise levels about lognormal,
# with median 3.4 and quartiles 1 and 18 (classifier-centric study, arXiv 2503.10638, Sec. 4).
LINEAR = ClassifierSettings(clean_share=0.0, log_sigma_mean=1.2, log_sigma_std=2.5, max_shift=0)
TRAINED = {"bad": 1000, "cg": 4000, "cg-linear": 2000}  # optimizer steps of 128 images


@dataclass(frozen=True)
class Models:
    """What the points are sampled with.

    Args:
        denoiser: the packaged model.
        judge: the packaged classifier: features, agreement, confidence; never a guide.
        bad: a smaller model trained for a shorter time; None without training images.
        guides: of classifier guidance, by method; empty without training images.
        steps: training steps of what was trained here.
        accuracy: share of clean test images that each guide reads right.
    """

    denoiser: Denoiser
    judge: NoisyClassifier
    bad: Denoiser | None
    guides: dict[str, nn.Module]
    steps: dict[str, int]
    accuracy: dict[str, float]

    def serves(self, method: str) -> bool:
        """Whether what a method of mnist_grid needs is there."""
        if method == "autoguidance":
            return self.bad is not None
        return method not in CLASSIFIER_METHODS or method in self.guides


class LinearClassifier(nn.Module):
    """One linear layer on (flattened noisy image of unit variance, ln(sigma)/4): (B, num_classes).

    The classifier of the classifier-centric study's MNIST runs (a linear layer on image and step).
    Its slope cannot follow the noise level, so it is wrong at all levels but some.

    Args:
        pixels: number of pixels of an image.
        num_classes: labels.
        sigma_data: deviation of clean pixels.
    """

    def __init__(self, pixels: int, num_classes: int, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.layer = nn.Linear(pixels + 1, num_classes)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(x.dtype)
        scale = (sigma.square() + self.sigma_data**2).rsqrt()
        time = sigma.clamp(min=SIGMA_FLOOR).log() / 4
        return self.layer(torch.cat([scale[:, None] * x.flatten(1), time[:, None]], dim=1))


class GuideTask(ClassifierTask):
    """Cross entropy of a guide: `make` is called with pixels, num_classes and sigma_data.

    The other arguments as ClassifierTask.
    """

    def __init__(self, make: Callable[..., nn.Module], *given: Any) -> None:
        super().__init__(*given)
        self.make = make

    def build(self) -> nn.Module:
        pixels = self.images.shape[1] * self.images.shape[2]
        return self.make(pixels, self.settings.num_classes, self.sigma_data)


class GuideNet(nn.Module):
    """Two hidden layers on (flattened noisy image of unit variance, sines of ln(sigma)/4).

    At high noise a digit is told by the whole picture: there it reads more of them right than the
    packaged convolutional classifier, with fewer operations. Arguments as LinearClassifier.
    """

    def __init__(self, pixels: int, num_classes: int, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.layers = nn.Sequential(
            nn.Linear(pixels + 2 * len(PERIODS), WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, num_classes),
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(x.dtype)
        scale = (sigma.square() + self.sigma_data**2).rsqrt()
        time = sigma.clamp(min=SIGMA_FLOOR).log()[:, None] / 4
        phase = time * (2 * math.pi / torch.tensor(PERIODS, dtype=x.dtype, device=x.device))
        return self.layers(torch.cat([scale[:, None] * x.flatten(1), phase.cos(), phase.sin()], 1))


def load_models(
    data: MNIST | None,
    folder: Path,
    steps: dict[str, int],
    seed: int,
    device: torch.device,
    say: Callable[[str], None],
) -> Models:
    """The packaged networks, and the bad model and the guides trained on `data`.

    Args:
        data: training images; None: only the packaged networks.
        folder: of the runs; what is finished there is read, what was stopped goes on.
        steps: optimizer steps of "bad", "cg" and "cg-linear".
        seed: of the training.
        device: where to train and sample.
        say: hears what goes on.
    """
    denoiser, judge = load_model("mnist"), load_classifier("mnist").to(device)
    # A CPU's convolutions are a fifth faster so.
    denoiser.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    if data is None:
        return Models(denoiser, judge, None, {}, {}, {})
    images, labels = data.train_images, data.train_labels

    def trained(name: str, task: Task) -> nn.Module:
        config = TrainConfig(steps[name], seed=seed, warmup=min(100, steps[name] // 10))
        return _trained(task, config, folder / name, device, say)

    task = DiffusionTask(images, labels, BAD, device)
    # The packaged model's own sigma_data, so that both see inputs of the same size.
    task.sigma_data = denoiser.sigma_data
    bad = Denoiser(
        trained("bad", task),
        "edm",
        denoiser.schedule,
        denoiser.sample_shape,
        denoiser.null_cond,
        sigma_data=denoiser.sigma_data,
        num_classes=denoiser.num_classes,
    )
    guides: dict[str, Any] = {
        "cg": trained("cg", GuideTask(GuideNet, images, labels, GUIDE, device)),
        "cg-linear": trained(
            "cg-linear", GuideTask(LinearClassifier, images, labels, LINEAR, device)
        ),
    }
    right = {
        name: accuracy(net, data.test_images, data.test_labels) for name, net in guides.items()
    }
    return Models(denoiser, judge, bad, guides, dict(steps), right)


def _trained(
    task: Task, config: TrainConfig, folder: Path, device: torch.device, say: Callable[[str], None]
) -> nn.Module:
    """The averaged network of a run, which goes on where it was stopped."""
    trainer = Trainer(task, config, folder, device=device, show=False)
    if trainer.step < config.steps:
        say(f"training {folder.name}: {config.steps} steps of {config.batch_size} images")
    if not trainer.run():
        raise KeyboardInterrupt  # its state is saved: the same command goes on
    net: Any = task.build().to(device)
    net.load_state_dict({**net.state_dict(), **trainer.average.state})
    averaged: nn.Module = net.to(memory_format=torch.channels_last).eval()
    return averaged
