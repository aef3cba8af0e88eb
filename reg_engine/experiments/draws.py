"""What the image experiments sample: points of a grid, and how each is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..engine import Engine
from ..guidance.guidance import Guidance
from ..guidance.references import BadModel, Classifier, Unconditional
from ..guidance.weights import Constant, Cosine, Interval, Linear, Weight
from ..networks.denoisers import Denoiser
from ..networks.point import Reference
from .classifier_guidance import unlabelled

# What each method is called on a page. cg: the guide is a network; cg-linear: the linear classifier
# of arXiv 2503.10638. Both guide the unconditional model (its Eq. 9).
METHODS = {
    "vanilla": "CFG",  # a constant weight
    "linear": "linear CFG",
    "cosine": "cosine CFG",
    "interval": "interval CFG",
    "autoguidance": "autoguidance",
    "cg": "CG, network",
    "cg-linear": "CG, linear",
}
CLASSIFIER_METHODS = ("cg", "cg-linear")
INTERVAL = (0.28, 2.9)  # noise levels; what the REG authors' released EDM2 command uses
POOL_SEEDS = 500_000  # the pool's seeds begin here: none is among those of the points
SEEDS_A_RUN = 1_000_000  # room for the seeds of one report.seed


@dataclass(frozen=True)
class Point:
    """One setting that is sampled.

    `scale` is the guidance scale >= 1, 1 = none; for classifier guidance the classifier's weight w
    of Eq. 9 >= 0, where 1 is Bayes' rule and 0 the unconditional model.
    """

    method: str  # a key of METHODS
    scale: float
    estimator: str = "none"  # no REG; or a name in RECTIFIERS
    plan: str = "full"  # or "calibrated"
    pool: bool = False  # whether it makes training samples for postprocessing (other seeds)
    solver: tuple[str, int] | None = None  # name and steps, where they are not those of all points

    @property
    def name(self) -> str:
        """A file name, one for each point."""
        kind = "pool" if self.pool else "point"
        other = f"-{self.solver[0]}-{self.solver[1]}" if self.solver else ""
        return f"{kind}-{self.method}-{self.estimator}-{self.plan}-{self.scale!r}{other}"

    @property
    def row(self) -> dict[str, Any]:
        """How it is named in the numbers; solver None: that of all points."""
        solver = list(self.solver) if self.solver else None
        named = {"method": self.method, "scale": self.scale, "estimator": self.estimator}
        return {**named, "plan": self.plan, "solver": solver}

    @property
    def title(self) -> str:
        """The point in words."""
        reg = " + REG" if self.rectified else ""
        sign = "w" if self.method in CLASSIFIER_METHODS else "scale"
        return f"{METHODS[self.method]}{reg}, {sign} {self.scale:g}"

    @property
    def rectified(self) -> bool:
        """Whether REG is on."""
        return self.estimator != "none"


def pairs(method: str, scales: Iterable[float], estimator: str) -> list[Point]:
    """Every scale without REG and with it."""
    return [Point(method, scale, each) for scale in scales for each in ("none", estimator)]


def guidance_of(point: Point, bad: object = None, guide: object = None) -> Guidance:
    """The point's Guidance; `bad` is autoguidance's Denoiser, `guide` a noise-aware classifier."""
    # The engine's scale is 1 + w, and w of a classifier is its own weight.
    scale = point.scale + (point.method in CLASSIFIER_METHODS)
    weights: dict[str, Weight] = {
        "linear": Linear(scale, 1.0, "edm"),
        "cosine": Cosine(scale, convention="edm"),
        "interval": Interval(scale, *INTERVAL),
    }
    reference: Reference = Unconditional()
    if point.method == "autoguidance":
        reference = BadModel(bad)  # type: ignore[arg-type]  # its own check says what it wants
    elif point.method in CLASSIFIER_METHODS:
        reference = Classifier(guide, on_clean_scale=True)  # type: ignore[arg-type]
    weight = weights.get(point.method, Constant(scale))
    return Guidance(weight, reference, rectify=point.estimator if point.rectified else None)


@dataclass(frozen=True)
class Sampling:
    """How every point is sampled."""

    count: int  # samples a point, equally many of each of ten labels
    seed: int = 0  # of the report
    batch_size: int = 50  # samples a batch, one file each
    device: str = "cpu"

    @property
    def labels(self) -> Tensor:
        """0, 1, ..., 9, 0, 1, ... (count,)."""
        return torch.arange(self.count) % 10

    def seeds(self, point: Point) -> list[int]:
        """Equal for all points, so that their samples pair up; the pool has its own."""
        first = self.seed * SEEDS_A_RUN + (POOL_SEEDS if point.pool else 0)
        return list(range(first, first + self.count))


def engine_of(
    denoiser: Denoiser,
    point: Point,
    sampling: Sampling,
    *,
    bad: object = None,
    guide: object = None,
    **choices: Any,
) -> Engine:
    """The Engine that samples a point; `choices` (solver, steps, ...) are its own arguments.

    `denoiser` is class-conditional; classifier guidance takes its unconditional view.
    """
    return Engine(
        unlabelled(denoiser) if point.method in CLASSIFIER_METHODS else denoiser,
        guidance=guidance_of(point, bad, guide),
        batch_size=sampling.batch_size,
        device=sampling.device,
        progress=False,
        **choices,
    )
