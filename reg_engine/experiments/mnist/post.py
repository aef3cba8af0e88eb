"""Postprocessing in the `mnist` experiment: one flow for all scales, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.mnist import MNIST
from ...fidelity import memorisation
from ...models import UNet
from ...models.classifier import NoisyClassifier
from ...postprocess import Postprocess, classifier_features, pool, train_postprocess
from ...training.diffusion import to_unit_range
from .grid import Point
from .measures import Bench, Measured
from .sampling import Sampled

__all__ = ["SPACES", "After", "PostSettings", "memory_rows", "postprocess_points", "train_flows"]

SPACES = {"pixels": "pixels", "features": "the judge's features"}  # where neighbours are searched
NEIGHBOURS = 20  # of Tab. 2 in arXiv 2503.10638
SOLVER, SOLVER_STEPS = "flow_heun", 8


@dataclass(frozen=True)
class PostSettings:
    """Settings of the flow.

    Args:
        steps, batch_size: of training.
        channels, blocks, embedding: of the U-Net, see UNet.
        memory: images in each memorisation measurement.
    """

    steps: int
    batch_size: int = 128
    channels: tuple[int, int] = (32, 64)
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    embedding: int = 128
    memory: int = 1000


@dataclass(frozen=True)
class After:
    """A point before and after one flow, and the samples after it."""

    before: Measured
    after: Measured
    space: str
    samples: Tensor


def train_flows(
    sampled: Sequence[Sampled],
    labels: Tensor,
    data: MNIST,
    judge: NoisyClassifier,
    settings: PostSettings,
    folder: Path,
    seed: int,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Postprocess]:
    """One flow for all scales for each space of neighbours.

    Args:
        sampled: the pool's points.
        labels: (N,) of each of them.
        data: its training images are the real ones.
        judge: gives the features.
        folder: of the runs, resumable.
    """
    generator = torch.Generator().manual_seed(seed)
    sets = [each.samples.clamp(-1, 1) for each in sampled]
    total = sum(len(each) for each in sets)
    samples, own = pool(sets, total, generator, [labels] * len(sets))
    real = to_unit_range(data.train_images)
    flows = {}
    for space in SPACES:
        say(f"training the flow to neighbours in {SPACES[space]}: {settings.steps} steps")
        flows[space] = train_postprocess(
            samples,
            real,
            folder / space,
            steps=settings.steps,
            batch_size=settings.batch_size,
            labels=own,
            num_classes=10,
            k=min(NEIGHBOURS, len(real)),
            features=classifier_features(judge) if space == "features" else None,
            net=partial(
                UNet, 1, settings.channels, settings.blocks, 2, settings.embedding, num_labels=11
            ),
            seed=seed,
            device=device,
            show=False,
            flow={"solver": SOLVER, "steps": SOLVER_STEPS, "batch_size": 100},
        )
    return flows


def postprocess_points(
    flows: dict[str, Postprocess],
    sampled: Sequence[Sampled],
    measured: dict[Point, Measured],
    bench: Bench,
    say: Callable[[str], None],
) -> list[After]:
    """Every point moved by every flow, and measured again."""
    found = []
    for each in sampled:
        for space, flow in flows.items():
            moved = flow(each.samples.clamp(-1, 1), bench.labels)
            cost = dict(each.cost)
            cost["nfe"] += flow.stats.nfe
            after = bench(each.point, moved, cost)
            before = measured[each.point]
            say(f"{each.point.name}: FID {before.row['fid']:.3f} -> {after.row['fid']:.3f} {space}")
            found.append(After(before, after, space, moved))
    return found


def memory_rows(
    sets: dict[str, Tensor], data: MNIST, count: int, generator: torch.Generator
) -> list[dict[str, Any]]:
    """Distances to the training set against those of test images, in pixels (fidelity.py).

    Args:
        sets: name -> samples (N, 1, 28, 28).
        data: its test images are what was held out.
        count: samples of each set, and test images.
    """
    train, held = to_unit_range(data.train_images), to_unit_range(data.test_images)
    held = held[torch.randperm(len(held), generator=generator)[:count]]
    return [
        {"set": name} | asdict(memorisation(part[:count].clamp(-1, 1), train, held, count=200))
        for name, part in sets.items()
    ]
