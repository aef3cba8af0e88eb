"""`reg-engine generate`: many images into a folder, by as many processes as there are."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import InputError, choice
from .bulk import absolute, recipe
from .bulk_run import planned, run
from .config import CONFIG_OPTIONS, said, save_config
from .options import apply, emit, json_option, run_options

if TYPE_CHECKING:
    from ..generation.ray_session import Resources

__all__ = ["generate"]

T = TypeVar("T")
_OF_RAY = ("workers", "cpus_per_worker", "gpus_per_worker", "address", "patience")


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
@click.option("--adapter", help="mnist, fashion, or a file of `distill`; not with REG.")
@click.option("--vae", help="Of a model of latents: an AutoencoderKL's folder.")
@click.option("--format", default="png", show_default=True, help="png, webp, jpeg, npz or tar.")
@click.option("--quality", type=int, help="Of jpeg (default 95) and webp (default: lossless).")
@click.option("--shard-size", type=int, help="Images a shard; default: whole batches, about 256.")
@click.option("--shard", default="0/1", show_default=True, help="I/N: only every Nth, from I on.")
@click.option("--on-error", default="stop", show_default=True, help="Of NaN: stop or skip.")
@click.option("--grace", default=30.0, show_default=True, help="Seconds after SIGTERM.")
@click.option("--expiry", default=60.0, show_default=True, help="Seconds until a lost one's work.")
@click.option("--dry-run", is_flag=True, help="Say how much is left, and how long it takes.")
@click.option("--verify", is_flag=True, help="Compute checksums again, and make some images anew.")
@click.option("--images", default=100, show_default=True, help="Of --verify: how many, at least.")
@click.option("--metrics", help="A .prom file for node_exporter, rewritten as the run goes on.")
@click.option("--engine", default="process", show_default=True, help="process (this one) or ray.")
@click.option("--workers", default="1", show_default=True, help="Of ray: N, or MIN:MAX.")
@click.option(
    "--cpus-per-worker", default=1.0, show_default=True, help="Of ray: as it counts them."
)
@click.option("--gpus-per-worker", default=0.0, show_default=True, help="Of ray: 1, or a part.")
@click.option("--address", help="Of ray: auto or HOST:PORT; default: RAY_ADDRESS, else local.")
@click.option("--patience", default=1800.0, show_default=True, help="Of ray: seconds for MIN.")
@apply(CONFIG_OPTIONS)
@json_option
@click.pass_context
def generate(context: click.Context, as_json: bool, **given: Any) -> None:
    """Make the images of many seeds: shard by shard, each written once, in a folder that any number
    of processes share (torchrun, Slurm arrays, Ray, or by hand). The same command goes on, and does
    only what is missing; the bytes do not depend on who made what.
    """
    save_config(context, given.pop("save_config"))
    given.pop("config")
    chosen = frozenset(name for name in given if said(context, name))
    _fitting(given, chosen)
    part, resources = _part(given["shard"]), _resources(given)
    if resources is not None:
        given = absolute(given)
        if given["device"] is None and resources.gpus:
            given["device"] = "cuda"
    if given["dry_run"]:
        report, text = _at(resources, functools.partial(planned, given, chosen))
        emit(report, as_json, text)
    elif given["verify"]:
        report, text = _at(resources, functools.partial(_verified, given, chosen))
        emit(report, as_json, text)
        if not report["whole"]:
            remedy = "Remove what is damaged or foreign, and give the same command without --verify"
            raise InputError("--out", f"{given['out']} is not whole", remedy)
    elif resources is None:
        _here(given, chosen, part, as_json)
    else:
        _on_ray(given, chosen, resources, as_json)


def _fitting(given: dict[str, Any], chosen: frozenset[str]) -> None:
    """Refuse options that would do nothing."""
    ray = choice("engine", given["engine"], ("process", "ray")) == "ray"
    other = ("shard",) if ray else _OF_RAY
    for name in other:
        if name in chosen:
            problem = f"does nothing with --engine {given['engine']}"
            raise InputError(f"--{name.replace('_', '-')}", problem, "Leave it out")
    if given["dry_run"] and given["verify"]:
        raise InputError("--verify", "does not go with --dry-run", "Give one of them")
    looks = given["dry_run"] or given["verify"]
    for name, idle in (("metrics", looks), ("images", not given["verify"])):
        if name in chosen and idle:
            raise InputError(f"--{name}", "does nothing here", "Leave it out")


def _resources(given: dict[str, Any]) -> Resources | None:
    """What is asked of Ray; None: it is not."""
    if given["engine"] != "ray":
        return None
    from ..generation.ray_session import Resources

    low, colon, high = given["workers"].partition(":")
    if not low.isdecimal() or not (high if colon else low).isdecimal():
        raise InputError("--workers", f"is {given['workers']!r}", "Write N, or MIN:MAX")
    return Resources(
        (int(low), int(high if colon else low)),
        given["cpus_per_worker"],
        given["gpus_per_worker"],
        given["address"],
        given["patience"],
    )


def _at(resources: Resources | None, function: Callable[[], T]) -> T:
    """What a function returns, called here, or once on the cluster, as a worker would be."""
    if resources is None:
        return function()
    from ..generation.ray_session import remotely

    with redirect_stdout(sys.stderr):
        return remotely(function, resources)


def _verified(given: dict[str, Any], chosen: frozenset[str]) -> tuple[dict[str, Any], str]:
    from ..generation import Records, verify

    job, sampler, settings = recipe(given, chosen)
    records = Records(given["out"], job, sampler.fingerprint(), settings)
    if not (records.out / "job.json").exists():
        raise InputError("--out", f"{given['out']} holds no job", "Give the folder of one")
    records.open()
    found = verify(sampler, records, given["images"])
    shown = {
        name: ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        for name, value in vars(found).items()
    }
    text = "\n".join(f"{name}: {value}" for name, value in shown.items())
    return {**vars(found), "whole": found.whole}, text


def _here(
    given: dict[str, Any], chosen: frozenset[str], part: tuple[int, int], as_json: bool
) -> None:
    from ..generation import Finished, Records, generate

    job, sampler, settings = recipe(given, chosen)
    records = Records(given["out"], job, sampler.fingerprint(), settings)
    records.open()

    def shards(stop: Callable[[], bool]) -> Iterator[Finished]:
        return generate(
            sampler,
            job,
            given["out"],
            part=part,
            start=_start(),
            on_error=given["on_error"],
            expiry=given["expiry"],
            settings=settings,
            stop=stop,
        )

    run(shards, records, given, as_json)


def _on_ray(
    given: dict[str, Any], chosen: frozenset[str], resources: Resources, as_json: bool
) -> None:
    from ..generation.cluster import Cluster

    def tell(text: str) -> None:
        click.echo(text, err=True)

    how = {name: given[name] for name in ("on_error", "expiry")}
    make = functools.partial(recipe, given, chosen)
    output = sys.stdout
    with (
        redirect_stdout(sys.stderr),  # where Ray says what it has to say
        Cluster(make, given["out"], resources, tell=tell, **how) as cluster,
    ):
        run(cluster.shards, cluster.records, given, as_json, output)


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
