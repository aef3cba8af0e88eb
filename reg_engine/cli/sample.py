"""`reg-engine sample`: guided samples to a picture or an archive, CFG and REG side by side on
request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..errors import InputError
from ..files import check_writable, replacing
from ..images import grid, to_uint8
from ..models import classifier_for, load_model
from ..pictures import save_panels
from ..readers import refusing
from ..shards import Shards
from ..stats import Stats
from .options import (
    apply,
    emit,
    fingerprint,
    guided_options,
    json_option,
    plan_of,
    run_options,
    whole_numbers,
)

__all__ = ["run_resumable", "sample"]


@click.command(
    epilog="Example: reg-engine sample --labels 0-9 --per-label 10 --scale 4 --compare "
    "--out out/demo.png"
)
@apply([*run_options, *guided_options])
@click.option("--seeds", default=None, help="One a sample: 0-99. Default: 0, 1, 2, ...")
@click.option(
    "--out", default="samples.png", show_default=True, help="A .png grid or a .npz archive."
)
@click.option("--compare", is_flag=True, help="CFG and REG side by side (PNG only).")
@json_option
def sample(
    labels: str,
    per_label: int,
    scale: float,
    rectify: str,
    plan: str,
    seeds: str | None,
    out: str,
    compare: bool,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    """Sample class-conditional images under guidance.

    A run that is stopped leaves its finished batches in OUT.parts/; the same command goes on from
    there.
    """
    target = _target(out, compare)
    if per_label < 1:
        raise InputError("--per-label", f"is {per_label}", "Give a number >= 1")
    chosen = [label for label in whole_numbers("labels", labels) for _ in range(per_label)]
    seed_list = list(range(len(chosen))) if seeds is None else whole_numbers("seeds", seeds)
    denoiser = load_model(model)
    methods: dict[str, str | None] = {"CFG": None} if compare or rectify == "none" else {}
    methods |= {"REG": rectify} if rectify != "none" else {}
    engines = {
        name: Engine(denoiser, scale=scale, rectify=method, plan=plan_of(plan), **run)
        for name, method in methods.items()
    }
    settings = {
        "weights": fingerprint(denoiser),
        "labels": chosen,
        "seeds": seed_list,
        "scale": scale,
        "methods": methods,
        "plan": plan_of(plan),
        **run,
        "progress": None,
    }
    shards = Shards(target.with_name(target.name + ".parts"), settings)
    results = {
        name: run_resumable(engine, torch.tensor(chosen), seed_list, shards, name)
        for name, engine in engines.items()
    }
    report = _report(model, results, torch.tensor(chosen), scale)
    if target.suffix == ".png":
        _draw(target, results, report, scale, columns=per_label if per_label > 1 else 10)
    else:
        _archive(target, results, chosen, seed_list)
    shards.remove()
    report["out"] = str(target)
    emit(report, as_json, _text(report))


def _target(out: str, compare: bool) -> Path:
    target = Path(out)
    if target.suffix not in (".png", ".npz"):
        raise InputError("--out", f"{out!r} has no known ending", "End it in .png or .npz")
    if compare and target.suffix != ".png":
        raise InputError("--compare", "draws a picture", "End --out in .png")
    return check_writable(target, "--out")


def run_resumable(
    engine: Engine, labels: Tensor, seeds: list[int], shards: Shards, name: str
) -> tuple[Tensor, Stats]:
    """As Engine.sample, but batches that are on disk are read, and new ones written as they
    finish."""
    size = engine.batch_size or len(seeds)
    samples = torch.empty((len(seeds), *engine.denoiser.sample_shape))
    stats = Stats()
    if len(labels) != len(seeds):
        raise InputError("--seeds", f"{len(seeds)} for {len(labels)} samples", "Give one a sample")
    for number, start in enumerate(range(0, len(seeds), size)):
        rows = slice(start, start + size)
        shape = (len(seeds[rows]), *engine.denoiser.sample_shape)
        kept = shards.load(f"{name}-{number:05d}", shape)
        if kept is None:
            try:
                out = engine.sample(labels[rows], seeds[rows])
            except KeyboardInterrupt:
                click.echo(
                    f"stopped: finished batches are kept in {shards.folder}; the same command goes "
                    "on from there",
                    err=True,
                )
                raise
            kept = out.samples.float(), out.stats.as_dict()
            shards.store(f"{name}-{number:05d}", *kept)
        samples[rows] = kept[0]
        with refusing("out", f"{shards.folder} holds a damaged batch", "Delete that folder"):
            stats.merge(kept[1])
    return samples, stats


def _report(
    model: str, results: dict[str, tuple[Tensor, Stats]], labels: Tensor, scale: float
) -> dict[str, Any]:
    classifier = classifier_for(model)
    report: dict[str, Any] = {"model": model, "scale": scale, "methods": {}}
    for name, (samples, stats) in results.items():
        row: dict[str, Any] = stats.as_dict()
        if classifier is not None:
            from ..metrics import label_agreement

            row["label_agreement"] = label_agreement(classifier, samples, labels).share
        report["methods"][name] = row
    return report


def _draw(
    target: Path,
    results: dict[str, tuple[Tensor, Stats]],
    report: dict[str, Any],
    scale: float,
    columns: int,
) -> None:
    panels = {}
    for name, (samples, stats) in results.items():
        agreement = report["methods"][name].get("label_agreement")
        share = "" if agreement is None else f", {agreement:.0%} label agreement"
        backward = f" + {stats.backward:g} backward" if stats.backward else ""
        title = (
            f"{name}, scale {scale:g}{share}, nfe {stats.nfe:g}{backward}, {stats.seconds:.1f} s"
        )
        panels[title] = grid(to_uint8(samples), columns)
    save_panels(target, panels)


def _archive(
    target: Path, results: dict[str, tuple[Tensor, Stats]], labels: list[int], seeds: list[int]
) -> None:
    ((samples, _),) = results.values()
    with replacing(target, "--out") as file:
        np.savez_compressed(
            file, samples=samples.numpy(), labels=np.array(labels), seeds=np.array(seeds)
        )


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"{'method':8}{'seconds':>9}{'nfe':>8}{'backward':>10}{'estimator':>12}{'agreement':>11}"
    ]
    for name, row in report["methods"].items():
        share = row.get("label_agreement")
        lines.append(
            f"{name:8}{row['seconds']:9.1f}{row['nfe']:8.1f}{row['backward']:10.1f}"
            f"{row['estimator']:>12}{'-' if share is None else f'{share:.1%}':>11}"
        )
    return "\n".join([*lines, f"written to {report['out']}"])
