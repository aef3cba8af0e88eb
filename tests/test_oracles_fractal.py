"""The fractal mixture against the geometry and the symmetries that it is defined by."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from oracle_cases import F64, generator

from reg_engine import InputError
from reg_engine.oracles import GaussianMixture, fractal, fractal_points
from reg_engine.oracles.fractal import ALONG, ANGLE, DECAY, LENGTH, branches


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    return fractal()


def test_as_many_branches_and_gaussians_as_in_the_paper(mixture: GaussianMixture) -> None:
    for label in (0, 1):
        depths = [branch.depth for branch in branches(label)]
        assert [depths.count(depth) for depth in range(7)] == [1, 2, 4, 8, 16, 32, 64]
        assert int(mixture.log_weights[label].isfinite().sum()) == 1016
    assert mixture.means.shape == (2032, 2) and mixture.num_classes == 2


def test_children_start_where_their_parent_ends() -> None:
    tree = branches(0)
    for index, child in enumerate(tree[1:]):
        parent = tree[index // 2]  # depth by depth, as in a heap
        assert child.start == parent.end
        assert child.length == pytest.approx(DECAY * parent.length)
        turn = ANGLE if index % 2 == 0 else -ANGLE
        assert child.orientation == pytest.approx(parent.orientation + turn)


def test_the_outermost_branch_is_a_geometric_series() -> None:
    """Always turning left, the ends are partial sums of LENGTH e^(i root) (DECAY e^(i ANGLE))^k."""
    last = branches(0)[2**6 - 1]
    ratio = DECAY * cmath.exp(1j * ANGLE)
    end = LENGTH * cmath.exp(1j * math.pi / 4) * (1 - ratio**7) / (1 - ratio)
    assert complex(*last.end) == pytest.approx(end)


def test_both_classes_are_one_tree_turned_and_symmetric(mixture: GaussianMixture) -> None:
    x = mixture.sample(64, generator=generator()) * 1.1
    close = {"rtol": 1e-9, "atol": 1e-9}
    own = mixture.log_prob(x, y=0)
    torch.testing.assert_close(mixture.log_prob(-x, y=1), own, **close)  # turned
    torch.testing.assert_close(mixture.log_prob(x.flip(1), y=0), own, **close)  # mirrored
    # So the falling diagonal is a boundary between the classes at every noise level.
    line = torch.linspace(-1, 1, 21, dtype=F64)
    diagonal = torch.stack([line, -line], 1)
    for sigma in (0.02, 0.3, 2.0):
        even = mixture.class_posterior(diagonal, 1.0, sigma)
        torch.testing.assert_close(even, torch.full_like(even, math.log(0.5)), **close)


def test_every_depth_has_the_same_mass(mixture: GaussianMixture) -> None:
    depths = torch.tensor([b.depth for b in branches(0) for _ in range(8)])
    weights = mixture.log_weights[0].exp()[:1016]
    masses = torch.zeros(7, dtype=F64).index_add(0, depths, weights)
    torch.testing.assert_close(masses, torch.full((7,), 1 / 7, dtype=F64))


def test_gaussians_lie_along_their_branch(mixture: GaussianMixture) -> None:
    for index, branch in enumerate(branches(1)):
        at = slice(1016 + 8 * index, 1016 + 8 * index + 8)
        start = torch.tensor(branch.start, dtype=F64)
        along = torch.tensor(branch.end, dtype=F64) - start
        torch.testing.assert_close(mixture.means[at].mean(0), start + along / 2)
        steps = mixture.means[at].diff(dim=0)
        torch.testing.assert_close(steps, (along / 8).expand(7, 2))
        covariance = mixture.basis[at] @ torch.diag_embed(mixture.variances[at])
        covariance = covariance @ mixture.basis[at].mT
        torch.testing.assert_close(covariance[0] @ along, (ALONG * branch.length) ** 2 * along)


def test_points_are_a_fixed_number_from_each_gaussian(mixture: GaussianMixture) -> None:
    found = fractal_points(mixture, 1, 5, generator())
    assert found.shape == (5 * 3584, 2)
    assert torch.equal(found, fractal_points(mixture, 1, 5, generator()))
    counts = torch.tensor([5 * 2 ** (6 - b.depth) for b in branches(1) for _ in range(8)])
    owner = torch.arange(1016).repeat_interleave(counts)
    z = mixture.basis[1016 + owner].mT @ (found - mixture.means[1016 + owner])[..., None]
    z = z[..., 0] / mixture.variances[1016 + owner].sqrt()
    # Whitened by their own Gaussian, all points are standard normal.
    assert float(z.mean(0).abs().max()) < 4 / len(z) ** 0.5
    assert float((z.mT @ z / len(z) - torch.eye(2, dtype=F64)).abs().max()) < 6 / len(z) ** 0.5


def test_a_smaller_tree() -> None:
    assert len(fractal(depth=1).means) == 2 * 8 * 3


def test_bad_input(mixture: GaussianMixture) -> None:
    with pytest.raises(InputError, match="two trees"):
        branches(2)
    with pytest.raises(InputError, match="depth"):
        branches(0, -1)
    with pytest.raises(InputError, match="per_leaf"):
        fractal_points(mixture, 0, 0)
