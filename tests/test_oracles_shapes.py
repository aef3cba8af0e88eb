"""The two-class sets: what they look like, and that their densities are what they say."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from reg_engine import InputError
from reg_engine.oracles import SHAPES, GaussianMixture, Shape, make_shape

NAMES = tuple(SHAPES)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def means_of(shape: Shape, label: int) -> Tensor:
    return shape.mixture.means[shape.mixture.log_weights[label].isfinite()]


def log_density(means: Tensor, deviation: float, x: Tensor) -> Tensor:
    """log density of equal Gaussians, by torch.distributions."""
    parts = Independent(Normal(means, torch.full_like(means, deviation)), 1)
    weights = Categorical(torch.ones(len(means), dtype=torch.float64))
    return MixtureSameFamily(weights, parts).log_prob(x)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_centred_of_unit_variance_and_has_two_equal_classes(name: str) -> None:
    shape = make_shape(name, 32)
    means = shape.mixture.means
    variance = means.var(0, unbiased=False) + shape.bandwidth**2
    assert float(variance.mean()) == pytest.approx(1, abs=1e-12)
    assert means.mean(0).abs().max() < 1e-12
    assert len(means_of(shape, 0)) == len(means_of(shape, 1)) == len(means) // 2
    assert shape.mixture.log_prior.exp().tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("name", NAMES)
def test_the_densities_are_those_of_the_components(name: str) -> None:
    shape = make_shape(name, 32)
    x = torch.randn(20, 2, dtype=torch.float64, generator=gen())
    for label in (0, 1):
        means = means_of(shape, label)
        sharp, soft = (log_density(means, width, x) for width in (shape.bandwidth, shape.blur))
        torch.testing.assert_close(shape.mixture.log_prob(x, y=label), sharp)
        torch.testing.assert_close(shape.blurred.log_prob(x, y=label), soft)
        pair = shape.against_blurred(label)
        torch.testing.assert_close(pair.log_prob(x, y=0), sharp)
        torch.testing.assert_close(pair.log_prob(x), soft)
    both = log_density(shape.mixture.means, shape.bandwidth, x)
    torch.testing.assert_close(shape.mixture.log_prob(x), both)


def test_draws_come_class_by_class() -> None:
    shape = make_shape("moons", 32)
    points, labels = shape.sample(3000, gen())
    assert points.shape == (6000, 2)
    assert points.dtype == torch.float64
    assert labels.tolist() == [0] * 3000 + [1] * 3000
    for label in (0, 1):
        error = points[labels == label].mean(0) - means_of(shape, label).mean(0)
        assert error.abs().max() < 5 * 1.3 / math.sqrt(3000)


def test_the_ring_is_round_and_the_cross_lies_on_the_diagonals() -> None:
    shape = make_shape("ring_cross", 64)
    radius = means_of(shape, 0).norm(dim=1)
    assert float(radius.max() - radius.min()) < 1e-9
    cross = means_of(shape, 1)
    assert (cross[:, 0].abs() - cross[:, 1].abs()).abs().max() < 1e-9
    assert float(cross.norm(dim=1).max() / radius[0]) == pytest.approx(1.5, abs=0.06)


def test_the_checkerboard_changes_colour_from_square_to_square() -> None:
    shape = make_shape("checkerboard", 128)
    side = float(shape.mixture.means.max() - shape.mixture.means.min()) * 16 / 15 / 4
    for label in (0, 1):
        # The board's corner is at -2 sides.
        cells = (means_of(shape, label) / side + 2).floor().long()
        assert set(cells.flatten().tolist()) == {0, 1, 2, 3}
        assert (cells.sum(1) % 2 == label).all()


def test_the_swiss_rolls_classes_are_its_inner_and_outer_half() -> None:
    shape = make_shape("swiss_roll", 64)
    # Distances from the middle of the roll, which lies off the centre of mass.
    spread = [means_of(shape, label).std(0).norm() for label in (0, 1)]
    assert spread[0] < 0.75 * spread[1]


def test_the_same_seed_gives_the_same_set() -> None:
    def means(seed: int) -> Tensor:
        return make_shape("moons", 32, seed=seed).mixture.means

    assert torch.equal(means(1), means(1))
    assert not torch.equal(means(1), means(2))


def test_the_blurred_set_is_the_set_with_noise() -> None:
    shape = make_shape("ring_cross", 32, bandwidth=0.1, blur=0.4)
    x = torch.randn(20, 2, dtype=torch.float64, generator=gen())
    noisy = shape.mixture.log_prob(x, 1.0, math.sqrt(0.4**2 - 0.1**2), 0)
    torch.testing.assert_close(shape.blurred.log_prob(x, y=0), noisy)
    assert isinstance(shape.blurred, GaussianMixture)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "torus"}, "name"),
        ({"name": "moons", "components": 8}, "components"),
        ({"name": "moons", "bandwidth": 0.0}, "bandwidth"),
        ({"name": "moons", "blur": 0.05}, "blur"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_shape(**arguments)  # type: ignore[arg-type]


def test_a_set_of_a_package_that_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match="needs scikit-learn"):
        make_shape("moons")
    assert make_shape("checkerboard").mixture.num_classes == 2
