"""`reg-engine evaluate`: label agreement and FID over guidance scales, CFG against REG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from ..data.mnist import load_data_set
from ..engine import Engine
from ..errors import InputError
from ..models import PACKAGED, classifier_for, data_of, load_model
from ..resume import digest, run_resumable
from ..storage.files import check_writable, write_whole
from ..storage.shards import Shards
from .options import apply, emit, fit, json_option, numbers, plan_of, run_options
from .shell import stopped

__all__ = ["evaluate"]


@click.command(
    epilog="Example: reg-engine evaluate --scales 1,1.5,2,3,4,6 --samples 1000 "
    "--data mnist.npz --out out/evaluation"
)
@apply(run_options)
@click.option("--scales", default="1,1.5,2,3,4,6", show_default=True, help="Guidance scales.")
@click.option(
    "--rectify", default="none,auto", show_default=True, help="Estimators to compare; none = CFG."
)
@click.option(
    "--plan", default="full", show_default=True, help="full, LO:HI noise levels, or a file."
)
@click.option("--samples", default=1000, show_default=True, type=int, help="Samples a point.")
@click.option(
    "--data",
    default=None,
    help="mnist.npz or fashion_mnist.npz, as the model was trained on; default: REG_ENGINE_DATA, "
    "or a download.",
)
@click.option(
    "--out",
    default="out/evaluation",
    show_default=True,
    help="Writes OUT.json and OUT.png; unfinished work lies in OUT.parts/.",
)
@json_option
def evaluate(
    scales: str,
    rectify: str,
    plan: str,
    samples: int,
    data: str | None,
    out: str,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    """Label agreement and FID (in the packaged classifier's features, against the test images of
    the data set that the model was trained on: MNIST or Fashion-MNIST)."""
    from ..metrics import fid, label_agreement

    if samples < 10:
        raise InputError("--samples", f"is {samples}", "Give 10 or more; FID needs about 1000")
    target, _ = (check_writable(Path(f"{out}.{kind}"), "--out") for kind in ("json", "png"))
    denoiser, classifier, data_set = load_model(model), classifier_for(model), data_of(model)
    if classifier is None or data_set is None:
        known = " or ".join(PACKAGED)
        raise InputError(
            "--model", f"{model} has no classifier to judge it", f"Use --model {known}"
        )
    fit("--samples", samples, denoiser)
    real = load_data_set(data_set, data).test_images
    assert denoiser.num_classes is not None  # a packaged model has classes
    labels = torch.arange(samples) % denoiser.num_classes
    settings = {"model": model, "data": data_set, "plan": plan, "samples": samples, **run}
    settings.pop("progress")
    planned, points = plan_of(plan), []
    engines = {
        (name, scale): Engine(
            denoiser, scale=scale, rectify=None if name == "none" else name, plan=planned, **run
        )
        for name in (part.strip() for part in rectify.split(","))
        for scale in numbers("scales", scales)
    }
    shards = Shards(
        Path(f"{out}.parts"),
        {**settings, "edges": planned.edges, "modes": planned.modes, "weights": digest(denoiser)},
    )
    with stopped(shards.folder, "*.npz"):
        for (name, scale), engine in engines.items():
            found, stats = run_resumable(
                engine, labels, list(range(samples)), shards, f"{name}-{scale!r}"
            )
            point = _point(name, scale, found, stats.as_dict())
            share = label_agreement(classifier, found, labels)
            point |= {"label_agreement": share.share, "low": share.low, "high": share.high}
            point["fid"] = fid(classifier, found, real)
            points.append(point)
            if not as_json:
                click.echo(_line(point))
    report = {"settings": settings, "points": points}
    write_whole(target, (json.dumps(report, indent=1) + "\n").encode(), "--out")
    _plot(points, Path(f"{out}.png"))
    shards.remove()
    emit(report, as_json, f"written to {out}.json and {out}.png")


def _point(name: str, scale: float, samples: Tensor, stats: dict[str, Any]) -> dict[str, Any]:
    keep = ("nfe", "backward", "seconds", "estimator", "reason")
    return {
        "method": "CFG" if name == "none" else f"REG ({name})",
        "scale": scale,
        "samples": int(samples.shape[0]),
        **{key: stats[key] for key in keep},
    }


def _line(point: dict[str, Any]) -> str:
    return (
        f"{point['method']:18} scale {point['scale']:<5g} FID {point['fid']:8.3f}  agreement "
        f"{point['label_agreement']:7.2%}  nfe {point['nfe']:6.1f}  {point['seconds']:7.1f} s"
    )


def _plot(points: list[dict[str, Any]], path: Path) -> None:
    """FID and label agreement against the scale, and the front of one against the other."""
    from ..pictures.plots import save_evaluation

    save_evaluation(points, path)
