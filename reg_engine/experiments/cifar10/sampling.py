"""Sampling, postprocessing and scoring of the `cifar10` experiment's points; all resumable."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.cifar10 import CIFAR10
from ...engine import Engine
from ...loop.stats import Stats
from ...models import UNet2D
from ...networks.denoisers import Denoiser
from ...postprocess import Postprocess, dinov2_features, train_postprocess
from ...resume import digest, run_resumable
from ...storage.files import write_whole
from ...storage.readers import read_json
from ...storage.shards import Shards
from ...training import TrainConfig
from ...training.colour import ColourTask
from ...training.diffusion import to_unit_range
from ...training.tasks import plan_steps
from ..classifier_guidance import unlabelled
from ..draws import Draws
from ..mnist.grid import CLASSIFIER_METHODS, Point, guidance_of
from ..report import Report
from .models import Models, Sizes, to_device
from .scores import Ruler

__all__ = ["Base", "Post", "Row", "Sampling", "bases", "evaluate", "posts_of", "train_posts"]

FLOW_SCALES = (1.25, 1.5, 1.75, 2.25, 2.5, 2.75)  # columns of the paper's Tab. 2
EDM_SCALES = (1.75, 2.25, 2.5, 2.75, 3.25, 3.5, 3.75, 4.0)  # of its Tab. 3
CLASSIFIER_WEIGHTS = (1.0, 2.0, 4.0)  # the paper has no classifier guidance on CIFAR-10
POOL_SCALES = (1.0, 2.0, 3.0)  # a third of the training samples each (App. B.1)
ESTIMATOR = "vjp"
NOISIEST = 80 / 81  # flow time of sigma/alpha = 80: a classifier says nothing at t = 1
SHOWN = 10  # samples of each point that are kept for the pictures


@dataclass(frozen=True)
class Sampling(Draws):
    """How every point is sampled.

    Args:
        count: samples a point, equally many of each label.
        seed: of the report.
        batch_size: samples a batch, one file each.
        device: where to sample.
    """

    count: int
    seed: int = 0
    batch_size: int = 125
    device: str = "cpu"


@dataclass(frozen=True)
class Base:
    """A base model and what is sampled from it.

    Args:
        name: "flow" or "edm".
        denoiser: the model.
        solver, steps: of sampling.
        points: see Point.
    """

    name: str
    denoiser: Denoiser
    solver: str
    steps: int
    points: tuple[Point, ...]


def bases(models: Models, sizes: Sizes) -> list[Base]:
    """Every point: each scale with and without REG; in a tiny run one scale of each kind."""
    tiny = sizes.minutes is None
    flow, edm = ((1.5,), (2.25,)) if tiny else (FLOW_SCALES, EDM_SCALES)
    weights = (2.0,) if tiny else CLASSIFIER_WEIGHTS
    flow_steps, edm_steps, _ = sizes.solver_steps
    guided = _pairs("vanilla", flow) + [Point("cg", 0.0)] + _pairs("cg", weights)
    plain = [Point("vanilla", 1.0)]
    return [
        Base("flow", models.flow, "flow_heun", flow_steps, (*plain, *guided)),
        Base("edm", models.edm, "heun", edm_steps, (*plain, *_pairs("vanilla", edm))),
    ]


def _pairs(method: str, scales: Iterable[float]) -> list[Point]:
    return [Point(method, scale, rectify) for scale in scales for rectify in ("none", ESTIMATOR)]


def _engine(base: Base, point: Point, models: Models, sampling: Sampling) -> Engine:
    denoiser, options = base.denoiser, {}
    if point.method in CLASSIFIER_METHODS:
        denoiser = unlabelled(denoiser)
        options["times"] = np.linspace(NOISIEST, 0.0, base.steps + 1).tolist()
    return Engine(
        denoiser,
        guidance=guidance_of(point, guide=models.guide),
        solver=base.solver,
        solver_options=options,
        steps=base.steps,
        batch_size=sampling.batch_size,
        device=sampling.device,
        progress=False,
    )


def _sample(
    base: Base, point: Point, models: Models, sampling: Sampling, folder: Path
) -> tuple[Tensor, Stats, Shards]:
    settings = {"weights": models.digests[base.name], "steps": base.steps, **vars(sampling)}
    shards = Shards(folder / f"{base.name}-{point.name}", settings)
    engine = _engine(base, point, models, sampling)
    seeds = sampling.seeds(point)
    return *run_resumable(engine, sampling.labels, seeds, shards, point.name), shards


# Postprocessing


@dataclass(frozen=True)
class Post:
    """A postprocessing flow: the space its neighbours are searched in, and how many there are."""

    space: str  # "pixel", "cls" or "patches" (DINOv2)
    k: int

    @property
    def name(self) -> str:
        """For files and tables."""
        return f"{self.space}-{self.k}"


def posts_of(base: str, report: Report, sizes: Sizes) -> list[Post]:
    """Rows 2 to 5 of the paper's Tab. 2; without DINOv2 weights row 2 alone."""
    if "neighbours" not in report.options:
        return [Post("pixel", sizes.k)]
    best = Post("patches", sizes.k)
    if base == "edm":
        return [best]
    return [Post("pixel", sizes.k), Post("cls", sizes.k), best, Post("patches", 2 * sizes.k)]


