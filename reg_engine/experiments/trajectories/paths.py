"""Denoising trajectories of guided models in one dimension, with exact or trained parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine import Engine
from ...guidance.guidance import Guidance
from ...guidance.references import Classifier, Unconditional
from ...guidance.weights import Constant
from ...loop.step import Step
from ...networks.denoisers import Denoiser
from ...networks.point import Reference
from ..classifier_guidance import ClassifierNet, bayes_denoiser, unlabelled

SIGNS = torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class Paths:
    """States on the way from noise to data, for both classes from mirrored starts.

    Args:
        times: (R + 1,), the schedule's, from noise to clean.
        signed: (R + 1, 2, n): x_t of class 1 and -x_t of class 0, so that positive is the side of
            the class that was asked for.
    """

    times: Tensor
    signed: Tensor

    @property
    def x(self) -> Tensor:
        """x_t, (R + 1, 2, n), class 0 first."""
        return self.signed * SIGNS

    @property
    def ends(self) -> Tensor:
        """The signed samples, (2 n, 1)."""
        return self.signed[-1].reshape(-1, 1)


class Flipped:
    """A classifier of two classes that takes each for the other."""

    def __init__(self, net: ClassifierNet) -> None:
        self.net = net

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t).flip(-1)


def quantiles(count: int) -> Tensor:
    """`count` quantiles of the unit normal, (count, 1), float64."""
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.special.ndtri(middle)[:, None]


def quantile_starts(count: int) -> Tensor:
    """Unit noise (2 count, 1), float64: the normal's quantiles, mirrored for class 0.

    The flow of a deterministic solver keeps their order in one dimension, so the ends are quantiles
    of the distribution that it samples: no sampling noise.
    """
    start = quantiles(count)
    return torch.cat([-start, start])


def guided_paths(
    denoiser: Denoiser,
    classifier: ClassifierNet | None,
    scale: float,
    rectify: str | None,
    count: int,
    steps: int,
    bayes: bool = True,
) -> Paths:
    """Trajectories of CFG (classifier None) or classifier guidance (CG), with REG if `rectify`.

    Args:
        scale: 1 is the conditional model.
        count: starts a class. steps: Heun steps.
        bayes: CG guides the conditional model that Bayes' rule makes, with weight w = scale - 1.
            False: it guides the unconditional model itself; the classifier's term has the factor
            `scale` there, and K is the unconditional model's.
    """
    reference: Reference = Unconditional()
    if classifier is not None:
        reference = Classifier(classifier)
        # guided = cond + w K^T delta with cond the unconditional model: w is the whole weight.
        scale = scale if bayes else scale + 1.0
        denoiser = bayes_denoiser(denoiser, classifier) if bayes else unlabelled(denoiser)
    guidance = Guidance(Constant(scale), reference, rectify=rectify)
    engine = Engine(denoiser, guidance=guidance, steps=steps, dtype=torch.float64, progress=False)
    labels = torch.arange(2).repeat_interleave(count)
    visited: list[Step] = []
    engine.sample(labels, noise=quantile_starts(count), callback=visited.append)
    # a correction stands where a step ended
    path = [(step.t, step.x) for step in visited if step.s != step.t]
    path.append((visited[-1].s, visited[-1].x_next))
    states = torch.stack([x.cpu() for _, x in path])[..., 0].unflatten(1, (2, count))
    return Paths(torch.tensor([t for t, _ in path]), SIGNS * states)
