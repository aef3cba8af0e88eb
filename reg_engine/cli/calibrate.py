"""`reg-engine calibrate`: the cheapest plan within a tolerance, or a damping, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from ..calibration.damping import METHODS, Damping, calibrate_damping
from ..errors import InputError
from ..models import load_model
from ..plan import Plan
from ..storage.files import check_writable
from .config import said
from .options import apply, emit, json_option, labels_of, numbers, run_options

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
@click.option(
    "--damping", type=click.Choice(METHODS), default=None, help="A damping in place of a plan."
)
@click.option("--rectified", is_flag=True, help="With --damping tilt: on top of K delta.")
@click.option("--scales", default="2,3,5", show_default=True, help="Of --damping tilt.")
@click.option("--out", default="plan.json", show_default=True, help="The file to write.")
@json_option
@click.pass_context
def calibrate(
    context: click.Context,
    labels: str,
    scale: float,
    rectify: str,
    tolerance: float,
    damping: str | None,
    rectified: bool,
    scales: str,
    out: str,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    """Measure where the rectifier and the reference matter, and plan to skip them elsewhere; or,
    with --damping, how much REG damps guidance at every noise level."""
    target = check_writable(Path(out), "--out")
    _together(context, damping)
    denoiser = load_model(model)
    chosen = labels_of(labels, 1, denoiser)
    if damping is not None:
        options = {"method": damping, "rectified": rectified, **run}
        table = calibrate_damping(
            denoiser, torch.tensor(chosen), numbers("scales", scales), **options
        )
        table.save(target)
        _tell(table, out, as_json)
        return
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


def _together(context: click.Context, damping: str | None) -> None:
    """Raise InputError for an option that would do nothing."""
    for name in ("rectified", "scales"):
        if damping is None and said(context, name):
            remedy = "Give --damping tilt too, or leave it out"
            raise InputError(f"--{name}", "is for dampings", remedy)
    if damping == "rayleigh" and said(context, "scales"):
        raise InputError("--scales", "is for --damping tilt: rayleigh has none", "Leave it out")
    for name in ("scale", "rectify", "tolerance"):
        if damping is not None and said(context, name):
            raise InputError(f"--{name}", "is for plans", "Leave it, or --damping, out")


def _tell(table: Damping, out: str, as_json: bool) -> None:
    scales = table.scales or (None,)
    lines = [
        "F by noise level"
        + ("" if scale is None else f", scale {scale:g}")
        + ": "
        + " ".join(f"{level:.3g}:{f:.3f}" for level, f in zip(table.levels, row, strict=True))
        for scale, row in zip(scales, table.factors, strict=True)
    ]
    lines += [table.meaning(scale) for scale in table.scales]
    report = {**asdict(table), "out": out}
    emit(report, as_json, "\n".join([*lines, f"written to {out}"]))
