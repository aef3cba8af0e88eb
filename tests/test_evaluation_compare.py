"""The comparison with CFG on synthetic fronts whose differences are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from reg_engine.evaluation.compare import comparison, front_numbers, levels_of
from reg_engine.evaluation.fronts import Front, Measured

COUNT, DEVIATION = 2000, 0.01


def point(
    scale: float, confidence: float, fid: float, seed: int, effective: float = 1.0
) -> Measured:
    """Its FID has DEVIATION in the resamples, none in the measurement."""
    noise = torch.Generator().manual_seed(seed)
    fids = fid + DEVIATION * torch.randn(COUNT + 1, generator=noise, dtype=torch.float64)
    fids[0] = fid
    row: dict[str, Any] = {"scale": scale, "confidence": confidence, "fid": fid}
    row |= {"nfe": 20 if scale > 1 else 10, "backward": 0, "effective_scale": effective}
    return Measured(None, row, fids, torch.full_like(fids, confidence))


# FID is exp(confidence) but for the unguided point: a line of the front between neighbours.
FIDS = {1.0: 3.0, 2.0: 1.0, 3.0: 2.0, 5.0: 4.0}
CFG = [point(s, float(s), f, int(s), s) for s, f in FIDS.items()]
# as sure at 1.5 times the scale, and 0.3 lower
BETTER = [point(1.5 * s, float(s), f - 0.3, 10 + int(s), s) for s, f in FIDS.items()]


def test_levels_lie_between_cfgs_lowest_fid_and_its_surest_point() -> None:
    assert levels_of(Front(CFG)) == (2.0, 2.6, 3.2, 3.8, 4.4)
    falling = Front([point(1, -3.0, 2.0, 0), point(2, -1.2, 1.0, 0)])  # lowest where it is surest
    assert levels_of(falling) == (-3.0, -2.64, -2.28, -1.92, -1.56)
    assert levels_of(Front([CFG[1], CFG[1]])) == (2.0,)


def test_fronts_differ_by_what_is_known() -> None:
    found = comparison({"CFG": CFG, "better": BETTER}, "CFG", [2.0, 3.0, 4.0, 5.0, 5.1])
    assert found["levels"] == [2.0, 3.0, 4.0, 5.0, 5.1] and found["compared_with"] == "CFG"
    for cell in found["fronts"]["CFG"][:4]:
        assert (cell["cfg"]["difference"], cell["cfg"]["error"]) == (0.0, 0.0)
    at_three = found["fronts"]["better"][1]
    assert at_three["fid"] == pytest.approx(1.7) and at_three["scale"] == pytest.approx(4.5)
    assert at_three["fid_error"] == pytest.approx(1.96 * DEVIATION, rel=0.06)
    assert at_three["cfg"]["difference"] == pytest.approx(-0.3)
    assert at_three["cfg"]["error"] == pytest.approx(1.96 * 2**0.5 * DEVIATION, rel=0.06)
    assert (at_three["cfg"]["fid"], at_three["cfg"]["scale"]) == (2.0, 3.0)
    between = found["fronts"]["better"][2]  # ln(FID) is straight on both
    assert between["cfg"]["difference"] == pytest.approx((1.7 * 3.7) ** 0.5 - 8**0.5)
    assert found["fronts"]["better"][4] is None and found["fronts"]["CFG"][4] is None


def test_a_point_is_held_against_cfg_in_three_ways() -> None:
    """CFG at scale 3, called scale 5, with an effective scale of 2."""
    damped = point(5.0, 3.0, 2.0, 3, effective=2.0)
    damped.fids[:] = CFG[2].fids  # the very samples of CFG at scale 3
    found = comparison({"CFG": CFG, "damped": [damped]}, "CFG")["points"][-1]["against_cfg"]
    same = found["equal_confidence"]
    assert same == {"scale": 3.0, "fid": 2.0, "difference": 0.0, "error": 0.0}
    assert found["equal_scale"]["difference"] == pytest.approx(-2.0)
    assert found["equal_scale"]["scale"] == 5.0
    assert found["effective_scale"]["difference"] == pytest.approx(1.0)
    assert found["effective_scale"]["scale"] == 2.0
    # a weaker CFG point is not as sure as the front allows
    unguided = comparison({"CFG": CFG}, "CFG")["points"][0]["against_cfg"]
    assert unguided["equal_confidence"]["difference"] == pytest.approx(2.0)
    assert (unguided["equal_scale"]["difference"], unguided["equal_scale"]["error"]) == (0.0, 0.0)


def agreeing(given: Measured, share: float) -> Measured:
    """With an agreement that every resample has."""
    return replace(given, agreements=torch.full_like(given.fids, share))


def test_a_point_is_held_against_cfg_at_equal_agreement() -> None:
    """CFG agrees .7 / .8 / .9 / .9 at scales 1 / 2 / 3 / 5; the front there is not confidence's."""
    cfg = [agreeing(m, share) for m, share in zip(CFG, (0.7, 0.8, 0.9, 0.9), strict=True)]
    damped = agreeing(point(5.0, 5.0, 1.5, 13), 0.9)
    found = comparison({"CFG": cfg, "damped": [damped]}, "CFG")["points"][-1]["against_cfg"]
    same = found["equal_agreement"]
    assert (same["scale"], same["fid"], same["difference"]) == (3.0, 2.0, -0.5)
    assert same["error"] == pytest.approx(1.96 * 2**0.5 * DEVIATION, rel=0.06)
    assert found["equal_confidence"]["fid"] == 4.0
    between = agreeing(point(5.0, 5.0, 1.5, 3), 0.85)
    found = comparison({"CFG": cfg, "damped": [between]}, "CFG")["points"][-1]["against_cfg"]
    assert found["equal_agreement"]["scale"] == pytest.approx(2.5)
    assert found["equal_agreement"]["fid"] == pytest.approx(2**0.5)  # ln(FID) is straight
    for others in (agreeing(damped, 0.95), replace(damped, agreements=None)):
        found = comparison({"CFG": cfg, "x": [others]}, "CFG")["points"][-1]["against_cfg"]
        assert found["equal_agreement"] is None
    found = comparison({"CFG": CFG, "x": [damped]}, "CFG")["points"][-1]["against_cfg"]
    assert found["equal_agreement"] is None


