"""`reg-engine reproduce`: the paper's tables and fronts on published models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, choice
from ..storage.files import check_writable, write_whole
from .options import emit, json_option, numbers
from .shell import stopped

if TYPE_CHECKING:
    import torch

    from ..adapters.vae import Decoder
    from ..reproduce.points import RecipePoint
    from ..reproduce.recipes import Recipe
    from ..reproduce.run import Judge, Sampler
    from ..scoring import Network, Statistics

__all__ = ["reproduce"]

CARD = "NVIDIA H200"


@click.command(
    epilog="Example: reg-engine reproduce edm2-s-512 --weights networks --vae sd-vae-ft-mse "
    "--features inception:weights-inception-2015-12-05-6726825d.pth --stats img512.pkl "
    "--methods vanilla,autoguidance --rectify none,paper,fd_batched --device cuda"
)
@click.argument("name", required=False)
@click.option("--weights", help="The folder of the networks' files; of a pipeline its folder.")
@click.option("--vae", help="Of a model of latents: an AutoencoderKL's folder.")
@click.option("--features", help="A feature network, as for evaluate; inception:FILE is papers'.")
@click.option("--stats", help="Statistics of the real images, as for evaluate.")
@click.option("--prompts", help="Of a pipeline: a text file with one prompt a picture.")
@click.option("--clip", help="Of a pipeline: a CLIPModel's folder, for CLIP score.")
@click.option("--methods", help="Of the recipe's, parted by commas.  [default: all]")
@click.option("--rectify", default="none,paper", show_default=True, help="none = without REG.")
@click.option("--scales", help="Guidance scales.  [default: the recipe's]")
@click.option("--metrics", help="fid, is.  [default: both of classes, fid of prompts]")
@click.option("--samples", type=int, help="A point.  [default: the paper's]")
@click.option("--steps", type=int, help="Solver steps.  [default: the paper's]")
@click.option("--batch-size", default=8, show_default=True, type=int, help="Samples a batch.")
@click.option("--device", help="cpu or cuda; default: where the files put them, the CPU.")
@click.option(
    "--dtype", default="keep", show_default=True, help="keep, float16, bfloat16, float32."
)
@click.option("--dry-run", is_flag=True, help="Say what is needed and how long it takes, no more.")
@click.option(
    "--out",
    default="out/reproduce",
    show_default=True,
    help="Writes OUT.json and OUT.png; unfinished work lies in OUT.parts/.",
)
@click.option("--progress/--no-progress", default=True, help="Draw a progress bar.")
@json_option
def reproduce(name: str | None, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Sample and score a row of the paper's Tables 2 and 3: each method over scales, without and
    with REG. Without NAME: the recipes.

    Weights are the published ones, which `reg-engine convert` makes files of. A run that is stopped
    goes on with the same command.
    """
    # Here, so that the other commands start without it.
    from ..reproduce import RECIPES, recipe
    from ..reproduce.points import points_of

    if name is None:
        rows = [{"name": r.name, "title": r.title, "where": r.where} for r in RECIPES.values()]
        lines = [f"{r.name:14}{r.title:24}{r.where}" for r in RECIPES.values()]
        emit({"recipes": rows}, as_json, "\n".join(lines))
        return
    what, methods = recipe(name), given["methods"]
    points = points_of(
        what,
        None if methods is None else _listed(methods),
        _listed(given["rectify"]),
        None if given["scales"] is None else numbers("scales", given["scales"]),
        given["steps"],
    )
    count = what.count if given["samples"] is None else given["samples"]
    if count < 2:
        raise InputError("--samples", f"is {count}", "Give 2 or more; the paper has 50,000")
    if dry_run:
        found = _needs(what, points, count, given["weights"])
        emit(found, as_json, _words(what, found))
        return
    _run(what, points, count, as_json, given)


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _needs(
    what: Recipe, points: list[RecipePoint], count: int, weights: str | None
) -> dict[str, Any]:
    """The files, whether they are there, and the time of all points."""
    from ..reproduce.points import evaluations

    stems = {s for p in points if (f := p.files) for s in (f.net, f.reference) if s is not None}
    folder = None if weights is None else Path(weights)
    files = {
        f"{stem}.safetensors": folder is not None and (folder / f"{stem}.safetensors").is_file()
        for stem in sorted(stems)
    }
    once = {point.name: point for point in points}
    seconds = sum(evaluations(point) for point in once.values()) * count * what.seconds
    return {
        "recipe": what.name,
        "files": files,
        "vae": what.latents,
        "points": len(once),
        "samples": count,
        "hours": seconds / 3600,
        "card": CARD,
        "by_operations": what.by_operations,
        "note": what.note,
    }


def _words(what: Recipe, found: dict[str, Any]) -> str:
    lines = [f"{what.title}: {what.where} of Gao et al. 2025"]
    for file, there in found["files"].items():
        lines.append(f"  {'there ' if there else 'needed'}  {file}")
    if found["files"]:
        ending = ".pt" if what.channels else ".pkl"
        lines.append(f"          (each by reg-engine convert NAME{ending} NAME.safetensors)")
    if what.prompts:
        lines.append("  needed  --weights, the pipeline's folder; --prompts; --clip for CLIP score")
    if what.latents:
        lines.append("  needed  --vae, the AutoencoderKL that decodes the latents")
    lines.append("  needed  --features and --stats of the real images")
    how = "by operations, from a smaller network" if found["by_operations"] else "measured steps"
    lines.append(
        f"{found['points']} points of {found['samples']:,} samples: about {found['hours']:.1f} "
        f"hours of one {found['card']} in bfloat16, batches of 8, without VAE and features ({how})"
    )
    return "\n".join(lines + ([f"note: {found['note']}"] if found["note"] else []))


