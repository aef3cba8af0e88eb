"""What the `postprocess` experiment measures of samples, one value each, so that they pair up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...evaluation.bench import Bench, vectors_of
from ...evaluation.fronts import Measured, difference
from ...fidelity import Z, inside
from ...postprocess import Neighbours, classifier_features

__all__ = ["COPY", "Nearness", "changes", "farther"]

COPY = 1 / 3  # a copy: its nearest real image less than a third as far away as the second one
BALLS = 3  # neighbours that make a ball in precision and recall


def farther(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each of ours the share of theirs that is larger, ties half, (n,) float64 in [0, 1].

    Of distances to training images, ours from samples and theirs from unseen real images, the mean
    is `fidelity.memorisation`'s `nearer`.
    """
    ordered = theirs.sort().values
    above = len(ordered) - torch.searchsorted(ordered, ours, right=True)
    equal_or_above = len(ordered) - torch.searchsorted(ordered, ours)
    return (above + equal_or_above).double() / (2 * len(ordered))


class Nearness:
    """How samples lie between the real images that a flow was trained towards and unseen ones.

    Args:
        real: (n, 1, H, W) in [-1, 1], n >= 2, what the flow was trained towards.
        unseen: (m, 1, H, W), real images that nothing was trained on.
        bench: gives the judge, and the unseen images' features that recall looks at.
    """

    def __init__(self, real: Tensor, unseen: Tensor, bench: Bench) -> None:
        self.bench = bench
        self.real, self.unseen = Neighbours(real), Neighbours(unseen)
        self.held = self.real.search(unseen, 1)[0][:, 0].double()

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Of samples (N, 1, H, W), clipped to [-1, 1]:

        distance, unseen: (N,) Euclidean, in pixels of [-1, 1], to the nearest of `real`, of unseen.
        nearer: (N,) share of unseen images that are farther from `real` than the sample is.
        copies: (N,) whether it is a copy of one of `real` (COPY), 0 or 1.
        recall: (m',) whether an unseen image lies among the samples, 0 or 1 (Kynkaanniemi et al.
            2019, in the judge's features).
        """
        clipped = samples.clamp(-1, 1)
        first, second = self.real.search(clipped, 2)[0].double().T.contiguous()
        own = vectors_of(classifier_features(self.bench.classifier), clipped[: self.bench.most])
        return {
            "distance": first,
            "unseen": self.unseen.search(clipped, 1)[0][:, 0].double(),
            "nearer": farther(first, self.held),
            "copies": (first < COPY * second).double(),
            "recall": inside(self.bench.real, own, BALLS).double(),
        }


def changes(
    before: Measured, after: Measured, was: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Means before and after, and their paired difference with its 95 % half-width (`error`).

    Of FID the bootstrap's; of the others Z deviations of a mean of differences. NaN nowhere: of one
    value the error is 0.

    Args:
        before, after: for FID.
        was, now: a Nearness of both.
    """
    fid = difference(after.fids, before.fids)
    found: dict[str, dict[str, Any]] = {
        "fid": {
            "before": before.row["fid"],
            "after": after.row["fid"],
            "difference": fid.value,
            "error": fid.error,
        }
    }
    for name, values in was.items():
        gap = now[name] - values
        spread = float(gap.std()) if len(gap) > 1 else 0.0
        found[name] = {
            "before": float(values.mean()),
            "after": float(now[name].mean()),
            "difference": float(gap.mean()),
            "error": Z * spread / math.sqrt(len(gap)),
        }
    return found