def test_a_point_of_cfgs_is_on_its_front_in_every_resample() -> None:
    """Its confidence has an error too: each resample is held against the front at its own."""
    noise = torch.Generator().manual_seed(9)
    noisy = [
        Measured(
            None, m.row, m.fids, m.confidences + 0.05 * torch.randn(COUNT + 1, generator=noise)
        )
        for m in CFG
    ]
    for each in noisy:
        each.confidences[0] = each.row["confidence"]
    found = comparison({"CFG": noisy}, "CFG")["points"][2]["against_cfg"]["equal_confidence"]
    assert (found["difference"], found["error"]) == (0.0, 0.0)


def test_what_cfg_does_not_reach_is_left_out() -> None:
    far = point(9.0, 6.0, 2.0, 3, effective=7.0)
    found = comparison({"CFG": CFG, "far": [far, far]}, "CFG", [5.5])
    assert set(found["points"][-1]["against_cfg"].values()) == {None}
    (cell,) = found["fronts"]["far"]
    assert cell["fid"] == 2.0 and "cfg" not in cell


def test_without_cfg_nothing_is_compared() -> None:
    found = comparison({"better": BETTER}, None)
    assert found["levels"] == [] and found["fronts"] == {"better": []}
    assert found["compared_with"] is None
    assert "against_cfg" not in found["points"][0]
    alone = comparison({"CFG": CFG[:1], "better": BETTER}, "CFG", [3.0])  # one point is no front
    assert list(alone["fronts"]) == ["better"] and "against_cfg" not in alone["points"][0]
    (cell,) = front_numbers({"better": Front(BETTER)}, None, [3.0])["better"]
    assert cell is not None and cell["nfe"] == 20 and "cfg" not in cell
