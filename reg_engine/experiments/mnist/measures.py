"""What the `mnist` experiment measures on samples, with bootstrap error bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...fidelity import precision_recall
from ...metrics import Frechet, features, wilson
from ...models.classifier import NoisyClassifier
from .grid import Point

__all__ = ["Z", "Bench", "Judged", "Measured", "judge", "resamples"]

Z = 1.959963984540054  # half-widths are Z deviations of the bootstrap: 95 % of a normal law


@dataclass(frozen=True)
class Judged:
    """What the judge makes of samples.

    Args:
        features: (N, F) float64.
        odds: (N,) float64, ln(p / (1 - p)) of the wanted label's probability p: its log-odds.
        chance: (N,) float64, p.
        right: (N,) bool, whether the wanted label is the most probable one.
    """

    features: Tensor
    odds: Tensor
    chance: Tensor
    right: Tensor


def judge(
    classifier: NoisyClassifier, images: Tensor | NDArray[np.uint8], labels: Tensor
) -> Judged:
    """Features, log-odds and agreement of images, as metrics.features takes them, with labels."""
    found = features(classifier, images)
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


@dataclass(frozen=True)
class Measured:
    """A point's numbers, and their bootstrap.

    Args:
        point: what was measured.
        row: JSON-able numbers; confidence is the mean log-odds of the wanted label.
        fids: (1 + R,) FID, and that of every resample; empty without real images.
        confidences: (1 + R,) likewise.
    """

    point: Point
    row: dict[str, Any]
    fids: Tensor
    confidences: Tensor


class Bench:
    """Measures samples against real images.

    Args:
        classifier: the judge.
        labels: (N,) the labels that every point was made for.
        real: (M, 28, 28) uint8 images for FID; None: without them there is no FID and no precision.
        replicates: bootstrap resamples; the same rows for every point, so that samples of one seed
            stay paired.
        generator: of the resamples.
    """

    def __init__(
        self,
        classifier: NoisyClassifier,
        labels: Tensor,
        real: NDArray[np.uint8] | None,
        replicates: int,
        generator: torch.Generator,
    ) -> None:
        self.classifier, self.labels, count = classifier, labels, len(labels)
        self.rows = resamples(labels, replicates, generator)
        self.frechet: Frechet | None = None
        if real is not None:
            found = features(classifier, real)
            self.frechet = Frechet(found)
            # Sets of one size compare best (Kynkaanniemi et al. 2019).
            order = torch.randperm(len(found), generator=generator)[:count]
            self.real = found[order]

    def __call__(self, point: Point, samples: Tensor, cost: dict[str, Any]) -> Measured:
        """Measure samples (N, 1, 28, 28) of a point; `cost` is a Stats.as_dict()."""
        found = judge(self.classifier, samples, self.labels)
        count, right = len(self.labels), int(found.right.sum())
        means = torch.cat([found.odds.mean()[None], found.odds[self.rows].mean(1)])
        row: dict[str, Any] = {
            "method": point.method,
            "scale": point.scale,
            "estimator": point.estimator,
            "plan": point.plan,
            "solver": list(point.solver) if point.solver else None,  # None: that of all points
            "samples": count,
            "nfe": cost["nfe"],
            "backward": cost["backward"],
            "agreement": right / count,
            "agreement_interval": list(wilson(right, count)),
            "confidence": float(means[0]),
            "confidence_error": _half(means),
            "probability": float(found.chance.mean()),
        }
        fids = torch.empty(0, dtype=torch.float64)
        if self.frechet is not None:
            rows = torch.cat([torch.arange(count)[None], self.rows])
            fids = self.frechet.resampled(found.features, rows)
            row["fid"], row["fid_error"] = float(fids[0]), _half(fids)
            precision, recall = precision_recall(found.features, self.real)
            row |= {"precision": precision, "recall": recall}
        return Measured(point, row, fids, means)


def _half(values: Tensor) -> float:
    """Half-width of the 95 % interval of (1 + R,) values: the first is no resample."""
    return Z * float(values[1:].std())
