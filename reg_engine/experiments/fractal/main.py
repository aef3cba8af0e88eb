"""Guidance on a fractal mixture, before and after postprocessing (arXiv 2503.10638, Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...postprocess import Postprocess
from ..classifier_guidance import ExactClassifier
from ..report import Report
from .figures import clouds, curves, rectified
from .measures import class_target, floors, paired_ratio, scores
from .models import (
    FULL,
    METHODS,
    QUICK,
    SCHEDULE,
    Data,
    Models,
    Sizes,
    log_posterior,
    make_data,
    train_models,
)
from .page import CURVES, write
from .post import FLOW_STEPS, apply, one_pool, train_flow

__all__ = ["run"]

POOLS = 10**6  # first seed of the samples that flows are trained on: none of them is measured
REG = "vjp"  # the estimator of REG

Clouds = dict[str, dict[float, dict[str, Tensor]]]  # method -> scale -> stage -> (2, n, 2)


def run(report: Report) -> None:
    """The whole experiment: data, networks, samples, flows, measures, figures and page."""
    sizes = QUICK if report.quick else FULL
    data = make_data(report, sizes)
    models = train_models(report, sizes, data)
    found: Clouds = {}
    for method in METHODS:
        flows = _flows(report, sizes, data, models, method)
        found[method] = _clouds(report, sizes, models, method, flows)
    targets = _targets(report, data, models, found)
    report.numbers |= {
        "setting": _setting(sizes, data, models),
        "floor": floors(data, sizes.count),
        "methods": {m: _measured(report, data, found[m], targets[m]) for m in METHODS},
        "target_own_class": {
            f"{scale:g}": [
                float(log_posterior(data.mixture, x).argmax(1).eq(y).double().mean())
                for y, x in enumerate(classes)
            ]
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
    figures = {
        "clouds": clouds(data, models, found, sizes.scales),
        "curves": curves(report.numbers, CURVES),
        "rectified": rectified(models, found, at_scale, shown),
    }
    write(report, figures)


def _flows(
    report: Report, sizes: Sizes, data: Data, models: Models, method: str
) -> dict[str, Postprocess]:
    """A flow for each scale, one for all of CFG's (or CG's) samples, and one for all of REG's."""
    report.say(f"{method}: samples for the flows")
    pools = {
        scale: models.draw(method, scale, sizes.pool, first_seed=POOLS, steps=sizes.steps)
        for scale in sizes.scales
    }
    share = -(-sizes.pool // len(sizes.scales))
    rectified = [
        models.draw(method, scale, share, first_seed=POOLS, rectify=REG, steps=sizes.steps)
        for scale in sizes.scales
    ]
    sets = {f"{scale:g}": pools[scale] for scale in sizes.scales}
    generator = report.generator(10)
    sets["one"] = one_pool(list(pools.values()), sizes.pool, generator)
    sets["reg"] = one_pool(rectified, sizes.pool, generator)
    flows = {
        name: train_flow(report, f"{method}-{name}", samples, data, sizes)
        for name, samples in sets.items()
    }
    if method == "cg" and sizes.more:
        longer = replace(sizes, flow=sizes.more * sizes.flow)
        everything = torch.cat(list(pools.values()), 1)
        flows["more"] = train_flow(report, "cg-more", everything, data, longer)
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


def _targets(
    report: Report, data: Data, models: Models, found: Clouds
) -> dict[str, dict[float, list[Tensor]]]:
    """method -> scale -> draws of what guidance aims at, for each class."""
    generator = report.generator(20)
    return {
        method: {
            scale: [class_target(data, models, method, scale, y, generator) for y in (0, 1)]
            for scale in found[method]
        }
        for method in METHODS
    }


def _measured(
    report: Report,
    data: Data,
    found: dict[float, dict[str, Tensor]],
    targets: dict[float, list[Tensor]],
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """scale -> stage -> scores of each class."""
    report.say("measures")
    return {
        f"{scale:g}": {
            stage: [scores(cloud[y], data, y, targets[scale][y]) for y in (0, 1)]
            for stage, cloud in stages.items()
        }
        for scale, stages in found.items()
    }


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
    exact = data.mixture.denoiser(schedule=SCHEDULE)
    classifier = ExactClassifier(data.mixture, SCHEDULE)
    table: dict[str, Any] = {}
    models = replace(models, batch_size=256)
    for scale in (1.0, *sizes.scales):
        row = {}
        for name, method, parts, rectify in _combinations(models, exact, classifier):
            if rectify and scale == 1:
                continue
            report.say(f"scale {scale:g}: {name}")
            cloud = parts.draw(method, scale, sizes.exact, rectify=rectify, steps=sizes.steps)
            row[name] = [scores(cloud[y], data, y, None) for y in (0, 1)]
        table[f"{scale:g}"] = row
    return table


def _combinations(
    models: Models, exact: Any, classifier: ExactClassifier
) -> Iterator[tuple[str, str, Models, str | None]]:
    yield "trained denoiser, CFG", "cfg", models, None
    yield "trained denoiser, exact classifier", "cg", replace(models, classifier=classifier), None
    yield "trained denoiser, linear classifier", "cg", models, None
    yield "exact denoiser, CFG", "cfg", replace(models, conditional=exact), None
    yield "exact denoiser, linear classifier", "cg", replace(models, conditional=exact), None
    yield "exact denoiser, REG", "cfg", replace(models, conditional=exact), REG


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
