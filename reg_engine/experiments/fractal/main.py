"""Guidance on a fractal mixture, before and after postprocessing (arXiv 2503.10638, Sec. 4.2)."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...postprocess import Postprocess
from ..classifier_guidance import ExactClassifier
from ..report import Report
from .figures import clouds, rectified
from .measures import class_target, floors, own_class, paired_ratio, scores
from .models import (
    FLOW_STEPS,
    FULL,
    METHODS,
    QUICK,
    SCHEDULE,
    Data,
    Models,
    Sizes,
    apply,
    make_data,
    one_pool,
    train_flow,
    train_models,
)
from .page import claims, write

POOLS = 10**6  # first seed of the samples that flows are trained on: none of them is measured
REG = "vjp"  # the estimator of REG


def run(report: Report) -> None:
    """The whole experiment: data, networks, samples, flows, measures, figures and page."""
    sizes = QUICK if report.quick else FULL
    data = make_data(report, sizes)
    models = train_models(report, sizes, data)
    found = {}  # method -> scale -> stage -> (2, n, 2)
    for method in METHODS:
        flows = _flows(report, sizes, data, models, method)
        found[method] = _clouds(report, sizes, models, method, flows)
    generator = report.generator(20)
    targets = {  # method -> scale -> draws of what guidance aims at, for each class
        method: {
            scale: [class_target(data, models, method, scale, y, generator) for y in (0, 1)]
            for scale in found[method]
        }
        for method in METHODS
    }
    report.say("measures")
    report.numbers |= {
        "setting": _setting(sizes, data, models),
        "floor": floors(data, sizes.count),
        "methods": {
            method: {
                f"{scale:g}": {
                    stage: [scores(cloud[y], data, y, targets[method][scale][y]) for y in (0, 1)]
                    for stage, cloud in stages.items()
                }
                for scale, stages in found[method].items()
            }
            for method in METHODS
        },
        "target_own_class": {
            f"{scale:g}": [own_class(data.mixture, x, y) for y, x in enumerate(classes)]
            for scale, classes in targets["cg"].items()
        },
        "one_by_dedicated": {
            method: {
                f"{scale:g}": paired_ratio(
                    stages["one"], stages["dedicated"], data, report.generator(30)
                )
                for scale, stages in found[method].items()
                if "dedicated" in stages
            }
            for method in METHODS
        },
        "costs": _costs(sizes, models),
        "parts": _parts(report, sizes, data, models),
    }
    shown = sizes.large[0]
    at_scale = {method: targets[method][shown] for method in METHODS}
    boundaries = {method: models.boundary(method) for method in METHODS}
    figures = {
        "clouds": clouds(data.fresh, boundaries, found, sizes.scales),
        "rectified": rectified(boundaries, found, at_scale, shown),
    }
    claims(report)
    write(report, figures)


def _flows(
    report: Report, sizes: Sizes, data: Data, models: Models, method: str
) -> dict[str, Postprocess]:
    """A flow for each scale, one for all of CFG's (or CG's) samples, and one for all of REG's."""
    report.say(f"{method}: samples for the flows")
    draw = partial(models.draw, method, first_seed=POOLS, steps=sizes.steps)
    sets = {f"{scale:g}": draw(scale, sizes.pool) for scale in sizes.scales}
    pools = list(sets.values())
    share = -(-sizes.pool // len(sizes.scales))
    rectified = [draw(scale, share, rectify=REG) for scale in sizes.scales]
    generator = report.generator(10)
    sets["one"] = one_pool(pools, sizes.pool, generator)
    sets["reg"] = one_pool(rectified, sizes.pool, generator)
    flows = {
        name: train_flow(report, f"{method}-{name}", samples, data, sizes)
        for name, samples in sets.items()
    }
    if method == "cg" and sizes.more:
        longer = replace(sizes, flow=sizes.more * sizes.flow)
        flows["more"] = train_flow(report, "cg-more", torch.cat(pools, 1), data, longer)
    return flows


def _clouds(
    report: Report, sizes: Sizes, models: Models, method: str, flows: dict[str, Postprocess]
) -> dict[float, dict[str, Tensor]]:
    """Samples that are measured, at every scale and stage."""
    report.say(f"{method}: samples to measure")
    found = {}
    for scale in sorted({*sizes.scales, *sizes.others}):
        draw = partial(models.draw, method, scale, sizes.count, steps=sizes.steps)
        before = draw()
        stages = {"before": before, "one": apply(flows["one"], before)}
        if f"{scale:g}" in flows:
            stages["dedicated"] = apply(flows[f"{scale:g}"], before)
            if "more" in flows:
                stages["more"] = apply(flows["more"], before)
        if scale != 1 or method == "cg":
            stages["reg"] = draw(rectify=REG)
            stages["reg_post"] = apply(flows["reg"], stages["reg"])
        found[scale] = stages
    return found


def _costs(sizes: Sizes, models: Models) -> dict[str, dict[str, Any]]:
    """What one sample costs, as the engine counts it."""
    found: dict[str, dict[str, Any]] = {}
    for name, rectify in (("plain", None), ("REG", REG)):
        stats = models.engine("cfg", 2.0, rectify, sizes.steps).sample(torch.arange(2)).stats
        found[name] = {"nfe": stats.nfe, "backward": stats.backward, "needs": "nothing"}
    flow = 2 * FLOW_STEPS - 1  # Heun, the last step by Euler
    found["plain, postprocessed"] = {
        "nfe": found["plain"]["nfe"] + flow,
        "backward": 0,
        "needs": f"a second network, trained on {2 * sizes.pool} samples and the real data",
    }
    return found


def _parts(report: Report, sizes: Sizes, data: Data, models: Models) -> dict[str, Any]:
    """Exact and trained denoisers with exact and trained classifiers: whose error is it?"""
    trained = replace(models, batch_size=256)
    exact = replace(trained, conditional=data.mixture.denoiser(schedule=SCHEDULE))
    by_bayes = replace(trained, classifier=ExactClassifier(data.mixture, SCHEDULE))
    combinations: list[tuple[str, str, Models, str | None]] = [
        ("trained denoiser, CFG", "cfg", trained, None),
        ("trained denoiser, exact classifier", "cg", by_bayes, None),
        ("trained denoiser, linear classifier", "cg", trained, None),
        ("exact denoiser, CFG", "cfg", exact, None),
        ("exact denoiser, linear classifier", "cg", exact, None),
        ("exact denoiser, REG", "cfg", exact, REG),
    ]
    table: dict[str, Any] = {}
    for scale in (1.0, *sizes.scales):
        row = table[f"{scale:g}"] = {}
        for name, method, parts, rectify in combinations:
            if rectify and scale == 1:
                continue
            report.say(f"scale {scale:g}: {name}")
            cloud = parts.draw(method, scale, sizes.exact, rectify=rectify, steps=sizes.steps)
            row[name] = [scores(cloud[y], data, y, None) for y in (0, 1)]
    return table


def _setting(sizes: Sizes, data: Data, models: Models) -> dict[str, Any]:
    odds = [models.logits(data.real[y]).softmax(1)[:, y].mean() for y in (0, 1)]
    return {
        **asdict(sizes),
        "points": data.train.shape[1],
        "components": len(data.mixture.means) // 2,
        "deviation": float(data.train.flatten(0, 1).std(0).mean()),
        "linear_probability": float(sum(odds)) / 2,  # p_phi(y|x_0) of real points of class y
        "exact_probability": float(data.real_log_posterior.exp().mean()),
        "shown": sizes.large[0],
    }
