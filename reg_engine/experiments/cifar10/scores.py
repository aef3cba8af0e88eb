"""How samples of the `cifar10` experiment are scored: features, Frechet distance, agreement."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ...fidelity import memorisation, precision_recall
from ...metrics import Frechet, wilson
from ...models import NoisyClassifier, load_classifier
from ...postprocess import classifier_features, dinov2_features
from ...training.diffusion import to_unit_range

__all__ = ["Features", "Ruler", "features_from", "make_ruler", "vectors_of"]

Features = Callable[[Tensor], Tensor]
BATCH = 500
RESAMPLES = 20  # of the bootstrap behind a distance's error


def features_from(path: str | os.PathLike[str], device: torch.device) -> tuple[Features, str]:
    """A user's feature network and its name in words.

    Args:
        path: a .safetensors classifier of `reg-engine train cifar10-classifier`, or the folder of a
            DINOv2 model that transformers saved (its CLS token).
        device: where it runs.

    Raises:
        InputError: neither of these; transformers is missing.
    """
    if Path(path).is_dir():
        name = f"DINOv2 CLS ({Path(path).name})"
        return dinov2_features(path, "cls", device=device), name
    if Path(path).suffix != ".safetensors":
        raise InputError(
            "--set features",
            f"{os.fspath(path)!r} is no feature network",
            "Give a DINOv2 folder, or a .safetensors of `reg-engine train cifar10-classifier`",
        )
    return classifier_features(load_classifier(path).to(device)), f"classifier {Path(path).name}"


@dataclass(frozen=True)
class Ruler:
    """What samples are held against: real images that no network was trained on.

    Args:
        judge: a classifier of clean images.
        features: of the Frechet distance; name: in words.
        real: Frechet distance to the test images in those features.
        judged: the same in the judge's features; inner: the test images in them.
        train: the training images in the judge's features.
        count: most samples that precision, recall and memorisation look at.
    """

    judge: NoisyClassifier
    features: Features
    name: str
    real: Frechet
    judged: Frechet
    inner: Tensor
    train: Tensor
    count: int

    def scores(self, samples: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Of samples (N, 3, 32, 32) made for labels (N,).

        Returns:
            fid (in `features`) and fid_error (its bootstrap deviation), fid_judge (in the judge's
            features), agreement with low and high (Wilson, 95 %), confidence (mean probability of
            the own label), precision, recall (k = 3) and nearer (memorisation, 0.5 = like unseen
            real data).
        """
        inner = vectors_of(classifier_features(self.judge), samples)
        with torch.no_grad():
            head = self.judge.head
            odds = head(inner.to(head.weight.device)).float().softmax(1).cpu()
        right = int((odds.argmax(1) == labels).sum())
        low, high = wilson(right, len(labels))
        outer = vectors_of(self.features, samples)
        rows = torch.randint(len(outer), (RESAMPLES, len(outer)), generator=generator)
        chosen = inner[torch.randperm(len(inner), generator=generator)[: self.count]]
        real = self.inner[: self.count]
        precision, recall = precision_recall(chosen, real)
        near = memorisation(chosen, self.train, real, count=100, generator=generator)
        return {
            "samples": len(samples),
            "fid": self.real(outer),
            "fid_error": float(self.real.resampled(outer, rows).std()),
            "fid_judge": self.judged(inner),
            "agreement": right / len(labels),
            "low": low,
            "high": high,
            "confidence": float(odds.gather(1, labels[:, None]).mean()),
            "precision": precision,
            "recall": recall,
            "nearer": near.nearer,
        }


def vectors_of(features: Features, images: Tensor) -> Tensor:
    """(N, d) float32 on the CPU, of (N, 3, H, W) in [-1, 1]."""
    with torch.no_grad():
        return torch.cat([features(part).float().cpu() for part in images.split(BATCH)])


def make_ruler(
    judge: NoisyClassifier,
    train: NDArray[np.uint8],
    test: NDArray[np.uint8],
    features: tuple[Features, str] | None = None,
    count: int = 1000,
) -> Ruler:
    """A Ruler from images (N, 32, 32, 3) uint8.

    Args:
        judge: on the device where it runs.
        train, test: what the models saw, and what they did not.
        features: of the Frechet distance; None = the judge's.
        count: see Ruler.
    """
    own = classifier_features(judge)
    chosen, name = features or (own, "the judge's features")

    def vectors(network: Features, images: NDArray[np.uint8]) -> Tensor:
        parts = range(0, len(images), BATCH)
        return torch.cat(
            [vectors_of(network, to_unit_range(images[at : at + BATCH])) for at in parts]
        )

    inner = vectors(own, test)
    # Test images may come class by class: mixed, so that any first ones are of all classes.
    inner = inner[torch.randperm(len(inner), generator=torch.Generator().manual_seed(0))]
    judged = Frechet(inner)
    return Ruler(
        judge,
        chosen,
        name,
        judged if features is None else Frechet(vectors(chosen, test)),
        judged,
        inner,
        vectors(own, train),
        count,
    )
