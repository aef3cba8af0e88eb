"""Two results on postprocessing that the classifier-centric study has as a table and as a picture.

Its App. B.2 (arXiv 2503.10638): the flow sampled with a guidance scale of its own. Its Fig. S7: the
flow trained towards few real images, here with what the paper does not measure: recall, and whether
samples become copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...data.mnist import MNIST
from ...evaluation.bench import Bench
from ...evaluation.fronts import Measured, difference
from ...models import load_classifier
from ...postprocess import Neighbours, Postprocess
from ...training.diffusion import to_unit_range
from ..mnist.sampling import SOLVER as BASE_SOLVER
from ..mnist.sampling import Sampled
from ..report import Report
from .claims import claims
from .flows import (
    MEASURED,
    NEIGHBOURS,
    POOL,
    SCALE,
    SOLVER,
    SOLVER_STEPS,
    Settings,
    load_data,
    sample,
    settings_of,
    train_flow,
    without_data,
)
from .measures import Nearness, changes
from .page import write


def run(report: Report) -> None:
    """Sample, train the flows, move the samples, measure, and write the page."""
    settings = settings_of(report)
    data = load_data(report, settings)
    pool = sample(report, POOL, settings, "pool", pool=True)
    points = sample(report, MEASURED, settings, "points")
    judge = load_classifier(report.data_set).to(report.device)
    labels, real = settings.sampling.labels, data.test_images
    bench = Bench(judge, labels, real, settings.replicates, report.generator(1))
    before = [bench(each.point, each.samples, each.cost) for each in points]
    few, sets, flow = _few(report, settings, data, pool, points, before, bench)
    # The last flow is the one towards all real images, the last point the one of App. B.2.
    own = _own(report, settings, flow, points[-1], before[-1], bench)
    report.numbers |= {
        "settings": asdict(settings),
        "sampling": {"solver": BASE_SOLVER, "pool": list(POOL), "measured": list(MEASURED)},
        "flow": {"solver": SOLVER, "steps": SOLVER_STEPS, "k": NEIGHBOURS},
        "real_images": not without_data(report),
        "own": own,
        "few": few,
    }
    if not report.quick:  # so few samples answer nothing
        claims(report)
    write(report, sets)


def _few(
    report: Report,
    settings: Settings,
    data: MNIST,
    pool: Sequence[Sampled],
    points: Sequence[Sampled],
    before: Sequence[Measured],
    bench: Bench,
) -> tuple[list[dict[str, Any]], dict[str, Tensor], Postprocess]:
    """Fig. S7: rows of every number of real images and every point; pictures; the last flow."""
    held = to_unit_range(data.test_images)
    order = torch.randperm(len(held), generator=report.generator(2))
    held = held[order[: settings.sampling.count]]
    rows: list[dict[str, Any]] = []
    sets = {"before": points[-1].samples.clamp(-1, 1)}
    for count in settings.real:
        flow, real = train_flow(report, settings, pool, data, count)
        nearness = Nearness(real, held, bench)
        for each, was in zip(points, before, strict=True):
            moved, after = bench.moved(flow, each.point, each.samples, each.cost)
            found = changes(was, after, nearness(each.samples), nearness(moved))
            rows.append({"real": len(real), "scale": each.point.scale, **found})
            fids = f"{was.row['fid']:.3f} -> {after.row['fid']:.3f}"
            report.say(f"{each.point.title}, towards {len(real)} real images: FID {fids}")
        moved = moved.clamp(-1, 1)
        nearest = real[Neighbours(real).search(moved, 1)[1][:, 0]]
        sets |= {f"after, {len(real):,} real": moved, f"nearest of {len(real):,}": nearest}
    return rows, sets, flow


def _own(
    report: Report,
    settings: Settings,
    flow: Postprocess,
    point: Sampled,
    before: Measured,
    bench: Bench,
) -> dict[str, Any]:
    """App. B.2: FID of one point before and after the flow, over the flow's own scale."""
    rows: list[dict[str, Any]] = []
    first: Measured | None = None
    for scale in settings.own:
        guided = Postprocess(flow.denoiser, SOLVER, SOLVER_STEPS, scale, batch_size=100)
        _, after = bench.moved(guided, point.point, point.samples, point.cost)
        first = first or after
        against, rise = difference(after.fids, before.fids), difference(after.fids, first.fids)
        keys = ("fid", "fid_error", "agreement", "precision", "recall")
        rows.append(
            {"own": scale, "nfe": guided.stats.nfe}
            | {key: after.row[key] for key in keys}
            | {"change": asdict(against), "rise": asdict(rise)}
        )
        report.say(f"the flow's own scale {scale:g}: FID {after.row['fid']:.3f}")
    return {"scale": SCALE, "before": before.row, "after": rows}
