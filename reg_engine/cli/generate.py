"""`reg-engine generate`: many images into a folder, by as many processes as there are."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..loop.progress import Progress
from .config import CONFIG_OPTIONS, said, save_config
from .options import apply, emit, json_option, plan_of, run_options, whole_numbers

if TYPE_CHECKING:
    import torch

    from ..generation import Finished, Job, Records, Sampler

__all__ = ["generate"]

OF_LABELS = ("vae", "labels")  # without prompts only


@click.command(
    epilog="Example: reg-engine generate --model mnist --labels uniform --seeds 0-49999 "
    "--scale 4 --out digits"
)
@apply(run_options)
@click.option("--seeds", required=True, help="0-49999, or 0-99,200-299: image k is of seed k.")
@click.option("--out", required=True, help="The folder: of one job, for all its processes.")
@click.option(
    "--labels",
    default="uniform",
    show_default=True,
    help="uniform (by seed), each:50 (of every class, in a row), 0-9 (in turn), file:PATH.",
)
@click.option("--prompts", help="A text file with one a line; the model is a diffusers pipeline.")
@click.option("--scale", default=4.0, show_default=True, type=float, help="Scale, 1 = none.")
@click.option("--rectify", default="auto", show_default=True, help="An estimator, auto or none.")
@click.option("--plan", default="full", show_default=True, help="full, LO:HI, or a file.")
@click.option("--vae", help="Of a model of latents: an AutoencoderKL's folder.")
@click.option("--format", default="png", show_default=True, help="png, webp, jpeg, npz or tar.")
@click.option("--quality", type=int, help="Of jpeg (default 95) and webp (default: lossless).")
@click.option("--shard-size", type=int, help="Images a shard; default: whole batches, about 256.")
@click.option("--shard", default="0/1", show_default=True, help="I/N: only every Nth, from I on.")
@click.option("--on-error", default="stop", show_default=True, help="Of NaN: stop or skip.")
@click.option("--grace", default=30.0, show_default=True, help="Seconds after SIGTERM.")
@click.option("--expiry", default=60.0, show_default=True, help="Seconds until a lost one's work.")
@click.option("--dry-run", is_flag=True, help="Say how much is left, and how long it takes.")
@click.option("--verify", is_flag=True, help="Compute checksums again, and make one shard anew.")
@apply(CONFIG_OPTIONS)
@json_option
@click.pass_context
def generate(context: click.Context, as_json: bool, **given: Any) -> None:
    """Make the images of many seeds: shard by shard, each written once, in a folder that any number
    of processes share (torchrun, Slurm arrays, or by hand). The same command goes on, and does only
    what is missing; the bytes do not depend on who made what.
    """
    begun = time.perf_counter()
    from ..generation import Records, verify

    save_config(context, given.pop("save_config"))
    part = _part(given["shard"])
    job, sampler, settings = _job(context, given)
    records = Records(given["out"], job, sampler.fingerprint(), settings)
    if given["dry_run"]:
        _plan(sampler, job, records, begun, as_json)
    elif given["verify"]:
        records.open()
        found = verify(sampler, records)
        text = "\n".join(f"{name}: {_shown(value)}" for name, value in vars(found).items())
        emit({**vars(found), "whole": found.whole}, as_json, text)
        if not found.whole:
            remedy = "Remove what is damaged or foreign, and give the same command without --verify"
            raise InputError("--out", f"{given['out']} is not whole", remedy)
    else:
        _run(sampler, job, records, given, settings, part, as_json)


def _job(context: click.Context, given: dict[str, Any]) -> tuple[Job, Sampler, dict[str, Any]]:
    """What is made, what makes it, and what people may read of that."""
    from ..generation import Cycle, Job, OfLabels, OfPrompts, lines_of, ranges_of, rule_of

    seeds, path = ranges_of(given["seeds"]), Path(given["model"])
    settings: dict[str, Any] = {"model": path.name if path.exists() else given["model"]}
    settings |= {name: given[name] for name in ("scale", "rectify", "plan", "solver", "steps")}
    choices = {
        "scale": given["scale"],
        "rectify": None if given["rectify"] == "none" else given["rectify"],
        "plan": plan_of(given["plan"]),
    }
    chosen = ("batch_size", "shard_size", "format", "quality")
    sizes = {name: given[name] for name in chosen}
    if given["prompts"] is not None:
        for name in OF_LABELS:
            if said(context, name):
                raise InputError(f"--{name}", "does not go with --prompts", "Leave it out")
        name = f"file:{Path(given['prompts']).name}"
        job = Job(seeds, Cycle(tuple(lines_of(given["prompts"])), name), **sizes)
        # Of the pipeline where nobody says.
        own = {n: given[n] if said(context, n) else None for n in ("solver", "steps")}
        return job, OfPrompts(_pipeline(given), {**choices, **own}), settings | own

    from ..engine import Engine
    from ..models import load_model

    denoiser = load_model(given["model"])
    text = given["labels"]
    listed = text.partition(":")[0] not in ("uniform", "each", "file")
    values = whole_numbers("labels", text) if listed else None
    rule = rule_of(text, denoiser.num_classes, values)
    job = Job(seeds, rule, **sizes)
    run = {name: given[name] for name in ("solver", "steps", "batch_size")}
    engine = Engine(denoiser, device=_device(given["device"]), progress=False, **choices, **run)
    return job, OfLabels(engine, _decoder(given, denoiser.sample_shape, engine.device)), settings


def _pipeline(given: dict[str, Any]) -> Any:
    from ..integrations.diffusers import load_pipeline

    pipe = load_pipeline(given["model"])
    pipe.set_progress_bar_config(disable=True)
    device = _device(given["device"])
    return pipe if device is None else pipe.to(device)


def _decoder(given: dict[str, Any], shape: tuple[int, ...], device: torch.device) -> Any:
    """What makes pictures of a model's samples; None: they are."""
    from ..models import latents_of

    latents, vae = latents_of(given["model"]), given["vae"]
    if (latents is None) != (vae is None):
        problem = "is given, and the model makes no latents"
        if vae is None:
            problem = "is needed: the model makes latents"
        raise InputError("--vae", problem, "Give it with models of latents, and only with them")
    if latents is None:
        return None
    from ..adapters.vae import decoder_of

    decoder = decoder_of(vae, latents, device=device)
    decoder.check(shape)
    return decoder


