"""`characteristic` against golden guidance of Gaussians, where it is exact, and its own iteration
written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bound_cases import holds
from test_rectifiers_blend import fields, references, weighed
from torch import Tensor

import reg_engine
from reg_engine import oracles, schedules
from reg_engine.guidance.directions import Delta
from reg_engine.guidance.references import Unconditional
from reg_engine.networks.point import Point
from reg_engine.ops.coefficients import COLUMNS
from reg_engine.rectifiers import Characteristic
from reg_engine.solvers import table

COND = torch.tensor([[0.4, 0.1, 0.0], [0.1, 0.3, -0.05], [0.0, -0.05, 0.2]]).double()
REF = torch.tensor([[0.9, -0.2, 0.1], [-0.2, 0.7, 0.0], [0.1, 0.0, 0.6]]).double()
MEANS = torch.tensor([[1.0, 0.2, -0.3], [-0.4, 0.0, 0.1]]).double()


def gaussians() -> oracles.GaussianMixture:
    """Two Gaussians whose covariances do not commute."""
    away = oracles.GaussianMixture(MEANS[1:], REF[None])
    return oracles.GaussianMixture(MEANS[:1], COND[None], reference=away)


def golden(x: Tensor, alpha: float, sigma: float, w: float) -> Tensor:
    """E[x_0 | x_t] of N(m_c, C)^(1+w) / N(m_u, U)^w, which is a Gaussian too."""
    c, u = torch.linalg.inv(COND), torch.linalg.inv(REF)
    precision = (1 + w) * c - w * u
    linear = (1 + w) * c @ MEANS[0] - w * u @ MEANS[1]
    eye = torch.eye(3, dtype=torch.float64)
    right = linear + alpha / sigma**2 * x
    return torch.linalg.solve(precision + alpha**2 / sigma**2 * eye, right.mT).mT


@pytest.mark.parametrize("w", [0.7, 3.0])
@pytest.mark.parametrize("index", [7, 9])
def test_the_fixed_point_is_golden_on_gaussians(index: int, w: float) -> None:
    schedule = schedules.VPLinear()
    row = table("ddim", schedule, 10).rows[index]
    numbers = torch.zeros(1, len(COLUMNS), dtype=torch.float64)
    numbers[0, COLUMNS.index("w")] = w
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    model = gaussians().denoiser(schedule=schedule)
    p = Point(x, row, index, model, Unconditional(), torch.zeros(5, dtype=torch.long), {},
              table=numbers, step=torch.zeros((), dtype=torch.int64))  # fmt: skip
    cond, rectified, _ = Characteristic(400, 0.5)(p, Delta())
    wanted = golden(x, row.alpha, row.sigma, w)
    torch.testing.assert_close(cond + w * rectified, wanted, rtol=1e-8, atol=1e-8)
    assert (cond - wanted).abs().max() > 0.01


def test_more_iterations_come_nearer_to_golden_samples() -> None:
    """Whole runs."""
    choices = {"seeds": range(64), "steps": 18, "dtype": torch.float64, "progress": False}
    mixture = oracles.GaussianMixture(
        torch.tensor([[1.0, 0.5]]).double(),
        0.5,
        reference=oracles.GaussianMixture(torch.tensor([[0.3, -0.2]]).double(), 0.9),
    )
    wanted = reg_engine.sample(
        mixture.golden_denoiser(2.0), 0, scale=1.0, rectify=None, **choices
    ).samples
    error = {}
    for count in (1, 2, 6, 20):
        out = reg_engine.sample(
            mixture.denoiser(), 0, scale=3.0, rectify=Characteristic(count), **choices
        )
        error[count] = float((out.samples - wanted).norm() / wanted.norm())
        assert out.stats.nfe == 35 * (2 * count + 1)
    assert error[20] < 0.015 < error[6] < error[2] < error[1]


@pytest.mark.parametrize("w", [2.0, -0.5])
@pytest.mark.parametrize("name", ["unconditional", "bad", "classifier"])
def test_it_is_its_iteration(name: str, w: float) -> None:
    p = weighed(w)
    p = replace(p, reference=references(p)[name])
    cond, ref = fields(p)
    shift = torch.zeros_like(p.x)
    p.memory["delta"] = torch.ones_like(p.x)  # a previous row's, which it does not look at
    for _ in range(3):
        gap = cond(p.x + w * p.alpha * shift) - ref(p.x + (1 + w) * p.alpha * shift)
        shift = shift + 0.3 * gap
    wanted = cond(p.x + w * p.alpha * shift)
    found = Characteristic(3, 0.3)(p, Delta())
    torch.testing.assert_close(found[0], cond(p.x))
    torch.testing.assert_close(found[0] + w * found[1], wanted)
    torch.testing.assert_close(found[2], cond(p.x) - ref(p.x))


def test_one_iteration_is_a_difference_of_w() -> None:
    p = weighed(1e-6)
    cond, ref = fields(p)
    delta = cond(p.x) - ref(p.x)
    step = 1e-5
    k_delta = p.alpha * (cond(p.x + step * delta) - cond(p.x - step * delta)) / (2 * step)
    found = Characteristic(1, 1.0)(p, Delta())
    torch.testing.assert_close(found[1], k_delta, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_weight_is_no_guidance(dtype: torch.dtype) -> None:
    for w in (0.0, 1e-30 if dtype == torch.float32 else 1e-300):
        p = weighed(w)
        p.x, p.table = p.x.to(dtype), p.table.to(dtype)  # type: ignore[union-attr]
        assert bool((Characteristic()(p, Delta())[1] == 0).all())


def test_evaluations() -> None:
    p = weighed(2.0)
    Characteristic(3)(p, Delta())
    assert p.denoiser.net.calls == [6, 6, 6, 3] and p.counter.forward == 21


def test_what_it_may_be() -> None:
    holds(Characteristic, "iterations", (1, 5), (0, 1.0))
    kind: Any = Characteristic
    holds(kind, "step", (1e-3, 1.0), (0.0, 1.1))
