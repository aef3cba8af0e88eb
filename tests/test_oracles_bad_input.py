"""What the oracles refuse, by the name of the argument."""

from __future__ import annotations

import math

import pytest
import torch
from oracle_cases import F64

from reg_engine.errors import InputError
from reg_engine.oracles import GaussianMixture, energy_distance, one_d, two_class_2d

X = torch.zeros(3, 2, dtype=F64)
MEANS = torch.zeros(2, 2, dtype=F64)
SKEW = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
WIDE = GaussianMixture(torch.zeros(1, 1), 0.3, reference=GaussianMixture(torch.zeros(1, 1), 0.1))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("means", lambda m: GaussianMixture(torch.zeros(3), 1.0)),
        ("means", lambda m: GaussianMixture(torch.full((2, 2), math.nan), 1.0)),
        ("covariance", lambda m: GaussianMixture(MEANS, 0.0)),
        ("covariance", lambda m: GaussianMixture(MEANS, torch.tensor([1.0, -1.0]))),
        ("covariance", lambda m: GaussianMixture(MEANS, torch.ones(3))),
        ("covariance", lambda m: GaussianMixture(MEANS, torch.ones(2, 2, 2))),
        ("covariance", lambda m: GaussianMixture(MEANS, -torch.eye(2).expand(2, 2, 2))),
        ("covariance", lambda m: GaussianMixture(MEANS, SKEW.expand(2, 2, 2))),
        ("covariance", lambda m: GaussianMixture(MEANS, math.inf)),
        ("weights", lambda m: GaussianMixture(MEANS, 1.0, torch.tensor([1.0, 0.0]))),
        ("weights", lambda m: GaussianMixture(MEANS, 1.0, torch.ones(3))),
        ("labels", lambda m: GaussianMixture(MEANS, 1.0, labels=torch.tensor([0, 2]))),
        ("labels", lambda m: GaussianMixture(MEANS, 1.0, labels=torch.tensor([0.0, 1.0]))),
        ("reference", lambda m: GaussianMixture(MEANS, 1.0, reference=one_d())),
        ("x_t", lambda m: m.denoised(torch.zeros(3, 1), 1.0, 1.0)),
        ("x_t", lambda m: m.denoised(torch.zeros(2), 1.0, 1.0)),
        ("x_t", lambda m: m.denoised(X.long(), 1.0, 1.0)),
        ("sigma", lambda m: m.denoised(X, 1.0, -0.1)),
        ("sigma", lambda m: m.log_prob(X, 1.0, torch.tensor([1.0, 1.0, math.nan]))),
        ("sigma", lambda m: m.log_prob(X, 0.0, 0.0)),
        ("alpha", lambda m: m.class_posterior(X, math.inf, 1.0)),
        ("y", lambda m: m.denoised(X, 1.0, 1.0, 3)),
        ("y", lambda m: m.denoised(X, 1.0, 1.0, torch.tensor([0, 1, -1]))),
        ("y", lambda m: m.denoised(X, 1.0, 1.0, torch.tensor([0, 1]))),
        ("y", lambda m: m.denoised(X, 1.0, 1.0, torch.tensor([0.0, 1.0, 1.0]))),
        ("y", lambda m: m.denoiser(y=5)),
        ("y", lambda m: m.denoiser()(X, 1.0, torch.tensor([0, 1, 7]))),
        ("y", lambda m: m.target_sampler(1.0, y=4)),
        ("y", lambda m: m.golden_denoiser(1.0, y=-1)),
        ("prediction", lambda m: m.denoiser(prediction="eps")),
        ("w", lambda m: m.golden(X, 1.0, -1.0)),
        ("w", lambda m: m.golden(X, 1.0, math.nan)),
        ("w", lambda m: m.target_sampler(math.inf)),
        ("w", lambda m: m.golden_denoiser(-0.5)),
        ("sigma", lambda m: m.golden(X, 0.0, 1.0)),
        ("nodes", lambda m: m.golden(X, 1.0, 1.0, nodes=32)),
        ("samples", lambda m: m.golden(X, 1.0, 1.0, samples=1)),
        ("n", lambda m: m.target_sampler(1.0)(0)),
        ("count", lambda m: m.sample(0)),
        ("a", lambda m: energy_distance(torch.zeros(0, 2), X)),
        ("b", lambda m: energy_distance(X, torch.full((2, 2), math.inf))),
        ("b", lambda m: energy_distance(X, torch.zeros(3, 1))),
        # A class wider than the reference: (1+w)/0.3^2 - w/0.1^2 < 0.
        ("w", lambda m: WIDE.target_sampler(2.0)),
        ("w", lambda m: WIDE.golden(X[:, :1], 9.0, 2.0)),
    ],
)
def test_bad_input_is_named(argument: str, call: object) -> None:
    with pytest.raises(InputError) as error:
        call(two_class_2d())  # type: ignore[operator]
    assert error.value.argument == argument
