"""Spaces in which neighbours are searched, besides the values themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, choice
from ..models import NoisyClassifier

__all__ = ["classifier_features", "dinov2_features", "pooled"]

# Mean and deviation of ImageNet's channels in [0, 1], with which DINOv2 was trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def classifier_features(classifier: NoisyClassifier) -> Callable[[Tensor], Tensor]:
    """A noise-aware classifier's feature vectors of clean images, as reg_engine's FID has them.

    Args:
        classifier: for example reg_engine.load_classifier("mnist").

    Returns:
        (B, 1, 28, 28) images in [-1, 1], clipped to it -> (B, num_features).
    """
    if not hasattr(classifier, "features"):
        raise InputError(
            "classifier",
            f"a {type(classifier).__name__} has no features",
            "Give reg_engine.load_classifier(...)",
        )
    device = next(classifier.parameters()).device
    return lambda images: classifier.features(images.to(device).float().clamp(-1.0, 1.0))


def dinov2_features(
    folder: str | os.PathLike[str],
    pooling: str = "patches",
    *,
    size: int = 224,
    device: str | torch.device = "cpu",
) -> Callable[[Tensor], Tensor]:
    """Features of DINOv2, with or without registers, from weights that are at hand.

    Nothing is downloaded, and no pickle is read: the folder holds config.json and safetensors, as
    transformers saves them. In the paper the mean of patch tokens does better than the CLS token
    (arXiv 2503.10638, Tab. 2).

    Args:
        folder: of the weights.
        pooling: "cls" (the CLS token) or "patches" (mean of the patch tokens).
        size: pixels to which images are resized (bicubic), a multiple of the patch size.
        device: where the network runs.

    Returns:
        (B, 1 or 3, H, W) images in [-1, 1], clipped to it -> (B, hidden size).

    Raises:
        InputError: transformers is missing; no such folder, or no DINOv2 in it.
    """
    choice("pooling", pooling, ("cls", "patches"))
    net = _dinov2(folder).eval().to(device)
    registers = int(getattr(net.config, "num_register_tokens", 0))
    mean, std = (torch.tensor(part, device=device).reshape(1, 3, 1, 1) for part in IMAGENET)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        unit = (images.to(device).float().clamp(-1.0, 1.0) + 1) / 2
        unit = unit.expand(-1, 3, -1, -1)
        resized = F.interpolate(unit, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        tokens = net(pixel_values=(resized - mean) / std).last_hidden_state
        return pooled(tokens, registers, pooling)

    return features


def pooled(tokens: Tensor, registers: int, pooling: str) -> Tensor:
    """(B, d) of a transformer's tokens (B, 1 + registers + patches, d): CLS, registers, patches."""
    return tokens[:, 0] if pooling == "cls" else tokens[:, 1 + registers :].mean(1)


def _dinov2(folder: str | os.PathLike[str]) -> Any:
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise InputError(
            "features", f"DINOv2 needs transformers ({error})", "Run `pip install transformers`"
        ) from error
    if not (Path(folder) / "config.json").is_file():
        raise InputError(
            "folder",
            f"{os.fspath(folder)!r} holds no config.json",
            "Give the local folder of a DINOv2 model that transformers saved",
        )
    try:
        net: Any = AutoModel.from_pretrained(
            os.fspath(folder), local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "folder",
            f"{os.fspath(folder)!r} cannot be read ({str(error).splitlines()[0]})",
            "Give the local folder of a DINOv2 model in safetensors",
        ) from error
    if not str(net.config.model_type).startswith("dinov2"):
        raise InputError("folder", f"holds a {net.config.model_type}", "Give a DINOv2 model")
    return net
