"""How good samples are: agreement with their labels, and Frechet distance to real images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import InputError
from .models.classifier import NoisyClassifier

__all__ = ["Agreement", "Frechet", "features", "fid", "label_agreement", "wilson"]


@dataclass(frozen=True)
class Agreement:
    """Share of samples that a classifier gives their own label, and its 95 % interval."""

    share: float
    low: float
    high: float
    count: int


def label_agreement(
    classifier: NoisyClassifier, samples: Tensor, labels: Tensor, batch_size: int = 500
) -> Agreement:
    """Share of samples whose most probable label is the one they were made for.

    Args:
        classifier: of clean images.
        samples: (N, 1, H, W) in [-1, 1]; what lies outside is clipped, as in the picture.
        labels: (N,) integers.
        batch_size: images at a time.

    Raises:
        InputError: empty or non-finite samples, or labels of another length.
    """
    samples = _images("samples", samples)
    if labels.shape != samples.shape[:1]:
        raise InputError(
            "labels", f"is {tuple(labels.shape)} for {len(samples)} samples", "Give one for each"
        )
    device = next(classifier.parameters()).device
    right = 0
    with torch.no_grad():
        for part, wanted in zip(samples.split(batch_size), labels.split(batch_size), strict=True):
            logits = classifier(part.to(device), torch.zeros(len(part), device=device))
            right += int((logits.argmax(1).cpu() == wanted.cpu()).sum())
    low, high = wilson(right, len(samples))
    return Agreement(right / len(samples), low, high, len(samples))


def wilson(successes: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; z = 1.96 gives 95 %."""
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    # Exact at the ends, where rounding would leave 1 - 1e-16.
    return (
        0.0 if successes == 0 else middle - half,
        1.0 if successes == count else middle + half,
    )


def fid(
    classifier: NoisyClassifier,
    samples: Tensor | NDArray[np.uint8],
    reference: Tensor | NDArray[np.uint8],
    batch_size: int = 500,
) -> float:
    """Frechet distance between two sets of images (Heusel et al. 2017) in a classifier's features.

    Not comparable with values in Inception features. Features, sums and the distance are float64.

    Args:
        classifier: its `features` (of clean images) are compared.
        samples, reference: (N, H, W) uint8, or (N, 1, H, W) in [-1, 1]; at least 2 each.
            Values outside are clipped, as in a picture.
        batch_size: images at a time.

    Raises:
        InputError: torchmetrics is missing; images of another kind; fewer than 2.
    """
    sets = (_images("samples", samples), _images("reference", reference))
    device = next(classifier.parameters()).device
    metric = _frechet(_Features(classifier)).to(device)
    for images, real in zip(sets, (False, True), strict=True):
        if len(images) < 2:
            raise InputError(
                "reference" if real else "samples", "is one image", "Give 2 or more, better 1000"
            )
        for part in images.split(batch_size):
            metric.update(part.to(device), real=real)
    return float(metric.compute())


def features(
    classifier: NoisyClassifier, images: Tensor | NDArray[np.uint8], batch_size: int = 500
) -> Tensor:
    """A classifier's feature vectors of clean images, (N, num_features) float64 on the CPU.

    Args and errors as `fid`; one image is enough. `classifier.head` makes logits of them.
    """
    device = next(classifier.parameters()).device
    extractor = _Features(classifier)
    parts = _images("images", images).split(batch_size)
    return torch.cat([extractor(part.to(device)).cpu() for part in parts])


