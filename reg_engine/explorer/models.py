"""Any model file or folder on this machine: what it is, and its samples under one guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..adapters import denoiser_of
from ..calibration.damping import Damping
from ..engine import Engine
from ..errors import InputError, choice
from ..loop.stats import Stats
from ..models import description_of, load_model
from ..networks.denoisers import Denoiser
from ..pictures.images import grid
from ..values import as_int, store
from .methods import METHODS, as_scale, as_within, colour_of, guidance_of
from .view import Picture, View, Wanted, always, png, stopping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ModelChoices", "describe", "show"]

OFFERED = tuple(name for name in METHODS if name != "damping")
MOST = 512  # letters of a prompt


@dataclass(frozen=True)
class ModelChoices:
    """What a visitor chose.

    Args:
        path: a .safetensors file that `load_model` reads, or a folder of diffusers.
        method: a name in OFFERED.
        scale: guidance scale in [1, 10].
        steps: solver steps in [1, 60].
        count: images in [1, 16].
        seed: of the first, in [0, 9999].
        prompt: for a pipeline that is told by texts.

    Raises:
        InputError: a value out of range, an unknown name.
    """

    path: str
    method: str = "REG (auto)"
    scale: float = 4.0
    steps: int = 8
    count: int = 4
    seed: int = 0
    prompt: str = ""

    def __post_init__(self) -> None:
        choice("method", self.method, OFFERED)
        if not isinstance(self.prompt, str) or len(self.prompt) > MOST:
            raise InputError("prompt", "is too long", f"Give at most {MOST} letters")
        store(
            self,
            scale=as_scale(self.scale),
            steps=as_within("steps", self.steps, 1, 60),
            count=as_within("count", self.count, 1, 16),
            seed=as_within("seed", self.seed, 0, 9999),
        )


@dataclass(frozen=True)
class Loaded:
    """A model that was read: one that is told labels, or a pipeline that is told texts."""

    denoiser: Denoiser | None
    pipe: Any
    says: dict[str, str]


def place_of(path: object) -> Path:
    """The file or folder of a path that somebody typed.

    Raises:
        InputError: nothing is there. Nothing is ever asked of a hub.
    """
    text = path.strip() if isinstance(path, str) else ""
    remedy = "Give a .safetensors file, or a folder that save_pretrained wrote, on this machine"
    if not text or "\0" in text:
        raise InputError("path", "is empty" if not text else "is no path", remedy)
    place = Path(text).expanduser()
    try:
        there = place.exists()
    except OSError:  # too long a name, for one
        there = False
    if not there:
        raise InputError("path", f"nothing is at {text[:200]!r}", remedy)
    return place


def load(path: object) -> Loaded:
    """The model at a path; the last one is kept until its file changes.

    Raises:
        InputError: nothing there, or nothing that can be read safely.
    """
    place = place_of(path)
    return _load(str(place.resolve()), place.stat().st_mtime_ns)


@lru_cache(1)
def _load(path: str, _: int) -> Loaded:
    if not Path(path).is_dir():
        denoiser, description = load_model(path), description_of(path)
        words = {name: str(description[name]) for name in ("data", "architecture", "step")
                 if name in description}  # fmt: skip
        return Loaded(denoiser, None, words | _says(denoiser))
    denoiser = denoiser_of(path, local_files_only=True)
    if denoiser.num_classes is not None:
        return Loaded(denoiser, None, _says(denoiser))
    if not (Path(path) / "model_index.json").is_file():
        problem = "this network is told by embeddings, and no text encoder lies beside it"
        raise InputError("path", problem, "Give the pipeline's folder, with model_index.json")
    from ..integrations.diffusers import load_pipeline

    pipe = load_pipeline(path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return Loaded(None, pipe, {"pipeline": type(pipe).__name__} | _says(denoiser))


def _says(denoiser: Denoiser) -> dict[str, str]:
    parameters = sum(p.numel() for module in denoiser.modules for p in module.parameters())
    classes = denoiser.num_classes
    return {
        "predicts": denoiser.prediction,
        "schedule": type(denoiser.schedule).__name__,
        "shape of a sample": " x ".join(map(str, denoiser.sample_shape)),
        "labels": "told by texts" if classes is None else f"0 to {classes - 1}",
        "parameters": f"{parameters:,}",
    }


def describe(path: object) -> View:
    """What the model at a path says of itself.

    Raises:
        InputError: as `load`.
    """
    return View((), ("model", str(place_of(path))), tuple(load(path).says.items()))


def show(choices: ModelChoices, wanted: Wanted = always) -> View:
    """Samples of the model under one guidance, and their cost.

    Raises:
        InputError: as `load`; samples that are no pictures; a pipeline without a prompt.
        Stale: `wanted` is no longer true.
    """
    loaded = load(choices.path)
    guidance = guidance_of(choices.method, choices.scale, _no_damping)
    if loaded.pipe is not None:
        images, stats = _prompted(loaded.pipe, choices, guidance)
        told = f"for {choices.prompt!r}"
    else:
        assert loaded.denoiser is not None
        images, stats = _labelled(loaded.denoiser, choices, guidance, wanted)
        told = f"of labels 0 to {min(choices.count, loaded.denoiser.num_classes or 1) - 1}"
    alt = f"{len(images)} images {told}: {choices.method}, scale {choices.scale:g}."
    head = ("method", "evaluations a sample", "backward passes", "seconds")
    cost = (f"{stats.nfe:.1f}", f"{stats.backward:g}", f"{stats.seconds:.2f}")
    picture = Picture(png(_figure, choices, images), alt)
    return View((picture,), head, ((choices.method, *cost),))


def _no_damping() -> Damping:
    raise InputError("method", "damping is not measured here", "Run `reg-engine calibrate`")


def _labelled(
    denoiser: Denoiser, choices: ModelChoices, guidance: Any, wanted: Wanted
) -> tuple[Tensor, Stats]:
    shape = denoiser.sample_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        problem = f"its samples, {' x '.join(map(str, shape))}, are no pictures but latents"
        remedy = "Decode them: `reg-engine sample --vae FOLDER`, or give the pipeline's folder"
        raise InputError("path", problem, remedy)
    if math.prod(shape) > 3 * 512**2:
        raise InputError("path", "its pictures are larger than 512 x 512", "Sample from a shell")
    engine = Engine(denoiser, guidance=guidance, solver="heun", steps=choices.steps, progress=False)
    labels = torch.arange(choices.count) % as_int("labels", denoiser.num_classes)
    seeds = range(choices.seed, choices.seed + choices.count)
    out = engine.sample(labels, seeds=seeds, callback=stopping(wanted))
    return out.images, out.stats


def _prompted(pipe: Any, choices: ModelChoices, guidance: Any) -> tuple[Tensor, Stats]:
    from ..integrations.diffusers import sample

    if not choices.prompt.strip():
        raise InputError("prompt", "is empty", "This pipeline is told by texts: write one")
    seeds = range(choices.seed, choices.seed + choices.count)
    out = sample(
        pipe,
        [choices.prompt] * choices.count,
        guidance=guidance,
        steps=choices.steps,
        seeds=seeds,
        progress=False,
    )
    return out.images, out.stats


def _figure(choices: ModelChoices, images: Tensor) -> Figure:
    from matplotlib.figure import Figure

    columns = min(len(images), 4)
    page = grid(images, columns, shade=255)
    height = 5.4 * page.shape[0] / page.shape[1]
    made = Figure(figsize=(5.4, height + 0.5))
    axes = made.add_axes((0, 0, 1, height / (height + 0.5)))
    axes.imshow(page.expand(-1, -1, 3).numpy(), interpolation="nearest")
    axes.set_axis_off()
    title = f"{choices.method}, scale {choices.scale:g}"
    axes.set_title(title, color=colour_of(choices.method), fontsize=12)
    return made