def train_posts(
    base: Base, report: Report, sizes: Sizes, models: Models, data: CIFAR10, sampling: Sampling
) -> dict[str, Postprocess]:
    """Flows of `base` by name, each trained on its samples at POOL_SCALES, for all scales.

    Raises:
        KeyboardInterrupt: a signal stopped the training; the same command goes on with it.
    """
    pool, labels = [], []
    for scale in POOL_SCALES:
        point = Point("vanilla", scale, pool=True)
        report.say(f"sampling {base.name} at {scale:g} for postprocessing")
        pool.append(_sample(base, point, models, sampling, report.work / "pools")[0])
        labels.append(sampling.labels)
    real = to_unit_range(data.train_images)
    steps, found = _post_steps(report, sizes, data), {}
    samples = torch.cat(pool).clamp(-1.0, 1.0)  # as pictures hold them
    for post in posts_of(base.name, report, sizes):
        report.say(f"training postprocessing {base.name} {post.name}: {steps} steps")
        features = None
        if post.space != "pixel":
            features = dinov2_features(
                report.options["neighbours"], post.space, device=report.device
            )
        found[post.name] = train_postprocess(
            samples,
            real,
            report.work / f"post-{base.name}-{post.name}",
            steps=steps,
            batch_size=sizes.batch_size,
            lr=sizes.lr,
            labels=torch.cat(labels),
            num_classes=10,
            k=post.k,
            features=features,
            net=partial(_network, sizes),
            seed=report.seed,
            device=report.device,
            show=sizes.minutes is not None,
            flow={"solver": "flow_heun", "steps": sizes.solver_steps[2]},
            warmup=min(500, steps // 2),
            dtype=_dtype(report),
        )
        to_device(found[post.name].denoiser, report.device)
    return found


def _network(sizes: Sizes) -> UNet2D:
    c = sizes.colour
    # No dropout: its masks are not among what a resumed run of FlowTask draws again.
    return UNet2D(3, 32, c.channels, c.multipliers, c.blocks, c.attention, c.head_width, 0.0, 11)


def _dtype(report: Report) -> str:
    return "bfloat16" if report.device.type == "cuda" else "float32"


def _post_steps(report: Report, sizes: Sizes, data: CIFAR10) -> int:
    """Steps that fit into the minutes of one flow; measured once, for its network is the base's."""
    if sizes.minutes is None:
        return sizes.steps
    key = digest(sizes.colour, sizes.batch_size, sizes.minutes["post"], report.device)
    note = report.work / f"post_steps-{key[:16]}.json"
    if not note.exists():
        task = ColourTask(data.train_images, data.train_labels, sizes.colour, report.device)
        config = TrainConfig(steps=1, batch_size=sizes.batch_size, dtype=_dtype(report))
        steps = plan_steps(task, config, str(report.device), 1.0, sizes.minutes["post"])
        write_whole(note, json.dumps(steps).encode(), "--out")
    return int(read_json(note, "--out", "Delete it"))


# Points


@dataclass(frozen=True)
class Row:
    """A point, before (`post` None) or after a postprocessing flow: scores and first samples."""

    base: str
    point: Point
    post: str | None
    scores: dict[str, Any]
    first: Tensor  # (SHOWN, 3, 32, 32)


def evaluate(
    base: Base,
    report: Report,
    models: Models,
    ruler: Ruler,
    flows: dict[str, Postprocess],
    sampling: Sampling,
) -> list[Row]:
    """Every point of `base`, as it is and after each flow. What is scored is kept on disk."""
    key = {
        "models": models.digests,
        "steps": base.steps,
        "posts": {name: digest(f.denoiser, f.solver, f.steps) for name, f in flows.items()},
        "ruler": digest(ruler.features, ruler.name, ruler.count),
        **vars(sampling),
    }
    kept, rows = Shards(report.work / f"scores-{base.name}", key), []
    for number, point in enumerate(base.points, 1):
        names = {post: f"{point.name}-{post or 'plain'}" for post in (None, *flows)}
        done = {post: kept.load(name) for post, name in names.items()}
        if any(found is None for found in done.values()):
            drawn = _sample(base, point, models, sampling, report.work / "points")
            samples, stats, shards = drawn[0].clamp(-1.0, 1.0), *drawn[1:]
            for post, name in names.items():
                moved = samples if post is None else _moved(flows[post], samples, sampling)
                scores = ruler.scores(moved, sampling.labels, report.generator(92))
                scores |= {"nfe": stats.nfe, "seconds": stats.seconds}
                scores["post_nfe"] = 0.0 if post is None else flows[post].stats.nfe
                kept.store(name, moved[:SHOWN], scores)
                done[post] = kept.load(name)
            shards.remove()
        for post, found in done.items():
            assert found is not None  # stored above
            rows.append(Row(base.name, point, post, found[1], found[0]))
        report.say(f"{base.name} {number}/{len(base.points)} {point.name}")
    return rows


def _moved(flow: Postprocess, samples: Tensor, sampling: Sampling) -> Tensor:
    batches = zip(
        samples.split(sampling.batch_size), sampling.labels.split(sampling.batch_size), strict=True
    )
    return torch.cat([flow(part, labels) for part, labels in batches])
