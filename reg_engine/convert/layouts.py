"""Which published model some tensors are: told by their names and shapes, or said why by none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, choice
from ..models.checkpoint import sketched
from ..models.dit import SIZES
from ..models.latents import SD_LATENTS
from ..models.presets import CHANNELS
from .settings import constants_of, latents_of_encoder
from .states import State

__all__ = ["MODELS", "Layout", "recognise"]

Shapes = Mapping[str, tuple[int, ...]]

MODELS = ("dit", "sit", "edm2")
_EDM = {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0}  # Karras et al. 2022, Table 1
_TRAINING = ("logvar_fourier.", "logvar_linear.")  # of EDM2's loss

# What a name in a checkpoint is a sign of: the first line with a name that begins so.
_SIGNS = (
    (r"transformer_blocks\.0\.attn1\.", "a transformer of diffusers"),
    (r"(down|mid|up)_blocks?\.\d\.resnets\.", "a U-Net of diffusers"),
    (r"single_transformer_blocks\.|transformer_blocks\.0\.", "a transformer of diffusers"),
    (r"double_blocks\.0\.", "FLUX"),
    (r"(.*\.)?joint_blocks\.0\.", "Stable Diffusion 3"),
    (r"(model\.)?diffusion_model\.input_blocks\.", "latent diffusion or Stable Diffusion"),
    (r"input_blocks\.0\.0\.|label_emb\.", "ADM (guided-diffusion) or latent diffusion"),
    (r"(model\.)?map_(noise|layer0|label)\b", "EDM (Karras et al. 2022)"),
    (r"(first_stage_model\.)?(encoder|decoder)\.conv_in\.", "a VAE"),
    (r"(unet\.)?emb_fourier\.", "EDM2"),
    (r"x_embedder\.proj\.|y_embedder\.|final_layer\.adaLN", "DiT or SiT"),
)
_DIFFUSERS = "Load the folder that it belongs to with reg_engine.denoiser_of(folder)"
_READ = "DiT, SiT and EDM2 are converted, as their authors publish them"


@dataclass(frozen=True)
class Layout:
    """A published model.

    Args:
        model: its name for people.
        architecture, arguments: of reg_engine.models.
        names: ours -> those of the checkpoint.
        description: what else load_model is told.
        dropped: names of the checkpoint that sampling does not ask.
    """

    model: str
    architecture: str
    arguments: Mapping[str, Any]
    names: Mapping[str, str]
    description: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def recognise(
    state: State, where: str, model: str | None = None, heads: int | None = None
) -> Layout:
    """The model that the tensors of a checkpoint are, all of them and no others.

    Args:
        state: the checkpoint.
        where: its file's name, which tells DiT from SiT where `model` does not.
        model: "dit", "sit" or "edm2"; None = told by the names.
        heads: of attention, for a width that none of the published models has.

    Raises:
        InputError: DiT or SiT, and nothing says which; names or shapes of no known model: the first
            that is missing, the first that is too many, and what they look like.
    """
    shapes = {name: value.shape for name, value in state.tensors.items()}
    if model is None:
        model = _kind(shapes, where)
    reader = {"dit": _transformer, "sit": _transformer, "edm2": _edm2}
    layout = reader[choice("--model", model, MODELS)](model, shapes, state, heads)
    wanted = sketched(layout.architecture, dict(layout.arguments), len(shapes))
    _fit(model, layout, wanted, shapes)
    return layout


def looks_like(names: Mapping[str, Any]) -> str:
    """What the names are a sign of, or ""."""
    for sign, meaning in _SIGNS:
        if any(re.match(sign, name) for name in names):
            return meaning
    return ""


def _kind(shapes: Shapes, where: str) -> str:
    looks = looks_like(shapes)
    if looks == "DiT or SiT":
        found = re.findall(r"(?<![a-z])(dit|sit)(?![a-z])", where.lower())
        if len(set(found)) != 1:
            problem = f"{where!r} has the tensors of DiT and of SiT, which are named alike"
            raise InputError("--model", problem, "Give --model dit or --model sit")
        return str(found[0])
    return "edm2" if looks == "EDM2" else "dit"


def _fit(model: str, layout: Layout, wanted: Shapes, shapes: Shapes) -> None:
    """InputError where names or shapes differ."""
    used = {layout.names[name] for name in wanted if name in layout.names}
    missing = [name for name in wanted if name not in layout.names]
    foreign = [name for name in shapes if name not in used and name not in layout.dropped]
    title = {"dit": "DiT", "sit": "SiT", "edm2": "EDM2"}[model]
    if missing or foreign:
        parts = []
        if missing:
            before = "unet." if any(name.startswith("unet.") for name in shapes) else ""
            parts.append(f"lacks {before + missing[0]!r}, the first of {len(missing)}")
        if foreign:
            parts.append(f"has {foreign[0][:80]!r}, the first of {len(foreign)} unknown ones")
        looks = looks_like(shapes)
        guess = f"; it looks like {looks}" if looks else ""
        remedy = _DIFFUSERS if "diffusers" in looks else _READ
        raise InputError("IN", f"as {title} it {' and '.join(parts)}{guess}", remedy)
    for name, theirs in layout.names.items():
        if shapes[theirs] != wanted[name]:
            problem = f"{theirs!r} is {shapes[theirs]}, of a {layout.model} it is {wanted[name]}"
            raise InputError("IN", problem, _READ)


def _transformer(model: str, shapes: Shapes, _state: State, heads: int | None) -> Layout:
    title, arguments = {"dit": "DiT", "sit": "SiT"}[model], _transformer_arguments(shapes, heads)
    names = {name: name for name in shapes}
    if not arguments:  # too little is there to tell a size: the comparison says what
        return Layout(title, model, {}, names)
    size, patch = arguments["size"], arguments["patch"]
    shape = tuple(arguments[name] for name in ("blocks", "width", "heads"))
    published = [key for key, each in SIZES.items() if each == shape]
    title += f"-{published[0]}/{patch}" if published else f" of {shape[0]} blocks of {shape[1]}"
    classes = arguments["num_labels"] - 1
    prediction = "epsilon" if model == "dit" else "flow"
    schedule = {"name": "vp_linear", "spacing": "linspace"} if model == "dit" else {"name": "flow"}
    description: dict[str, Any] = {
        "sample_shape": [arguments["image_channels"], size, size],
        "num_classes": classes,
        "null_cond": classes,
        "prediction": prediction,
        "schedule": schedule,
        "sigma_data": 1.0,
        "learned_variance": model == "dit"
        and arguments["outputs"] == 2 * arguments["image_channels"],
    }
    if arguments["image_channels"] == 4:
        description["latents"] = SD_LATENTS.described()
    return Layout(f"{title}, {size}x{size}", model, arguments, names, description)


def _transformer_arguments(shapes: Shapes, heads: int | None) -> dict[str, Any]:
    """What DiT's constructor takes; {} where the tensors that say it are not there."""
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        tokens = shapes["pos_embed"][1]
        labels = shapes["y_embedder.embedding_table.weight"][0]
        outputs = shapes["final_layer.linear.weight"][0] // patch**2
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return {}
    known = {width: heads for _, width, heads in SIZES.values()}
    heads = heads or known.get(width)
    if heads is None:
        problem = f"a transformer of width {width} is none of the published"
        raise InputError("--heads", problem, "Give the number of its attention heads")
    return {
        "image_channels": channels,
        "size": patch * math.isqrt(tokens),
        "patch": patch,
        "width": width,
        "blocks": _count(shapes, r"blocks\.(\d+)\."),
        "heads": heads,
        "num_labels": labels,
        "outputs": outputs,
    }


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand where the pattern has one."""
    return len({found[1] for found in (re.match(pattern, name) for name in shapes) if found})


def _edm2(_model: str, shapes: Shapes, state: State, _heads: int | None) -> Layout:
    dropped = tuple(name for name in shapes if name.startswith(_TRAINING))
    kept = [name for name in shapes if name not in dropped]
    names = {name.removeprefix("unet."): name for name in kept}
    ours = {name: shapes[theirs] for name, theirs in names.items()}
    arguments = _edm2_arguments(ours)
    if not arguments:
        return Layout("EDM2", "edm2", {}, names, dropped=dropped)
    sigma_data, arguments["head_width"] = constants_of(state.settings)
    classes = arguments["num_labels"] - 1 if arguments["num_labels"] else None
    size, channels = arguments["size"], arguments["image_channels"]
    described: dict[str, Any] = {
        "sample_shape": [channels, size, size],
        "num_classes": classes,
        "null_cond": classes,
        "prediction": "edm",
        "schedule": _EDM,
        "sigma_data": sigma_data,
    }
    latents = latents_of_encoder(state.tree, channels)
    if latents is not None:
        described["latents"] = latents.described()
    published = [key for key, width in CHANNELS.items() if width == arguments["channels"]]
    title = f"EDM2-{published[0].upper()}" if published else "EDM2"
    told = f"{classes} classes" if classes else "no labels"
    return Layout(f"{title}, {size}x{size}, {told}", "edm2", arguments, names, described, dropped)


def _edm2_arguments(shapes: Shapes) -> dict[str, Any]:
    """What EDM2's constructor takes; {} where the tensors that say it are not there."""
    first = [re.fullmatch(r"enc\.(\d{1,5})x\1_conv\.weight", name) for name in shapes]
    size = next((int(found[1]) for found in first if found), 0)
    sides: list[int] = []
    while size and f"enc.{size >> len(sides)}x{size >> len(sides)}_block0.emb_gain" in shapes:
        sides.append(size >> len(sides))
    try:
        channels, inputs, *_ = shapes[f"enc.{size}x{size}_conv.weight"]
        widths = [shapes[f"enc.{side}x{side}_block0.conv_res1.weight"][0] for side in sides]
        multipliers = [width // channels for width in widths]
        classes = shapes.get("emb_label.weight", (0, -1))[-1]
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return {}
    attends = [s for s in sides if f"enc.{s}x{s}_block0.attn_qkv.weight" in shapes]
    return {
        "image_channels": inputs - 1,
        "size": size,
        "channels": channels,
        "multipliers": multipliers,
        "blocks": _count(shapes, rf"enc\.{size}x{size}_block(\d+)\."),
        "attention": attends,
        "head_width": 64,
        "num_labels": classes + 1,
    }
