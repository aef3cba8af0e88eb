"""`reg-engine sample`: guided samples to a picture or an archive, CFG and REG side by side on
request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..errors import InputError
from ..guidance.damped import Damped
from ..loop.stats import Stats
from ..models import classifier_for, latents_of, load_model
from ..pictures.images import grid, to_uint8
from ..pictures.sheets import MOST_PIXELS, save_panels
from ..resume import engine_key, run_resumable
from ..storage.files import check_writable, replacing
from ..storage.shards import Shards
from .config import CONFIG_OPTIONS, save_config
from .notes import picture_notes
from .options import (
    adapter_file,
    apply,
    emit,
    guided_options,
    json_option,
    labels_of,
    plan_of,
    refine_of,
    run_options,
    scale_of,
    whole_numbers,
)
from .prompts import PROMPT_OPTIONS, pictures
from .shell import stopped

if TYPE_CHECKING:
    from ..adapters.vae import Decoder

__all__ = ["sample"]


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
@click.option(
    "--damping",
    default=None,
    help="mnist, fashion, or a file of `calibrate --damping`, in place of REG.",
)
@click.option(
    "--adapter", default=None, help="mnist, fashion, or a file of `distill`; not with REG."
)
@click.option(
    "--skip-below", default=0.0, show_default=True, type=float, help="No guidance where F is less."
)
@click.option(
    "--refine", default=None, metavar="LEVEL[:ROUNDS]", help="Noise to LEVEL and denoise again."
)
@click.option("--vae", default=None, help="Of a model of latents: an AutoencoderKL's folder.")
@apply([*PROMPT_OPTIONS, *CONFIG_OPTIONS])
@json_option
@click.pass_context
def sample(context: click.Context, prompt: tuple[str, ...], **given: Any) -> None:
    """Sample class-conditional images under guidance, or pictures of prompts.

    A run that is stopped leaves its finished batches in OUT.parts/; the same command goes on from
    there. With --prompt the model is a diffusers pipeline, a folder or a hub id.
    """
    save_config(context, given.pop("save_config"))
    del given["config"]
    if prompt:
        pictures(context)
        return
    for name in ("negative", "size", "out_dir"):
        if given.pop(name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(option, "goes with --prompt", "Give a --prompt, or leave it out")
    _labelled(context, **given)


def _labelled(
    context: click.Context,
    labels: str,
    per_label: int,
    scale: float,
    rectify: str,
    plan: str,
    seeds: str | None,
    out: str,
    compare: bool,
    damping: str | None,
    adapter: str | None,
    skip_below: float,
    vae: str | None,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    target, run["refine"] = _target(out, compare), refine_of(run["refine"])
    denoiser, decoder = load_model(model), _decoder(vae, model, target, run["device"])
    if decoder is not None:
        decoder.check(denoiser.sample_shape)
    chosen = labels_of(labels, per_label, denoiser)
    seed_list = _seeds(seeds, len(chosen))
    if target.suffix == ".png":
        _drawable(len(chosen) * (1 + compare), denoiser.sample_shape)
    weight = scale_of(scale, rectify, damping, skip_below, adapter)
    methods = _methods(scale, weight, rectify, compare, adapter is not None)
    own = {} if adapter is None else {"adapter": denoiser.with_adapter(adapter_file(adapter))}
    engines = {
        name: Engine(own.get(name, denoiser), scale=w, rectify=method, plan=plan_of(plan), **run)
        for name, (w, method) in methods.items()
    }
    settings = {
        **{"model": model, "labels": chosen},
        "seeds": seed_list,
        "scale": scale,
        "methods": methods,
        "plan": plan_of(plan),
        **run,
        "progress": None,
        "keys": [engine_key(engine) for engine in engines.values()],
    }
    shards = Shards(target.with_name(target.name + ".parts"), settings)
    with stopped(shards.folder, "*.npz"):
        results = {
            name: run_resumable(engine, torch.tensor(chosen), seed_list, shards, name)
            for name, engine in engines.items()
        }
    report = _report(model, results, torch.tensor(chosen), scale)
    if decoder is not None:
        results = {name: (decoder(samples), stats) for name, (samples, stats) in results.items()}
    if target.suffix == ".png":
        columns = per_label if per_label > 1 else min(10, len(chosen))
        _draw(target, results, report, columns, _notes(context, settings))
    else:
        _archive(target, results, chosen, seed_list)
    shards.remove()
    report["out"] = str(target)
    emit(report, as_json, _text(report))


def _seeds(text: str | None, samples: int) -> list[int]:
    seeds = list(range(samples)) if text is None else whole_numbers("seeds", text)
    if len(seeds) != samples:
        raise InputError("--seeds", f"{len(seeds)} for {samples} samples", "Give one a sample")
    return seeds


def _methods(
    scale: float, weight: float | Damped, rectify: str, compare: bool, adapted: bool
) -> dict[str, tuple[Any, str | None]]:
    """Scale or weight, and estimator, of what is sampled, by its name."""
    methods: dict[str, tuple[Any, str | None]] = {}
    method, damped = None if rectify == "none" else rectify, isinstance(weight, Damped)
    if compare or (method is None and not damped and not adapted):
        methods["CFG"] = scale, None
    if adapted:
        methods["adapter"] = scale, None
    elif damped:
        methods["damped"] = weight, method
    elif method is not None:
        methods["REG"] = scale, method
    return methods


def _target(out: str, compare: bool) -> Path:
    target = Path(out)
    if target.suffix not in (".png", ".npz"):
        raise InputError("--out", f"{out!r} has no known ending", "End it in .png or .npz")
    if compare and target.suffix != ".png":
        raise InputError("--compare", "draws a picture", "End --out in .png")
    return check_writable(target, "--out")


def _decoder(vae: str | None, model: str, target: Path, device: str | None) -> Decoder | None:
    """What makes pictures of the samples; None: they are pictures, or are kept as they are."""
    latents = latents_of(model)
    if vae is None:
        if latents is not None and target.suffix == ".png":
            remedy = "Give the folder of its AutoencoderKL, or end --out in .npz for the latents"
            raise InputError("--vae", f"is needed: {model} makes latents", remedy)
        return None
    if latents is None:
        raise InputError("--vae", f"is given, and {model} makes no latents", "Leave it out")
    from ..adapters.vae import decoder_of

    return decoder_of(vae, latents, device=device)


def _drawable(images: int, shape: tuple[int, ...]) -> None:
    """Refuse what no picture holds."""
    most = MOST_PIXELS // (4 * (shape[-1] + 2) * (shape[-2] + 2)) if len(shape) == 3 else 0
    if images > most:
        problem = f"{images} images of {shape} are no picture of {MOST_PIXELS} pixels"
        raise InputError("--out", problem, f"Ask for at most {most}, or end it in .npz")


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
    columns: int,
    notes: dict[str, str],
) -> None:
    panels = {}
    for name, (samples, stats) in results.items():
        agreement = report["methods"][name].get("label_agreement")
        share = "" if agreement is None else f", {agreement:.0%} label agreement"
        backward = f" + {stats.backward:g} backward" if stats.backward else ""
        cost = f"nfe {stats.nfe:g}{backward}, {stats.seconds:.1f} s"
        title = f"{name}, scale {report['scale']:g}{share}, {cost}"
        panels[title] = grid(to_uint8(samples), columns)
    save_panels(target, panels, notes=notes)


def _notes(context: click.Context, settings: dict[str, Any]) -> dict[str, str]:
    kept = {key: value for key, value in settings.items() if key not in ("keys", "progress")}
    return picture_notes(context, {**kept, "model": Path(kept["model"]).name})


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
