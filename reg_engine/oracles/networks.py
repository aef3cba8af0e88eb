"""Exact networks of a Gaussian mixture, in the form that a Denoiser wraps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import choice
from ..networks.denoisers import Denoiser
from ..networks.preconditioning import PREDICTIONS, SPELLINGS
from ..schedules import Schedule
from .checks import check_points, check_weight, label_rows
from .closed import ClosedForms
from .tilted import tilted_posterior

__all__ = ["ExactNet", "GoldenNet", "exact", "golden"]

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class ExactNet:
    """net(x, t, cond) -> the exact prediction, from its definition, not from a conversion."""

    mixture: ClosedForms
    prediction: str
    schedule: Schedule
    label: int | None = None

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        check_points(x, self.mixture.dim)
        y = cond if self.label is None else self.label
        rows = label_rows(y, x.shape[0], self.mixture.num_classes, x.device)
        if self.prediction == "edm":
            return self._edm(x, t, rows)
        # The schedule is float64 arithmetic on the host; `tolist` also reads torch.func's wrappers.
        times = np.array(t.tolist(), dtype=np.float64)
        if len(times) and (times == times[0]).all():
            times = times[:1]  # one noise level for all, as in a sampler: (1, 1) below
        alpha, sigma = (torch.from_numpy(level).to(x)[:, None] for level in self.schedule(times))
        denoised, score = self.mixture._moments(x, alpha, sigma, rows)
        noise = -sigma * score
        if self.prediction == "score":
            return score
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "v_prediction":
            return alpha * noise - sigma * denoised
        return denoised if self.prediction == "sample" else noise - denoised

    def _edm(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        # The input is x_t / alpha over its deviation, whatever alpha is: undo it at alpha = 1.
        noise = (4 * t).exp().to(x)[:, None]
        norm = (noise**2 + SIGMA_DATA**2).sqrt()
        denoised, _ = self.mixture._moments(norm * x, 1.0, noise, rows)
        return (denoised - SIGMA_DATA**2 / norm * x) * norm / (noise * SIGMA_DATA)


@dataclass(frozen=True)
class GoldenNet:
    """net(x, t, cond) -> the denoised of optimal guidance, the mean of the tilted posterior."""

    mixture: ClosedForms
    w: float
    schedule: Schedule
    label: int | None
    accuracy: Mapping[str, Any]

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        check_points(x, self.mixture.dim)
        y = cond if self.label is None else self.label
        rows = label_rows(y, x.shape[0], self.mixture.num_classes, x.device)
        out = torch.empty_like(x)
        for time in t.unique().tolist():
            at = t == time
            alpha, sigma = self.schedule(time)
            posterior = tilted_posterior(
                self.mixture, x[at], alpha, sigma, self.w, rows[at], **self.accuracy
            )
            out[at] = posterior.mean.to(x)
        return out


def exact(mixture: ClosedForms, y: int | None, prediction: str, schedule: Schedule) -> Denoiser:
    choice("prediction", prediction, PREDICTIONS, SPELLINGS)
    label_rows(y, 1, mixture.num_classes, mixture.means.device)
    return _wrap(mixture, ExactNet(mixture, prediction, schedule, y), prediction, schedule)


def golden(
    mixture: ClosedForms,
    w: float,
    y: int | None,
    schedule: Schedule,
    accuracy: Mapping[str, Any],
) -> Denoiser:
    label_rows(y, 1, mixture.num_classes, mixture.means.device)
    net = GoldenNet(mixture, check_weight(w), schedule, y, accuracy)
    return _wrap(mixture, net, "sample", schedule)


def _wrap(
    mixture: ClosedForms, net: ExactNet | GoldenNet, prediction: str, schedule: Schedule
) -> Denoiser:
    null, shape = mixture.num_classes, (mixture.dim,)
    # Told that it has no module, a call does not look for one at every evaluation.
    about: dict[str, Any] = {"sigma_data": SIGMA_DATA, "num_classes": null, "modules": ()}
    return Denoiser(net, prediction, schedule, shape, null, **about)
