"""`reg-engine sample --prompt`: pictures of a diffusers pipeline, a PNG each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import InputError
from ..networks.adapter import Adapter
from ..storage.digest import digest
from ..storage.files import check_writable, replacing
from .config import said
from .notes import notes_of, picture_notes, settings_text
from .options import adapter_file, emit, plan_of, scale_of, whole_numbers

__all__ = ["PROMPT_OPTIONS", "pictures"]

# What goes with prompts; the rest belongs to labels.
TAKEN = {"model", "per_label", "scale", "rectify", "plan", "seeds", "damping", "skip_below"}
TAKEN |= {"adapter"}
TAKEN |= {"solver", "steps", "batch_size", "device", "progress", "as_json"}
TAKEN |= {"prompt", "negative", "size", "out_dir", "config", "save_config"}
PROMPT_OPTIONS = [
    click.option(
        "--prompt", multiple=True, help="A text, for a diffusers pipeline as --model; repeatable."
    ),
    click.option("--negative", default=None, help="The negative prompt, of all."),
    click.option("--size", default=None, type=int, help="Pixels of a side, of --prompt."),
    click.option("--out-dir", default=None, help="Folder for the pictures of --prompt."),
]


def pictures(context: click.Context) -> None:
    """Sample every prompt, `--per-label` pictures each, and write one PNG a picture.

    A picture that is there already with the same settings stays as it is.
    """
    given = context.params
    for name in given:
        if said(context, name) and name not in TAKEN:
            option = f"--{name.replace('_', '-')}"
            raise InputError(option, "does not go with --prompt", "Leave it out")
    size = given["batch_size"] if said(context, "batch_size") else 1
    for name, number in (("--per-label", given["per_label"]), ("--batch-size", size)):
        if number < 1:
            raise InputError(name, f"is {number}", "Give a number >= 1")
    prompts = [text for text in given["prompt"] for _ in range(given["per_label"])]
    seeds = (
        range(len(prompts)) if given["seeds"] is None else whole_numbers("seeds", given["seeds"])
    )
    if len(seeds) != len(prompts):
        raise InputError("--seeds", f"{len(seeds)} for {len(prompts)} pictures", "Give one each")
    folder = Path(given["out_dir"] or "out")
    settings, each = _settings(context), zip(prompts, seeds, strict=True)
    jobs = [_Job(folder, text, seed, settings) for text, seed in each]
    left = [job for job in jobs if not job.done()]
    if left:
        from ..integrations.diffusers import load_pipeline, sample

        pipe = load_pipeline(given["model"])
        pipe.set_progress_bar_config(disable=True)
        pipe = pipe if given["device"] is None else pipe.to(given["device"])
    for first in range(0, len(left), size):
        some = left[first : first + size]
        out = sample(
            pipe,
            [job.prompt for job in some],
            seeds=[job.seed for job in some],
            **_choices(context),
        )
        for job, picture in zip(some, out.images, strict=True):
            job.write(picture, context)
    report = {"pictures": [str(job.path) for job in jobs], "made": len(left)}
    lines = [f"{job.path}  {job.prompt}" for job in jobs]
    emit(report, given["as_json"], "\n".join([*lines, f"{len(left)} made"]))


class _Job:
    """A picture that is wanted."""

    def __init__(self, folder: Path, prompt: str, seed: int, settings: dict[str, Any]) -> None:
        self.prompt, self.seed = prompt, seed
        self.settings = {"prompt": prompt, "seed": seed, **settings}
        words = "".join(c if c.isalnum() else "_" for c in prompt)[:40].strip("_") or "picture"
        self.path = check_writable(folder / f"{words}_{seed:05d}.png", "--out-dir")

    def done(self) -> bool:
        return self.path.is_file() and notes_of(self.path).get("reg_engine") == settings_text(
            self.settings
        )

    def write(self, picture: Tensor, context: click.Context) -> None:
        info = PngInfo()
        for key, text in picture_notes(context, self.settings).items():
            info.add_text(key, text)
        with replacing(self.path, "--out-dir") as file:
            Image.fromarray(picture.numpy()).save(file, format="PNG", pnginfo=info)


def _settings(context: click.Context) -> dict[str, Any]:
    """What a picture depends on beside its prompt and seed."""
    place = Path(context.params["model"])
    where = str(place.resolve() if place.exists() else place)
    # Two folders of one name are two models, and a picture does not say where they are.
    model = {"model": place.name, "place": digest(where)[:12]}
    choices = {k: v for k, v in _choices(context).items() if k != "progress"}
    if "adapter" in choices:
        content = digest(choices["adapter"])[:12]
        choices["adapter"] = f"{Path(context.params['adapter']).name} {content}"
    return model | choices


def _choices(context: click.Context) -> dict[str, Any]:
    """Arguments of `sample`."""
    given = context.params
    own = (given[name] for name in ("scale", "rectify", "damping", "skip_below", "adapter"))
    scale, method = scale_of(*own), None if given["rectify"] == "none" else given["rectify"]
    choices = {"negative": given["negative"], "scale": scale, "rectify": method}
    choices |= {"plan": plan_of(given["plan"]), "size": given["size"]}
    choices["progress"] = given["progress"]
    if given["adapter"] is not None:
        choices["adapter"] = Adapter.load(adapter_file(given["adapter"]))
    # Of the pipeline where nobody says.
    return choices | {n: given[n] if said(context, n) else None for n in ("solver", "steps")}
