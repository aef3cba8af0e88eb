"""Fronts on synthetic points: what is read between scales, and differences with their bars."""

from __future__ import annotations

import pytest
import torch

from reg_engine.evaluation.fronts import Front, Measured, difference


def measured(scale: float, confidence: float, fid: float) -> Measured:
    noise = torch.tensor([0.0, -0.01, 0.01]).double()
    return Measured(scale, {}, fid + noise, confidence + 0 * noise)


def test_a_front_is_read_between_its_scales() -> None:
    front = Front([measured(1, 8, 0.4), measured(2, 9, 0.2), measured(3, 10, 0.8)])
    assert front.lowest().tolist() == pytest.approx([0.2, 0.19, 0.21])
    for level, wanted in ((7.0, 0.2), (8.5, 0.2), (9.0, 0.2), (9.5, 0.4), (10.0, 0.8)):
        found = front.fid_at(level)
        assert found is not None and float(found[0]) == pytest.approx(wanted)
    assert front.fid_at(10.1) is None
    # A front that turns back: the surest point is not the last one.
    back = Front([measured(1, 8, 0.4), measured(2, 10, 0.6), measured(3, 9, 0.9)])
    found = back.fid_at(9.0)
    assert found is not None and float(found[0]) == pytest.approx(0.24**0.5)  # ln(FID) is straight


def test_a_difference_knows_its_error() -> None:
    one, other = torch.tensor([0.3, 0.31, 0.29, 0.30]), torch.tensor([0.4, 0.41, 0.39, 0.40])
    paired = difference(one.double(), other.double())
    assert paired.value == pytest.approx(-0.1) and paired.error == pytest.approx(0, abs=1e-7)
    assert paired.below and not paired.above and paired.text == "-0.100 ± 0.000"