def _run(
    what: Recipe, points: list[RecipePoint], count: int, as_json: bool, given: dict[str, Any]
) -> None:
    from ..pictures.plots import check_matplotlib
    from ..pictures.reproduction import save_reproduction
    from ..reproduce import Reproduction

    base = given["out"].removesuffix(".json")
    target, picture = (check_writable(Path(f"{base}.{kind}"), "--out") for kind in ("json", "png"))
    check_matplotlib()
    for option in ("weights", "features"):
        if given[option] is None:
            raise InputError(f"--{option}", "is missing", "--dry-run says what is needed")
    judge, sampler = _judge(what, given), _sampler(what, count, given)
    folder, size, progress = Path(f"{base}.parts"), given["batch_size"], given["progress"]
    work = Reproduction(what, sampler, judge, folder, size, progress)
    rows = []
    with stopped(folder):
        for row in work.measure(points):
            rows.append(row)
            if not as_json:
                click.echo(_line(row))
    report = {"recipe": what.name, "title": what.title, "where": what.where, "samples": count}
    report |= {"note": what.note, "steps": points[0].steps, **judge.described()}
    chosen = ("weights", "vae", "device", "dtype", "batch_size")
    report |= {"run": {name: given[name] for name in chosen}, "points": rows}
    write_whole(target, (json.dumps(report, indent=1) + "\n").encode(), "--out")
    save_reproduction(report, picture)
    work.remove()
    emit(report, as_json, f"{_warned(rows)}written to {target} and {picture}")


def _judge(what: Recipe, given: dict[str, Any]) -> Judge:
    from ..reproduce.run import Judge
    from ..scoring import load_network
    from ..scoring.job import check_metrics
    from ..scoring.prompts import load_prompt_score
    from ..scoring.reference import file_reference

    names = given["metrics"] or ("fid" if what.prompts else "fid,is")
    metrics, device = tuple(_listed(names)), given["device"] or "cpu"
    check_metrics(metrics, given["stats"] is not None, False)
    if "fid" not in metrics:
        raise InputError("--metrics", "lack fid, which the fronts are of", "Name it too")
    network: Network = load_network(given["features"], device=device)
    statistics: Statistics | None = None
    if given["stats"] is not None:
        statistics = file_reference(given["stats"], network)
    scores = () if given["clip"] is None else (load_prompt_score(f"clip:{given['clip']}", device),)
    if scores and not what.prompts:
        raise InputError("--clip", f"is given, and {what.name} has no prompts", "Leave it out")
    return Judge(network, metrics, statistics, scores)


def _sampler(what: Recipe, count: int, given: dict[str, Any]) -> Sampler:
    dtype = _dtype(given["dtype"])
    if not what.prompts:
        from ..reproduce.run import Models

        decoder = None if given["vae"] is None else _decoding(given["vae"], given["device"])
        return Models(Path(given["weights"]), count, decoder, given["device"], dtype)
    from ..reproduce.pipelines import Pipelines
    from ..scoring.prompts import read_prompts

    if given["prompts"] is None:
        raise InputError("--prompts", "is missing", "Give a text file, one prompt a picture")
    prompts = read_prompts(given["prompts"], count)
    return Pipelines(given["weights"], prompts, given["device"], dtype)


def _decoding(vae: str, device: str | None) -> Callable[[Path], Decoder]:
    """What makes the decoder of a model's file, all of them of one VAE."""
    from ..adapters.vae import decoder_of
    from ..models import Latents, description_of, latents_of

    loaded = decoder_of(vae, Latents(), device=device)

    def decoding(path: Path) -> Decoder:
        latents = latents_of(path)
        assert latents is not None  # or no decoder is asked for
        decoder = replace(loaded, latents=latents)
        decoder.check(tuple(description_of(path)["sample_shape"]))
        return decoder

    return decoding


def _dtype(name: str) -> torch.dtype | None:
    import torch

    choice("dtype", name, ("keep", "float16", "bfloat16", "float32"))
    return None if name == "keep" else getattr(torch, name)


def _line(row: dict[str, Any]) -> str:
    text = f"{row['method']:14}{row['rectify']:12}scale {row['scale']:<6g}"
    text += f"FID {row['fid']['value']:8.3f}" if "fid" in row else ""
    for name in ("is", "clip"):
        text += f"  {name} {row[name]['mean']:7.2f}" if name in row else ""
    if row["cost"] is not None:
        text += f"  nfe {row['cost']['nfe']:.1f}  {row['cost']['seconds']:.1f} s"
    return text


def _warned(rows: list[dict[str, Any]]) -> str:
    said = dict.fromkeys(row["warning"] for row in rows if row["warning"])
    return "".join(f"note: {text}\n" for text in said)
