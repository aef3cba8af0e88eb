"""What the `postprocess` experiment trains: a flow towards few, more and all real images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...data.mnist import MNIST, load_data_set
from ...models import UNet
from ...postprocess import Postprocess, train_postprocess
from ...training.diffusion import to_unit_range
from ..draws import Point, Sampling
from ..mnist.models import load_models
from ..mnist.sampling import TIMES, Sampled, sample_points
from ..report import Report

SOLVER, SOLVER_STEPS = "flow_heun", 8
SCALE = 2.75  # of the samples in the paper's App. B.2
MEASURED = (1.0, SCALE)  # guidance scales of the samples that are moved
POOL = (1.0, 2.0, 3.0)  # of those that the flows are trained on, a third each (its App. B.1)
NEIGHBOURS = 20  # of its Tab. 2


@dataclass(frozen=True)
class Settings:
    """Sizes of a run.

    Args:
        sampling: of every point.
        times: noise levels of the solver.
        real: how many real images each flow is trained towards, rising; the last stands for all.
        steps, batch_size: of each flow's training.
        channels, embedding: of its U-Net.
        own: the flow's own guidance scales that are tried.
        replicates: of the bootstrap.
        train, test: images that are used, at most.
    """

    sampling: Sampling
    times: tuple[float, ...] = TIMES
    real: tuple[int, ...] = (100, 1000, 60_000)
    steps: int = 1000
    batch_size: int = 64
    channels: tuple[int, int] = (16, 32)
    embedding: int = 64
    own: tuple[float, ...] = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
    replicates: int = 300
    train: int = 60_000
    test: int = 10_000


def settings_of(report: Report) -> Settings:
    """Of a full or a quick run."""
    device = str(report.device)
    if not report.quick:
        count, batch_size = (10_000, 500) if report.device.type == "cuda" else (1000, 50)
        return Settings(Sampling(count, report.seed, batch_size, device))
    sampling = Sampling(40, report.seed, device=device)
    small = {"real": (20, 200), "steps": 20, "batch_size": 16, "channels": (16, 32)}
    few = {"own": (1.0, 3.0), "replicates": 20, "train": 200, "test": 60, "embedding": 32}
    return Settings(sampling, TIMES[::2], **small, **few)  # type: ignore[arg-type]


def without_data(report: Report) -> bool:
    """Whether this is a quick run that was given no images."""
    return report.quick and report.data is None and not os.environ.get("REG_ENGINE_DATA")


def load_data(report: Report, settings: Settings) -> MNIST:
    """The images as far as they are used; in a quick run without any, the model's own.

    Raises:
        InputError: the data that was given is not there, or another data set.
    """
    if without_data(report):
        report.say("no --data: the packaged model draws stand-ins for real images")
        return _stand_ins(report, settings)
    found = load_data_set(report.data_set, report.data)
    train, test = settings.train, settings.test
    return found.first(train, test)


def _stand_ins(report: Report, settings: Settings) -> MNIST:
    count = settings.train + settings.test
    sampling = replace(settings.sampling, count=count, seed=report.seed + 1)
    drawn = sample(report, [1.0], replace(settings, sampling=sampling), "stand-ins")[0].samples
    images = ((drawn[:, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    labels = sampling.labels.numpy()
    train = settings.train
    return MNIST(images[:train], labels[:train], images[train:], labels[train:])


def sample(
    report: Report, scales: Sequence[float], settings: Settings, folder: str, pool: bool = False
) -> list[Sampled]:
    """Samples of CFG at `scales`, by the packaged model; resumable."""
    models = load_models(report, None, {})
    points = [Point("vanilla", scale, pool=pool) for scale in scales]
    work = report.work / folder
    return sample_points(points, models, settings.sampling, settings.times, work, report.say)


def chosen(labels: np.ndarray, count: int, generator: torch.Generator) -> Tensor:
    """Places of `count` examples, as many of each label as there are to have, in rising order.

    A smaller count from a generator of the same state gives a part of a larger one's.
    """
    order = torch.randperm(len(labels), generator=generator)
    kinds = torch.from_numpy(labels)[order]
    rank = torch.empty(len(labels), dtype=torch.long)  # how many of its label stand before it
    for kind in kinds.unique():
        own = kinds == kind
        rank[own] = torch.arange(int(own.sum()))
    return order[rank.argsort(stable=True)[:count]].sort().values


def train_flow(
    report: Report, settings: Settings, pool: Sequence[Sampled], data: MNIST, count: int
) -> tuple[Postprocess, Tensor]:
    """A flow for all scales towards `count` real images, and these; resumable.

    It is class-conditional, and saw the null label for a tenth of its samples.

    Raises:
        KeyboardInterrupt: a signal stopped the training; the same command goes on with it.
    """
    samples = torch.cat([each.samples for each in pool]).clamp(-1, 1)  # as pictures hold them
    real = to_unit_range(data.train_images[chosen(data.train_labels, count, report.generator(3))])
    report.say(f"training the flow towards {len(real)} real images: {settings.steps} steps")
    sizes = (settings.channels, (1, 1, 1, 1), 2, settings.embedding)
    flow = train_postprocess(
        samples,
        real,
        report.work / f"flow-{count}",
        steps=settings.steps,
        batch_size=settings.batch_size,
        labels=settings.sampling.labels.repeat(len(pool)),
        num_classes=10,
        k=NEIGHBOURS,
        net=partial(UNet, 1, *sizes, num_labels=11),
        seed=report.seed,
        device=report.device,
        show=False,
        flow={"solver": SOLVER, "steps": SOLVER_STEPS, "batch_size": 100},
    )
    return flow, real
