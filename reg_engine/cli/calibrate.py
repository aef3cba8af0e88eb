"""`reg-engine calibrate`: find the cheapest plan within a tolerance and write it as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from ..models import load_model
from ..plan import Plan
from ..storage.files import check_writable
from .options import apply, emit, json_option, labels_of, run_options

__all__ = ["calibrate"]


@click.command(epilog="Example: reg-engine calibrate --scale 4 --tolerance 0.02 --out plan.json")
@apply(run_options)
@click.option("--labels", default="0-9", show_default=True, help="Class labels: 0-9 or 3,5,7.")
@click.option("--scale", default=4.0, show_default=True, type=float, help="Guidance scale.")
@click.option("--rectify", default="auto", show_default=True, help="An estimator or auto.")
@click.option(
    "--tolerance",
    default=0.02,
    show_default=True,
    type=float,
    help="Largest relative root-mean-square distance from full REG.",
)
@click.option("--out", default="plan.json", show_default=True, help="The plan's file.")
@json_option
def calibrate(
    labels: str,
    scale: float,
    rectify: str,
    tolerance: float,
    out: str,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    """Measure where the rectifier and the reference matter, and plan to skip them elsewhere."""
    target = check_writable(Path(out), "--out")
    denoiser = load_model(model)
    chosen = labels_of(labels, 1, denoiser)
    plan = Plan.calibrate(
        denoiser,
        torch.tensor(chosen),
        tolerance=tolerance,
        seeds=range(len(chosen)),
        scale=scale,
        rectify=rectify,
        **run,
    )
    plan.save(target)
    report = {**plan.report, "edges": list(plan.edges), "modes": list(plan.modes), "out": out}
    bands = " | ".join(
        f"{mode} {'' if i == len(plan.edges) else f'below {plan.edges[i]:.3g}'}".strip()
        for i, mode in enumerate(plan.modes)
    )
    emit(
        report,
        as_json,
        (
            f"plan by noise level: {bands}\n"
            f"cost {report['cost']:g} F a sample (full REG {report['cost_full']:g}, CFG "
            f"{report['cost_cfg']})\n"
            f"measured deviation from full REG {report['measured_deviation']:.4f} "
            f"(tolerance {tolerance:g})\nwritten to {out}"
        ),
    )
