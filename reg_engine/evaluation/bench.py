"""How samples are judged: confidence, agreement and FID of each point, and their bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fidelity import half_width, memorisation, precision_recall
from ..metrics import Frechet, wilson
from ..models.classifier import NoisyClassifier
from ..postprocess import Postprocess, classifier_features
from ..training.diffusion import to_unit_range
from .fronts import Measured, Setting

__all__ = ["Bench", "Judged", "judge", "resamples", "vectors_of"]

Features = Callable[[Tensor], Tensor]
Images = Tensor | NDArray[np.uint8]
BATCH = 500


def vectors_of(features: Features, images: Images) -> Tensor:
    """Feature vectors (N, d) float64 on the CPU, of (N, C, H, W) in [-1, 1] or uint8 images."""
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        with torch.no_grad():
            values = part if isinstance(part, Tensor) else to_unit_range(part)
            found.append(features(values).double().cpu())
    return torch.cat(found)


class Judged(NamedTuple):
    """What the judge makes of N samples."""

    features: Tensor  # (N, F) float64
    odds: Tensor  # (N,) float64, ln(p / (1 - p)) of the wanted label's probability p: its log-odds
    chance: Tensor  # (N,) float64, p
    right: Tensor  # (N,) bool, whether the wanted label is the most probable one


def judge(classifier: NoisyClassifier, images: Images, labels: Tensor) -> Judged:
    """Features, log-odds and agreement of images, as vectors_of takes them, with labels (N,)."""
    found = vectors_of(classifier_features(classifier), images)
    with torch.no_grad():
        head = classifier.head
        logits = found @ head.weight.double().cpu().T + head.bias.double().cpu()
    wanted = labels[:, None]
    # ln(1 - p) from the other labels' logits: exact where p is nearly 1.
    others = logits.scatter(1, wanted, -torch.inf).logsumexp(1)
    odds = logits.gather(1, wanted)[:, 0] - others
    return Judged(found, odds, odds.sigmoid(), logits.argmax(1) == labels)


def resamples(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Row numbers (count, N) drawn with replacement within each label, as the samples were made:
    so many of each. (Drawn over all labels, their shares would vary, and FID with them.)"""
    rows = torch.empty(count, len(labels), dtype=torch.long)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        rows[:, own] = own[torch.randint(len(own), (count, len(own)), generator=generator)]
    return rows


class Bench:
    """Measures samples against real images that no network was trained on.

    Args:
        classifier: the judge, of clean images; never a guide.
        labels: (N,) the labels that every point was made for.
        real: uint8 images; None: without them there is no FID and no precision.
        replicates: bootstrap resamples; the same rows for every point, so that samples of one seed
            stay paired.
        generator: of the resamples.
        features: of the FID, and their name; None = the judge's.
        reference: what the FID in these features is held against; None = `real`.
        train: images that the models saw, for memorisation; None = it is not measured.
        most: images that precision, recall and memorisation look at.
    """

    def __init__(
        self,
        classifier: NoisyClassifier,
        labels: Tensor,
        real: NDArray[np.uint8] | None,
        replicates: int,
        generator: torch.Generator,
        *,
        features: tuple[Features, str] | None = None,
        reference: Frechet | None = None,
        train: NDArray[np.uint8] | None = None,
        most: int | None = None,
    ) -> None:
        self.classifier, self.labels = classifier, labels
        self.most = min(len(labels), most or len(labels))
        self.rows = torch.cat(
            [torch.arange(len(labels))[None], resamples(labels, replicates, generator)]
        )
        self.features = features[0] if features else None
        self.name = features[1] if features else "the judge's features"
        self.frechet: Frechet | None = None  # in the judge's features
        if real is None:
            return
        own = classifier_features(classifier)
        found = vectors_of(own, real)
        self.frechet = self.measured = Frechet(found)
        # Sets of one size compare best (Kynkaanniemi et al. 2019).
        self.real = found[torch.randperm(len(found), generator=generator)[: self.most]]
        self.train = None if train is None else vectors_of(own, train)
        if self.features is not None:
            self.measured = reference or Frechet(vectors_of(self.features, real))

    def __call__(self, point: Setting, samples: Tensor, cost: Mapping[str, Any]) -> Measured:
        """Measure samples (N, C, H, W) of a point; `cost` is a Stats.as_dict()."""
        found = judge(self.classifier, samples, self.labels)
        count, right = len(self.labels), int(found.right.sum())
        means = found.odds[self.rows].mean(1)
        shares = found.right.double()[self.rows].mean(1)
        row: dict[str, Any] = {
            **point.row,
            "samples": count,
            "nfe": cost["nfe"],
            "backward": cost["backward"],
            "agreement": right / count,
            "agreement_interval": list(wilson(right, count)),
            "confidence": float(means[0]),
            "confidence_error": half_width(means),
            "probability": float(found.chance.mean()),
        }
        if self.frechet is None:
            return Measured(point, row, torch.empty(0, dtype=torch.float64), means, shares)
        vectors = found.features
        if self.features is not None:
            row["fid_judge"] = self.frechet(vectors)
            vectors = vectors_of(self.features, samples)
        fids = self.measured.resampled(vectors, self.rows)
        row["fid"], row["fid_error"] = float(fids[0]), half_width(fids)
        shown = found.features[: self.most]
        row["precision"], row["recall"] = precision_recall(shown, self.real)
        if self.train is not None:
            row["nearer"] = memorisation(shown, self.train, self.real, count=1).nearer
        return Measured(point, row, fids, means, shares)

    def moved(
        self, flow: Postprocess, point: Setting, samples: Tensor, cost: Mapping[str, Any]
    ) -> tuple[Tensor, Measured]:
        """The samples of a point after a postprocessing flow, and what they measure."""
        after = flow(samples.clamp(-1, 1), self.labels)  # clipped, as pictures hold them
        return after, self(point, after, {**cost, "nfe": cost["nfe"] + flow.stats.nfe})
