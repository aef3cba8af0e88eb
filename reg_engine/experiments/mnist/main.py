"""Guidance on MNIST or Fashion-MNIST: FID against label confidence, with and without REG.

Item by item: CFG with constant, linear and cosine weights, on an interval of noise levels,
autoguidance, and classifier guidance; each over scales, without and with REG (arXiv 2501.18865);
every estimator and a calibrated plan; all of it before and after postprocessing (arXiv 2503.10638).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ...data.mnist import MNIST, load_data_set
from ...evaluation.bench import Bench, judge
from ...evaluation.fronts import Measured
from ..draws import Point, Sampling
from ..report import Report
from .claims import claims, difference_numbers, sure_claims
from .fronts import estimator_numbers, front_numbers, plain
from .models import TRAINED, Models, load_models
from .page import write
from .post import After, PostSettings, memory_rows, train_flows
from .sampling import SOLVER, TIMES, Sampled, full_grid, pool_grid, quick_grid, sample_points

POST_SCALES = {"vanilla": (1, 1.5, 3, 4, 8), "cg-linear": (2, 4, 8, 16)}  # where both are sampled
# Scales of the picture and of memorisation: the first one that was sampled.
SHOWN = {"vanilla": (3, 4), "cg-linear": (8, 2)}


@dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    sampling: Sampling
    times: tuple[float, ...]  # noise levels of the solver
    points: list[Point]
    pool: list[Point]  # what postprocessing is trained on
    trained: dict[str, int]  # optimizer steps of the networks trained here
    post: PostSettings
    replicates: int  # bootstrap resamples
    real: tuple[int, int]  # training and test images that are used, at most


def run(report: Report) -> None:
    """Sample, measure, postprocess and write the page."""
    settings = _settings(report)
    data, sampling = _data(report, settings), settings.sampling
    models = load_models(report, data, settings.trained)
    points = [p for p in settings.points if models.serves(p.method)]
    sampled, pool = (
        sample_points(part, models, sampling, settings.times, report.work / "samples", report.say)
        for part in (points, settings.pool if data is not None else [])
    )
    report.say("measuring")
    real = None if data is None else data.test_images
    bench = Bench(models.judge, sampling.labels, real, settings.replicates, report.generator(1))
    measured = [bench(each.point, each.samples, each.cost) for each in sampled]
    report.numbers |= {
        "samples_a_point": sampling.count,
        "solver": SOLVER,
        "times": list(settings.times),
        "real_images": data is not None,
        "trained": models.steps,
        "guides_read_right": models.accuracy,
        "sampling_seconds": sum(each.cost["seconds"] for each in sampled + pool),
        "points": [m.row for m in measured],
    }
    sure_claims(report, report.numbers["points"], len(settings.times) - 1)
    sets: dict[str, Tensor] = {}
    if data is not None:
        held = torch.from_numpy(data.test_labels)
        confidence = judge(models.judge, data.test_images, held).odds.mean()
        report.numbers |= {
            "confidence_of_test_images": float(confidence),
            "fronts": front_numbers(measured, report.data_set),
            "differences": difference_numbers(measured, report.data_set),
            "estimators": estimator_numbers(measured),
        }
        after, sets = _postprocessing(
            report, settings, data, models, sampled, pool, measured, bench
        )
        if not report.quick:  # so few samples answer nothing
            claims(report, measured, after)
    write(report, sets)


def _postprocessing(
    report: Report,
    settings: Settings,
    data: MNIST,
    models: Models,
    sampled: Sequence[Sampled],
    pool: Sequence[Sampled],
    measured: Sequence[Measured],
    bench: Bench,
) -> tuple[list[After], dict[str, Tensor]]:
    """Train the flows and apply them: what they measure, and the samples of the picture."""
    flows = train_flows(report, pool, settings.sampling, data, models.judge, settings.post)
    shown = set()
    for method, scales in SHOWN.items():
        there = [m.point.scale for m in measured if m.point.method == method and plain(m.row)]
        shown |= {(method, scale) for scale in [s for s in scales if s in there][:1]}
    found: list[After] = []
    sets: dict[str, Tensor] = {}
    for each, before in zip(sampled, measured, strict=True):
        point, name = each.point, each.point.title
        if not plain(before.row) or point.scale not in POST_SCALES.get(point.method, ()):
            continue
        pictured = (point.method, point.scale) in shown
        sets |= {name: each.samples} if pictured else {}
        for space, flow in flows.items():
            moved, after = bench.moved(flow, point, each.samples, each.cost)
            fids = f"{before.row['fid']:.3f} -> {after.row['fid']:.3f}"
            report.say(f"{point.title}: FID {fids} ({space})")
            found.append(After(before, after, space))
            sets |= {f"{name}, moved, {space}": moved} if pictured else {}
    report.say("distances to the training set")
    report.numbers["postprocessing"] = {
        "settings": asdict(settings.post),
        "pool": [[point.method, point.scale] for point in settings.pool],
        "points": [{"space": a.space, "before": a.before.row, "after": a.after.row} for a in found],
        "memorisation": memory_rows(sets, data, settings.post.memory, report.generator(2)),
    }
    return found, sets


def _settings(report: Report) -> Settings:
    device = str(report.device)
    if report.quick:
        return Settings(
            Sampling(40, report.seed, device=device),
            TIMES[::2],
            quick_grid(),
            pool_grid()[1:4:2],
            {"bad": 20, "cg": 150, "cg-linear": 200},
            PostSettings(30, 32, (16, 32), embedding=32, memory=40),
            40,
            (2000, 1000),
        )
    gpu = report.device.type == "cuda"
    count, batch_size = (10_000, 500) if gpu else (1000, 50)
    return Settings(
        Sampling(count, report.seed, batch_size, device),
        TIMES,
        full_grid(dense=gpu),
        pool_grid(),
        TRAINED,
        PostSettings(1500),
        300,
        (60_000, 10_000),
    )


def _data(report: Report, settings: Settings) -> MNIST | None:
    """The images as far as they are used; None in a quick run where none were given.

    Raises:
        InputError: the data that was given is not there, or another data set.
    """
    if report.quick and report.data is None and not os.environ.get("REG_ENGINE_DATA"):
        report.say("no --data: what needs real images is left out")
        return None
    found = load_data_set(report.data_set, report.data)
    train, test = settings.real
    return found.first(train, test)