def _device(text: str | None) -> str | None:
    """Of several processes of one machine each takes its own GPU."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if text in (None, "cuda") and local.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return text


def _start() -> float:
    """Where to begin, of all shards: apart from the other processes of a torchrun."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank.isdecimal() and size.isdecimal() and int(rank) < int(size):
        return int(rank) / int(size)
    return 0.0


def _part(text: str) -> tuple[int, int]:
    index, _, parts = text.partition("/")
    if not (index.isdecimal() and parts.isdecimal() and int(index) < int(parts)):
        raise InputError("--shard", f"is {text!r}", "Write I/N, with 0 <= I < N")
    return int(index), int(parts)


def _run(
    sampler: Sampler,
    job: Job,
    records: Records,
    given: dict[str, Any],
    settings: dict[str, Any],
    part: tuple[int, int],
    as_json: bool,
) -> None:
    from ..generation import generate as shards
    from ..generation.grace import Grace

    begun = time.perf_counter()
    records.open()
    missing, images = records.missing(), 0
    failed: list[int] = []
    done = job.shards - len(missing)
    first = {"event": "start", "images": len(job), "shards": job.shards, "missing": spans(missing)}
    _say(first, as_json, f"{len(missing)} of {job.shards} shards to make: {first['missing']}")
    how = {name: given[name] for name in ("on_error", "expiry")}
    bar = Progress(job.shards, given["progress"] and not as_json, "generating")
    plain = not sys.stderr.isatty()
    with Grace(given["grace"]) as stop, bar:
        bar.advance(done)
        made = shards(
            sampler,
            job,
            given["out"],
            part=part,
            start=_start(),
            settings=settings,
            stop=stop,
            **how,
        )
        counted = done
        for shard in made:
            images, failed = images + shard.images, failed + shard.failed
            bar.advance(shard.done - counted)
            counted = shard.done
            rate = (counted - done) / (time.perf_counter() - begun)
            left = (job.shards - counted) / rate if rate > 0 else math.inf
            line, text = _line(shard, job.shards, left)
            if as_json or plain:
                _say(line, as_json, text)
    seconds = time.perf_counter() - begun
    last = {"event": "end", "images": images, "failed": failed, "seconds": seconds}
    last |= {"shards_left": len(records.missing()), "out": given["out"]}
    text = f"{images} images made in {seconds:.1f} s, {last['shards_left']} shards left"
    text += f"; NaN in seeds {', '.join(map(str, failed))}" if failed else ""
    _say(last, as_json, text)


def _line(shard: Finished, shards: int, left: float) -> tuple[dict[str, Any], str]:
    kept = {name: value for name, value in shard._asdict().items() if name != "files"}
    kept |= {"event": "shard", "shards": shards}
    kept["seconds_left"] = left if math.isfinite(left) else None
    text = f"shard {shard.number}: {shard.images} images in {shard.seconds:.1f} s; "
    return kept, f"{text}{shard.done} of {shards} shards, {left:.0f} s left"


def _plan(sampler: Sampler, job: Job, records: Records, begun: float, as_json: bool) -> None:
    """Counts first; then one batch is made and timed, and written nowhere."""
    if records.out.is_dir() and (records.out / "job.json").exists():
        records.open()
    missing = records.missing()
    left = sum(len(job.shard(number).seeds) for number in missing)
    report: dict[str, Any] = {"images": len(job), "shards": job.shards, "images_left": left}
    report |= {"missing": spans(missing), "plan_seconds": time.perf_counter() - begun}
    seeds = job.shard(0).seeds[: job.batch_size]
    labels = [job.labels.of(seed) for seed in seeds]
    sampler.settle(labels[0], seeds[0])
    clock = time.perf_counter()
    images = sampler(labels, seeds).numpy()
    files = list(job.writer().files("000000", images, seeds, labels))
    report["seconds_per_image"] = (time.perf_counter() - clock) / len(seeds)
    report["bytes_per_image"] = sum(len(data) for _, data in files) / len(seeds)
    report["seconds_left"] = report["seconds_per_image"] * left
    report["bytes_left"] = round(report["bytes_per_image"] * left)
    text = (
        f"{len(job):,} images in {job.shards:,} shards; {left:,} images to make, of shards "
        f"{report['missing']}\nabout {report['bytes_left'] / 1e6:,.1f} MB and "
        f"{report['seconds_left']:,.0f} s of one process, by a batch of {len(seeds)}"
    )
    emit(report, as_json, text)


def spans(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as '1-3,7'; of many spans the first."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [f"{low}-{high}" if high > low else f"{low}" for low, high in found]
    return ",".join(texts[:50]) + (",..." if len(texts) > 50 else "") or "none"


def _shown(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


def _say(data: dict[str, Any], as_json: bool, text: str) -> None:
    """One line at once: a log, or a reader of JSON lines, follows."""
    click.echo(json.dumps(data) if as_json else text)
    sys.stdout.flush()
