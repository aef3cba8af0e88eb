"""Guidance on MNIST: FID against label confidence for every method, with and without REG.

Item by item: CFG with constant, linear and cosine weights, on an interval of noise levels,
autoguidance, and classifier guidance; each over scales, without and with REG (arXiv 2501.18865);
every estimator and a calibrated plan; all of it before and after postprocessing (arXiv 2503.10638).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch

from ...data.mnist import MNIST, load_mnist
from ..report import Report
from . import page
from . import page_post as after_page
from .claims import claims, summary, sure_claims
from .grid import Point, full_grid, pool_grid, quick_grid
from .measures import Bench, Measured, judge
from .models import TRAINED, Models, load_models
from .post import After, PostSettings, memory_rows, postprocess_points, train_flows
from .sampling import TIMES, Sampled, Sampling, sample_points

__all__ = ["run"]

POST_SCALES = {"vanilla": (1, 1.5, 3, 4, 8), "cg-linear": (2, 4, 8, 16)}  # where both are sampled
SHOWN = {"vanilla": (3, 4), "cg-linear": (8, 2)}  # scales of the picture, of memorisation: the
# first one that was sampled


@dataclass(frozen=True)
class Settings:
    """Sizes of a run.

    Args:
        sampling: of every point.
        points: what is sampled.
        pool: what postprocessing is trained on.
        trained: optimizer steps of the networks trained here.
        post: of postprocessing.
        replicates: bootstrap resamples.
        real: training and test images that are used, at most.
    """

    sampling: Sampling
    points: list[Point]
    pool: list[Point]
    trained: dict[str, int]
    post: PostSettings
    replicates: int
    real: tuple[int, int]


def run(report: Report) -> None:
    """Sample, measure, postprocess and write the page."""
    settings, data = _settings(report), _data(report, report.quick)
    models = load_models(
        data, report.work / "models", settings.trained, report.seed, report.device, report.say
    )
    points = [p for p in settings.points if models.serves(p.method)]
    sampled, pool = (
        sample_points(part, models, settings.sampling, report.work / "samples", report.say)
        for part in (points, settings.pool if data is not None else [])
    )
    report.say("measuring")
    labels, real = settings.sampling.labels, None if data is None else data.test_images
    bench = Bench(models.judge, labels, real, settings.replicates, report.generator(1))
    measured = [bench(each.point, each.samples, each.cost) for each in sampled]
    report.numbers |= {
        "samples_a_point": settings.sampling.count,
        "solver": settings.sampling.solver,
        "times": list(settings.sampling.times),
        "real_images": data is not None,
        "guides_read_right": models.accuracy,
        "sampling_seconds": sum(each.cost["seconds"] for each in sampled + pool),
        "points": [m.row for m in measured],
    }
    sure_claims(report, measured, settings.sampling.steps)
    page.introduction(report, settings.sampling, models, data is not None)
    minutes = report.numbers["sampling_seconds"] / 60
    report.text(
        f"Sampling all points took {minutes:.1f} minutes (finished batches are kept: it need not "
        "have been this run)."
    )
    if data is None:
        page.without_data(report, measured)
        return
    held = torch.from_numpy(data.test_labels)
    confidence = float(judge(models.judge, data.test_images, held).odds.mean())
    report.numbers["confidence_of_test_images"] = confidence
    report.section("In short", summary(measured) if not report.quick else page.QUICK)
    page.fronts(report, measured, confidence)
    page.every_point(report, measured)
    page.estimators(report, measured)
    after = _postprocessing(report, settings, data, models, sampled, pool, measured, bench)
    after_page.against_the_papers(report, after)
    if not report.quick:  # so few samples answer nothing
        claims(report, measured, after)


def _postprocessing(
    report: Report,
    settings: Settings,
    data: MNIST,
    models: Models,
    sampled: list[Sampled],
    pool: list[Sampled],
    measured: list[Measured],
    bench: Bench,
) -> list[After]:
    """Train the flows, apply them, and write the section."""
    flows = train_flows(
        pool,
        bench.labels,
        data,
        models.judge,
        settings.post,
        report.work / "post",
        report.seed,
        report.device,
        report.say,
    )
    chosen = [
        s for s in sampled if s.point.plain and s.point.scale in POST_SCALES.get(s.point.method, ())
    ]
    by_point = {m.point: m for m in measured}
    after = postprocess_points(flows, chosen, by_point, bench, report.say)
    shown = {}
    for method, scales in SHOWN.items():
        scale = next((s for s in scales if any(_at(c, method, s) for c in chosen)), None)
        for each in (c for c in chosen if scale is not None and _at(c, method, scale)):
            name = page.title(each.point)
            shown[name] = each.samples
            moved = [a for a in after if a.after.point == each.point]
            shown |= {f"{name}, {after_page.moved_by(a.space)}": a.samples for a in moved}
    report.say("distances to the training set")
    memory = memory_rows(shown, data, settings.post.memory, report.generator(2))
    after_page.postprocessing(report, after, shown, memory, settings.post, pool)
    return after


def _at(sampled: Sampled, method: str, scale: float) -> bool:
    return sampled.point.method == method and sampled.point.scale == scale


def _settings(report: Report) -> Settings:
    device = str(report.device)
    if report.quick:
        return Settings(
            Sampling(40, TIMES[::2], seed=report.seed, device=device),
            quick_grid(),
            pool_grid()[1:4:2],
            {"bad": 20, "cg": 150, "cg-linear": 200},
            PostSettings(30, 32, (16, 32), embedding=32, memory=40),
            40,
            (2000, 1000),
        )
    gpu = report.device.type == "cuda"
    return Settings(
        Sampling(
            10_000 if gpu else 1000,
            TIMES,
            seed=report.seed,
            batch_size=500 if gpu else 50,
            device=device,
        ),
        full_grid(dense=gpu),
        pool_grid(),
        TRAINED,
        PostSettings(1500),
        300,
        (60_000, 10_000),
    )


def _data(report: Report, optional: bool) -> MNIST | None:
    """MNIST as far as it is used; None where it is optional and none was given.

    Raises:
        InputError: the data that was given is not there, or no MNIST.
    """
    if optional and report.data is None and not os.environ.get("REG_ENGINE_DATA"):
        report.say("no --data: what needs real images is left out")
        return None
    found = load_mnist(report.data)
    train, test = _settings(report).real
    return replace(
        found,
        train_images=found.train_images[:train],
        train_labels=found.train_labels[:train],
        test_images=found.test_images[:test],
        test_labels=found.test_labels[:test],
    )
