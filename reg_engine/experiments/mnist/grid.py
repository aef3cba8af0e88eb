"""The points of the `mnist` experiment as data: method, scale, estimator and plan of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...guidance.guidance import Guidance
from ...guidance.references import BadModel, Classifier, Unconditional
from ...guidance.weights import Constant, Cosine, Interval, Linear, Weight
from ...networks.point import Reference

__all__ = [
    "CHEAP",
    "CLASSIFIER_METHODS",
    "INTERVAL",
    "METHODS",
    "POOL",
    "Point",
    "full_grid",
    "guidance_of",
    "pool_grid",
    "quick_grid",
]

# What each method is called on the page. cg: the guide is a small network; cg-linear: the paper's
# linear classifier. Both guide the unconditional model (arXiv 2503.10638, Eq. 9).
METHODS = {
    "vanilla": "CFG",
    "linear": "linear CFG",
    "cosine": "cosine CFG",
    "interval": "interval CFG",
    "autoguidance": "autoguidance",
    "cg": "CG, network",
    "cg-linear": "CG, linear",
}
CLASSIFIER_METHODS = ("cg", "cg-linear")
CHEAP = "fd_batched"  # the estimator of the fronts: 3F an evaluation, no backward pass
ESTIMATORS = ("paper", "vjp", "jvp", "fd", "diagonal", "diagonal_batched")  # beside CHEAP
HEUN = ("heun", 18)  # what docs/models.md evaluates with: shows what the cheaper solver changes
INTERVAL = (0.28, 2.9)  # noise levels; what the REG authors' released EDM2 command uses


@dataclass(frozen=True)
class Point:
    """One setting that is sampled.

    Args:
        method: a key of METHODS.
        scale: guidance scale >= 1, 1 = none; for classifier guidance the classifier's weight w of
            Eq. 9 >= 0, where 1 is Bayes' rule and 0 the unconditional model.
        estimator: "none" (no REG) or a name in RECTIFIERS.
        plan: "full" or "calibrated".
        pool: whether it makes training samples for postprocessing (other seeds).
        solver: (name, steps), where they are not those of all points.
    """

    method: str
    scale: float
    estimator: str = "none"
    plan: str = "full"
    pool: bool = False
    solver: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """A file name, one for each point."""
        kind = "pool" if self.pool else "point"
        other = f"-{self.solver[0]}-{self.solver[1]}" if self.solver else ""
        return f"{kind}-{self.method}-{self.estimator}-{self.plan}-{self.scale!r}{other}"

    @property
    def plain(self) -> bool:
        """Whether it belongs on a front: full plan, the solver of all points, the cheap REG."""
        return self.plan == "full" and self.solver is None and self.estimator in ("none", CHEAP)

    @property
    def rectified(self) -> bool:
        """Whether REG is on."""
        return self.estimator != "none"

    @property
    def weight(self) -> float:
        """w = scale - 1 of the engine; a classifier's weight is its own w."""
        return self.scale if self.method in CLASSIFIER_METHODS else self.scale - 1


def guidance_of(point: Point, bad: object = None, guide: object = None) -> Guidance:
    """The point's Guidance.

    Args:
        point: see Point.
        bad: the worse Denoiser (autoguidance).
        guide: the noise-aware classifier (classifier guidance).
    """
    scale = 1 + point.weight
    weight: Weight = Constant(scale)
    if point.method == "linear":
        weight = Linear(scale, 1.0, "edm")
    elif point.method == "cosine":
        weight = Cosine(scale, convention="edm")
    elif point.method == "interval":
        weight = Interval(scale, *INTERVAL)
    reference: Reference = Unconditional()
    if point.method == "autoguidance":
        reference = BadModel(bad)  # type: ignore[arg-type]  # its own check says what it wants
    elif point.method in CLASSIFIER_METHODS:
        reference = Classifier(guide, on_clean_scale=True)  # type: ignore[arg-type]
    rectify = point.estimator if point.rectified else None
    return Guidance(weight=weight, reference=reference, rectify=rectify)


def _pairs(method: str, scales: Iterable[float]) -> list[Point]:
    """Every scale without and with REG."""
    scales = list(scales)
    return [Point(method, s, e) for e in ("none", CHEAP) for s in scales if s > 1 or e == "none"]


def _classifier_pairs(method: str, weights: Iterable[float]) -> list[Point]:
    """Every weight without and with REG; with REG also twice the largest, for it damps."""
    weights = list(weights)
    points = [Point(method, w, e) for w in weights for e in ("none", CHEAP)]
    return [*points, Point(method, 2 * weights[-1], CHEAP)]


def full_grid(dense: bool) -> list[Point]:
    """Points of a full run, the most telling first.

    Args:
        dense: scales 1 to 8 in more steps, where a GPU samples.
    """
    scales = (1, 1.25, 1.5, 2, 3, 5, 8) if not dense else (1, 1.125, 1.25, 1.5, 1.75, 2, 3, 4, 5, 8)
    fewer = (1.5, 2, 3, 5, 8) if not dense else scales[1:]
    points = _pairs("vanilla", scales) + _pairs("interval", fewer)
    points += _pairs("autoguidance", fewer)
    for method in CLASSIFIER_METHODS:
        points += _classifier_pairs(method, (1, 2, 4, 8, 16))
        points += [Point(method, 5), Point(method, 12), Point(method, 24, CHEAP)]  # their bend
    points += [Point("cg", 0)]  # the unconditional model, judged by labels it never saw
    points += _pairs("cosine", scales[1:])
    # In the noise level 80 -> 0.002 a linear weight is small where digits form: larger scales.
    points += _pairs("linear", (*fewer, 16, 32, 100) if dense else (4, 8, 16, 32, 100))
    points += [Point("linear", 6), Point("linear", 12), Point("linear", 64, CHEAP)]
    for scale in (1.5, 3):
        points += [Point("vanilla", scale, CHEAP, "calibrated")]
    points += [Point("vanilla", 3, estimator) for estimator in ESTIMATORS]
    points += [Point("vanilla", 1.5, estimator) for estimator in ("paper", "vjp")]
    points += [Point("vanilla", 3, estimator, solver=HEUN) for estimator in ("none", CHEAP)]
    return points


# Samples that postprocessing is trained on: one flow for all these scales, with and without REG
# left out, so that every REG point is of a kind that it never saw.
POOL = (
    ("vanilla", 1.0),
    ("vanilla", 2.5),
    ("vanilla", 6.0),
    ("cg-linear", 3.0),
    ("cg-linear", 6.0),
)


def pool_grid() -> list[Point]:
    """Points whose samples train the postprocessing flow, at scales that are not evaluated."""
    return [Point(method, scale, pool=True) for method, scale in POOL]


def quick_grid() -> list[Point]:
    """A few points of every method, for a machine in a hurry."""
    points = [Point("vanilla", 1), *_pairs("vanilla", (4,)), *_pairs("interval", (4,))]
    points += _pairs("autoguidance", (3,)) + _pairs("cosine", (4,)) + _pairs("linear", (8,))
    points += [Point(m, 2, e) for m in CLASSIFIER_METHODS for e in ("none", CHEAP)]
    return [*points, Point("vanilla", 4, CHEAP, "calibrated"), Point("vanilla", 4, "vjp")]
