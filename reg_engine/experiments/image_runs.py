"""How samples of the image experiments are judged and compared, and how they are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fidelity import memorisation, precision_recall
from ..metrics import Frechet, wilson
from ..models.classifier import NoisyClassifier
from ..pictures.images import grid, to_uint8
from ..pictures.plots import OKABE_ITO
from ..postprocess import Postprocess, classifier_features
from ..training.diffusion import to_unit_range
from .draws import Point
from .figures import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Features = Callable[[Tensor], Tensor]
Images = Tensor | NDArray[np.uint8]
BATCH = 500
Z = 1.959963984540054  # half-widths are Z deviations of the bootstrap: 95 % of a normal law
ROUNDING = 1e-9  # of a difference of FIDs


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


@dataclass(frozen=True)
class Measured:
    """A point's numbers, and their bootstrap."""

    point: Point
    row: dict[str, Any]  # for JSON; confidence is the mean log-odds of the wanted label
    fids: Tensor  # (1 + R,) FID, and that of every resample; empty without real images
    confidences: Tensor  # (1 + R,) likewise


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
            self.measured = Frechet(vectors_of(self.features, real))

    def __call__(self, point: Point, samples: Tensor, cost: Mapping[str, Any]) -> Measured:
        """Measure samples (N, C, H, W) of a point; `cost` is a Stats.as_dict()."""
        found = judge(self.classifier, samples, self.labels)
        count, right = len(self.labels), int(found.right.sum())
        means = found.odds[self.rows].mean(1)
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
        if self.frechet is None:
            return Measured(point, row, torch.empty(0, dtype=torch.float64), means)
        vectors = found.features
        if self.features is not None:
            row["fid_judge"] = self.frechet(vectors)
            vectors = vectors_of(self.features, samples)
        fids = self.measured.resampled(vectors, self.rows)
        row["fid"], row["fid_error"] = float(fids[0]), _half(fids)
        shown = found.features[: self.most]
        row["precision"], row["recall"] = precision_recall(shown, self.real)
        if self.train is not None:
            row["nearer"] = memorisation(shown, self.train, self.real, count=1).nearer
        return Measured(point, row, fids, means)

    def moved(
        self, flow: Postprocess, point: Point, samples: Tensor, cost: Mapping[str, Any]
    ) -> tuple[Tensor, Measured]:
        """The samples of a point after a postprocessing flow, and what they measure."""
        after = flow(samples.clamp(-1, 1), self.labels)  # clipped, as pictures hold them
        return after, self(point, after, {**cost, "nfe": cost["nfe"] + flow.stats.nfe})


def _half(values: Tensor) -> float:
    """Half-width of the 95 % interval of (1 + R,) values: the first is no resample."""
    return Z * float(values[1:].std())


@dataclass(frozen=True)
class Difference:
    """One FID minus another, with the half-width of its 95 % interval (paired bootstrap)."""

    value: float
    error: float

    @property
    def below(self) -> bool:
        """Whether the first is lower beyond the error bar."""
        return self.value < -max(self.error, ROUNDING)

    @property
    def above(self) -> bool:
        """Whether the first is higher beyond the error bar."""
        return self.value > max(self.error, ROUNDING)

    @property
    def text(self) -> str:
        """value +- error."""
        return f"{self.value:+.3f} ± {self.error:.3f}"


def difference(one: Tensor, other: Tensor) -> Difference:
    """The difference of two (1 + R,) values, resample by resample."""
    return Difference(float((one - other)[0]), _half(one - other))


def marks(colour: str, marker: str, rectified: bool) -> dict[str, Any]:
    """Keywords of `Axes.errorbar`. Open marks: without REG; filled marks: with REG."""
    return {
        "color": OKABE_ITO[colour],
        "marker": marker,
        "markerfacecolor": OKABE_ITO[colour] if rectified else "white",
        "linestyle": "-" if rectified else "--",
        "linewidth": 1.2,
        "markersize": 6,
        "elinewidth": 0.8,
        "capsize": 2,
    }


def draw_samples(rows: Mapping[str, Tensor], columns: int = 20) -> Figure:
    """One line of images a set: the same seeds below each other."""
    made, axes = figure(columns * 0.39 + 3.1, 0.5 * len(rows) + 0.2, len(rows))
    for panel, (name, samples) in zip(axes[:, 0], rows.items(), strict=True):
        panel.imshow(grid(to_uint8(samples[:columns]), columns).squeeze(-1).numpy(), cmap="gray")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return made


def wrapped(text: str) -> str:
    """Paragraphs of Markdown in lines of at most 100 columns; a list's items stay apart."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        items = [" ".join(item.split()) for item in paragraph.split("\n* ")]
        items = items[:1] + [f"* {item}" for item in items[1:]]
        indent = "  " if paragraph.startswith("* ") or len(items) > 1 else ""
        filled = [
            textwrap.fill(item, 100, subsequent_indent=indent, break_on_hyphens=False)
            for item in items
        ]
        parts.append("\n".join(filled))
    return "\n\n".join(parts)
