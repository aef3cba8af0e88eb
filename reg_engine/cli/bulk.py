"""What `reg-engine generate` makes, of its options: in this process, or in one elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import adapter_file, plan_of, whole_numbers

if TYPE_CHECKING:
    import torch

    from ..generation import Job, Sampler

__all__ = ["absolute", "device_of", "recipe"]

_OF_LABELS = ("vae", "labels")  # without prompts only


def absolute(given: dict[str, Any]) -> dict[str, Any]:
    """The options with the paths that exist here made absolute, for a process in another folder."""
    from ..generation.records import local_folder
    from ..models import PACKAGED

    found = dict(given, out=local_folder(given["out"]))
    for name in ("model", "plan", "prompts", "vae", "adapter", "out"):
        value = found[name]
        named = name in ("model", "adapter") and value in PACKAGED  # whatever lies here
        if value is not None and not named and (name == "out" or Path(value).exists()):
            found[name] = os.path.abspath(value)
    kind, colon, rest = given["labels"].partition(":")
    if kind == "file" and colon:
        found["labels"] = f"file:{os.path.abspath(rest)}"
    return found


def recipe(given: dict[str, Any], chosen: frozenset[str]) -> tuple[Job, Sampler, dict[str, Any]]:
    """What is made, what makes it, and what people may read of that.

    Args:
        given: the command's options. chosen: names of those that somebody gave.

    Raises:
        InputError: one of them.
    """
    from ..generation import Cycle, Job, OfLabels, OfPrompts, lines_of, ranges_of, rule_of

    seeds, path = ranges_of(given["seeds"]), Path(given["model"])
    settings: dict[str, Any] = {"model": path.name if path.exists() else given["model"]}
    settings |= {name: given[name] for name in ("scale", "rectify", "plan", "solver", "steps")}
    if Path(given["plan"]).exists():
        settings["plan"] = Path(given["plan"]).name  # what it holds is in the sampler's key
    if given["adapter"] is not None:
        settings["adapter"] = Path(given["adapter"]).name
    choices = {
        "scale": given["scale"],
        "rectify": None if given["rectify"] == "none" else given["rectify"],
        "plan": plan_of(given["plan"]),
    }
    kept = ("batch_size", "shard_size", "format", "quality")
    sizes = {name: given[name] for name in kept}
    if given["prompts"] is not None:
        for name in _OF_LABELS:
            if name in chosen:
                raise InputError(f"--{name}", "does not go with --prompts", "Leave it out")
        name = f"file:{Path(given['prompts']).name}"
        job = Job(seeds, Cycle(tuple(lines_of(given["prompts"])), name), **sizes)
        # Of the pipeline where nobody says.
        own = {n: given[n] if n in chosen else None for n in ("solver", "steps")}
        pipe, held = _pipeline(given), {}
        if given["adapter"] is not None:
            held["adapter"] = _adapter(pipe, given)
        return job, OfPrompts(pipe, {**choices, **own, **held}), settings | own

    from ..engine import Engine
    from ..models import load_model

    denoiser = load_model(given["model"])
    if given["adapter"] is not None:
        denoiser = denoiser.with_adapter(adapter_file(given["adapter"]))
    text = given["labels"]
    listed = text.partition(":")[0] not in ("uniform", "each", "file")
    values = whole_numbers("labels", text) if listed else None
    rule = rule_of(text, denoiser.num_classes, values)
    job = Job(seeds, rule, **sizes)
    run = {name: given[name] for name in ("solver", "steps", "batch_size")}
    engine = Engine(denoiser, device=device_of(given["device"]), progress=False, **choices, **run)
    return job, OfLabels(engine, _decoder(given, denoiser.sample_shape, engine.device)), settings


def _pipeline(given: dict[str, Any]) -> Any:
    from ..integrations.diffusers import load_pipeline

    pipe = load_pipeline(given["model"])
    pipe.set_progress_bar_config(disable=True)
    device = device_of(given["device"])
    return pipe if device is None else pipe.to(device)


def _adapter(pipe: Any, given: dict[str, Any]) -> Any:
    """A pipeline's, which goes with the other options."""
    from ..integrations.diffusers.belongs import Held
    from ..networks.adapter import Adapter

    found = Adapter.load(adapter_file(given["adapter"]))
    Held.of(pipe, found, given["scale"])
    return found


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


def device_of(text: str | None) -> str | None:
    """Of several processes of one machine each takes its own GPU."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if text in (None, "cuda") and local.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return text
