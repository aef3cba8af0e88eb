"""Scores against closed forms, torchmetrics and torch-fidelity, from the same vectors."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reg_engine import InputError
from reg_engine.metrics import Frechet
from reg_engine.scoring import Conventions
from reg_engine.scoring.scores import frechet_bars, inception_score, kid, neighbours


def cloud(count: int, width: int = 8, seed: int = 0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


class Passing(nn.Module):
    """torchmetrics' feature network for vectors that are there already."""

    num_features = 8

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_frechet_of_commuting_gaussians() -> None:
    """|m1 - m2|^2 + sum (sqrt(l1) - sqrt(l2))^2 where both covariances have one basis."""
    basis = torch.linalg.qr(cloud(8))[0]
    one, other = torch.logspace(-3, 2, 8).double(), torch.logspace(1, -4, 8).double()
    means = cloud(2, seed=3)
    target = Frechet.of_moments(means[0], basis @ one.diag() @ basis.T)
    found = float(target.to_moments(means[1], basis @ other.diag() @ basis.T))
    expected = float(
        (means[0] - means[1]).square().sum() + (one.sqrt() - other.sqrt()).square().sum()
    )
    assert found == pytest.approx(expected, rel=1e-9)
    assert abs(float(target.to_moments(means[0], basis @ one.diag() @ basis.T))) < 1e-9


def test_frechet_of_two_by_two_gaussians() -> None:
    """tr (C1 C2)^(1/2) = sqrt(tr(C1 C2) + 2 sqrt(det(C1 C2))) in two dimensions."""
    one, other = (
        torch.tensor(v, dtype=torch.float64) for v in ([[2, 1], [1, 3]], [[5, -2], [-2, 1]])
    )
    product = one @ other
    cross = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    expected = float(one.trace() + other.trace()) - 2 * cross
    zero = torch.zeros(2, dtype=torch.float64)
    assert float(Frechet.of_moments(zero, one).to_moments(zero, other)) == pytest.approx(
        expected, rel=1e-9
    )


def test_inception_score_by_its_formula() -> None:
    logits = cloud(103, 5)
    found = inception_score(logits, Conventions(splits=4))
    order = np.random.RandomState(2020).permutation(103)
    p = torch.softmax(logits, 1).numpy()[order]
    scores = []
    for n in range(4):
        part = p[n * 103 // 4 : (n + 1) * 103 // 4]
        scores.append(math.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    assert found["mean"] == pytest.approx(np.mean(scores), rel=1e-12)
    assert found["std"] == pytest.approx(np.std(scores), rel=1e-12)
    # certain of one of five classes, each as often: exp of the entropy of the shares
    sure = inception_score(1e4 * torch.eye(5).repeat(20, 1), Conventions(splits=1))
    assert sure["mean"] == pytest.approx(5) and sure["std"] == 0
    with pytest.raises(InputError, match="10 of 9"):
        inception_score(logits[:9], Conventions())


def test_inception_score_is_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.image.inception")
    logits = cloud(100)
    theirs = metrics.InceptionScore(feature=Passing(), splits=1)
    theirs.update(logits[:, :, None, None])
    mean, _ = theirs.compute()
    assert inception_score(logits, Conventions(splits=1))["mean"] == pytest.approx(
        float(mean), rel=1e-6
    )


def test_kid_by_all_pairs() -> None:
    x, y = cloud(30), cloud(30, seed=1, shift=0.3)
    found = kid(x, y, Conventions(subsets=1, subset_size=30))

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 8 + 1) ** 3

    own = [sum(kernel(s[i], s[j]) for i in range(30) for j in range(30) if i != j) for s in (x, y)]
    cross = sum(kernel(a, b) for a in x for b in y)
    assert found["mean"] == pytest.approx(sum(own) / (30 * 29) - 2 * cross / 900, rel=1e-10)
    assert found["std"] == 0


def test_kid_is_torchmetrics_on_whole_sets() -> None:
    metrics = pytest.importorskip("torchmetrics.image.kid")
    x, y = cloud(60), cloud(60, seed=1)
    theirs = metrics.KernelInceptionDistance(feature=Passing(), subsets=1, subset_size=60)
    theirs.update(y[:, :, None, None], real=True)
    theirs.update(x[:, :, None, None], real=False)
    found = kid(x, y, Conventions(subsets=1, subset_size=60))
    assert found["mean"] == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_kids_subsets_are_drawn_as_said() -> None:
    x, y = cloud(50), cloud(70, seed=1)
    how = Conventions(subsets=3, subset_size=20, seed=5)
    draw, values = np.random.RandomState(5), []
    for _ in range(3):
        rows = [draw.choice(len(each), 20, replace=False) for each in (x, y)]
        part = kid(x[rows[0]], y[rows[1]], Conventions(subsets=1, subset_size=20))
        values.append(part["mean"])
    found = kid(x, y, how)
    assert found["mean"] == pytest.approx(np.mean(values)) and found["std"] == pytest.approx(
        np.std(values)
    )
    with pytest.raises(InputError, match="subset_size: is 51 for 50"):
        kid(x, y, Conventions(subset_size=51))


def test_is_kid_and_fid_are_torch_fidelitys() -> None:
    """The functions that its command line calls, given the same vectors."""
    reason = "torch-fidelity is not installed"
    isc = pytest.importorskip("torch_fidelity.metric_isc", reason=reason)
    their_kid = pytest.importorskip("torch_fidelity.metric_kid", reason=reason)
    their_fid = pytest.importorskip("torch_fidelity.metric_fid", reason=reason)
    x, y = cloud(120), cloud(130, seed=1)
    ours = inception_score(x, Conventions())
    theirs = isc.isc_features_to_metric(x)
    assert [ours["mean"], ours["std"]] == pytest.approx(list(theirs.values()), rel=1e-9)
    options: dict[str, Any] = {"kid_subsets": 7, "kid_subset_size": 50, "verbose": False}
    theirs = their_kid.kid_features_to_metric(x, y, **options)
    ours = kid(x, y, Conventions(subsets=7, subset_size=50))
    assert [ours["mean"], ours["std"]] == pytest.approx(list(theirs.values()), rel=1e-9)
    pair = [their_fid.fid_features_to_statistics(each) for each in (x, y)]
    theirs = their_fid.fid_statistics_to_metric(*pair, verbose=False)
    assert Frechet(y)(x) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-8)


