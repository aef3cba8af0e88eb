"""Sampling, postprocessing and scoring of the `cifar10` experiment's points; all resumable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.cifar10 import CIFAR10
from ...engine import Engine
from ...evaluation.bench import Bench
from ...loop.stats import Stats
from ...models import UNet2D
from ...networks.denoisers import Denoiser
from ...postprocess import Postprocess, dinov2_features, train_postprocess
from ...resume import digest, run_resumable
from ...storage.files import write_whole
from ...storage.readers import read_json
from ...storage.shards import Shards
from ...training import PieceOver, TrainConfig
from ...training.colour import ColourTask
from ...training.diffusion import to_unit_range
from ...training.tasks import plan_steps
from ..draws import CLASSIFIER_METHODS, Point, Sampling, engine_of, pairs
from ..report import Report
from .models import Models, Sizes, dtype_of, to_device
from .pieces import check

FLOW_SCALES = (1.25, 1.5, 1.75, 2.25, 2.5, 2.75)  # columns of the paper's Tab. 2
EDM_SCALES = (1.75, 2.25, 2.5, 2.75, 3.25, 3.5, 3.75, 4.0)  # of its Tab. 3
CLASSIFIER_WEIGHTS = (1.0, 2.0, 4.0)  # the paper has no classifier guidance on CIFAR-10
POOL_SCALES = (1.0, 2.0, 3.0)  # a third of the training samples each (App. B.1)
ESTIMATOR = "vjp"
NOISIEST = 80 / 81  # flow time of sigma/alpha = 80: a classifier says nothing at t = 1
SHOWN = 10  # samples of each point that are kept for the pictures


@dataclass(frozen=True)
class Base:
    """A base model ("flow" or "edm"), how it is sampled, and at which points."""

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
    plain = [Point("vanilla", 1.0)]
    cg = [Point("cg", 0.0), *pairs("cg", weights, ESTIMATOR)]
    points = (*plain, *pairs("vanilla", flow, ESTIMATOR), *cg)
    return [
        Base("flow", models.flow, "flow_heun", flow_steps, points),
        Base("edm", models.edm, "heun", edm_steps, (*plain, *pairs("vanilla", edm, ESTIMATOR))),
    ]


def _engine(base: Base, point: Point, models: Models, sampling: Sampling) -> Engine:
    times = np.linspace(NOISIEST, 0.0, base.steps + 1).tolist()
    return engine_of(
        base.denoiser,
        point,
        sampling,
        guide=models.guide,
        solver=base.solver,
        steps=base.steps,
        solver_options={"times": times} if point.method in CLASSIFIER_METHODS else {},
    )


def _sample(
    base: Base, point: Point, models: Models, sampling: Sampling, folder: Path
) -> tuple[Tensor, Stats, Shards]:
    settings = {"weights": models.digests[base.name], "steps": base.steps, **vars(sampling)}
    shards = Shards(folder / f"{base.name}-{point.name}", settings)
    engine, seeds = _engine(base, point, models, sampling), sampling.seeds(point)
    return *run_resumable(engine, sampling.labels, seeds, shards, point.name), shards


def posts_of(base: str, report: Report, sizes: Sizes) -> list[str]:
    """Names of postprocessing flows, SPACE-K: where neighbours are searched, and how many there
    are. Rows 2 to 5 of the paper's Tab. 2; without DINOv2 weights row 2 alone."""
    k = sizes.k
    if "neighbours" not in report.options:
        return [f"pixel-{k}"]
    best = f"patches-{k}"
    return [best] if base == "edm" else [f"pixel-{k}", f"cls-{k}", best, f"patches-{2 * k}"]


