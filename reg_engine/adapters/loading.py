"""Networks from folders in diffusers' form, and from the hub by their id."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..values import shown
from .families import FAMILIES, WRAP
from .roles import SCHEDULER, only_network

__all__ = ["checked_name", "diffusers_module", "loaded", "named_remedy"]

OPTIONS = ("torch_dtype", "variant", "revision", "local_files_only", "cache_dir", "token")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def loaded(path: str | os.PathLike[str], scheduler: Any, options: Mapping[str, Any]) -> Any:
    """(network, scheduler or its configuration) of a folder or hub id.

    Only safetensors are read, and no code but diffusers' own runs.

    Args:
        scheduler: what the caller gave; None = the one beside the network, if there is one.
        options: keywords of `from_pretrained`, of OPTIONS.

    Raises:
        InputError: no such folder or id, or nothing in it that is known here.
    """
    for key in options:
        if key not in OPTIONS:
            raise InputError(key, "is not known to denoiser_of", f"Known: {', '.join(OPTIONS)}")
    diffusers, name = diffusers_module(), os.fspath(path)
    checked_name(name)
    hub = {key: value for key, value in options.items() if key not in ("torch_dtype", "variant")}
    try:
        if os.path.exists(os.path.join(name, "config.json")):
            kind, folder = diffusers.UNet2DModel.load_config(name, **hub).get("_class_name"), {}
        else:
            index = diffusers.DiffusionPipeline.load_config(name, **hub)
            parts = {key: value for key, value in index.items() if _is_part(value)}
            role = only_network(parts, index)
            kind, folder = parts[role][1], {"subfolder": role}
            if scheduler is None and SCHEDULER in parts and kind in FAMILIES:
                where = {"subfolder": SCHEDULER, **hub}
                scheduler = diffusers.DDIMScheduler.load_config(name, **where)  # of every class
        if kind not in FAMILIES or not hasattr(diffusers, kind):
            raise InputError("model", f"{name!r} holds a {kind}, of no known family", WRAP)
        network = getattr(diffusers, kind)
        return network.from_pretrained(name, use_safetensors=True, **folder, **options), scheduler
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"{name!r} cannot be loaded ({' '.join(str(error).split())[:300]})"
        raise InputError("model", problem, named_remedy(name)) from error


def _is_part(value: Any) -> bool:
    """Whether an entry of model_index.json is a component that is there: [library, class]."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and value[1] is not None


def checked_name(name: str) -> None:
    """InputError where `name` is neither a folder with something in it nor looks like a hub id."""
    folder = Path(name)
    if folder.is_file():
        remedy = "Give its folder; a file of `reg-engine train` goes through load_model"
        raise InputError("model", f"{name!r} is a file", remedy)
    if folder.is_dir():
        if not any((folder / f).is_file() for f in ("model_index.json", "config.json")):
            problem = f"the folder {name!r} has neither model_index.json nor config.json"
            raise InputError("model", problem, "Give a folder that save_pretrained wrote")
    elif not HUB_ID.fullmatch(name):
        problem = f"{shown(name)} is no folder, and no hub id (owner/name)"
        raise InputError("model", problem, "Give a folder of diffusers, or load_model(name)")


def named_remedy(name: str) -> str:
    """What to do where `name` cannot be loaded."""
    if Path(name).is_dir():
        return "Give a folder that save_pretrained wrote, with safetensors"
    return f"Check the id; where there is no network, download it before (hf download {name})"


def diffusers_module() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise InputError(
            "model",
            f"a folder or hub id needs diffusers ({error})",
            "Run `pip install 'reg-engine[diffusers]'`",
        ) from error
    return diffusers
