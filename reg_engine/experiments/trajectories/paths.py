"""Denoising trajectories of guided models in one dimension, with exact or trained parts.

Classifier guidance (CG) is written twice. `bayes_denoiser` is the right-hand side of Eq. 6 of
arXiv 2503.10638, E[x_0|x_t] + (sigma^2/alpha) grad log p(y|x_t), as a Denoiser of its own: guided
with weight w = scale - 1 by the same classifier it is Eq. 9 with the paper's weight = scale, and
REG's K is that of a conditional model. `shifted_paths` guides the unconditional model itself:
there the classifier's term has the factor `scale`, and K is the unconditional model's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...denoisers import Denoiser
from ...engine import Engine
from ...frozen import recording
from ...guidance import Guidance
from ...oracles import GaussianMixture
from ...references import Classifier, Reference, Unconditional
from ...schedules import Schedule
from ...weights import Constant

__all__ = [
    "ClassifierNet",
    "ExactClassifier",
    "Flipped",
    "Paths",
    "bayes_denoiser",
    "classifier_paths",
    "free_paths",
    "quantile_starts",
    "shifted_paths",
    "unlabelled",
]

ClassifierNet = Callable[[Tensor, Tensor], Tensor]


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
        return self.signed * torch.tensor([-1.0, 1.0], dtype=self.signed.dtype)[:, None]

    @property
    def ends(self) -> Tensor:
        """The signed samples, (2 n, 1)."""
        return self.signed[-1].reshape(-1, 1)


class _Recorder(Engine):
    """An engine that keeps the state before every step."""

    def __init__(self, *args: Any, **choices: Any) -> None:
        super().__init__(*args, capture=False, progress=False, **choices)
        self.path: list[Tensor] = []
        self.times: list[float] = []

    def advance(self, state: Any, point: Any, *rest: Any) -> None:
        if point.row.s != point.row.t:  # else a correction, which stands where a step ended
            self.path.append(state.x.detach().cpu().clone())
            self.times.append(point.row.t)
        super().advance(state, point, *rest)


class ExactClassifier:
    """net(x, t) -> log p(y|x_t) of a mixture, (B, classes)."""

    def __init__(self, mixture: GaussianMixture, schedule: Schedule) -> None:
        self.mixture, self.schedule = mixture, schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule(np.array(t.tolist(), dtype=np.float64))
        levels = (torch.from_numpy(level).to(x) for level in (alpha, sigma))
        return self.mixture.class_posterior(x, *levels)


class Flipped:
    """A classifier of two classes that takes each for the other."""

    def __init__(self, net: ClassifierNet) -> None:
        self.net = net

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t).flip(-1)


class _BayesNet(nn.Module):
    """net(x, t, cond) -> E[x_0|x_t] + (sigma^2/alpha) grad log p(cond|x_t)."""

    def __init__(self, unconditional: Denoiser, classifier: ClassifierNet) -> None:
        super().__init__()
        self.unconditional, self.classifier = unconditional, classifier
        # Named as children where they are modules, so that a call freezes and finds them.
        self.parts = nn.ModuleList(
            part for part in (unconditional.net, classifier) if isinstance(part, nn.Module)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        time = float(t[0])  # the engine evaluates a batch at one time
        alpha, sigma = self.unconditional.schedule(time)
        denoised = self.unconditional(x, time, cond)
        if x.requires_grad:  # a rectifier differentiates through the gradient too
            gradient = self._gradient(x, t, cond, create_graph=True)
        else:
            with recording(x) as own:
                gradient = self._gradient(own, t.clone(), cond.clone(), create_graph=False)
        return denoised + sigma**2 / alpha * gradient.to(x.dtype)

    def _gradient(self, x: Tensor, t: Tensor, cond: Tensor, create_graph: bool) -> Tensor:
        chosen = self.classifier(x, t).log_softmax(-1).gather(1, cond[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x, create_graph=create_graph)
        return gradient


class _NullNet(nn.Module):
    """net(x, t, cond): a conditional network that is always given its null label."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.net, null = denoiser.net, denoiser.null_cond
        assert isinstance(null, int)
        self.null = null

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        out: Tensor = self.net(x, t, torch.full_like(cond, self.null))
        return out


def unlabelled(denoiser: Denoiser) -> Denoiser:
    """The unconditional model inside `denoiser`: the label is accepted and not looked at."""
    return Denoiser(
        _NullNet(denoiser),
        denoiser.prediction,
        denoiser.schedule,
        denoiser.sample_shape,
        sigma_data=denoiser.sigma_data,
        num_classes=denoiser.num_classes,
    )


def bayes_denoiser(denoiser: Denoiser, classifier: ClassifierNet) -> Denoiser:
    """The conditional model that Bayes' rule makes of the unconditional one and a classifier."""
    net = _BayesNet(unlabelled(denoiser), classifier)
    classes = denoiser.num_classes
    return Denoiser(net, "sample", denoiser.schedule, denoiser.sample_shape, num_classes=classes)


def quantile_starts(count: int) -> Tensor:
    """Unit noise (2 count, 1), float64: the normal's quantiles, mirrored for class 0.

    The flow of a deterministic solver keeps their order in one dimension, so the ends are quantiles
    of the distribution that it samples: no sampling noise.
    """
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    start = torch.special.ndtri(middle)[:, None]
    return torch.cat([-start, start])


def free_paths(
    denoiser: Denoiser, scale: float, rectify: str | None, count: int, steps: int
) -> Paths:
    """CFG (or, with an estimator, REG) at `scale`; 1 is the conditional model itself."""
    return _paths(denoiser, Unconditional(), scale, rectify, count, steps)


def classifier_paths(
    denoiser: Denoiser,
    classifier: ClassifierNet,
    scale: float,
    rectify: str | None,
    count: int,
    steps: int,
) -> Paths:
    """CG at `scale` on the Bayes conditional model, K of that model."""
    guided = bayes_denoiser(denoiser, classifier)
    return _paths(guided, Classifier(classifier), scale, rectify, count, steps)


def shifted_paths(
    denoiser: Denoiser,
    classifier: ClassifierNet,
    scale: float,
    rectify: str | None,
    count: int,
    steps: int,
) -> Paths:
    """CG at `scale` on the unconditional model, K of that model."""
    # guided = cond + w K^T delta with cond the unconditional model: w is the whole weight.
    shifted = scale + 1.0
    return _paths(unlabelled(denoiser), Classifier(classifier), shifted, rectify, count, steps)


def _paths(
    denoiser: Denoiser,
    reference: Reference,
    scale: float,
    rectify: str | None,
    count: int,
    steps: int,
) -> Paths:
    engine = _Recorder(
        denoiser,
        guidance=Guidance(Constant(scale), reference, rectify=rectify),
        steps=steps,
        dtype=torch.float64,
    )
    labels = torch.arange(2).repeat_interleave(count)
    samples = engine.sample(labels, noise=quantile_starts(count)).samples.cpu()
    states = torch.stack([*engine.path, samples])[..., 0].unflatten(1, (2, count))
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None]
    return Paths(torch.tensor([*engine.times, engine.table.rows[-1].s]), signs * states)
