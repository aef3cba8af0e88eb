"""The networks of the `mnist` experiment: the packaged ones, and the few trained here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...data.mnist import MNIST
from ...models import description_of, load_classifier, load_model
from ...models.classifier import SIGMA_FLOOR, NoisyClassifier
from ...networks.denoisers import Denoiser
from ...training import Task, TrainConfig, Trainer
from ...training.classification import ClassifierSettings, ClassifierTask, accuracy
from ...training.diffusion import DiffusionSettings, DiffusionTask
from ..draws import CLASSIFIER_METHODS
from ..report import Report

BAD = DiffusionSettings(channels=(16, 32), blocks=(1, 1, 1, 1), heads=1, embedding=64)
# A class is decided at noise levels from about 1 to 5: that is where a guide must be good.
GUIDE = ClassifierSettings(clean_share=0.0, log_sigma_mean=0.7, log_sigma_std=1.2, max_shift=1)
HIDDEN = (256, 256)  # layers of the guide
PERIODS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # of the sines of ln(sigma)/4, about in [-1.6, 1.1]
# The paper draws steps uniformly; of a linear VP schedule those are noise levels about lognormal,
# with median 3.4 and quartiles 1 and 18 (classifier-centric study, arXiv 2503.10638, Sec. 4).
LINEAR = ClassifierSettings(clean_share=0.0, log_sigma_mean=1.2, log_sigma_std=2.5, max_shift=0)
TRAINED = {"bad": 1000, "cg": 4000, "cg-linear": 2000}  # optimizer steps of 128 images


@dataclass(frozen=True)
class Models:
    """What the points are sampled with: the packaged networks, and those trained on images."""

    denoiser: Denoiser
    judge: NoisyClassifier  # features, agreement, confidence; never a guide
    bad: Denoiser | None  # a smaller model trained for a shorter time
    guides: dict[str, nn.Module]  # of classifier guidance, by method
    steps: dict[str, int]  # training steps of what was trained here, and of the packaged model
    accuracy: dict[str, float]  # share of clean test images that each guide reads right

    def serves(self, method: str) -> bool:
        """Whether what a method needs is there."""
        if method == "autoguidance":
            return self.bad is not None
        return method not in CLASSIFIER_METHODS or method in self.guides


class Guide(nn.Module):
    """Logits (B, num_classes) of noisy images x (B, 1, H, W), flattened, at sigma (B,).

    With hidden layers it sees sines of ln(sigma)/4. (At high noise a digit is told by the whole
    picture: there it reads more of them right than the packaged convolutional classifier, with
    fewer operations.) Without, it is one linear layer on (image, ln(sigma)/4), as in the
    classifier-centric study's MNIST runs: its slope cannot follow the noise level, so it is wrong
    at all levels but some.

    Args:
        pixels: number of pixels of an image.
        num_classes: labels.
        sigma_data: deviation of clean pixels.
        hidden: widths of hidden layers.
    """

    def __init__(
        self, pixels: int, num_classes: int, sigma_data: float, hidden: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.sigma_data, self.periods = sigma_data, PERIODS if hidden else ()
        widths = (pixels + (2 * len(PERIODS) if hidden else 1), *hidden, num_classes)
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.Linear(inside, outside), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(x.dtype)[:, None]
        image = (sigma.square() + self.sigma_data**2).rsqrt() * x.flatten(1)  # of unit variance
        time = sigma.clamp(min=SIGMA_FLOOR).log() / 4
        if self.periods:
            phase = time * (2 * math.pi / torch.tensor(self.periods, dtype=x.dtype).to(x.device))
            time = torch.cat([phase.cos(), phase.sin()], 1)
        return self.layers(torch.cat([image, time], 1))


class GuideTask(ClassifierTask):
    """Cross entropy of a Guide with `hidden` layers; the other arguments as ClassifierTask."""

    def __init__(self, hidden: tuple[int, ...], *given: Any) -> None:
        super().__init__(*given)
        self.hidden = hidden

    def build(self) -> nn.Module:
        pixels = self.images.shape[1] * self.images.shape[2]
        return Guide(pixels, self.settings.num_classes, self.sigma_data, self.hidden)


def load_models(report: Report, data: MNIST | None, steps: dict[str, int]) -> Models:
    """The packaged networks, and the bad model and the guides trained on `data`.

    Args:
        report: what is finished in its work is read, what was stopped there goes on.
        data: training images; None: only the packaged networks.
        steps: optimizer steps of "bad", "cg" and "cg-linear".

    Raises:
        KeyboardInterrupt: a signal stopped the training; the same command goes on with it.
    """
    device = report.device
    name = report.data_set
    own = {"packaged": description_of(name).get("step", 0)}
    denoiser, judge = load_model(name), load_classifier(name).to(device)
    # A CPU's convolutions are a fifth faster so.
    denoiser.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    if data is None:
        return Models(denoiser, judge, None, {}, own, {})
    images, labels = data.train_images, data.train_labels
    task = DiffusionTask(images, labels, BAD, device)
    # The packaged model's own sigma_data, so that both see inputs of the same size.
    task.sigma_data = denoiser.sigma_data
    bad = Denoiser(
        _trained(report, "bad", task, steps),
        "edm",
        denoiser.schedule,
        denoiser.sample_shape,
        denoiser.null_cond,
        sigma_data=denoiser.sigma_data,
        num_classes=denoiser.num_classes,
    )
    tasks = {
        "cg": GuideTask(HIDDEN, images, labels, GUIDE, device),
        "cg-linear": GuideTask((), images, labels, LINEAR, device),
    }
    guides = {name: _trained(report, name, each, steps) for name, each in tasks.items()}
    right = {
        name: accuracy(net, data.test_images, data.test_labels) for name, net in guides.items()
    }
    return Models(denoiser, judge, bad, guides, steps | own, right)


def _trained(report: Report, name: str, task: Task, steps: dict[str, int]) -> nn.Module:
    """The averaged network of a run, which goes on where it was stopped."""
    config = TrainConfig(steps[name], seed=report.seed, warmup=min(100, steps[name] // 10))
    folder = report.work / "models" / name
    trainer = Trainer(task, config, folder, device=report.device, show=False)
    if trainer.step < config.steps:
        report.say(f"training {name}: {config.steps} steps of {config.batch_size} images")
    if not trainer.run():
        raise KeyboardInterrupt  # its state is saved
    net = task.build().to(report.device)
    net.load_state_dict({**net.state_dict(), **trainer.average.state})
    averaged: nn.Module = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return averaged.eval()
