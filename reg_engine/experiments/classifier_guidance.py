"""Classifier guidance (CG) of unconditional models: what the experiments share.

`bayes_denoiser` is the right-hand side of Eq. 6 of arXiv 2503.10638, E[x_0|x_t] +
(sigma^2/alpha) grad log p(y|x_t), as a Denoiser of its own: guided with weight w = scale - 1 by the
same classifier it is Eq. 9 with the paper's weight = scale, and REG's K is that of a conditional
model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.denoisers import Denoiser
from ..networks.frozen import recording
from ..networks.modules import modules_of
from ..oracles import GaussianMixture
from ..schedules import Schedule

__all__ = ["ClassifierNet", "ExactClassifier", "Unlabelled", "bayes_denoiser", "unlabelled"]

ClassifierNet = Callable[[Tensor, Tensor], Tensor]


class ExactClassifier:
    """net(x, t) -> log p(y|x_t) of a mixture, (B, classes)."""

    def __init__(self, mixture: GaussianMixture, schedule: Schedule) -> None:
        self.mixture, self.schedule = mixture, schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        times = np.array(t.tolist(), dtype=np.float64)
        if len(times) and (times == times[0]).all():
            times = times[:1]  # one noise level for all, as in a sampler
        levels = (torch.from_numpy(level).to(x) for level in self.schedule(times))
        return self.mixture.class_posterior(x, *levels)


class Unlabelled(nn.Module):
    """A class-conditional network as an unconditional one: it is always shown the null label."""

    def __init__(self, net: Callable[..., Tensor], null: int) -> None:
        super().__init__()
        self.net, self.null = net, null

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, t, torch.full_like(cond, self.null))


def unlabelled(denoiser: Denoiser) -> Denoiser:
    """The unconditional view of a class-conditional denoiser; labels remain for a classifier."""
    assert isinstance(denoiser.null_cond, int)
    return Denoiser(
        Unlabelled(denoiser.net, denoiser.null_cond),
        denoiser.prediction,
        denoiser.schedule,
        denoiser.sample_shape,
        sigma_data=denoiser.sigma_data,
        num_classes=denoiser.num_classes,
        modules=denoiser.modules,
    )


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


def bayes_denoiser(denoiser: Denoiser, classifier: ClassifierNet) -> Denoiser:
    """The conditional model that Bayes' rule makes of the unconditional one and a classifier."""
    net = _BayesNet(unlabelled(denoiser), classifier)
    return Denoiser(
        net,
        "sample",
        denoiser.schedule,
        denoiser.sample_shape,
        num_classes=denoiser.num_classes,
        modules=modules_of(net),  # once, not in every evaluation
    )
