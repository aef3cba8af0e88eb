"""A packaged image model and its adapter: FID against confidence at several numbers of steps, for
the student, its teacher, CFG, an interval and the cheap estimators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...data.mnist import load_data_set
from ...evaluation.bench import Bench
from ...evaluation.fronts import Front, Measured, difference
from ...models import load_classifier
from ...resume import digest, run_resumable
from ...storage.shards import Shards
from ..report import Report
from .subject import METHODS, Point, Size, Subject, subject_of
from .times import timed

__all__ = ["against", "by_class", "measured"]

FIRST = 1 << 40  # seed of no training
REPLICATES = 300  # bootstrap resamples


def measured(report: Report, size: Size) -> dict[str, Any]:
    """Rows of all points, the student's against the teacher's front, and where it falls short.

    Raises:
        InputError: as `subject_of`.
    """
    subject = subject_of(report)
    labels = torch.arange(size.count) % 10
    bench = _bench(report, size, labels)
    seeds = [FIRST + report.seed * size.count + k for k in range(size.count)]
    shards, mine = Shards(report.work / "samples", {}), digest(_weights(subject))[:16]
    found: dict[Point, Measured] = {}
    samples: dict[Point, Tensor] = {}
    points = subject.points(size)
    for number, point in enumerate(points, 1):
        engine = subject.engine(point, size.batch_size)
        # Another adapter's samples lie beside this one's; what does not depend on it is kept.
        name = f"{point.name}-{mine}" if point.method == "student" else point.name
        samples[point], stats = run_resumable(engine, labels, seeds, shards, name)
        found[point] = bench(point, samples[point], stats.as_dict())
        report.say(f"{number}/{len(points)} {point.name}: {stats.seconds:.0f} s")
    scale, (solver, steps) = size.scales[-1], size.settings[0]
    ways = (Point(m, 1.0 if m == "unguided" else scale, solver, steps) for m in METHODS)
    engines = {each.method: subject.engine(each, size.batch_size) for each in ways}
    return {
        "samples": size.count,
        "real_images": bench.frechet is not None,
        "adapter": dict(subject.adapter.about),
        "teacher": subject.teacher,
        "share": _share(subject),
        "times": timed(engines, size.batch_size, size.rounds),
        "points": [each.row for each in found.values()],
        "against": against(found, subject.teacher) if bench.frechet is not None else [],
        "against_cfg": against(found, "cfg") if bench.frechet is not None else [],
        "by_class": by_class(samples, labels, size.settings[0], subject.teacher),
    }


def _weights(subject: Subject) -> dict[str, Any]:
    return subject.adapter.change.state_dict()


def _share(subject: Subject) -> float:
    whole = sum(p.numel() for module in subject.model.modules for p in module.parameters())
    return sum(p.numel() for p in subject.adapter.change.parameters()) / whole


def _bench(report: Report, size: Size, labels: Tensor) -> Bench:
    """Without images, in a quick run alone, there is no FID."""
    judge, real = load_classifier(report.data_set).to(report.device), None
    if report.quick and report.data is None and not os.environ.get("REG_ENGINE_DATA"):
        report.say("no --data: what needs real images is left out")
    else:
        found = load_data_set(report.data_set, report.data)
        real = found.first(len(found.train_images), size.real).test_images
    return Bench(judge, labels, real, REPLICATES, report.generator(1))


def against(found: Mapping[Point, Measured], opponent: str) -> list[dict[str, Any]]:
    """FID of each of the student's points minus that of an opponent's front at its confidence, at
    the settings that the opponent was sampled at.

    The front of a solver and its steps begins without guidance. `difference` is None where the
    student is surer than the opponent at its largest scale.
    """
    rows = []
    for point, own in found.items():
        setting = (point.solver, point.steps)
        there = any((p.solver, p.steps) == setting and p.method == opponent for p in found)
        if point.method != "student" or not there:
            continue
        line = [
            each
            for p, each in found.items()
            if (p.solver, p.steps) == setting and p.method in ("unguided", opponent)
        ]
        theirs = Front(line).fid_at(own.confidences)
        apart = None if theirs is None else difference(own.fids, theirs)
        row = {**point.row, "fid": own.row["fid"], "confidence": own.row["confidence"]}
        row["front"] = None if theirs is None else float(theirs[0])
        row["difference"] = None if apart is None else [apart.value, apart.error]
        rows.append(row)
    return rows


def by_class(
    samples: Mapping[Point, Tensor], labels: Tensor, setting: tuple[str, int], teacher: str
) -> list[dict[str, Any]]:
    """Of the same seeds, scale by scale and class by class: |student - teacher| / |no guidance -
    teacher|, of root mean squares; 0 = the teacher's samples, 1 = as far as without guidance."""
    plain = samples[Point("unguided", 1.0, *setting)].double()
    rows = []
    for point, own in samples.items():
        if point.method == "student" and (point.solver, point.steps) == setting:
            theirs = samples[Point(teacher, point.scale, *setting)].double()
            apart = [(x - theirs).square().flatten(1).mean(1) for x in (own.double(), plain)]
            kinds = [labels == label for label in labels.unique()]
            parts = [(apart[0][k].mean() / apart[1][k].mean()).sqrt() for k in kinds]
            whole = (apart[0].mean() / apart[1].mean()).sqrt()
            rows.append({"scale": point.scale, "all": whole, "classes": torch.stack(parts)})
    return rows
