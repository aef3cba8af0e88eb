"""Published weights of each sample: what w becomes once the networks have answered.

All are SampleWeights (weights.py) for plain differences: they find the reference as cond - delta,
so beside a direction that is no difference (APG, FDG) they see what that direction made of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import ops
from ..errors import choice
from ..networks.point import Point
from ..solvers import Row, Table
from ..values import as_float, store
from .weights import as_scale

__all__ = ["BetaCurve", "Gate", "Mambo", "PowerLaw"]

SPACES = ("score", "denoised", "prediction")


@dataclass(frozen=True)
class Mambo:
    """MAMBO-G (arXiv 2508.03442): w = (scale - 1) exp(-alpha |delta| / |ref|), on the network's own
    prediction; what is large beside the reference, early steps most of all, is damped.

    Args:
        scale: largest scale, >= 0.
        alpha: >= 0; 0 = CFG.
    """

    scale: float = 10.0
    alpha: float = 8.0

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))
        remedy = "Give a finite number >= 0; 8 is published"
        store(self, alpha=as_float("alpha", self.alpha, remedy, lambda v: 0 <= v < math.inf))

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w (B,)."""
        ref = point.to_prediction(cond - delta)
        gram = ops.reduce(point.delta_to_prediction(delta), ref, backend=point.backend)
        ratio = gram[:, 1, 1] / gram[:, 2, 2].clamp_min(torch.finfo(gram.dtype).tiny)
        return (self.scale - 1) * torch.exp(-self.alpha * ratio.sqrt())


@dataclass(frozen=True)
class PowerLaw:
    """Power-law CFG (Pavasovic et al., arXiv 2502.07849): w = strength |delta|^power.

    Args:
        strength: >= 0; the paper's omega, to be tuned for each model and size: |delta| grows with
            the root of the number of values.
        power: >= 0; 0.9 is published, 0 = CFG.
        of: whose difference is measured: "score" as published, alpha/sigma^2 times the "denoised"
            one; or that of the network's own "prediction".
    """

    strength: float
    power: float = 0.9
    of: str = "score"

    def __post_init__(self) -> None:
        remedy = "Give a finite number >= 0; 0 = no guidance"
        strength = as_float("strength", self.strength, remedy, lambda v: 0 <= v < math.inf)
        remedy = "Give a finite number >= 0; 0.9 is published"
        power = as_float("power", self.power, remedy, lambda v: 0 <= v < math.inf)
        store(self, strength=strength, power=power, of=choice("of", self.of, SPACES))

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w (B,)."""
        delta = point.delta_to_prediction(delta) if self.of == "prediction" else delta
        size = _norm(point, delta)
        if self.of == "score":
            size = point.alpha / point.sigma**2 * size
        return self.strength * size**self.power


@dataclass(frozen=True)
class BetaCurve:
    """beta-CFG (Malarz et al., arXiv 2502.10574): guided = ref + scale B(p) delta / |delta|^gamma,
    on the network's own prediction.

    B is the density of the Beta distribution, p the share of the way that is done, from 0 at the
    first step to 1 at the last one. Where B is 0, at both ends of (2, 2), the reference alone is
    left, as published.

    Args:
        scale: >= 0; times |delta|^(1 - gamma) it is a guidance scale.
        a, b: shape of B, >= 1; (1, 1) is flat.
        gamma: >= 0; 0 does not look at |delta|.
    """

    scale: float
    a: float = 2.0
    b: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))
        for name in ("a", "b"):
            remedy = "Give a finite number >= 1: below, the curve has no highest point"
            store(self, **{name: as_float(name, getattr(self, name), remedy, _from_one)})
        remedy = "Give a finite number >= 0; 1 is published"
        store(self, gamma=as_float("gamma", self.gamma, remedy, lambda v: 0 <= v < math.inf))

    def __call__(self, row: Row, table: Table) -> float:
        """1 + scale B(p), which is never 0, as a row without guidance would be."""
        times = list(dict.fromkeys(row.t for row in table.rows))
        done = times.index(row.t) / (len(times) - 1) if len(times) > 1 else 0.5
        return 1 + self.scale * _beta(done, self.a, self.b)

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w (B,)."""
        size = _norm(point, point.delta_to_prediction(delta))
        least = torch.finfo(cond.dtype).tiny ** 0.5  # w stays finite; delta = 0 adds nothing
        return (point.w - 1) / (size**self.gamma).clamp_min(least) - 1


@dataclass(frozen=True)
class Gate:
    """Adaptive guidance (Castillo et al., arXiv 2312.12487): none from where cond and the reference
    agree, for good.

    They agree where the cosine of their predictions (the network's own) is at least `agreement`.
    Each sample has its own gate. Once all of a batch have closed the reference is no longer
    evaluated, on a CPU and without other terms; elsewhere the host does not look.

    Args:
        scale: while the gate is open, >= 0.
        agreement: in [-1, 1]; the paper's 0.991 is for epsilon of latent diffusion in 20 steps.
    """

    scale: float
    agreement: float = 0.991

    def __post_init__(self) -> None:
        store(self, scale=as_scale("scale", self.scale))
        remedy = "Give a cosine, such as 0.991"
        agreement = as_float("agreement", self.agreement, remedy, lambda v: -1 <= v <= 1)
        store(self, agreement=agreement)

    def per_sample(self, point: Point, cond: Tensor, delta: Tensor) -> Tensor:
        """w (B,)."""
        c, u = point.to_prediction(cond), point.to_prediction(cond - delta)
        gram = ops.reduce(c, u, backend=point.backend)
        sizes = (gram[:, 1, 1] * gram[:, 2, 2]).sqrt()
        is_open = (gram[:, 1, 2] < self.agreement * sizes).to(cond.dtype)
        before = point.memory.get("gate")
        point.memory["gate"] = is_open if before is None else is_open * before
        return (self.scale - 1) * point.memory["gate"]

    def finished(self, point: Point) -> bool:
        """Whether every gate of the batch is closed: the host looks."""
        gate = point.memory.get("gate")
        return gate is not None and not bool(gate.any())


def _norm(point: Point, delta: Tensor) -> Tensor:
    return ops.reduce(delta, delta, backend=point.backend)[:, 1, 1].sqrt()


def _from_one(value: float) -> bool:
    return 1 <= value < math.inf


def _beta(p: float, a: float, b: float) -> float:
    """Density of the Beta distribution with a, b >= 1 at p in [0, 1]."""
    log_unit = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return float(math.exp(log_unit) * p ** (a - 1) * (1 - p) ** (b - 1))
