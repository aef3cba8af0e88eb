"""The tilted target against dense sums, and the energy distance against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from oracle_cases import F64, embedded, generator
from torch import Tensor

from reg_engine.oracles import GaussianMixture, energy_distance, one_d, two_class_2d


def tilted_moments(m: GaussianMixture, w: float, y: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of p(x_0|y)^(1+w) / p_ref(x_0)^w by a plain sum on a dense grid."""
    axis = torch.linspace(-3, 3, 601 if m.dim == 2 else 20_001, dtype=F64)
    grid = torch.cartesian_prod(*[axis] * m.dim).reshape(-1, m.dim)
    log_density = (1 + w) * m.log_prob(grid, y=y) - w * m.log_prob(grid)
    p = log_density.softmax(0)
    mean = p @ grid
    return mean, ((grid - mean) * p[:, None]).T @ (grid - mean)


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("make", [one_d, two_class_2d])
def test_target_sampler_has_the_moments_of_the_target(make: object, w: float) -> None:
    m = make()  # type: ignore[operator]
    count = 40_000
    for y in range(m.num_classes):
        sampler = m.target_sampler(w, y)
        x = sampler(count, generator(11))
        mean, covariance = tilted_moments(m, w, y)
        centred = x - mean
        assert ((x.mean(0) - mean).abs() < 4.5 * (covariance.diagonal() / count).sqrt()).all()
        products = (centred[:, :, None] * centred[:, None]).flatten(1)
        error = products.std(0) / math.sqrt(count)
        assert ((products.mean(0) - covariance.flatten()).abs() < 4.5 * error).all()
        assert 0.03 < sampler.acceptance <= 1
        assert torch.equal(x, m.target_sampler(w, y)(count, generator(11)))


def test_target_sampler_in_three_dimensions_and_of_the_reference() -> None:
    flat, m = two_class_2d(), embedded(two_class_2d())
    x = m.target_sampler(2.0)(20_000, generator())
    mean, _ = tilted_moments(flat, 2.0, 0)
    assert torch.allclose(x.mean(0), torch.cat([mean, torch.tensor([0.3], dtype=F64)]), atol=0.02)
    whole = flat.target_sampler(3.0, y=2)(20_000, generator())
    assert torch.allclose(whole.mean(0), flat.log_weights[2].exp() @ flat.means, atol=0.025)


# -- energy distance ------------------------------------------------------------------------------


def folded(mean: float, deviation: float) -> float:
    """E|N(mean, deviation^2)|."""
    gauss = math.sqrt(2 / math.pi) * deviation * math.exp(-(mean**2) / (2 * deviation**2))
    return gauss + mean * math.erf(mean / (deviation * math.sqrt(2)))


def test_energy_distance_of_two_normals() -> None:
    """N(0, 1) and N(1, 0.5^2) as 4000 quantiles each, against the closed form."""
    levels = (torch.arange(4000, dtype=F64) + 0.5) / 4000
    unit = math.sqrt(2) * torch.erfinv(2 * levels - 1)
    within = folded(0.0, math.sqrt(2)) + folded(0.0, math.sqrt(0.5))
    wanted = 2 * folded(1.0, math.sqrt(1.25)) - within
    assert energy_distance(unit, 1 + 0.5 * unit) == pytest.approx(wanted, rel=1e-3)


def test_energy_distance_is_brute_force_symmetric_and_not_negative() -> None:
    a = torch.randn(70, 3, generator=generator())
    b = torch.randn(45, 3, generator=generator(1)) + 0.1

    def mean(p: Tensor, q: Tensor) -> float:
        return float((p.double()[:, None] - q.double()).square().sum(-1).sqrt().mean())

    wanted = 2 * mean(a, b) - mean(a, a) - mean(b, b)
    assert energy_distance(a, b) == pytest.approx(wanted, rel=1e-12)
    assert energy_distance(a, b, chunk=7) == pytest.approx(wanted, rel=1e-12)
    assert energy_distance(b, a) == pytest.approx(energy_distance(a, b), rel=1e-12)
    assert energy_distance(a, a) == 0.0
    shape = (45, 1, 3, 1)
    assert energy_distance(a, b.reshape(shape)) == energy_distance(a, b)


def test_energy_distance_floor() -> None:
    """Two samples of one distribution score E|x - x'| (1/n + 1/m) on average."""
    g = generator()
    n, m = 200, 300
    scores = [
        energy_distance(
            torch.randn(n, 1, dtype=F64, generator=g), torch.randn(m, 1, dtype=F64, generator=g)
        )
        for _ in range(300)
    ]
    floor = folded(0.0, math.sqrt(2)) * (1 / n + 1 / m)
    spread = float(torch.tensor(scores).std()) / math.sqrt(300)
    assert abs(sum(scores) / 300 - floor) < 4 * spread
    assert spread < 0.1 * floor
