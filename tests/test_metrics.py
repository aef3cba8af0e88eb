"""Metrics against closed forms."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reg_engine.errors import InputError
from reg_engine.metrics import Frechet, features, fid, label_agreement, wilson


class Pixels(nn.Module):
    """Its features are the pixels; its guess is the brightest one."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert not sigma.any()
        return self.scale * x.flatten(1)

    def features(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)


CLASSIFIER: Any = Pixels()


def cloud(count: int, mean: list[float], root: list[list[float]], seed: int) -> Tensor:
    """Images (count, 1, 2, 2) whose mean and covariance (root root^T) are exact."""
    points = np.random.default_rng(seed).normal(size=(count, 4))
    points -= points.mean(0)
    points = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T
    points = np.array(mean) + points @ np.array(root).T
    assert np.abs(points).max() < 1  # nothing is clipped
    return torch.tensor(points, dtype=torch.float32).reshape(count, 1, 2, 2)


def test_fid_is_the_closed_form_of_two_gaussians() -> None:
    """|m1-m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)); for covariances that commute the roots add up."""
    rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(4, 4)))[0]
    one, two = np.array([0.01, 0.05, 0.1, 0.14]), np.array([0.12, 0.05, 0.02, 0.1])
    a = cloud(700, [0.1, 0, -0.1, 0.2], (rotation * one).tolist(), 1)
    b = cloud(500, [0.0, 0.1, -0.1, 0.1], (rotation * two).tolist(), 2)
    wanted = 0.1**2 + 0.1**2 + 0.1**2 + float(((one - two) ** 2).sum())
    assert fid(CLASSIFIER, a, b) == pytest.approx(wanted, rel=1e-5)
    assert fid(CLASSIFIER, a, b, batch_size=33) == pytest.approx(fid(CLASSIFIER, a, b), rel=1e-12)
    assert fid(CLASSIFIER, a, a) == pytest.approx(0, abs=1e-10)
    assert CLASSIFIER.scale.dtype == torch.float32  # the metric leaves the caller's network alone


def test_frechet_is_fid_of_features_worked_out_once() -> None:
    """Two ways to the same number: torchmetrics' eigenvalues of C1 C2, and a symmetric root."""
    mixing = np.random.default_rng(4).normal(size=(4, 4)) * 0.05
    a = cloud(300, [0.1, 0, -0.1, 0.2], mixing.tolist(), 1)
    b = cloud(200, [0.0, 0.1, -0.1, 0.1], (0.08 * np.eye(4)).tolist(), 2)
    frechet = Frechet(features(CLASSIFIER, b))
    assert features(CLASSIFIER, a, batch_size=7).shape == (300, 4)
    assert frechet(features(CLASSIFIER, a)) == pytest.approx(fid(CLASSIFIER, a, b), rel=1e-6)
    assert frechet(features(CLASSIFIER, b)) == pytest.approx(0, abs=1e-9)
    # A set without full rank: two points differ along one axis only.
    two = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0]])
    unit = Frechet(torch.tensor([[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]]) * 1.5**0.5)
    # C2 = identity, C1 = diag(1/2, 0), |m|^2 = 1/4: 1/4 + 1/2 + 2 - 2 sqrt(1/2)
    assert unit(two[:, :2]) == pytest.approx(2.75 - 2**0.5, abs=1e-6)  # roots of rounding


def test_a_resample_is_the_distance_of_its_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    samples, other = (torch.randn(60, 3, generator=generator) for _ in range(2))
    frechet = Frechet(other)
    rows = torch.randint(60, (4, 60), generator=generator)
    wanted = [frechet(samples[chosen]) for chosen in rows]
    assert frechet.resampled(samples, rows).tolist() == pytest.approx(wanted, rel=1e-9)


def test_the_bootstrap_spreads_as_the_distance_does() -> None:
    """Deviation over fresh draws against the mean bootstrap deviation, of one law."""
    generator = torch.Generator().manual_seed(5)
    frechet = Frechet(torch.randn(4000, 3, generator=generator))
    sets = 1.2 * torch.randn(80, 250, 3, generator=generator) + 0.3
    rows = torch.randint(250, (60, 250), generator=generator)
    truth = torch.tensor([frechet(part) for part in sets]).std()
    found = torch.stack([frechet.resampled(part, rows).std() for part in sets[:20]]).mean()
    assert float(found / truth) == pytest.approx(1, abs=0.25)  # 80 draws know it to 8 %


def test_frechet_refuses() -> None:
    good = torch.eye(3)
    with pytest.raises(InputError, match="reference: is \\(1, 3\\)"):
        Frechet(good[:1])
    with pytest.raises(InputError, match="samples: has NaN or Inf"):
        Frechet(good)(torch.full((3, 3), torch.nan))


def test_fid_takes_bytes_and_clips_samples() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (50, 2, 2), dtype=np.uint8)
    images = torch.from_numpy(raw).unsqueeze(1).float() / 127.5 - 1
    other = rng.integers(0, 256, (60, 2, 2), dtype=np.uint8)
    assert fid(CLASSIFIER, images, other) == fid(CLASSIFIER, raw, other)
    loud = torch.where(images > 0.9, images + 5, images)
    clipped = torch.where(images > 0.9, torch.ones(()), images)
    assert fid(CLASSIFIER, loud, other) == fid(CLASSIFIER, clipped, other)


def test_fid_refuses() -> None:
    good = torch.zeros(3, 1, 2, 2)
    with pytest.raises(InputError, match="samples: is one image"):
        fid(CLASSIFIER, good[:1], good)
    with pytest.raises(InputError, match="reference: has NaN or Inf"):
        fid(CLASSIFIER, good, torch.full((3, 1, 2, 2), torch.nan))
    with pytest.raises(InputError, match="samples: is torch.uint8"):
        fid(CLASSIFIER, good.byte(), good)
    with pytest.raises(InputError, match="reference: is float64"):
        fid(CLASSIFIER, good, np.zeros((3, 2, 2)))  # type: ignore[arg-type]


def test_fid_without_torchmetrics_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(InputError, match=r"pip install reg-engine\[eval\]"):
        fid(CLASSIFIER, torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_interval(
    successes: int, count: int, low: float, high: float
) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(count - successes, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_label_agreement_counts() -> None:
    samples = torch.full((7, 1, 2, 2), -1.0)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    for row, brightest in enumerate([0, 1, 2, 3, 0, 2, 1]):  # the last two disagree
        samples[row].view(-1)[brightest] = 0.5
    found = label_agreement(CLASSIFIER, samples, labels, batch_size=3)
    assert found.share == 5 / 7 and found.count == 7
    assert (found.low, found.high) == wilson(5, 7)


def test_label_agreement_refuses() -> None:
    with pytest.raises(InputError, match=r"labels: is \(2,\) for 3 samples"):
        label_agreement(CLASSIFIER, torch.zeros(3, 1, 2, 2), torch.zeros(2).long())
    with pytest.raises(InputError, match="samples: is empty"):
        label_agreement(CLASSIFIER, torch.zeros(0, 1, 2, 2), torch.zeros(0).long())
    with pytest.raises(InputError, match="samples: has NaN"):
        label_agreement(CLASSIFIER, torch.full((1, 1, 2, 2), torch.inf), torch.zeros(1).long())
