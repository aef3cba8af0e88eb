"""Classifier guidance of the experiments: Bayes' rule and the unconditional view, exactly."""

from __future__ import annotations

import pytest
import torch

from reg_engine.experiments.classifier_guidance import (
    ExactClassifier,
    bayes_denoiser,
    unlabelled,
)
from reg_engine.experiments.trajectories.nets import SCHEDULE, mixture

EXACT = ExactClassifier(mixture(), SCHEDULE)
DENOISER = mixture().denoiser(schedule=SCHEDULE)


@pytest.mark.parametrize("t", [30.0, 300.0, 700.0])
def test_bayes_rule_gives_the_conditional_model_and_its_k(t: float) -> None:
    alpha, sigma = SCHEDULE(t)
    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None].requires_grad_(True)
    y = torch.arange(11) % 2
    found = bayes_denoiser(DENOISER, EXACT)(x, t, y)
    torch.testing.assert_close(found, mixture().denoised(x, alpha, sigma, y))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    exact = mixture().jacobian(x, alpha, sigma, y)[:, :, 0]
    torch.testing.assert_close(alpha * gradient, exact)
    plain = bayes_denoiser(DENOISER, EXACT)(x.detach(), t, y)  # the path without autograd
    torch.testing.assert_close(plain, found.detach())


def test_the_unconditional_view_does_not_look_at_the_label() -> None:
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    view = unlabelled(DENOISER)
    zeros, ones = (torch.full((7,), y) for y in (0, 1))
    assert torch.equal(view(x, 200.0, zeros), view(x, 200.0, ones))
    torch.testing.assert_close(view(x, 200.0, ones), mixture().denoised(x, *SCHEDULE(200.0)))
