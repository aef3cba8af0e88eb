"""The win ratio by hand, with weights, and where Gaussians say what it must be."""

from __future__ import annotations

import math

import pytest
import torch

from reg_engine import InputError
from reg_engine.oracles import GaussianMixture, win_ratio

F64 = torch.float64


def test_win_ratio_counts_points_and_leaves_ties_out() -> None:
    golden = torch.zeros(4, 1)
    found = torch.tensor([[1.0], [-1.0], [2.0], [0.0]])
    baseline = torch.tensor([[2.0], [-2.0], [-2.0], [0.0]])
    assert win_ratio(found, baseline, golden) == 0.5  # the last two are ties
    assert win_ratio(baseline, found, golden) == 0.0
    assert win_ratio(golden, baseline, golden) == 0.75


def test_win_ratio_measures_rows_by_their_norm() -> None:
    golden = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = torch.tensor([[1.0, 3.0], [3.0, 4.0]])  # 2 and 5 away
    baseline = torch.tensor([[-0.5, -0.5], [4.9, 0.0]])  # 2.12 and 4.9 away
    assert win_ratio(found, baseline, golden) == 0.5


def test_win_ratio_bad_input() -> None:
    golden = torch.zeros(2, 1)
    for found, argument in ((torch.zeros(3, 1), "found"), (torch.full((2, 1), math.nan), "found")):
        with pytest.raises(InputError) as caught:
            win_ratio(found, golden, golden)
        assert caught.value.argument == argument
    for weights in (torch.ones(3), torch.zeros(2), torch.tensor([1.0, -1.0])):
        with pytest.raises(InputError) as caught:
            win_ratio(golden, golden, golden, weights)
        assert caught.value.argument == "weights"
    with pytest.raises(InputError):
        win_ratio(golden[:0], golden[:0], golden[:0])


def test_a_weight_counts_a_point_that_often() -> None:
    golden = torch.zeros(3, 1)
    found, baseline = torch.tensor([[0.1], [3.0], [0.1]]), torch.ones(3, 1)
    weights = torch.tensor([0.2, 0.5, 0.0], dtype=F64)
    assert win_ratio(found, baseline, golden, weights) == pytest.approx(2 / 7)
    repeated = [value.repeat_interleave(torch.tensor([2, 5, 0]), 0) for value in (found, baseline)]
    assert win_ratio(*repeated, torch.zeros(7, 1)) == pytest.approx(2 / 7)
    equal = win_ratio(found, baseline, golden, torch.full((3,), 0.1))
    assert equal == pytest.approx(win_ratio(found, baseline, golden))


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_between_gaussians_of_one_deviation_cfg_is_golden_and_reg_never_wins(sigma: float) -> None:
    """grad log R_t = grad log E_t there, and K = s^2/(s^2 + sigma^2) only shrinks it."""
    deviation, w = 0.5, 2.0
    reference = GaussianMixture(torch.tensor([[-1.0, 0.3]], dtype=F64), deviation)
    m = GaussianMixture(torch.zeros(1, 2, dtype=F64), deviation, reference=reference)
    x = torch.randn(20, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    cfg = w * (m.score(x, 1.0, sigma, 0) - m.score(x, 1.0, sigma))
    golden = m.golden(x, sigma, w)  # EDM: the time is the noise level
    torch.testing.assert_close(cfg, golden, rtol=1e-6, atol=1e-6)
    reg = deviation**2 / (deviation**2 + sigma**2) * cfg
    assert win_ratio(reg, cfg, golden) == 0 and win_ratio(cfg, reg, golden) == 1