class Frechet:
    """Frechet distances of many sets of feature vectors to one, and their bootstrap.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C2^(1/2) C1 C2^(1/2))^(1/2)) with unbiased covariances, as `fid`
    (Heusel et al. 2017, Eq. 6), but the reference is worked out once.

    Args:
        reference: (M, F) feature vectors, M >= 2; kept as float64 on the CPU.

    Raises:
        InputError: no matrix, fewer than 2 rows, NaN or Inf.
    """

    def __init__(self, reference: Tensor) -> None:
        found = _vectors("reference", reference)
        self._hold(found.mean(0), found.T.cov().reshape(found.shape[1], -1))

    @classmethod
    def of_moments(cls, mean: Tensor, covariance: Tensor) -> Frechet:
        """To a Gaussian of a mean (F,) and a covariance (F, F), float64, symmetric."""
        made = cls.__new__(cls)
        made._hold(mean, covariance)
        return made

    def _hold(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean = mean
        values, basis = torch.linalg.eigh(covariance)
        self.root = (basis * values.clamp(min=0).sqrt()) @ basis.T
        self.trace = float(values.sum())

    def to_moments(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """The distance of a Gaussian of that mean (F,) and covariance (F, F), float64."""
        values = torch.linalg.eigvalsh(self.root @ covariance @ self.root)
        cross = values.clamp(min=0).sqrt().sum()
        return (mean - self.mean).square().sum() + covariance.trace() + self.trace - 2 * cross

    def __call__(self, samples: Tensor) -> float:
        """The distance of feature vectors (N, F), N >= 2."""
        count = len(_vectors("samples", samples))
        return float(self.resampled(samples, torch.arange(count)[None]))

    def resampled(self, samples: Tensor, rows: Tensor) -> Tensor:
        """The distance of every resample samples[rows[i]], (R,) float64.

        Args:
            samples: (N, F), N >= 2.
            rows: (R, N') LongTensor of row numbers, drawn with replacement for a bootstrap (Efron
                1979). The same rows for two methods with the same seeds pair their samples.

        The values spread as the distance does, but lie above it (a resample repeats rows, which
        lowers its rank): use their deviation, not their percentiles.
        """
        found = _vectors("samples", samples) - self.mean
        distances = []
        for chosen in rows:
            counts = torch.bincount(chosen, minlength=len(found)).double()[:, None]
            shift = (counts * found).sum(0) / len(chosen)
            centred = found - shift
            covariance = (counts * centred).T @ centred / (len(chosen) - 1)
            distances.append(self.to_moments(self.mean + shift, covariance))
        return torch.stack(distances)


def _vectors(name: str, value: Tensor) -> Tensor:
    if value.ndim != 2 or len(value) < 2:
        raise InputError(name, f"is {tuple(value.shape)}", "Give 2 or more vectors (N, F)")
    if not value.isfinite().all():
        raise InputError(name, "has NaN or Inf", "Give finite feature vectors")
    return value.detach().cpu().double()


class _Features(nn.Module):
    """The classifier as torchmetrics calls it: images -> (B, num_features), float64."""

    def __init__(self, classifier: NoisyClassifier) -> None:
        super().__init__()
        self.classifier, self.num_features = classifier, classifier.num_features

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.classifier.features(images).double()


def _frechet(extractor: nn.Module) -> Any:
    """torchmetrics' Frechet distance on an extractor with an integer `num_features`.

    Its sums are float64 already; `set_dtype` is left alone, for it would convert the extractor too.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise InputError(
            "fid", f"needs torchmetrics ({error})", "Run `pip install reg-engine[eval]`"
        ) from error
    # normalize=True: images are floats, and a custom extractor gets them as they are.
    return FrechetInceptionDistance(feature=extractor, normalize=True)


def _images(name: str, images: Tensor | NDArray[np.uint8]) -> Tensor:
    """(N, 1, H, W) float32 in [-1, 1]."""
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 3:
            raise InputError(name, f"is {images.dtype} {images.shape}", "Give (N, H, W) uint8")
        images = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1).float() / 127.5 - 1
    if images.ndim != 4 or images.shape[1] != 1 or not images.is_floating_point():
        raise InputError(
            name, f"is {images.dtype} {tuple(images.shape)}", "Give (N, 1, H, W) floats in [-1, 1]"
        )
    if len(images) == 0:
        raise InputError(name, "is empty", "Give at least one image")
    if not images.isfinite().all():
        raise InputError(name, "has NaN or Inf", "Sample again, with less guidance or in float32")
    return images.detach().float().clamp(-1.0, 1.0)