def test_neighbours_say_what_they_were_asked() -> None:
    x, y = cloud(40), cloud(50)
    found = neighbours(x, y, Conventions(k=2))
    near = torch.cdist(y, y).sort(1).values[:, 2]
    share = (torch.cdist(x, y) <= near).any(1).double().mean()
    assert found["precision"] == float(share)
    near = torch.cdist(x, x).sort(1).values[:, 2]
    assert found["recall"] == float((torch.cdist(y, x) <= near).any(1).double().mean())
    assert (found["k"], found["images"], found["reference_images"]) == (2, 40, 50)


def test_bars_are_the_spread_of_fresh_draws() -> None:
    """The bootstrap's half-width against 1.96 deviations of FID over new samples: within a third,
    where 200 draws know a deviation to a twentieth."""
    reference, mix = Frechet(cloud(4000)), cloud(8, seed=1)

    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(300, 8, generator=generator, dtype=torch.float64) @ mix

    fresh = torch.tensor([reference(drawn(seed)) for seed in range(1, 201)])
    found = frechet_bars(drawn(0), reference, Conventions(bootstrap=200))
    assert found["error"] == pytest.approx(1.96 * float(fresh.std()), rel=1 / 3)
    assert found["bootstrap"] == 200
    assert frechet_bars(drawn(0), reference, Conventions(bootstrap=200)) == found
    assert frechet_bars(drawn(0), reference, Conventions(bootstrap=200, seed=1)) != found


def test_defaults_are_torch_fidelitys() -> None:
    expected = {"splits": 10, "subsets": 100, "subset_size": 1000, "k": 3, "bootstrap": 0}
    assert asdict(Conventions()) == {**expected, "seed": 2020}
    assert Conventions(seed=0, subset_size=2, k=1).seed == 0


def test_bad_conventions() -> None:
    bad: list[dict[str, Any]] = [
        {"splits": 0},
        {"subsets": 0},
        {"subset_size": 1},
        {"k": 0},
        {"bootstrap": -1},
        {"bootstrap": 1},
        {"seed": -1},
        {"seed": 2**32},
        {"splits": 1.5},
    ]
    for each in bad:
        with pytest.raises(InputError, match=next(iter(each))):
            Conventions(**each)