def train_posts(
    base: Base,
    report: Report,
    sizes: Sizes,
    models: Models,
    data: CIFAR10,
    sampling: Sampling,
    deadline: float | None = None,
) -> dict[str, Postprocess]:
    """Flows of `base` by name, each trained on its samples at POOL_SCALES, for all scales.

    Raises:
        KeyboardInterrupt: a signal stopped the training, or (PieceOver) the deadline; the same
            command goes on with it.
    """
    pool = []
    for scale in POOL_SCALES:
        check(deadline, f"{base.name}: the samples that postprocessing is trained on")
        point = Point("vanilla", scale, pool=True)
        report.say(f"sampling {base.name} at {scale:g} for postprocessing")
        pool.append(_sample(base, point, models, sampling, report.work / "pools")[0])
    samples = torch.cat(pool).clamp(-1.0, 1.0)  # as pictures hold them
    real, steps, found = to_unit_range(data.train_images), _post_steps(report, sizes, data), {}
    for name in posts_of(base.name, report, sizes):
        report.say(f"training postprocessing {base.name} {name}: {steps} steps")
        space, _, k = name.partition("-")
        features = None
        if space != "pixel":
            features = dinov2_features(report.options["neighbours"], space, device=report.device)
        flow = {"solver": "flow_heun", "steps": sizes.solver_steps[2]}
        try:
            found[name] = train_postprocess(
                samples,
                real,
                report.work / f"post-{base.name}-{name}",
                steps=steps,
                batch_size=sizes.batch_size,
                lr=sizes.lr,
                labels=sampling.labels.repeat(len(pool)),
                num_classes=10,
                k=int(k),
                features=features,
                net=partial(_network, sizes),
                seed=report.seed,
                device=report.device,
                show=sizes.minutes is not None,
                flow={**flow, "batch_size": sampling.batch_size},
                deadline=deadline,
                compact=deadline is not None,
                warmup=min(500, steps // 2),
                dtype=dtype_of(report.device),
            )
        except PieceOver as over:
            raise PieceOver(f"{base.name}: postprocessing flow {name}, {over}") from over
        to_device(found[name].denoiser, report.device)
    return found


def _network(sizes: Sizes) -> UNet2D:
    c = sizes.colour
    # No dropout: its masks are not among what a resumed run of FlowTask draws again.
    return UNet2D(3, 32, c.channels, c.multipliers, c.blocks, c.attention, c.head_width, 0.0, 11)


def _post_steps(report: Report, sizes: Sizes, data: CIFAR10) -> int:
    """Steps that fit into the minutes of one flow; measured once, for its network is the base's."""
    if sizes.minutes is None:
        return sizes.steps
    key = digest(sizes.colour, sizes.batch_size, sizes.minutes["post"], report.device)
    note = report.work / f"post_steps-{key[:16]}.json"
    if not note.exists():
        task = ColourTask(data.train_images, data.train_labels, sizes.colour, report.device)
        dtype = dtype_of(report.device)
        config = TrainConfig(steps=1, batch_size=sizes.batch_size, dtype=dtype)
        steps = plan_steps(task, config, str(report.device), 1.0, sizes.minutes["post"])
        write_whole(note, json.dumps(steps).encode(), "--out")
    return int(read_json(note, "--out", "Delete it"))


@dataclass(frozen=True)
class Scored:
    """A point's numbers and its first samples (SHOWN, 3, 32, 32).

    row: as Measured's, and its base, the postprocessing flow ("post", None: none) and seconds.
    """

    row: Mapping[str, Any]
    first: Tensor

    @property
    def point(self) -> Point:
        """What was sampled."""
        return Point(self.row["method"], self.row["scale"], self.row["estimator"])


def evaluate(
    base: Base,
    report: Report,
    models: Models,
    bench: Bench,
    flows: Mapping[str, Postprocess],
    sampling: Sampling,
    scored: list[Scored],
    deadline: float | None = None,
) -> None:
    """Every point of `base`, as it is and after each flow, into `scored`; kept on disk as well.

    Raises:
        PieceOver: the deadline passed before a point that is not scored.
    """
    key = {
        "models": models.digests,
        "steps": base.steps,
        "posts": {name: digest(f.denoiser, f.solver, f.steps) for name, f in flows.items()},
        "bench": digest(bench.features, bench.name, bench.most, bench.rows),
        **vars(sampling),
    }
    kept = Shards(report.work / f"scores-{base.name}", key)
    for number, point in enumerate(base.points, 1):
        names = {post: f"{point.name}-{post or 'plain'}" for post in (None, *flows)}
        done = {post: kept.load(name) for post, name in names.items()}
        if any(found is None for found in done.values()):
            check(deadline, f"{base.name}: {len(base.points) - number + 1} points of samples")
            drawn, stats, shards = _sample(base, point, models, sampling, report.work / "points")
            samples, cost = drawn.clamp(-1.0, 1.0), stats.as_dict()
            for post, name in names.items():
                if post is None:
                    shown, found = samples, bench(point, samples, cost)
                else:
                    shown, found = bench.moved(flows[post], point, samples, cost)
                more = {"base": base.name, "post": post, "seconds": stats.seconds}
                kept.store(name, shown[:SHOWN], more | found.row)
                done[post] = kept.load(name)
            shards.remove()
        for each in done.values():
            assert each is not None  # stored above
            scored.append(Scored(each[1], each[0]))
        report.say(f"{base.name} {number}/{len(base.points)} {point.title}")
