"""A packaged image model and its adapter: FID against confidence at several numbers of steps, for
the student, its teacher, CFG, an interval and the cheap estimators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data.mnist import load_data_set
from ...engine import Engine
from ...errors import InputError
from ...evaluation.bench import Bench
from ...evaluation.fronts import Front, Measured, difference
from ...guidance.weights import Interval
from ...models import load_classifier, load_model, packaged_adapter
from ...networks.adapter import Adapter
from ...networks.denoisers import Denoiser
from ...resume import digest, run_resumable
from ...storage.shards import Shards
from ...values import shown
from ..draws import INTERVAL
from ..report import Report
from .times import timed

__all__ = ["MAIN", "METHODS", "Point", "Size", "against", "by_class", "measured"]

MAIN = ("dpmpp_2m", 16)  # what training's trajectories were made by, in the middle of their steps
METHODS = {
    "unguided": "no guidance",
    "cfg": "CFG",
    "interval": "interval CFG",
    "alternate": "`alternate`",
    "lazy": "`lazy`",
    "vjp": "`vjp`, the teacher",
    "student": "student",
}
FIRST = 1 << 40  # seed of no training
REPLICATES = 300  # bootstrap resamples


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    count: int = 1000  # samples a point
    scales: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    settings: tuple[tuple[str, int], ...] = (MAIN, ("dpmpp_2m", 8), ("dpmpp_2m", 32), ("heun", 9))
    everywhere: tuple[str, ...] = ("student", "vjp")  # at every setting; the others at the first
    batch_size: int = 50
    real: int = 10_000  # test images, at most
    rounds: int = 9  # of times


@dataclass(frozen=True)
class Point:
    """A method at a scale, under a solver with so many steps."""

    method: str
    scale: float
    solver: str
    steps: int

    @property
    def row(self) -> dict[str, Any]:
        """How it is named in the numbers."""
        return dict(vars(self))

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.method}-{self.scale!r}-{self.solver}-{self.steps}"


def points_of(size: Size) -> list[Point]:
    """All that are sampled, those that matter most first."""
    found = []
    for solver, steps in size.settings:
        first = (solver, steps) == size.settings[0]
        found.append(Point("unguided", 1.0, solver, steps))
        for method in (m for m in METHODS if m != "unguided"):
            if first or method in size.everywhere:
                found += [Point(method, scale, solver, steps) for scale in size.scales]
    return found


def engine_of(model: Denoiser, student: Denoiser, point: Point, batch_size: int) -> Engine:
    """It samples a point, plain and eager."""
    own: dict[str, Any] = {"scale": point.scale, "rectify": None}
    if point.method == "student":
        model, own = student, {"scale": point.scale}
    elif point.method == "interval":
        own["scale"] = Interval(point.scale, *INTERVAL)
    elif point.method not in ("cfg", "unguided"):
        own["rectify"] = point.method
    given: dict[str, Any] = {"solver": point.solver, "steps": point.steps, "progress": False}
    return Engine(model, batch_size=batch_size, **own, **given)


def measured(report: Report, size: Size) -> dict[str, Any]:
    """Rows of all points, the student's against the teacher's front, and where it falls short.

    Raises:
        InputError: an adapter of another model, or of another teacher.
    """
    model = load_model(report.data_set)
    model.net.to(report.device).to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
    adapter = Adapter.load(report.options.get("adapter") or packaged_adapter(report.data_set))
    if adapter.about.get("teacher") != "vjp":
        problem = f"has another teacher than 'vjp': {shown(adapter.about.get('teacher'))}"
        raise InputError("--set adapter", problem, "Give one that `distill --guidance vjp` made")
    student = model.with_adapter(adapter)
    labels = torch.arange(size.count) % 10
    bench = _bench(report, size, labels)
    seeds = [FIRST + report.seed * size.count + k for k in range(size.count)]
    shards, mine = Shards(report.work / "samples", {}), digest(adapter.change.state_dict())[:16]
    found: dict[Point, Measured] = {}
    samples: dict[Point, Tensor] = {}
    points = points_of(size)
    for number, point in enumerate(points, 1):
        engine = engine_of(model, student, point, size.batch_size)
        # Another adapter's samples lie beside this one's; what does not depend on it is kept.
        name = f"{point.name}-{mine}" if point.method == "student" else point.name
        samples[point], stats = run_resumable(engine, labels, seeds, shards, name)
        found[point] = bench(point, samples[point], stats.as_dict())
        report.say(f"{number}/{len(points)} {point.name}: {stats.seconds:.0f} s")
    scale, (solver, steps) = size.scales[-1], size.settings[0]
    ways = (Point(m, 1.0 if m == "unguided" else scale, solver, steps) for m in METHODS)
    engines = {each.method: engine_of(model, student, each, size.batch_size) for each in ways}
    return {
        "samples": size.count,
        "real_images": bench.frechet is not None,
        "adapter": dict(adapter.about),
        "share": _share(model, adapter),
        "times": timed(engines, size.batch_size, size.rounds),
        "points": [each.row for each in found.values()],
        "against": against(found) if bench.frechet is not None else [],
        "by_class": by_class(samples, labels, size.settings[0]),
    }


def _share(model: Denoiser, adapter: Adapter) -> float:
    whole = sum(p.numel() for module in model.modules for p in module.parameters())
    return sum(p.numel() for p in adapter.change.parameters()) / whole


def _bench(report: Report, size: Size, labels: Tensor) -> Bench:
    """Without images, in a quick run alone, there is no FID."""
    judge, real = load_classifier(report.data_set).to(report.device), None
    if report.quick and report.data is None and not os.environ.get("REG_ENGINE_DATA"):
        report.say("no --data: what needs real images is left out")
    else:
        found = load_data_set(report.data_set, report.data)
        real = found.first(len(found.train_images), size.real).test_images
    return Bench(judge, labels, real, REPLICATES, report.generator(1))


def against(found: Mapping[Point, Measured]) -> list[dict[str, Any]]:
    """FID of each of the student's points minus that of its teacher's front at its confidence.

    The front of a solver and its steps begins without guidance. `difference` is None where the
    student is surer than the teacher at its largest scale.
    """
    rows = []
    for point, own in found.items():
        if point.method != "student":
            continue
        setting = (point.solver, point.steps)
        line = [
            each
            for p, each in found.items()
            if (p.solver, p.steps) == setting and p.method in ("unguided", "vjp")
        ]
        theirs = Front(line).fid_at(own.confidences)
        apart = None if theirs is None else difference(own.fids, theirs)
        row = {**point.row, "fid": own.row["fid"], "confidence": own.row["confidence"]}
        row["front"] = None if theirs is None else float(theirs[0])
        row["difference"] = None if apart is None else [apart.value, apart.error]
        rows.append(row)
    return rows


def by_class(
    samples: Mapping[Point, Tensor], labels: Tensor, setting: tuple[str, int]
) -> list[dict[str, Any]]:
    """Of the same seeds, scale by scale and class by class: |student - teacher| / |no guidance -
    teacher|, of root mean squares; 0 = the teacher's samples, 1 = as far as without guidance."""
    plain = samples[Point("unguided", 1.0, *setting)].double()
    rows = []
    for point, own in samples.items():
        if point.method == "student" and (point.solver, point.steps) == setting:
            theirs = samples[Point("vjp", point.scale, *setting)].double()
            apart = [(x - theirs).square().flatten(1).mean(1) for x in (own.double(), plain)]
            kinds = [labels == label for label in labels.unique()]
            parts = [(apart[0][k].mean() / apart[1][k].mean()).sqrt() for k in kinds]
            whole = (apart[0].mean() / apart[1].mean()).sqrt()
            rows.append({"scale": point.scale, "all": whole, "classes": torch.stack(parts)})
    return rows
