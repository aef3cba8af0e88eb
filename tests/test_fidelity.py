"""Distances, precision and recall, memorisation and bootstrap against brute force and laws."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from reg_engine import InputError
from reg_engine.fidelity import (
    bootstrap,
    inside,
    memorisation,
    nearest_distances,
    precision_recall,
)


def normal(count: int, dim: int, seed: int, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, dim, generator=generator, dtype=torch.float64)


def brute(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("dim", [2, 40])
def test_nearest_distances_are_those_of_all_pairs(dim: int) -> None:
    a, b = normal(70, dim, 0), normal(90, dim, 1)
    assert torch.allclose(nearest_distances(a, b), brute(a, b).amin(1), rtol=1e-12)
    copies = torch.cat([b[:3], b[:3] + 1e-7])
    found = nearest_distances(copies.reshape(6, 2, -1), b.reshape(90, 2, -1))
    assert torch.equal(found[:3], torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(found[3:], torch.full((3,), 1e-7 * math.sqrt(dim), dtype=torch.float64))


@pytest.mark.parametrize("dim", [2, 40])
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_all_pairs(dim: int, k: int) -> None:
    a, b = normal(80, dim, 2, 0.3), normal(110, dim, 3)

    def share(points: Tensor, manifold: Tensor) -> float:
        radii = brute(manifold, manifold).sort(1).values[:, k]  # column 0 is the point itself
        return float((brute(points, manifold) <= radii).any(1).double().mean())

    assert precision_recall(a, b, k) == (share(a, b), share(b, a))
    assert 0 < share(a, b) < 1


def test_precision_and_recall_tell_what_is_missing() -> None:
    """Half of the modes: precise, low recall. Data and as much rubbish: the other way round."""
    left, right = normal(300, 2, 4, -6.0), normal(300, 2, 5, 6.0)
    real = torch.cat([left, right])
    precision, recall = precision_recall(normal(600, 2, 6, -6.0), real)
    assert precision > 0.9 and recall < 0.52
    precision, recall = precision_recall(torch.cat([real, normal(600, 2, 7, 60.0)]), real)
    assert precision == 0.5 and recall == 1.0


def test_inside_the_ball_of_a_single_pair() -> None:
    pair = torch.tensor([[0.0, 0.0], [1.0, 0.0]])  # both balls have radius 1
    points = torch.tensor([[-0.9, 0.0], [0.5, 0.86], [0.5, 0.87], [2.1, 0.0]])
    assert inside(points, pair, k=1).tolist() == [True, True, False, False]


def test_memorisation_of_copies_of_real_data_and_of_noise() -> None:
    train, heldout = normal(400, 3, 8), normal(300, 3, 9)
    honest = memorisation(normal(300, 3, 10), train, heldout, count=200)
    assert honest.low < 0.5 < honest.high and 0.4 < honest.nearer < 0.6
    assert honest.high - honest.low < 0.15 and 0.35 < honest.below_typical < 0.65
    copies = memorisation(train[:200] + 1e-3, train, heldout, count=50)
    assert copies.nearer > 0.99 and copies.below_typical == 1.0
    assert copies.samples_median == pytest.approx(1e-3 * math.sqrt(3), rel=1e-6)
    far = memorisation(normal(200, 3, 11, 20.0), train, heldout, count=50)
    assert far.nearer == 0.0 and (far.low, far.high) == (0.0, 0.0)


def test_nearer_counts_pairs_and_half_of_the_equal_ones() -> None:
    train = torch.zeros(1, 1)
    ours, theirs = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[2.0], [3.0]])
    found = memorisation(ours, train, theirs, count=10)
    # 1 < 2, 1 < 3, 2 = 2, 2 < 3, 4 > both: (1 + 1 + 1/2 + 1) / 6
    assert found.nearer == pytest.approx(3.5 / 6)
    assert (found.samples_median, found.heldout_median) == (2.0, 2.5)
    assert found.below_typical == pytest.approx(2 / 3)


def test_bootstrap_has_the_width_of_the_law() -> None:
    """Of a mean of n normal numbers: 2 * 1.96 / sqrt(n)."""
    values = normal(400, 1, 12)[:, 0]
    low, high = bootstrap(values, 2000)
    assert low < float(values.mean()) < high
    assert high - low == pytest.approx(2 * 1.96 * float(values.std()) / 20, rel=0.08)
    narrow = bootstrap(values, 2000, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    same = bootstrap(lambda rows: float(values[rows].mean()), 2000, size=400)
    assert same == pytest.approx((low, high))
    seeded = [bootstrap(values, 50, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_bad_input() -> None:
    good = torch.randn(5, 2)
    with pytest.raises(InputError, match="samples: have 3 dimensions, the real points 2"):
        nearest_distances(torch.randn(5, 3), good)
    with pytest.raises(InputError, match="samples: holds no vectors"):
        nearest_distances(torch.empty(0, 2), good)
    with pytest.raises(InputError, match="real: has NaN or Inf"):
        nearest_distances(good, good / 0)
    with pytest.raises(InputError, match="k: is 5 for a set of 5 points"):
        precision_recall(good, good, k=5)
    with pytest.raises(InputError, match="k: is 0"):
        inside(good, good, k=0)
    with pytest.raises(InputError, match="size: is None"):
        bootstrap(lambda rows: 0.0)
    with pytest.raises(InputError, match="level: is 1"):
        bootstrap(good, level=1)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    with pytest.raises(InputError, match=r"pip install 'reg-engine\[eval\]'"):
        nearest_distances(torch.randn(3, 2), torch.randn(3, 2))
