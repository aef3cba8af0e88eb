"""Everything that is scored of a set of images, with the conventions it was scored by, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..metrics import Frechet
from ..version import __version__
from .extract import Block
from .network import Network, Vectors
from .scores import Conventions, frechet_bars, inception_score, kid, neighbours
from .statistics import Moments, Statistics, described

__all__ = ["Gathered", "fitting", "gather", "needs", "report"]

NAMED = 20  # unreadable images that a result names


@dataclass(frozen=True)
class Gathered:
    """What the scores are made of.

    Args:
        moments: of the features; None: no image could be read.
        features: (N, F), logits: (N, L); None where no score asks for all of them.
        unreadable: images left out: name and reason.
        dtype: of the features.
    """

    moments: Moments | None
    features: Tensor | None
    logits: Tensor | None
    unreadable: tuple[str, ...]
    dtype: str

    @property
    def count(self) -> int:
        """Images that were read."""
        return 0 if self.moments is None else self.moments.count

    def statistics(self, network: Network, name: str, source: str = "") -> Statistics:
        """Mean and covariance, with how they came about.

        Raises:
            InputError: fewer than two images.
        """
        if self.moments is None or self.moments.count < 2:
            raise InputError(
                "images",
                f"{name} has {self.count} that can be read, too few for a covariance",
                "Give 2 or more; papers take 50,000",
            )
        note = {
            "features": described(network),
            "images": {"count": self.count, "unreadable": len(self.unreadable), "key": source},
            "dtype": {"features": self.dtype, "statistics": "float64"},
            "version": __version__,
        }
        return Statistics(self.moments.mean, self.moments.covariance(), note, name)


def needs(metrics: Sequence[str], how: Conventions) -> tuple[bool, bool]:
    """Whether all features, and all logits, must be held in memory; FID alone needs neither."""
    features = bool({"kid", "pr"} & set(metrics)) or ("fid" in metrics and how.bootstrap > 0)
    return features, "is" in metrics


def gather(blocks: Iterable[Block], features: bool = False, logits: bool = False) -> Gathered:
    """Sums over blocks in their order, and what `features` and `logits` say is held.

    Raises:
        InputError: logits are asked of a network that makes none.
    """
    moments: Moments | None = None
    held: tuple[list[Tensor], list[Tensor]] = ([], [])
    bad: tuple[str, ...] = ()
    dtype = "float32"
    for block in blocks:
        bad += block.unreadable
        if not len(block.features):
            continue
        dtype = str(block.features.dtype).removeprefix("torch.")
        own = Moments.of(block.features)
        moments = own if moments is None else moments + own
        if features:
            held[0].append(block.features)
        if logits:
            if block.logits is None:
                raise _no_logits()
            held[1].append(block.logits)
    both = [torch.cat(each) if each else None for each in held]
    return Gathered(moments, both[0], both[1], bad, dtype)


def fitting(
    network: Network, metrics: Sequence[str], statistics: Statistics | None = None
) -> Callable[[Tensor], Vectors]:
    """The network, whose first batch tells whether the scores can use what it makes.

    Raises:
        InputError: in a call: no logits for `is`; another width than that of statistics for `fid`.
    """

    def ask(images: Tensor) -> Vectors:
        features, logits = network(images)
        if "is" in metrics and logits is None:
            raise _no_logits()
        if "fid" in metrics and statistics is not None:
            statistics.check_width(features.shape[1])
        return features, logits

    return ask


def _no_logits() -> InputError:
    remedy = "Take a network that returns (features, logits), or leave that score out"
    return InputError("metrics", "name 'is', and the feature network makes no logits", remedy)


def report(
    images: Gathered,
    network: Network,
    metrics: Sequence[str],
    how: Conventions,
    statistics: Statistics | None = None,
    reference: Gathered | None = None,
    name: str = "images",
) -> dict[str, Any]:
    """The scores, with what they depend on.

    Args:
        images: what is scored. network: that made their features.
        metrics: of METRICS, with what they need: see job.check_metrics.
        statistics: for fid. reference: for kid and pr.

    Raises:
        InputError: statistics of another width; too few images for a covariance, a subset or a
            split.
    """
    own = images.statistics(network, name)
    width = len(own.mean)
    found: dict[str, Any] = {}
    for metric in metrics:
        if metric == "is":
            assert images.logits is not None  # gather held them
            found["is"] = inception_score(images.logits, how)
        elif metric == "fid":
            found["fid"] = _frechet(images, own, statistics, how)
        else:
            assert reference and reference.features is not None and images.features is not None
            score = kid if metric == "kid" else neighbours
            found[metric] = score(images.features, reference.features, how)
    result = {
        "images": {
            "source": name,
            "count": images.count,
            "unreadable": len(images.unreadable),
            "unreadable_names": list(images.unreadable[:NAMED]),
        },
        "features": {**described(network), "width": width, "dtype": images.dtype},
        "statistics_dtype": "float64",
        "reference": None if statistics is None else {**statistics.note, "source": statistics.name},
        "metrics": found,
        "conventions": asdict(how),
        "version": {"reg_engine": __version__, "torch": torch.__version__},
    }
    if images.count <= width and "fid" in metrics:
        result["warning"] = (
            f"{images.count} images for {width} features: the covariance is singular and FID far "
            "too large; compare with equal counts only"
        )
    return result


def _frechet(
    images: Gathered, own: Statistics, statistics: Statistics | None, how: Conventions
) -> dict[str, Any]:
    assert statistics is not None  # job.check_metrics asked for it
    statistics.check_width(len(own.mean))
    target = Frechet.of_moments(statistics.mean, statistics.covariance)
    found = {"value": max(0.0, float(target.to_moments(own.mean, own.covariance)))}
    if how.bootstrap and images.features is not None:
        found |= frechet_bars(images.features, target, how)
    return found
