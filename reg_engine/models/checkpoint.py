"""Weights on disk: safetensors with a JSON description; nothing here ever unpickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import InputError
from .classifier import NoisyClassifier
from .unet import UNet
from .unet2d import UNet2D

__all__ = ["build", "load_weights", "read", "save_weights"]

FORMAT = "reg_engine"  # the metadata key of the description
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "unet2d": UNet2D,
    "classifier": NoisyClassifier,
}
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
REMEDY = "Give a .safetensors file that `reg-engine train` wrote"


def save_weights(path: Path, weights: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights as float16 safetensors with their description, atomically.

    Args:
        path: a .safetensors file; replaced if it exists.
        weights: a state dict.
        description: plain values; `architecture` (a key of ARCHITECTURES) and `arguments` (of its
            constructor) at least.

    Raises:
        InputError: a weight that is not finite in float16.
    """
    halves = {name: value.detach().to("cpu", torch.float16) for name, value in weights.items()}
    bad = [name for name, value in halves.items() if not value.isfinite().all()]
    if bad:
        raise InputError("weights", f"{bad[0]} is not finite in float16", "Train with a lower rate")
    data = save(
        {name: value.contiguous() for name, value in halves.items()},
        metadata={FORMAT: json.dumps(description, sort_keys=True)},
    )
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, description) of a file that save_weights wrote.

    Raises:
        InputError: no such file; a pickle; a truncated, corrupt or foreign file.
    """
    if path.suffix.lower() in PICKLES:
        raise InputError(
            "name_or_path", f"{str(path)!r} is a pickle, which can run code when it is read", REMEDY
        )
    if not path.is_file():
        raise InputError("name_or_path", f"there is no file {str(path)!r}", REMEDY)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            "name_or_path", f"{str(path)!r} is damaged or no safetensors file ({error})", REMEDY
        ) from error
    if FORMAT not in metadata:
        raise InputError(
            "name_or_path", f"{str(path)!r} does not say what network its weights belong to", REMEDY
        )
    try:
        description = json.loads(metadata[FORMAT])
    except json.JSONDecodeError as error:
        raise InputError(
            "name_or_path", f"the description in {str(path)!r} is damaged ({error})", REMEDY
        ) from error
    if not isinstance(description, dict):
        raise InputError("name_or_path", f"the description in {str(path)!r} is no table", REMEDY)
    return weights, description


def build(path: Path, *architectures: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a file, float32 and in eval mode, and the file's description.

    Args:
        path: see read.
        architectures: those that are wanted: "unet", "unet2d", "classifier".

    Raises:
        InputError: as read; another architecture; weights that do not fit it; diffusers is missing
            where the network is made of its blocks.
    """
    weights, description = read(path)
    found = description.get("architecture")
    if found not in architectures:
        wanted = " or ".join(repr(name) for name in architectures)
        raise InputError("name_or_path", f"{str(path)!r} holds a {found!r}, not a {wanted}", REMEDY)
    try:
        net = ARCHITECTURES[found](**description["arguments"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "name_or_path",
            f"the description in {str(path)!r} fits no {found}: {error}",
            REMEDY,
        ) from error
    load_weights(net, weights, str(path))
    return net.eval(), description


def load_weights(net: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Copy weights into a network (float16 values become exact float32 ones).

    Raises:
        InputError: names or shapes that differ, or values that are not finite.
    """
    own = net.state_dict()
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or foreign:
        text = "; ".join(
            f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unknown", foreign))
            if names
        )
        raise InputError(
            "name_or_path", f"the weights in {where!r} do not fit the network: {text}", REMEDY
        )
    for name, value in weights.items():
        found, wanted = tuple(value.shape), tuple(own[name].shape)
        if found != wanted:
            raise InputError(
                "name_or_path", f"{name} in {where!r} is {found}, the network has {wanted}", REMEDY
            )
        if not value.isfinite().all():
            raise InputError("name_or_path", f"{name} in {where!r} has NaN or Inf", REMEDY)
    net.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()})
