"""Postprocessing in the `mnist` experiment: one flow for all scales, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...data.mnist import MNIST
from ...evaluation.fronts import Measured
from ...fidelity import memorisation
from ...models import UNet
from ...models.classifier import NoisyClassifier
from ...postprocess import Postprocess, classifier_features, pool, train_postprocess
from ...training.diffusion import to_unit_range
from ..draws import Sampling
from ..report import Report
from .sampling import Sampled

SPACES = {"pixels": "pixels", "features": "the judge's features"}  # where neighbours are searched
NEIGHBOURS = 20  # of Tab. 2 in arXiv 2503.10638
SOLVER, SOLVER_STEPS = "flow_heun", 8


@dataclass(frozen=True)
class PostSettings:
    """Settings of the flow: its training, its U-Net (see UNet), and its measurement."""

    steps: int
    batch_size: int = 128
    channels: tuple[int, int] = (32, 64)
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    embedding: int = 128
    memory: int = 1000  # images in each memorisation measurement


@dataclass(frozen=True)
class After:
    """A point before and after the flow of one space."""

    before: Measured
    after: Measured
    space: str


def train_flows(
    report: Report,
    pooled: Sequence[Sampled],
    sampling: Sampling,
    data: MNIST,
    judge: NoisyClassifier,
    settings: PostSettings,
) -> dict[str, Postprocess]:
    """One flow for all scales for each space of neighbours; resumable."""
    generator = torch.Generator().manual_seed(report.seed)
    sets = [each.samples.clamp(-1, 1) for each in pooled]
    total = sum(len(each) for each in sets)
    samples, labels = pool(sets, total, generator, [sampling.labels] * len(sets))
    real = to_unit_range(data.train_images)
    net = partial(UNet, 1, settings.channels, settings.blocks, 2, settings.embedding, num_labels=11)
    flows = {}
    for space, words in SPACES.items():
        report.say(f"training the flow to neighbours in {words}: {settings.steps} steps")
        flows[space] = train_postprocess(
            samples,
            real,
            report.work / "post" / space,
            steps=settings.steps,
            batch_size=settings.batch_size,
            labels=labels,
            num_classes=10,
            k=min(NEIGHBOURS, len(real)),
            features=classifier_features(judge) if space == "features" else None,
            net=net,
            seed=report.seed,
            device=report.device,
            show=False,
            flow={"solver": SOLVER, "steps": SOLVER_STEPS, "batch_size": 100},
        )
    return flows


def memory_rows(
    sets: Mapping[str, Tensor], data: MNIST, count: int, generator: torch.Generator
) -> list[dict[str, Any]]:
    """Pixel distances to the training set of `count` samples of each set, and of test images."""
    train, held = to_unit_range(data.train_images), to_unit_range(data.test_images)
    held = held[torch.randperm(len(held), generator=generator)[:count]]
    return [
        {"set": name} | asdict(memorisation(part[:count].clamp(-1, 1), train, held, count=200))
        for name, part in sets.items()
    ]
