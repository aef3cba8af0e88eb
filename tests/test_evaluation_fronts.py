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


# With a known truth.

COUNT = 4000
NOISE = torch.Generator().manual_seed(0)


def drawn(deviation: float) -> torch.Tensor:
    """The measurement has no error here, its resamples have."""
    noise = deviation * torch.randn(COUNT + 1, generator=NOISE, dtype=torch.float64)
    noise[0] = 0
    return noise


def points(fids: dict[float, tuple[float, torch.Tensor]], **row: float) -> Front:
    """scale -> (confidence, FIDs); a point's confidence has no error."""
    return Front(
        [
            Measured(None, {"scale": scale, **row}, fid, torch.full_like(fid, confidence))
            for scale, (confidence, fid) in fids.items()
        ]
    )


def test_a_method_that_is_cfg_differs_by_nothing() -> None:
    """At every level, whatever the noise: samples of one seed are paired."""
    truth = {1.0: (8.0, 0.2), 2.0: (9.0, 0.4), 3.0: (9.5, 0.9)}
    own = {s: (c, fid + drawn(0.05).abs()) for s, (c, fid) in truth.items()}
    cfg, same = points(own), points({2 * s - 1: point for s, point in own.items()})
    for level in (7.5, 8.3, 9.0, 9.2, 9.5):
        apart = difference(same.fid_at(level), cfg.fid_at(level))  # type: ignore[arg-type]
        assert (apart.value, apart.error) == (0.0, 0.0)
    # at its own confidence too, where each resample has another
    noisy = cfg.points[1]
    level = 9.0 + drawn(0.1)
    moved = Front([cfg.points[0], Measured(None, noisy.row, noisy.fids, level), cfg.points[2]])
    found = moved.fid_at(level)
    assert found is not None and torch.equal(found, noisy.fids)


def test_a_method_that_is_better_is_so_by_what_it_is_better() -> None:
    """By 0.05, with a bar of 1.96 deviations of what the two do not share."""
    shared = {1.0: drawn(0.05), 2.0: drawn(0.05)}
    cfg = points({s: (8 + s, 0.4 * s + shared[s]) for s in shared})
    better = points({s: (8 + s, 0.4 * s - 0.05 + shared[s] + drawn(0.01)) for s in shared})
    apart = difference(better.fid_at(10.0), cfg.fid_at(10.0))  # type: ignore[arg-type]
    assert apart.value == pytest.approx(-0.05, abs=1e-12) and apart.below
    assert apart.error == pytest.approx(1.96 * 0.01, rel=0.05)
    # a method that is no better is told apart about as often as the bar says
    told = 0
    for _ in range(200):
        value = 0.01 * float(torch.randn((), generator=NOISE))
        apart = difference(cfg.fid[1] + drawn(0.01) + value, cfg.fid[1])
        told += apart.below or apart.above
    assert 2 <= told <= 22  # 10 expected


def test_a_front_says_at_which_scale_it_is() -> None:
    front = Front(
        [
            Measured(None, {"scale": s, "nfe": n}, f * torch.ones(3), c * torch.ones(3))
            for s, n, f, c in ((1, 10, 0.5, 8.0), (2, 20, 0.2, 9.0), (4, 20, 0.8, 10.0))
        ]
    )
    assert front.read_at(7.0, "scale") == 2  # scale 2 is surer, and better
    assert front.read_at(9.0, "scale") == 2 and front.read_at(10.0, "scale") == 4
    assert front.read_at(9.25, "scale") == pytest.approx(2.5)
    assert front.read_at(9.25, "nfe") == 20 and front.read_at(10.1, "scale") is None
    steep = Front([front.points[0], front.points[2]])  # here the first line is the lowest
    assert steep.read_at(8.5, "nfe") == pytest.approx(12.5)
    assert steep.read_at(8.5, "scale") == pytest.approx(1.75)


def test_a_front_is_read_at_a_scale() -> None:
    front = points({1.0: (8.0, torch.ones(2)), 3.0: (9.0, torch.tensor([4.0, 9.0]))})
    for scale, wanted in ((1, [1, 1]), (2, [2, 3]), (3, [4, 9])):
        assert front.fid_at_scale(scale).tolist() == pytest.approx(wanted)  # type: ignore
    assert front.fid_at_scale(0.9) is None and front.fid_at_scale(3.1) is None
