"""The packaged models, and any that `reg-engine train` made: `load_model`, `load_classifier`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, choice
from ..storage.readers import refusing
from ..storage.weights import REMEDY, describe
from ..values import shown
from .checkpoint import build, check_use
from .classifier import NoisyClassifier
from .edm2 import EDM2
from .latents import Latents
from .unet import UNet
from .unet2d import UNet2D

if TYPE_CHECKING:
    from ..networks.denoisers import Denoiser
    from ..schedules import Schedule

__all__ = [
    "EDM2",
    "PACKAGED",
    "Latents",
    "NoisyClassifier",
    "UNet",
    "UNet2D",
    "classifier_for",
    "data_of",
    "description_of",
    "latents_of",
    "load_classifier",
    "load_model",
    "packaged_adapter",
    "packaged_damping",
]

PACKAGED = ("mnist", "fashion")
WEIGHTS = Path(str(resources.files(__package__) / "weights"))


def load_model(name_or_path: str | os.PathLike[str] = "mnist") -> Denoiser:
    """A trained diffusion model as a Denoiser, float32, on the CPU.

    Args:
        name_or_path: "mnist" (28x28 digits in [-1, 1], labels 0-9, null label 10), "fashion" (the
            same of clothes, Fashion-MNIST, whose classes overlap), or a .safetensors file of
            `reg-engine train` (mnist, fashion, a flow cifar10, cifar10-edm) or of `reg-engine
            convert` (DiT, SiT; EDM2, whose weights are given unit magnitude here: `EDM2.settle`).

    Raises:
        InputError: an unknown name; no such file; a pickle; a damaged file; another network's;
            diffusers is missing (colour models are made of its blocks).
    """
    # Here, because denoisers imports much that a classifier does not need.
    from ..networks.denoisers import Denoiser

    path = _path(name_or_path, "{}.safetensors")
    net, description = build(path, "unet", "unet2d", "edm2", "dit", "sit")
    with refusing("name_or_path", f"the description in {str(path)!r} is incomplete", REMEDY):
        shape, classes, null = (
            description[k] for k in ("sample_shape", "num_classes", "null_cond")
        )
        check_use(net, shape, classes, null)
        if isinstance(net, EDM2):
            net.settle()
        return Denoiser(
            net,
            prediction=description["prediction"],
            schedule=_schedule(description["schedule"]),
            sample_shape=shape,
            null_cond=null,
            sigma_data=description["sigma_data"],
            num_classes=classes,
            learned_variance=description.get("learned_variance", False),
        )


def _schedule(description: dict[str, Any]) -> Schedule:
    from ..schedules import EDM, Flow, VPLinear

    kinds: dict[str, Any] = {"edm": EDM, "flow": Flow, "vp_linear": VPLinear}
    options = dict(description)
    kind = choice("schedule", options.pop("name"), kinds)
    needed = {"edm": ("sigma_min", "sigma_max"), "vp_linear": ("spacing",)}.get(kind, ())
    if set(options) != set(needed):
        raise ValueError(f"a schedule {kind!r} with {', '.join(options) or 'nothing'}")
    return kinds[kind](**options)


def load_classifier(name_or_path: str | os.PathLike[str] = "mnist") -> NoisyClassifier:
    """A trained noise-aware classifier, float32, on the CPU.

    Args:
        name_or_path: "mnist", "fashion", or a .safetensors file of `reg-engine train
            mnist-classifier`, `fashion-classifier` or `cifar10-classifier`.

    Raises:
        InputError: as load_model.
    """
    net, _ = build(_path(name_or_path, "{}_classifier.safetensors"), "classifier")
    assert isinstance(net, NoisyClassifier)
    return net


def packaged_adapter(name: str) -> Path:
    """The packaged adapter of a packaged model, for Denoiser.with_adapter: guidance by the packaged
    damping at scales 1 to 8, cond alone where F < 0.15, distilled.

    Args:
        name: "mnist" or "fashion".

    Raises:
        InputError: an unknown name, or a model of one's own.
    """
    return _beside(name, "adapter", "safetensors")


def packaged_damping(name: str) -> Path:
    """The packaged damping of a packaged model, for Damping.load: REG's mean effect by noise level,
    of `reg-engine calibrate --model NAME --damping rayleigh --solver dpmpp_2m --steps 16`.

    Args:
        name: "mnist" or "fashion".

    Raises:
        InputError: an unknown name, or a model of one's own.
    """
    return _beside(name, "damping", "json")


def _beside(name: str, what: str, ending: str) -> Path:
    """A file that goes with a packaged model."""
    if not _packaged(name):
        problem = f"{shown(name)} has no packaged one"
        raise InputError(what, problem, f"Packaged: {', '.join(PACKAGED)}; or give a file")
    return WEIGHTS / f"{name}_{what}.{ending}"


def data_of(name_or_path: str | os.PathLike[str]) -> str | None:
    """The data set that a model was trained on, as its description says; None if it does not.

    Raises:
        InputError: as load_model.
    """
    data = description_of(name_or_path).get("data")
    return data if isinstance(data, str) else None


def description_of(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model's file says of itself: architecture, data, training, step, ...

    Raises:
        InputError: as load_model.
    """
    return describe(_path(name_or_path, "{}.safetensors"))


def latents_of(name_or_path: str | os.PathLike[str]) -> Latents | None:
    """What a model's samples are of a VAE's latents, as its description says; None: they are
    pictures.

    Raises:
        InputError: as load_model.
    """
    found = description_of(name_or_path).get("latents")
    try:
        return None if found is None else Latents(**found)
    except (InputError, TypeError) as error:
        problem = f"the latents in {os.fspath(name_or_path)!r} are damaged ({str(error)[:200]})"
        raise InputError("name_or_path", problem, REMEDY) from error


def classifier_for(name_or_path: str | os.PathLike[str]) -> NoisyClassifier | None:
    """The packaged classifier that can judge a model's samples: that of the same data set; None if
    there is none.

    Raises:
        InputError: as load_model.
    """
    data = data_of(name_or_path)
    return load_classifier(data) if data is not None and _packaged(data) else None


def _packaged(name_or_path: str | os.PathLike[str]) -> bool:
    return isinstance(name_or_path, str) and name_or_path in PACKAGED


def _path(name_or_path: str | os.PathLike[str], pattern: str) -> Path:
    if _packaged(name_or_path):
        return WEIGHTS / pattern.format(name_or_path)
    try:
        path = Path(name_or_path)
    except TypeError as error:
        raise InputError(
            "name_or_path", f"is a {type(name_or_path).__name__}", "Give a name or a path"
        ) from error
    if not path.suffix and not path.exists():
        raise InputError(
            "name_or_path",
            f"unknown model {str(name_or_path)!r}",
            f"Packaged: {', '.join(PACKAGED)}; or give the path of a .safetensors file",
        )
    return path
